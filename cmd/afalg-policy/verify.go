package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/verify"
)

// verifyLong is the help of verify.
const verifyLong = `Verify compiles seccomp profiles as the container runtimes do, and asks the
programs about every route to AF_ALG, on every ABI of the machine. It answers
  closed     proved for every input of the call: each is killed, trapped or refused
  open       with a witness: the registers of a call that the filter lets through
  undecided  neither was found, or a tracer decides; counts as open
  listener   whoever listens to the filter's notifications decides; counts as open
A filter sees nothing of a descriptor that is passed in.

FILE is a seccomp profile (OCI, or with the conditions of Docker and podman), or
a whole config.json. A profile with an archMap is verified for each machine in
it, any other for those that it lists, or for amd64. --bpf takes a program as it
was loaded: an array of struct sock_filter.

The text of a profile is checked for what it says and the program does not do;
docs/findings.md lists the findings. They do not change the exit status.

A QUERY asks about a system call besides: 'socket(family=AF_RXRPC)',
'prctl(option=22)', 'socket(arg0.high!=0, abi=x86-64)'. Parameters by name are
what the kernel takes: the upper half of an int may be anything. arg0 to arg5
are whole registers, or with .low and .high halves of them. What is not
mentioned may be anything. docs/verify.md has the grammar.

Exit status 1 means that something asked about is open or undecided, or with
--equal, that the two filters differ or were not proved equal.`

func newVerify(t *tui) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify [FILE]...",
		Short: "Prove that a seccomp filter closes AF_ALG, whoever wrote it",
		Long:  verifyLong,
		Example: `  afalg-policy verify seccomp.json
  afalg-policy verify --arch amd64 --policy builtin:baseline --json config.json
  afalg-policy verify --bpf filter.bpf --ask 'socket(family=AF_RXRPC)'
  afalg-policy verify --equal --except AF_ALG base.json hardened.json
  afalg-policy verify -o sarif *.json`,
		Args: cobra.ArbitraryArgs,
	}
	ask := askFlags(cmd)
	files := fileFlags(cmd)
	processes := addLive(cmd)
	format := formatFlags(cmd)
	equal := equalFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		questions, err := ask(t)
		if err != nil {
			return err
		}
		if processes.all {
			if len(args) > 0 || len(files.dumps) > 0 || equal.wanted || format.wantsSARIF() {
				return usagef("--all stands alone, with --json, --policy and --ask at most")
			}
			return verifyHost(t, questions.verdicts(&files.memo), format.value() == "json")
		}
		in, err := files.read(args)
		if err != nil {
			return err
		}
		if processes.given(cmd) {
			if err := in.addProcess(cmd.Context(), processes); err != nil {
				return err
			}
		}
		if len(in.sources) == 0 {
			return usagef("name what to verify: files, --bpf FILE, or a process")
		}
		if equal.except != nil && !equal.wanted {
			return usagef("--except is a flag for --equal")
		}
		if equal.wanted {
			return equal.show(t, in, format)
		}
		report, err := questions.put(in, &files.memo)
		if err != nil {
			return err
		}
		return report.show(t, format)
	}
	return cmd
}

// addProcess adds the filters of running processes.
func (in *input) addProcess(ctx context.Context, l *liveFlags) error {
	sources, err := l.sources(ctx)
	if err != nil {
		return err
	}
	in.addSources(sources[0].Name, sources)
	for _, s := range sources {
		for _, p := range s.Filter {
			in.add(s.Name, verify.LintProgram(p, s.endian()))
		}
	}
	return nil
}

// formatFlags gives a command the formats of a report.
func formatFlags(cmd *cobra.Command) *reportFormat {
	f := &reportFormat{choice: newChoice("text", "json", "sarif")}
	addChoice(cmd, f.choice, "output", "o", "format of the result")
	cmd.Flags().BoolVar(&f.json, "json", false, "the same as -o json")
	cmd.Flags().StringVar(&f.sarif, "sarif", "", "write the report to `FILE` as SARIF 2.1.0 too")
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

// questions is what every source is asked.
type questions struct {
	families []uint32
	queries  []*verify.Query
}

// askFlags adds the flags that ask for more than AF_ALG.
func askFlags(cmd *cobra.Command) func(*tui) (questions, error) {
	policy := cmd.Flags().String("policy", "", "ask for the families that `POLICY` denies too")
	queries := cmd.Flags().StringArray("ask", nil, "ask about a call too, as in `QUERY` 'socket(family=AF_RXRPC)'; may be repeated")
	return func(t *tui) (questions, error) {
		q := questions{families: []uint32{afalg.Family}}
		for _, text := range *queries {
			query, err := verify.ParseQuery(text)
			if err != nil {
				return questions{}, usagef("--ask: %w", err)
			}
			q.queries = append(q.queries, query)
		}
		if *policy == "" {
			return q, nil
		}
		p, err := loadPlan(t, *policy)
		if err != nil {
			return questions{}, &unusableError{err}
		}
		for _, f := range p.Families {
			if f.Number != afalg.Family {
				q.families = append(q.families, f.Number)
			}
		}
		return q, nil
	}
}
