package main

import (
	"errors"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/afalg-policy/afalg-policy/internal/filter/verify"
	"github.com/afalg-policy/afalg-policy/internal/output"
	"github.com/afalg-policy/afalg-policy/internal/report"
	"github.com/afalg-policy/afalg-policy/internal/report/source"
)

// verifyLong is the help of verify.
const verifyLong = `Verify compiles seccomp profiles as the container runtimes do, and asks the
programs about every route to AF_ALG, on every ABI of the machine. It answers
  closed     proved for every input of the call: killed, trapped or refused
  open       with a witness: the registers of a call that gets through
  undecided  neither was found, or a tracer decides; counts as open
  listener   whoever listens to the filter's notifications decides; counts as
             open. Where a process can load a listener of its own, it is open
A filter sees nothing of a descriptor that is passed in.

FILE is a seccomp profile (OCI, or with the conditions of Docker and podman), a
whole config.json, or a manifest of Kubernetes: a SeccompProfile, and whatever
has a pod in it. A directory stands for all that are in it, and - for standard
input. A profile with an archMap is verified for each machine in it, any other
for those that it lists, or for amd64. --bpf takes a program as it was loaded:
an array of struct sock_filter.

Each container of a manifest is asked for the profile that the kubelet passes on
for it. A container without a filter is open. What RuntimeDefault and Localhost
mean is on the node: undecided, unless --runtime-default or --profiles says it.
Templates and patches have to be rendered first.

The text of a profile is checked for what it says and the program does not do;
docs/findings.md lists the findings. They change the exit status with --fail-on
alone.

A QUERY asks about a system call besides: 'socket(family=AF_RXRPC)',
'prctl(option=22)', 'socket(arg0.high!=0, abi=x86-64)'. Parameters by name are
what the kernel takes: the upper half of an int may be anything. arg0 to arg5
are whole registers, or with .low and .high halves of them. What is not
mentioned may be anything. docs/verify.md has the grammar.

Exit status 1 means that something asked about is open or undecided, or with
--equal, that the two filters differ or were not proved equal. It is 2 if a file
could not be used, after the report of the others.` + ignoreHelp

func newVerify(t *tui) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify [FILE]...",
		Short: "Prove that a seccomp filter closes AF_ALG, whoever wrote it",
		Long:  verifyLong,
		Example: `  afalg-policy verify seccomp.json
  afalg-policy verify --arch amd64 --policy builtin:baseline --json config.json
  afalg-policy verify --bpf filter.bpf --ask 'socket(family=AF_RXRPC)'
  afalg-policy verify --equal --except AF_ALG base.json hardened.json
  afalg-policy verify -o sarif profiles
  afalg-policy verify --profiles out/profiles --runtime-default docker deploy
  kubectl get seccompprofiles -A -o json | afalg-policy verify --fail-on warning -`,
		Args: cobra.ArbitraryArgs,
	}
	ask := askFlags(cmd)
	files := fileFlags(cmd)
	processes := addLive(cmd)
	format := formatFlags(cmd)
	equal := equalFlags(cmd)
	ignore := cmd.Flags().String("ignore-file", "", "accept what `FILE` lists, with reasons and expiry")
	fail := newChoice("open", "none", "error", "warning", "note")
	addChoice(cmd, fail, "fail-on", "", "what makes the exit status 1: what is open, nothing, or findings of that level and above too")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		asked, err := ask(t)
		if err != nil {
			return err
		}
		if processes.all {
			if len(args) > 0 || len(files.dumps) > 0 || equal.wanted || format.wantsSARIF() || *ignore != "" || cmd.Flags().Changed("fail-on") {
				return usagef("--all stands alone, with --containers, --json, --policy and --ask at most")
			}
			return verifyHost(t, report.HostQuestions{Questions: asked.Questions, Plan: asked.plan, Contained: processes.contained, Tool: buildInfo()}, format)
		}
		if processes.contained {
			return usagef("--containers goes with --all; --container ID names one")
		}
		in, err := files.read(args)
		if err != nil {
			return err
		}
		accepted, warnings, err := ignoreFile(*ignore)
		if err != nil {
			return &unusableError{err}
		}
		for _, w := range warnings {
			t.Notef("warning: %s", w)
		}
		if processes.given(cmd) {
			sources, err := processes.sources(cmd.Context())
			if err != nil {
				return verifyError("", err)
			}
			if err := in.AddRunning(sources); err != nil {
				return err
			}
		}
		if len(in.Sources)+len(in.Pods)+len(in.Findings)+len(in.Broken) == 0 {
			return usagef("name what to verify: files, --bpf FILE, or a process")
		}
		if equal.except != nil && !equal.wanted {
			return usagef("--except goes with --equal")
		}
		if equal.wanted && len(in.Pods) > 0 {
			return usagef("--equal compares profiles: %s is a manifest", in.Pods[0].File)
		}
		if equal.wanted && len(in.Broken) > 0 {
			return brokenError(in.Broken)
		}
		if equal.wanted {
			return equal.show(t, in, format)
		}
		asked.Policy, asked.Nodes = asked.plan, files.Nodes
		r, err := asked.Ask(in, &files.Memo)
		if err != nil {
			return verifyError("--ask", err)
		}
		for _, rule := range r.Ignore(accepted) {
			t.Notef("note: an entry of the ignore file ignores nothing: %s", rule)
		}
		r.Judge(fail.value)
		return showFilters(t, r, format)
	}
	return cmd
}

