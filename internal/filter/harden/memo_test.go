package harden

import (
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
	"github.com/afalg-policy/afalg-policy/internal/testing/fields"
)

// memoOptions and memoPlan show each field on which a result can depend.
func memoOptions() Options {
	return Options{
		Tool: "test", Grants: []string{"r"}, Accept: []string{"r"}, Standing: []string{"socketcall"}, Memo: noMemo{}, KeptOnly: true,
		Socketcall: SocketcallDeny, Broker: "/run/agent", Host: profile.Host{Arch: specs.ArchX86_64, Caps: []string{"CAP_BPF"}, Kernel: "6.1"},
	}
}

func memoPlan() *plan.Plan {
	return &plan.Plan{
		Name: "p", Digest: "sha256:0", SocketErrno: plan.Errno{Name: "EPERM", Number: 1}, BindErrno: plan.Errno{Name: "EIO", Number: 5},
		Families: []policy.Family{{Name: "AF_KEY", Number: 15}}, Sockets: memoSockets(), SocketOptions: memoSocketOptions(), UserNamespaces: true, ZeroCopy: policy.Yes, Unconfined: plan.Harden, UnconfinedSaid: true,
		Rules: []policy.Rule{{
			Name: "r", Anyone: true, Binaries: []policy.Binary{{Path: "/a", SHA256: "0"}}, StrictExec: true, Users: []string{"root"}, Capabilities: []string{"CAP_BPF"}, Units: []string{"a.service"},
			Algorithms: policy.Algorithms{{Algorithm: afalg.Algorithm{Type: afalg.Hash, Name: "sha1"}}},
			Sockets:    memoSockets(), SocketOptions: memoSocketOptions(), UserNamespaces: true,
		}},
		Grants: []policy.Grant{{
			Rules: []policy.GrantedRule{{Name: "r"}}, Socketcall: policy.SocketcallBroker, DecidedBy: policy.DecidedByLSM, Platforms: []string{"docker"}, Builds: true, Names: []string{"web"}, Images: []string{"sha256:0"},
			Namespaces: []string{"prod"}, Pods: []string{"web-0"}, Labels: map[string]string{"a": "b"}, Annotations: map[string]string{"c": "d"},
		}},
		ExpectOpen: []policy.Expected{{Reason: "it runs", OutsideContainers: true, Units: []string{"b.service"}, Binaries: []string{"/b"}}},
	}
}

func memoSockets() []policy.Socket {
	return []policy.Socket{{Family: "AF_NETLINK", Type: "SOCK_RAW", Protocol: "NETLINK_XFRM"}}
}

func memoSocketOptions() []policy.SocketOption {
	return []policy.SocketOption{{Level: "SOL_TCP", Option: "TCP_ULP"}}
}

// noMemo keeps nothing, but has results looked up.
type noMemo struct{}

func (noMemo) Get(string) ([]byte, bool) { return nil, false }
func (noMemo) Put(string, []byte)        {}

func memoBase() *profile.Profile {
	errno := uint(1)
	condition := profile.Condition{Caps: []string{"CAP_BPF"}, Arches: []string{"amd64"}, MinKernel: "5.10"}
	return &profile.Profile{
		DefaultAction: specs.ActErrno, DefaultErrnoRet: &errno, DefaultErrno: "EPERM",
		Architectures: []specs.Arch{specs.ArchX86_64}, ArchMap: []profile.ArchMap{{Arch: specs.ArchX86_64, SubArches: []specs.Arch{specs.ArchX86}}},
		Flags: []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagLog}, ListenerPath: "/run/agent", ListenerMetadata: "m",
		Syscalls: []profile.Rule{{
			Comment: "c", Name: "read", Names: []string{"write"}, Action: specs.ActAllow, ErrnoRet: &errno, Errno: "EPERM",
			Args:     []specs.LinuxSeccompArg{{Index: 1, Value: 1, ValueTwo: 2, Op: specs.OpMaskedEqual}},
			Includes: &condition, Excludes: &condition,
		}},
	}
}

func longer(s string) string { return s + "x" }

// A result is remembered under all that it depends on.
func TestFieldsAreInTheMemoKey(t *testing.T) {
	p, o, base := memoPlan(), memoOptions(), memoBase()
	key := o.key("proved", p, base)
	fields.Each(t, o, longer, map[string]string{
		"Conditional": "nothing is kept of a result with conditions",
		"Memo":        "it is the memo",
		"KeptOnly":    "it says whether a result is made, not which",
	}, func(t *testing.T, path string, changed Options) {
		if changed.key("proved", p, base) == key {
			t.Errorf("another %s has the same key", path)
		}
	})
	pos := "it is where an item stands"
	fields.Each(t, *p, longer, map[string]string{".Pos": pos, "UnconfinedSaid": "it is who says so, not what holds"}, func(t *testing.T, path string, changed plan.Plan) {
		if o.key("proved", &changed, base) == key {
			t.Errorf("another %s has the same key", path)
		}
	})
	fields.Each(t, *base, longer, map[string]string{"text": "it is for the places in errors"}, func(t *testing.T, path string, changed profile.Profile) {
		if o.key("proved", p, &changed) == key {
			t.Errorf("another %s of the base has the same key", path)
		}
	})
	if o.key("hardened", p, base) == key {
		t.Error("another question has the same key")
	}
}

// For a workload that is granted nothing, rules and grants do not count; all
// else does.
func TestMemoKeyWithoutGrants(t *testing.T) {
	p, o, base := memoPlan(), memoOptions(), memoBase()
	o.Grants, o.Broker = nil, ""
	key := o.key("proved", p, base)
	free := []string{"Name", "Digest", "Rules", "Grants"}
	fields.Each(t, *p, longer, map[string]string{".Pos": "it is where an item stands", "UnconfinedSaid": "it is who says so, not what holds"}, func(t *testing.T, path string, changed plan.Plan) {
		top, _, _ := strings.Cut(path, ".")
		want := false
		for _, name := range free {
			want = want || strings.TrimSuffix(top, "[]") == name
		}
		if same := o.key("proved", &changed, base) == key; same != want {
			t.Errorf("another %s: the same key: %v", path, same)
		}
	})
}
