package main

import (
	"context"
	"errors"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/filter/seccomp"
	"github.com/afalg-policy/afalg-policy/internal/filter/verify"
	"github.com/afalg-policy/afalg-policy/internal/kube"
	"github.com/afalg-policy/afalg-policy/internal/live"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/report"
	"github.com/afalg-policy/afalg-policy/internal/report/source"
)

// compileOptions are the flags that say for what a profile is compiled.
type compileOptions struct {
	source.Reader
	arch     string
	runtimes *choice
	dumps    []string
}

// fileFlags adds the flags about profiles and dumps.
func fileFlags(cmd *cobra.Command) *compileOptions {
	var o compileOptions
	flags := cmd.Flags()
	flags.StringArrayVar(&o.dumps, "bpf", nil, "verify the BPF program in `FILE`; may be repeated")
	flags.StringVar(&o.arch, "arch", "", "`MACHINE` that loads the filter: amd64, arm64, s390x, …")
	flags.StringSliceVar(&o.Caps, "caps", profile.DefaultCaps(), "`CAPABILITIES` of the container, for profiles with conditions: Docker's default ones without it; all stands for those that a profile names")
	shortDefault(flags, "caps")
	flags.StringVar(&o.Kernel, "kernel", "", "`VERSION` of the kernel, for profiles with conditions; the newest without it")
	flags.IntVar(&o.Level, "level", 0, "optimisation `LEVEL` of libseccomp, 1 or 2; without it, what the runtime chooses")
	flags.BoolVar(&o.Nodes.SeccompDefault, "seccomp-default", false, "of manifests: the kubelets have seccompDefault, so that no profile means RuntimeDefault")
	flags.StringVar(&o.Nodes.RuntimeDefault, "runtime-default", "", "of manifests: RuntimeDefault is that `PROFILE`, docker or a file; undecided without it")
	flags.StringVar(&o.Nodes.Profiles, "profiles", "", "of manifests: `DIRECTORY` that has what nodes have below "+kube.SeccompRoot)
	flags.StringArrayVar(&o.Exclude, "exclude", nil, "leave what fits `PATTERN` out of directories: a name, or with a slash a path; may be repeated")
	o.runtimes = newChoice("both", "runc", "crun")
	addChoice(cmd, o.runtimes, "runtime", "", "compile profiles as this runtime does")
	// generate has --cap, one at a time.
	flags.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if name == "cap" {
			name = "caps"
		}
		return pflag.NormalizedName(name)
	})
	return &o
}

func (o *compileOptions) check() error {
	if o.arch != "" {
		native, err := profile.ArchByName(o.arch)
		if err != nil {
			return usagef("--arch: %v", err)
		}
		o.Arch = native
	}
	if err := profile.CheckKernel(o.Kernel); err != nil {
		return usagef("--kernel: %v", err)
	}
	if o.Level < 0 || o.Level > 2 {
		return usagef("--level %d: libseccomp has 1 and 2", o.Level)
	}
	for _, pattern := range o.Exclude {
		if _, err := path.Match(pattern, ""); err != nil || pattern == "" {
			return usagef("--exclude %q: this is no pattern", pattern)
		}
	}
	if o.Nodes.Profiles != "" {
		if info, err := os.Stat(o.Nodes.Profiles); err != nil || !info.IsDir() {
			return usagef("--profiles %s: this is no directory", o.Nodes.Profiles)
		}
	}
	if o.runtimes.value != "both" {
		o.Runtimes = []seccomp.Runtime{seccomp.Runtime(o.runtimes.value)}
	}
	o.Stdin = os.Stdin
	return nil
}

// read reads every file. The report lists the broken ones beside the others.
func (o *compileOptions) read(names []string) (in source.Input, err error) {
	if err := o.check(); err != nil {
		return in, err
	}
	if i := slices.Index(names, source.Standard); i >= 0 && slices.Contains(append(names[i+1:], o.dumps...), source.Standard) {
		return in, usagef("standard input is named twice")
	}
	in = o.Read(names, o.dumps)
	for i := range in.Broken {
		if b := &in.Broken[i]; errors.Is(b.Cause, source.ErrNoMachine) {
			b.Error += ": say with --arch which machine loads it"
		}
	}
	return in, nil
}

