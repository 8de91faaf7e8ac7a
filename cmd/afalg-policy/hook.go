package main

import (
	"io"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/cobra"

	"github.com/afalg-policy/afalg-policy/internal/admit"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/oci"
)

const hookLong = `Hook is called by container runtimes, not by people; "afalg-policy install" sets
up what a platform takes.

  precreate       Podman gives it the spec of a container, and takes the one
                  that it returns: hardened, and with the agent behind it if
                  the policy grants something to this container
  createRuntime   every OCI runtime: it proves that the spec is closed, and
                  refuses the container otherwise; it cannot change anything
  register        the wrapper runtime adds it to specs: it registers a container
                  that holds rules, or looks like the host, in the kernel

Which containers are granted what stands under containers: in the policy. What a
container says of itself grants nothing.`

func newHook(t *tui) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "hook",
		Short: "Harden and check containers as they start (called by runtimes)",
		Long:  hookLong,
		Example: `  afalg-policy hook precreate <config.json >hardened.json
  afalg-policy hook createRuntime <state.json`,
	}
	cmd.AddCommand(newPrecreate(t), newCreateRuntime(t), newRegister(t))
	asGroup(cmd, "hook")
	return cmd
}

func newPrecreate(t *tui) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "precreate",
		Short: "Harden the spec on standard input, for Podman",
		Long: `Precreate reads the spec of a container (config.json) from standard input, and
writes it to standard output with linux.seccomp hardened. Everything else stays
as it is, byte for byte. A spec that cannot be hardened and proved is refused
with exit status 1 or 3, and Podman does not start the container.`,
		Example: `  afalg-policy hook precreate --policy /etc/afalg-policy/policy.yaml <config.json >hardened.json`,
		Args:    cobra.NoArgs,
	}
	flags := addContainerFlags(cmd, "podman")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s, err := flags.open("precreate", t.Note)
		if err != nil {
			return err
		}
		defer s.Close()
		spec, err := readStdin(cmd.InOrStdin(), "the spec of a container")
		if err != nil {
			return err
		}
		out, err := s.Harden(spec)
		if err != nil {
			return err
		}
		_, err = t.out.Write(out.Spec.Text())
		return err
	}
	return cmd
}

func newCreateRuntime(t *tui) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "createRuntime",
		Short: "Refuse a container whose seccomp profile is not closed",
		Long: `CreateRuntime reads the state of a container from standard input, and the spec
in its bundle, and proves that the container's seccomp profile closes every
route, except for what the policy grants to it. Otherwise it ends with status 1
or 3, the runtime does not start the container, and standard error says what to
do.

A spec that others than root can write is refused: it may have changed since the
runtime read it. So is a container that runc restores from a checkpoint past the
wrapper runtime: the hook cannot see the filters that it brings.`,
		Example: `  afalg-policy hook createRuntime --policy /etc/afalg-policy/policy.yaml <state.json`,
		Args:    cobra.NoArgs,
	}
	flags := addContainerFlags(cmd, "oci")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s, err := flags.open("createRuntime", t.Note)
		if err != nil {
			return err
		}
		defer s.Close()
		state, err := readState(cmd.InOrStdin())
		if err != nil {
			return err
		}
		return s.Check(state)
	}
	return cmd
}

func readState(in io.Reader) (*specs.State, error) {
	text, err := readStdin(in, "the state of a container")
	if err != nil {
		return nil, err
	}
	state, err := oci.ReadState(text)
	if err != nil {
		return nil, &profile.NamedError{Name: "standard input", Err: err}
	}
	return state, nil
}

func newRegister(t *tui) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "register",
		Short: "Give a container its rules in the kernel",
		Long: `Register is a hook of the stage createRuntime, which the wrapper runtime puts
into a spec. It reads the state of a container from standard input, and gives
the container's cgroup the rules in the kernel, before its program runs.

A container that relies on the kernel half (--relies) is refused if it cannot be
registered there: another policy is loaded, the table is full, or it has no
unified cgroup of its own. Others start, and the decision log says so.`,
		Example: `  afalg-policy hook register --policy /etc/afalg-policy/policy.yaml --grant digest <state.json`,
		Args:    cobra.NoArgs,
	}
	flags := addContainerFlags(cmd, "oci")
	var r admit.Registration
	cmd.Flags().StringArrayVar(&r.Rules, "grant", nil, "`RULE` that the container holds; may be repeated")
	cmd.Flags().BoolVar(&r.Relies, "relies", false, "refuse the container unless the kernel half knows it")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s, err := flags.open("register", t.Note)
		if err != nil {
			return err
		}
		defer s.Close()
		state, err := readState(cmd.InOrStdin())
		if err != nil {
			return err
		}
		return s.Register(state, r)
	}
	return cmd
}
