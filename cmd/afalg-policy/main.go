// Command afalg-policy makes every artefact that restricts AF_ALG, the kernel
// crypto interface, from one policy.
package main

import (
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/afalg-policy/afalg-policy/internal/hosterr"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run executes one command line and returns the exit status.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	t := newTUI(stdout, stderr)
	root := rootFor(t, args)
	started := false
	walk(root, func(cmd *cobra.Command) { noteStart(cmd, &started) })
	root.SetArgs(append([]string{}, args...)) // nil would mean os.Args
	root.SetIn(stdin)
	root.SetOut(t.Help())
	root.SetErr(stderr)
	cmd, err := root.ExecuteC()
	if err != nil && !started {
		err = &usageError{err} // cobra refused the flags or the arguments
	}
	if flushErr := t.out.Flush(); flushErr != nil {
		err = hosterr.Errorf("write the result: %w", flushErr)
	}
	return t.report(cmd, err)
}

const rootLong = `afalg-policy turns one policy file into everything that restricts AF_ALG, the
Linux kernel's crypto interface to user space: seccomp profiles, OCI specs,
systemd drop-ins, AppArmor profiles, policies for Tetragon. The policy says who
may use which algorithm; whatever it does not name is denied.

POLICY is a path, or builtin:NAME for a policy that is shipped with the program
(see "afalg-policy list policies").

Results go to standard output, everything else to standard error. Colour and
tables appear only on a terminal, no colour where NO_COLOR is set, and nothing
but ASCII in a locale that knows no more. --json is for programs: "afalg-policy
schema reports" tells its form.

Exit status:
  0  yes: valid, allowed, closed, written
  1  no: the policy is invalid, the request denied, a route open, or the output
     would be wider than the policy
  2  usage: an unknown flag, a missing argument, a file named on the command
     line that cannot be read or must not be overwritten
  3  this host cannot do it: no space, no permission to write, a kernel or a
     tool that lacks the feature`

// atEachStart are the commands that runtimes run for each container, some of them
// several times: they do without the others.
var atEachStart = map[string]func(*tui) *cobra.Command{"hook": newHook, "runtime": newRuntime}

func rootFor(t *tui, args []string) *cobra.Command {
	if len(args) > 0 && atEachStart[args[0]] != nil {
		root := bareRoot()
		root.CompletionOptions.DisableDefaultCmd = true
		root.AddCommand(atEachStart[args[0]](t))
		return root
	}
	return newRoot(t)
}

func newRoot(t *tui) *cobra.Command {
	root := bareRoot()
	root.AddCommand(
		newAgent(t),
		newAgentHelper(),
		newApply(t),
		newCheck(t),
		newDoctor(t),
		newExplain(t),
		newGenerate(t),
		newHook(t),
		newInstall(t),
		newList(t),
		newLSM(t),
		newNode(t),
		newProbe(t),
		newProveAhead(t),
		newProveProfile(t),
		newRun(t),
		newRunGuard(),
		newRunBroker(t),
		newRuntime(t),
		newStatus(t),
		newUninstall(t),
		newVerify(t),
		newSchema(t),
		newVersion(t),
	)
	root.SetHelpCommand(newHelp(root))
	root.InitDefaultCompletionCmd()
	asGroup(root, "command")
	if completion, _, err := root.Find([]string{"completion"}); err == nil {
		asGroup(completion, "shell")
	}
	return root
}

func bareRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "afalg-policy",
		Short: "One policy for AF_ALG, and everything that enforces it",
		Long:  rootLong,
		Example: `  afalg-policy check builtin:fips
  afalg-policy explain builtin:fips --binary /usr/bin/kcapi-hasher --user root --algorithm 'hash:hmac(sha512)'
  afalg-policy generate seccomp builtin:fips -o seccomp.json`,
		Version:       buildInfo().String(),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetUsageTemplate(strings.NewReplacer(".FlagUsages ", ".FlagUsagesWrapped 80 ", "for more information about a command.", "for more about a command.").
		Replace(root.UsageTemplate()))
	return root
}

// walk visits a command and everything below it.
func walk(cmd *cobra.Command, visit func(*cobra.Command)) {
	visit(cmd)
	for _, sub := range cmd.Commands() {
		walk(sub, visit)
	}
}

// noteStart tells when a command begins to work: its flags and arguments are
// accepted then.
func noteStart(cmd *cobra.Command, started *bool) {
	work := cmd.RunE
	if work == nil {
		return
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		*started = true
		return work(cmd, args)
	}
}