// liveFlags name running processes.
type liveFlags struct {
	pid       int
	container string
	all       bool
	contained bool // those in containers alone
}

const (
	flagPID       = "pid"
	flagContainer = "container"
	flagAll       = "all"
	flagContained = "containers"
)

// addLive gives a command the flags that name running processes.
func addLive(cmd *cobra.Command) *liveFlags {
	var l liveFlags
	cmd.Flags().IntVar(&l.pid, flagPID, 0, "ask about the filters of the running process `PID`, of all its threads")
	cmd.Flags().StringVar(&l.container, flagContainer, "", "the same for the first process of the running container `[ENGINE:]ID` ("+strings.Join(live.Engines(), ", ")+")")
	cmd.Flags().BoolVar(&l.all, flagAll, false, "ask about every process of this host")
	cmd.Flags().BoolVar(&l.contained, flagContained, false, "with --all: about every process of a container")
	cmd.MarkFlagsMutuallyExclusive(flagPID, flagContainer, flagAll)
	return &l
}

// given reports whether the command line names running processes.
func (l *liveFlags) given(cmd *cobra.Command) bool {
	return cmd.Flags().Changed(flagPID) || cmd.Flags().Changed(flagContainer) || l.all
}

// sources reads the filters of the process that --pid or --container names.
func (l *liveFlags) sources(ctx context.Context) ([]source.Source, error) {
	if l.container != "" {
		return source.FromContainer(ctx, l.container)
	}
	return source.FromProcess(l.pid)
}

// formatFlags gives a command the formats of a report.
func formatFlags(cmd *cobra.Command) *reportFormat {
	f := &reportFormat{choice: newChoice("text", "json", "sarif")}
	addChoice(cmd, f.choice, "output", "o", "format of the result")
	cmd.Flags().BoolVar(&f.json, "json", false, "the same as -o json")
	cmd.Flags().StringVar(&f.sarif, "sarif", "", "write the report to `FILE` as SARIF 2.1.0 too; - is standard output")
	cmd.MarkFlagsMutuallyExclusive("output", "json")
	return f
}

type reportFormat struct {
	choice *choice
	json   bool
	sarif  string
}

func (f *reportFormat) value() string {
	if f.json {
		return "json"
	}
	return f.choice.value
}

func (f *reportFormat) wantsSARIF() bool { return f.sarif != "" || f.value() == "sarif" }

// questions are those of the command line.
type questions struct {
	report.Questions
	plan *plan.Plan // of --policy; nil without it
}

// askFlags adds the flags that ask for more than AF_ALG.
func askFlags(cmd *cobra.Command) func(*tui) (questions, error) {
	policy := cmd.Flags().String("policy", "", "ask for what `POLICY` denies besides too; with --all, what it expects to be open is no finding")
	queries := cmd.Flags().StringArray("ask", nil, "ask about a call too, as in `QUERY` 'socket(family=AF_RXRPC)'; may be repeated")
	return func(t *tui) (questions, error) {
		var q questions
		for _, text := range *queries {
			query, err := verify.ParseQuery(text)
			if err != nil {
				return questions{}, usagef("--ask: %w", err)
			}
			q.Queries = append(q.Queries, query)
		}
		if *policy == "" {
			return q, nil
		}
		p, err := loadPlan(t, *policy)
		if err != nil {
			return questions{}, &unusableError{err}
		}
		q.plan = p
		q.Deny(p)
		return q, nil
	}
}

const ignoreHelp = `

An ignore file lists what is known and accepted. An entry without a reason, or
with a rule that there is not, is an error; one that has expired holds no more,
and is reported:

  version: 1
  ignore:
    - rule: socketcall-reachable    # a finding, or "open"
      files: ["legacy-*.json"]      # all without it; "open" must name some
      reason: closed by AppArmor
      expires: 2027-01-31           # the last day; "open" must have one`
