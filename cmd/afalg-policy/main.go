// Command afalg-policy makes every artefact that restricts AF_ALG, the kernel
// crypto interface, from one policy.
package main

import (
	"io"
	"os"

	"github.com/spf13/cobra"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run executes one command line and returns the exit status.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	t := newTUI(stdout, stderr)
	root := newRoot(t)
	started := false
	walk(root, func(cmd *cobra.Command) { noteStart(cmd, &started) })
	root.SetArgs(append([]string{}, args...)) // nil would mean os.Args
	root.SetIn(stdin)
	root.SetOut(t.out)
	root.SetErr(stderr)
	cmd, err := root.ExecuteC()
	if err != nil && !started {
		err = &usageError{err} // cobra refused the flags or the arguments
	}
	if flushErr := t.out.Flush(); flushErr != nil {
		err = hostError("write the result: %w", flushErr)
	}
	return t.report(cmd, err)
}

const rootLong = `afalg-policy turns one policy file into everything that restricts AF_ALG, the
Linux kernel's crypto interface to user space: seccomp profiles, OCI specs,
systemd drop-ins, AppArmor profiles. The policy says who may use which
algorithm; whatever it does not name is denied.

POLICY is a path, or builtin:NAME for a policy that is shipped with the program
(see "afalg-policy list policies").

Results go to standard output, everything else to standard error. Colour and
tables appear only on a terminal, and no colour where NO_COLOR is set.

Exit status:
  0  yes: valid, allowed, closed, written
  1  no: the policy is invalid, the request denied, a route open, or the output
     would be wider than the policy
  2  usage: an unknown flag, a missing argument, a file named on the command
     line that cannot be read or must not be overwritten
  3  this host cannot do it: no space, no permission to write, a kernel or a
     tool that lacks the feature`

func newRoot(t *tui) *cobra.Command {
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
	root.AddCommand(
		newAgent(t),
		newAgentHelper(),
		newCheck(t),
		newExplain(t),
		newGenerate(t),
		newHook(t),
		newInstall(t),
		newList(t),
		newMan(),
		newProbe(t),
		newRun(t),
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
	// The manual pages would end with the day on which they were made.
	walk(root, func(cmd *cobra.Command) { cmd.DisableAutoGenTag = true })
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
