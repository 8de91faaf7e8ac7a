package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/oci"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/vouch"
)

const runtimeLong = `Runtime stands in the place of runc or crun, for Docker, containerd, CRI-O and
Podman; "afalg-policy install" sets it up. Its arguments are those of the real
runtime, which it becomes in the end.

On create, run and restore it hardens the spec of the container, as "hook
precreate" does, writes it to a bundle of its own below /run/afalg-policy, and
has the real runtime take that one. The bundle of the caller is not changed, and
may be read-only. A spec that cannot be hardened and proved is refused; the
reason stands on standard error and in the runtime's log. All other commands
pass untouched.

A restored process keeps the filter with which it was checkpointed; the hardened
spec holds for what is started in the container from then on.`

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
		if err := cmd.Flags().Parse(own); errors.Is(err, pflag.ErrHelp) {
			return cmd.Help()
		} else if err != nil {
			return &usageError{err}
		}
		if len(args) == 0 {
			return usagef("the arguments of the runtime are missing")
		}
		real, err := realRuntime(*path)
		if err != nil {
			return err
		}
		inv, err := oci.ParseInvocation(args)
		if err != nil {
			return &usageError{err}
		}
		if inv == nil {
			return become(real, args)
		}
		bundle, err := flags.harden(inv, real)
		if err != nil {
			inv.Log.Fail("afalg-policy: " + err.Error())
			return err
		}
		return become(real, inv.With(bundle))
	}
	return cmd
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

// realRuntime finds the runtime to become.
func realRuntime(path string) (string, error) {
	if os.Getenv(wrapperPID) == strconv.Itoa(os.Getpid()) {
		return "", usagef("--runtime-path leads back to this wrapper: name the real runtime")
	}
	names := []string{"crun", "runc"}
	if path != "" {
		names = []string{path}
	}
	var errs []error
	for _, name := range names {
		found, err := exec.LookPath(name)
		if err == nil {
			return filepath.Abs(found)
		}
		errs = append(errs, err)
	}
	return "", hostError("there is no runtime: %w", errors.Join(errs...))
}

// wrapperPID is an environment variable: the process that is the wrapper
// becomes the runtime, and must not come by here again.
const wrapperPID = "AFALG_POLICY_RUNTIME_PID"

// crunReceiver stands for the annotation run.oci.seccomp.receiver (crun(1)).
const crunReceiver = "RUN_OCI_SECCOMP_RECEIVER"

// become replaces this process.
func become(real string, args []string) error {
	if err := os.Setenv(wrapperPID, strconv.Itoa(os.Getpid())); err != nil {
		return err
	}
	err := unix.Exec(real, append([]string{real}, args...), os.Environ())
	return hostError("%s: %w", real, err)
}

// harden makes a bundle with the hardened spec of the container, and returns
// its directory.
func (f *containerFlags) harden(inv *oci.Invocation, real string) (string, error) {
	if os.Getenv(crunReceiver) != "" {
		return "", usagef("the environment variable %s has crun hand the listener of the filter to others, so that nothing can be proved: unset it", crunReceiver)
	}
	s, err := f.open("runtime", inv.Log.Warn)
	if err != nil {
		return "", err
	}
	defer s.close()
	origin, err := filepath.Abs(inv.Bundle)
	if err != nil {
		return "", hostError("the working directory: %w", err)
	}
	spec, err := readSpec(inv, origin)
	if err != nil {
		return "", err
	}
	source := vouch.Source{Platform: f.platform.value, ID: inv.ID, Bundle: origin, Spec: spec}
	s.restored = inv.Command == "restore"
	out, err := s.settle(source, oci.Options.Harden)
	if err != nil {
		return "", err
	}
	bundles := oci.Bundles{Dir: filepath.Join(stateDir(), "bundles")}
	dir, err := bundles.Make(out.Spec, origin, inv.State(real, runDir()))
	if err != nil {
		return "", hostError("a bundle for the hardened spec: %w", err)
	}
	return dir, nil
}

// readSpec reads the spec that the runtime would take.
func readSpec(inv *oci.Invocation, origin string) ([]byte, error) {
	if inv.Config == "" {
		return oci.ReadBundle(origin)
	}
	spec, err := plan.ReadRegular(inv.Config, oci.MaxSpec)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", inv.Config, err)
	}
	return spec, nil
}
