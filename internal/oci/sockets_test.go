package oci

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/filter/harden"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

const policySockets = `    - socketcall: broker
      names: [steam]
allow:
`

var steam = plan.Container{Platform: "oci", ID: "c3", Vouched: plan.Identity{Name: "steam"}}

// A grant leaves socketcall to the agent in one container, and in no other.
func TestGrantOfSockets(t *testing.T) {
	o := options(t, "refuse")
	o.Plan = planOf(t, strings.Replace(policyText, "allow:\n", policySockets, 1), "refuse")
	for _, base := range []struct {
		name string
		spec []byte
	}{
		{"allows by default", []byte(openSpec)},
		{"denies by default", specWith(t, dockerProfile(t))},
		{"hardened before, as the default profile of a platform is", hardenedBefore(t, o)},
	} {
		t.Run(base.name, func(t *testing.T) {
			for _, c := range []struct {
				container plan.Container
				listener  bool
				brokered  bool
			}{{steam, true, true}, {web, true, false}, {plain, false, false}} {
				out, err := o.harden(base.spec, c.container)
				if err != nil {
					t.Fatal(err)
				}
				got, err := profile.OfSpec(seccompOf(t, out.Spec.Text()))
				if err != nil {
					t.Fatal(err)
				}
				if (got.ListenerPath != "") != c.listener || slices.ContainsFunc(got.Syscalls, leavesSocketcall) != c.brokered || out.Brokered != c.brokered {
					t.Errorf("%s: listener %q, socketcall notified %v, %+v", c.container.Vouched.Name, got.ListenerPath, slices.ContainsFunc(got.Syscalls, leavesSocketcall), out.Brokered)
				}
				mustCheck(t, o, out.Spec.Text(), c.container)
			}
		})
	}
	// A profile that was made for it is of no use to another.
	out, err := o.harden([]byte(openSpec), steam)
	if err != nil {
		t.Fatal(err)
	}
	const text = "leaves socketcall to the agent, which the policy does not grant to this container"
	refusedWith(t, text, func() error { _, err := o.harden(out.Spec.Text(), plain); return err })
	refusedWith(t, text, func() error { _, err := o.check(out.Spec.Text(), web); return err })

	o.Agent = filepath.Join(t.TempDir(), "nobody.sock")
	refusedWith(t, "no agent answers", func() error { _, err := o.harden([]byte(openSpec), steam); return err })
	o.DenyWithoutAgent = true
	if out, err := o.harden([]byte(openSpec), steam); err != nil || out.Brokered || seccompOf(t, out.Spec.Text()).ListenerPath != "" {
		t.Errorf("%+v, %v", out, err)
	}
}

// Kept by the configuration of the host, socketcall is as the base has it, and
// the gate agrees; without that, it does not.
func TestKeep(t *testing.T) {
	o := options(t, "refuse")
	kept := o
	kept.Socketcall = harden.SocketcallKeep
	spec := specWith(t, dockerProfile(t))
	out, err := kept.harden(spec, plain)
	if err != nil {
		t.Fatal(err)
	}
	p := seccompOf(t, out.Spec.Text())
	allowed := func(r specs.LinuxSyscall) bool {
		return r.Action == specs.ActAllow && slices.Contains(r.Names, "socketcall")
	}
	if !slices.ContainsFunc(p.Syscalls, allowed) {
		t.Error("socketcall is not kept")
	}
	mustCheck(t, kept, out.Spec.Text(), plain)
	refusedWith(t, "does not close AF_ALG", func() error { _, err := o.check(out.Spec.Text(), plain); return err })
	if _, err := kept.harden([]byte(unconfinedSpecWithout32), plain); err != nil { // a base that has no such gap
		t.Error(err)
	}
	if out, err := kept.harden(spec, web); err != nil || !slices.Equal(out.Grants, []string{"digest"}) {
		t.Errorf("%+v, %v", out, err)
	} else {
		mustCheck(t, kept, out.Spec.Text(), web)
	}
}

const unconfinedSpecWithout32 = `{"ociVersion": "1.0.2", "root": {"path": "/r"},
  "linux": {"seccomp": {"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"],
    "syscalls": [{"names": ["read", "socket"], "action": "SCMP_ACT_ALLOW"}]}}}`

// dockerProfile is Docker's default profile as dockerd writes it into a spec.
func dockerProfile(t *testing.T) *specs.LinuxSeccomp {
	t.Helper()
	return resolved(t, profile.Docker())
}

func resolved(t *testing.T, conditional *profile.Profile) *specs.LinuxSeccomp {
	t.Helper()
	p, err := conditional.Resolve(profile.Host{Arch: specs.ArchX86_64, Caps: profile.DefaultCaps()})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// hardenedBefore is the spec of a container whose platform has the default
// profile that install made of Docker's.
func hardenedBefore(t *testing.T, o Options) []byte {
	t.Helper()
	hardened, _, err := harden.Harden(o.Plan, profile.Docker(), harden.Options{
		Tool: "test", Conditional: true, Socketcall: harden.SocketcallDeny,
		Host: profile.Host{Arch: specs.ArchX86_64, Caps: profile.DefaultCaps()},
	})
	if err != nil {
		t.Fatal(err)
	}
	return specWith(t, resolved(t, hardened))
}

func specWith(t *testing.T, p *specs.LinuxSeccomp) []byte {
	t.Helper()
	return withProfile(t, []byte(unconfinedSpec), p)
}
