package harden

import (
	"fmt"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
	"github.com/afalg-policy/afalg-policy/internal/filter/seccomp"
)

// TestCost holds the number of instructions that a hardened filter executes
// more than its base, as runc compiles both on x86-64. Instructions are
// counted, not timed: the numbers are the same on every machine.
func TestCost(t *testing.T) {
	tests := []cost{
		// The errno of AF_ALG costs the families below it one comparison.
		{"docker/amd64", [4]int{-2, -3, 1, 1}, 0, 8, 0},
		{"podman/amd64", [4]int{16, 16, 16, 16}, 0, 64, 0},
		{"podman/amd64 with CAP_AUDIT_WRITE", [4]int{16, 16, 16, 16}, 0, 64, 0},
		{"none/amd64", [4]int{11, 11, 11, 11}, 11, 64, 14},
	}
	for _, test := range tests {
		t.Run(test.base, func(t *testing.T) { test.holds(t, classes{families: []uint32{unix.AF_ALG}}) })
	}
}

// TestCostOfPresets is the same for what bugs like that of AF_ALG came by, and
// for what nobody uses.
func TestCostOfPresets(t *testing.T) {
	closed := classesOf(presetPlan(t, "page-cache", "unused"), nil)
	tests := []cost{
		// libseccomp asks for large numbers first: AF_UNIX passes each that is closed.
		{"docker/amd64", [4]int{10, 16, 15, 13}, 0, 208, 0},
		{"podman/amd64", [4]int{47, 54, 45, 39}, 0, 209, 0},
		{"podman/amd64 with CAP_AUDIT_WRITE", [4]int{51, 58, 49, 42}, 0, 149, 0},
		{"none/amd64", [4]int{36, 41, 41, 41}, 7, 120, 44},
	}
	for _, test := range tests {
		t.Run(test.base, func(t *testing.T) { test.holds(t, closed) })
	}
}

// cost bounds what a hardened base costs.
type cost struct {
	base     string
	sockets  [4]int // more than the base, at most
	others   int
	inAll    int
	absolute int // for a socket call; 0 is no bound
}

func (test cost) holds(t *testing.T, closed classes) {
	t.Helper()
	socket := func(family uint64) cbpf.Data { return cbpf.Data{Nr: unix.SYS_SOCKET, Args: [6]uint64{family, 1}} }
	sockets := []cbpf.Data{socket(unix.AF_UNIX), socket(unix.AF_INET), socket(unix.AF_INET6), socket(unix.AF_NETLINK)}
	others := []cbpf.Data{{Nr: unix.SYS_READ}, {Nr: unix.SYS_WRITE}, {Nr: unix.SYS_OPENAT}, {Nr: unix.SYS_FUTEX}, {Nr: unix.SYS_BIND}}
	b := named(t, test.base)
	parsed := parse(t, b.src)
	hardened, _, err := rewrite(parsed, closing{classes: closed, errno: uint(unix.EAFNOSUPPORT), socketcall: SocketcallDeny})
	if err != nil {
		t.Fatal(err)
	}
	before, _ := compile(t, parsed, b.host, seccomp.Options{Runtime: seccomp.Runc})
	after, _ := compile(t, hardened, b.host, seccomp.Options{Runtime: seccomp.Runc})
	if more := len(after[0]) - len(before[0]); more > test.inAll {
		t.Errorf("%d instructions more in all, at most %d", more, test.inAll)
	}
	for i, d := range sockets {
		was, is := count(t, before, d), count(t, after, d)
		if is-was > test.sockets[i] || test.absolute > 0 && is > test.absolute {
			t.Errorf("socket(%d): %d, base %d: at most %+d (%d)", d.Args[0], is, was, test.sockets[i], test.absolute)
		}
	}
	for _, d := range others {
		if was, is := count(t, before, d), count(t, after, d); is-was > test.others {
			t.Errorf("call %d: %d, base %d", d.Nr, is, was)
		}
	}
}

func count(t *testing.T, f cbpf.Filter, d cbpf.Data) int {
	t.Helper()
	d.Arch = unix.AUDIT_ARCH_X86_64
	_, n, err := f.Run(d, cbpf.EndianOf(false))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func named(t *testing.T, name string) base {
	t.Helper()
	for _, b := range bases(t) {
		if b.name == name {
			return b
		}
	}
	t.Fatalf("no base %s", name)
	return base{}
}

// BenchmarkHarden measures the whole, proof included.
func BenchmarkHarden(b *testing.B) {
	for _, conditional := range []bool{false, true} {
		b.Run(fmt.Sprintf("conditional=%t", conditional), func(b *testing.B) {
			o := task{Options{Conditional: conditional, Socketcall: SocketcallDeny, Host: hostOf(specs.ArchX86_64)}, dockerBase(b)}
			for b.Loop() {
				if _, _, err := o.run(testPlan()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
