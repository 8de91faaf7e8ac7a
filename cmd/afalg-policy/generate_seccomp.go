package main

import (
	"errors"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/cobra"

	"github.com/afalg-policy/afalg-policy/internal/filter/harden"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/gen"
	"github.com/afalg-policy/afalg-policy/internal/jsontext"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

func seccompTarget() target {
	return target{
		name:  "seccomp",
		short: "Write a seccomp profile for container runtimes",
		long: `Seccomp hardens a base profile: every route to an AF_ALG socket is closed on
every ABI that the base admits, and nothing else changes. The profile is
compiled as runc and crun compile it, and the programs are asked about each
route before anything is written.

The bases:
  docker   the default profile of Docker (github.com/moby/profiles)
  none     everything allowed but what the policy closes
  FILE     a profile in the OCI format, or in that of Docker and Podman

The formats:
  oci      resolved for one machine: runc, crun, containerd's Localhost profiles
  docker   conditions kept: docker --security-opt, podman, CRI-O; has comments,
           and so carries the record of what made it

With --socketcall deny, programs that use socketcall get no sockets at all: many
32-bit x86 programs do. With keep they do, and AF_ALG is open to them unless an
LSM rule stands behind it; that wider gap has to be accepted by name.

With --broker the profile belongs to a running "afalg-policy agent", which
listens on SOCKET: the runtime hands it the notifications of each container.
Who may use which algorithm is decided at run time then, so that --grant RULE is
exact, and needs no --accept. A container does not start without the agent. With
--socketcall broker, programs that use socketcall get their sockets from it.`,
		example: `  afalg-policy generate seccomp builtin:fips -o seccomp.json
  afalg-policy generate seccomp policy.yaml --base /usr/share/containers/seccomp.json --format docker
  afalg-policy generate seccomp builtin:fips --grant fips-integrity-check --accept fips-integrity-check
  afalg-policy generate seccomp builtin:baseline --socketcall keep --accept compat-socketcall
  afalg-policy generate seccomp builtin:fips --broker /run/afalg-policy.sock --grant fips-integrity-check`,
		flags: seccompFlags,
	}
}

func seccompFlags(cmd *cobra.Command) generator {
	f := cmd.Flags()
	base := f.String("base", "docker", "profile to harden: docker, none, or a `FILE`")
	format := newChoice(string(gen.FormatOCI), string(gen.FormatDocker))
	addChoice(cmd, format, "format", "", "format of the profile")
	caps := f.StringSlice("cap", profile.DefaultCaps(), "`CAPABILITY` of the container, for bases with conditions: Docker's default ones without it")
	shortDefault(f, "cap")
	kernel := f.String("kernel", "", "`VERSION` of the kernel, for bases with conditions; the newest without it")
	hardening := addHarden(cmd, "amd64")
	return func(p *plan.Plan, c gen.Common) ([]gen.File, []plan.Gap, error) {
		o, err := hardening(c)
		if err != nil {
			return nil, nil, err
		}
		if o.Host.Arch == "" {
			o.Host.Arch = specs.ArchX86_64
		}
		if err := profile.CheckKernel(*kernel); err != nil {
			return nil, nil, usagef("--kernel: %w", err)
		}
		o.Host.Caps, o.Host.Kernel = *caps, *kernel
		o.Format = gen.Format(format.value)
		if o.Base, err = readBase(*base, o.Host); err != nil {
			return nil, nil, err
		}
		files, gaps, err := gen.Seccomp(p, o)
		var wider *plan.UnacceptedError
		if err != nil && !errors.As(err, &wider) {
			err = baseError(*base, err)
		}
		return files, gaps, err
	}
}

// addHarden adds the flags of each target that hardens a seccomp profile.
func addHarden(cmd *cobra.Command, otherwise string) func(gen.Common) (gen.SeccompOptions, error) {
	socketcall := newChoice(string(harden.SocketcallDeny), string(harden.SocketcallKeep), string(harden.SocketcallBroker))
	addChoice(cmd, socketcall, "socketcall", "", "what becomes of socketcall")
	broker := cmd.Flags().String("broker", "", "`SOCKET` of the agent that decides at run time")
	arch := addArch(cmd, otherwise)
	return func(c gen.Common) (gen.SeccompOptions, error) {
		o := gen.SeccompOptions{Common: c, Socketcall: harden.Socketcall(socketcall.value), Broker: *broker}
		if err := checkBroker(cmd, o); err != nil {
			return o, err
		}
		var err error
		o.Host.Arch, err = arch()
		return o, err
	}
}

func checkBroker(cmd *cobra.Command, o gen.SeccompOptions) error {
	if !cmd.Flags().Changed("broker") {
		if o.Socketcall == harden.SocketcallBroker {
			return usagef("--socketcall broker: name its socket with --broker SOCKET")
		}
		return nil
	}
	if err := harden.CheckBroker(o.Broker); err != nil {
		return usagef("--broker: %w", err)
	}
	return nil
}

func readBase(name string, h profile.Host) (*profile.Profile, error) {
	switch name {
	case "docker":
		return profile.Docker(), nil
	case "none":
		return profile.AllowAll(h.Arch), nil
	}
	text, err := readInput(name, jsontext.Max)
	if err != nil {
		return nil, err
	}
	p, err := profile.Parse(text)
	if err != nil {
		return nil, baseError(name, err)
	}
	return p, nil
}

func baseError(name string, err error) error {
	return &profile.NamedError{Name: "base " + name, Err: err}
}