func ignoreFile(name string) (report.IgnoreFile, []string, error) {
	if name == "" {
		return report.IgnoreFile{}, nil, nil
	}
	return report.ReadIgnore(os.Stdin, name, time.Now())
}

// verifyHost asks about every process of the host.
func verifyHost(t *tui, q report.HostQuestions, format *reportFormat) error {
	r, err := q.Ask()
	if err != nil {
		return verifyError("--ask", err)
	}
	return t.answer(r, format.value() == "json", r.Verdict == report.Closed)
}

// showFilters writes the report. An input that could not be used makes it
// incomplete, which is told last.
func showFilters(t *tui, r *report.Filters, f *reportFormat) error {
	if err := writeFilters(t, r, f); err != nil {
		return err
	}
	if len(r.Broken) > 0 {
		return brokenError(r.Broken)
	}
	if r.Failed {
		return errNo
	}
	return nil
}

func writeFilters(t *tui, r *report.Filters, f *reportFormat) error {
	if f.sarif != "" {
		if err := writeSARIF(t, r, f.sarif); err != nil {
			return err
		}
	}
	switch f.value() {
	case "json":
		return t.JSON(r)
	case "sarif":
		return writeSARIF(t, r, source.Standard)
	}
	if len(r.Filters)+len(r.Containers)+len(r.Findings) > 0 {
		r.Text(&t.Printer)
	}
	return nil
}

func writeSARIF(t *tui, r *report.Filters, name string) error {
	text, err := r.SARIF(buildInfo())
	if err != nil {
		return err
	}
	if name != source.Standard {
		return written(output.File(name, text))
	}
	_, err = t.out.Write(text)
	return err
}

// verifyError gives an error of a report its exit status, and the flag whose
// query it is about.
func verifyError(flag string, err error) error {
	var query *verify.QueryError
	var unasked *report.UnaskedError
	var unpaired *report.UnpairedError
	switch {
	case errors.As(err, &query):
		return usagef("%s: %w", flag, query)
	case errors.As(err, &unasked):
		return usagef("%s %w", flag, err)
	case errors.As(err, &unpaired):
		return usagef("%w: name the machine to compare for with --arch", err)
	case exitStatus(err) == exitHost:
		return err
	}
	return &unusableError{err}
}

func brokenError(all []source.Broken) error {
	var texts []string
	for _, b := range all {
		texts = append(texts, b.Error)
	}
	return &unusableError{errors.New(strings.Join(texts, "\n"))}
}
