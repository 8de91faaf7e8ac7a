package main

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/afalg-policy/afalg-policy/internal/admit"
	"github.com/afalg-policy/afalg-policy/internal/oci"
)

const runtimeLong = `Runtime stands in the place of runc or crun, for Docker, containerd, CRI-O and
Podman; "afalg-policy install" sets it up. Its arguments are those of the real
runtime, which it becomes in the end.

On create, run and restore it hardens the spec of the container, as "hook
precreate" does, writes it to a bundle of its own below /run/afalg-policy, and
has the real runtime take that one. The bundle of the caller is not changed, and
may be read-only. A spec that cannot be hardened and proved is refused. All
other commands pass untouched. Why the wrapper fails stands on standard error
and in the runtime's log, whatever the command.

The runtime may be a front, as NVIDIA's is, that finds this wrapper in PATH in
turn and becomes or starts it. The spec is then hardened again, as the front
left it.

A restored process keeps the filters with which it was checkpointed; the
hardened spec holds for what is started in the container from then on. So
restore reads the filters in the checkpoint, and refuses one that leaves a route
open.`

func newRuntime(t *tui) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "runtime [FLAG]... [--] ARGUMENT...",
		Short: "Be an OCI runtime that starts hardened containers",
		Long:  runtimeLong,
		Example: `  afalg-policy runtime --policy builtin:baseline --runtime-path /usr/sbin/runc -- run --bundle bundle web
  afalg-policy runtime --platform docker --policy /etc/afalg-policy/policy.yaml -- create --bundle bundle web`,
		DisableFlagParsing: true, // the flags of the runtime are not ours
	}
	flags := addContainerFlags(cmd, "oci")
	path := cmd.Flags().String("runtime-path", "", "the real `RUNTIME`; the first of crun and runc in PATH without it")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		own, args := splitOwn(cmd.Flags(), args)
		err := cmd.Flags().Parse(own)
		if errors.Is(err, pflag.ErrHelp) || cmd.Flags().Changed("help") {
			return cmd.Help()
		}
		if err != nil {
			err = &usageError{err}
		} else {
			err = flags.beRuntime(*path, args)
		}
		// Of most callers this is all that anybody sees.
		oci.CallerLog(args).Fail("afalg-policy: " + err.Error())
		return err
	}
	return cmd
}

// beRuntime becomes the real runtime; it returns only with an error.
func (f *containerFlags) beRuntime(path string, args []string) error {
	if len(args) == 0 {
		return usagef("the arguments of the runtime are missing")
	}
	inv, pass, err := oci.ParseInvocation(args)
	if err != nil {
		return &usageError{err}
	}
	real, err := oci.RealRuntime(path)
	var loop *oci.LoopError
	if errors.As(err, &loop) {
		return usagef("--runtime-path %w: name the real runtime", err)
	}
	if err != nil {
		return err
	}
	if inv != nil {
		bundle, err := f.harden(inv, real)
		if err != nil {
			return err
		}
		pass = inv.With(bundle)
	}
	return oci.Become(real, pass)
}

// splitOwn takes the flags of this program, which come first, off the arguments
// of the runtime.
func splitOwn(flags *pflag.FlagSet, args []string) (own, rest []string) {
	for len(args) > 0 {
		name, _, joined := strings.Cut(args[0], "=")
		switch {
		case args[0] == "--":
			return own, args[1:]
		case len(own) == 0 && (name == "--help" || name == "-h"):
			return args[:1], nil
		case !strings.HasPrefix(name, "--") || flags.Lookup(name[2:]) == nil:
			return own, args
		case joined || len(args) == 1:
			own, args = append(own, args[0]), args[1:]
		default:
			own, args = append(own, args[0], args[1]), args[2:]
		}
	}
	return own, nil
}

// harden makes a bundle with the hardened spec of the container, and returns
// its directory.
func (f *containerFlags) harden(inv *oci.Invocation, real string) (string, error) {
	s, err := f.open("runtime", inv.Log.Warn)
	if err != nil {
		return "", err
	}
	defer s.Close()
	bundle, err := s.Bundle(inv, real)
	var environment *admit.EnvironmentError
	if errors.As(err, &environment) {
		return "", usagef("%w", err)
	}
	return bundle, err
}
