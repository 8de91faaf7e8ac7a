package harden

import (
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// TestProveFilter: a filter without a profile is asked about each family that
// the policy closes, by each call of the machine.
func TestProveFilter(t *testing.T) {
	// It answers one value of a field, and allows all else, or the reverse.
	only := func(field, value, found, other uint32) cbpf.Filter {
		return cbpf.Filter{{
			{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: field},
			{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: value, Jf: 1},
			{Code: unix.BPF_RET | unix.BPF_K, K: found},
			{Code: unix.BPF_RET | unix.BPF_K, K: other},
		}}
	}
	const refuse, allow, number, first = unix.SECCOMP_RET_ERRNO | 97, unix.SECCOMP_RET_ALLOW, 0, 16
	const socketcall = 102
	radio := &plan.Plan{Families: []policy.Family{{Name: "AF_RXRPC", Number: 33}}}
	for _, tt := range []struct {
		name   string
		plan   *plan.Plan
		filter cbpf.Filter
		keep   Socketcall
		arch   specs.Arch
		want   string
	}{
		{"closed", radio, only(first, 0, refuse, refuse), "", specs.ArchX86_64, ""},
		{"nothing", &plan.Plan{}, nil, "", specs.ArchX86_64, "socket on x86-64 reaches AF_ALG"},
		{"another family of the policy", radio, only(first, 33, allow, refuse), "", specs.ArchX86_64, "socket on x86-64 reaches AF_RXRPC"},
		{"socketcall", &plan.Plan{}, only(number, socketcall, allow, refuse), "", specs.ArchX86_64, "socketcall on i386 reaches AF_ALG"},
		{"socketcall, kept", &plan.Plan{}, only(number, socketcall, allow, refuse), SocketcallKeep, specs.ArchX86_64, ""},
		{"no such machine", &plan.Plan{}, only(first, 0, refuse, refuse), "", "SCMP_ARCH_M68K", "are not known"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := ProveFilter(tt.plan, tt.filter, Options{Socketcall: tt.keep, Host: profile.Host{Arch: tt.arch}})
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("%v; want %q", err, tt.want)
			}
		})
	}
}
