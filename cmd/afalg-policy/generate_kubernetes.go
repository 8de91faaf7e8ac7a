package main

import (
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/cobra"

	"github.com/afalg-policy/afalg-policy/internal/filter/harden"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/gen"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

func kubernetesTarget() target {
	return target{
		name:  "kubernetes",
		short: "Write admission policies and seccomp profiles for a cluster",
		long: `Kubernetes writes what an administrator applies to a cluster, step by step:

  audit/     a ValidatingAdmissionPolicy that warns (Kubernetes 1.30)
  mutate/    a MutatingAdmissionPolicy that gives pods a profile (1.36)
  deny/      the binding by which the first refuses; a kustomize overlay
  profiles/  the seccomp profiles, for /var/lib/kubelet/seccomp on each node
  artifact/  a profile for a registry, for seccompProfile.type OCI (1.38, alpha)

Each part of audit, mutate and deny is a directory for "kubectl apply -k".

A grant of the policy to containers makes a profile of its own, whose listener
is the agent. Admission lets the containers name it that the grant is for, by
namespace, pod and name, and no others. A grant with another condition holds for
nobody; --grant RULE drops the condition, and --accept RULE takes that on.

"containers: unconfined" of the policy says what becomes of privileged and
Unconfined containers. Admission refuses them, unless the policy allows them;
with --accept unconfined it leaves them to what the nodes do. In the same way
--accept runtime-default and --accept localhost leave containers alone that have
the runtime's own profile, or a file of somebody else.

With --carrier operator the profile is an object of the Security Profiles
Operator, beside one that has SELinux close the same. It carries no grants.

What admission does not see is a wider gap of every output: --accept admission.`,
		example: `  afalg-policy generate kubernetes builtin:baseline --accept admission -o cluster && kubectl apply -k cluster/audit
  afalg-policy generate kubernetes policy.yaml --accept admission --accept runtime-default -o cluster
  afalg-policy generate kubernetes policy.yaml --accept admission --carrier operator -o cluster`,
		directory: true,
		flags:     kubernetesFlags,
	}
}

func kubernetesFlags(cmd *cobra.Command) generator {
	f := cmd.Flags()
	carrier := newChoice(gen.Carriers()...)
	addChoice(cmd, carrier, "carrier", "", "what brings profiles to the nodes")
	base := f.String("base", "docker", "profile to harden: docker, none, or a `FILE`")
	caps := f.StringSlice("cap", profile.DefaultCaps(), "`CAPABILITY` of the containers, for bases with conditions: Docker's default ones without it")
	shortDefault(f, "cap")
	socketcall := newChoice(string(harden.SocketcallDeny), string(harden.SocketcallKeep), string(harden.SocketcallBroker))
	addChoice(cmd, socketcall, "socketcall", "", "what becomes of socketcall")
	agent := f.String("agent", defaultAgent, "`SOCKET` of the agent on each node, for containers with grants")
	artifact := f.String("artifact", "", "`REFERENCE`, with its digest, of artifact/seccomp.json in a registry; admission refuses the type OCI without it")
	arch := addArch(cmd, "amd64")
	return func(p *plan.Plan, c gen.Common) ([]gen.File, []plan.Gap, error) {
		o := gen.KubernetesOptions{Carrier: gen.Carrier(carrier.value), Artifact: *artifact, SeccompOptions: gen.SeccompOptions{
			Common: c, Socketcall: harden.Socketcall(socketcall.value), Broker: *agent,
		}}
		if err := harden.CheckBroker(o.Broker); err != nil {
			return nil, nil, usagef("--agent: %w", err)
		}
		var err error
		if o.Host.Arch, err = arch(); err != nil {
			return nil, nil, err
		}
		if o.Host.Arch == "" {
			o.Host.Arch = specs.ArchX86_64
		}
		o.Host.Caps = *caps
		if o.Base, err = readBase(*base, o.Host); err != nil {
			return nil, nil, err
		}
		return gen.Kubernetes(p, o)
	}
}
