//go:build amd64

package oracle

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
	"github.com/afalg-policy/afalg-policy/internal/filter/verify"
	"github.com/afalg-policy/afalg-policy/internal/testing/kerneltest"
)

func ret(action uint32) cbpf.Program {
	return cbpf.Program{{Code: unix.BPF_RET | unix.BPF_K, K: action}}
}

// TestCompare passes wrong verdicts to Compare.
func TestCompare(t *testing.T) {
	attempts := Attempts()
	answers := make([]Answer, len(attempts))
	for i := range answers {
		answers[i] = Answer{Returned, -int64(unix.EPERM)}
	}
	answers[0] = Answer{Returned, 3} // socket of x86-64
	verdicts := func(first verify.State, rest verify.State) []verify.Verdict {
		var list []verify.Verdict
		for _, abi := range Machine {
			for _, c := range abi.Calls(afalg.Family) {
				list = append(list, verify.Verdict{Call: c, State: rest})
			}
		}
		list[0].State = first
		return list
	}
	trials := Trials{List: []Trial{
		{Name: "right", Verdicts: verdicts(verify.Open, verify.Closed)},
		{Name: "wrong", Verdicts: verdicts(verify.Closed, verify.Open)},
		{Name: "undecided", Verdicts: verdicts(verify.Undecided, verify.Closed)},
		{Name: "careful", Verdicts: verdicts(verify.Open, verify.Closed)},
		{Name: "closed", Verdicts: verdicts(verify.Closed, verify.Closed)},
	}}
	closed := make([]Answer, len(attempts))
	for i := range closed {
		closed[i] = Answer{Killed, int64(unix.SIGSYS)}
	}
	tally := trials.Compare([][]Answer{answers, answers, answers, closed, closed})
	if tally.Open != 3 || tally.Found != 1 || len(tally.Missed) != 2 || len(tally.Only) != 1 || tally.Only["x86-64 socket (open)"] != 1 {
		t.Errorf("%+v", tally)
	}
	const want = "wrong: socket of x86-64, {0 41 [38 5 0 0 0 0]}, is open: 3"
	if tally.Missed[0] != want {
		t.Errorf("got  %s\nwant %s", tally.Missed[0], want)
	}
}

// TestAsk asks about one filter of every kind.
func TestAsk(t *testing.T) {
	program := filepath.Join(t.TempDir(), "oracle")
	if err := Build(program); err != nil {
		t.Fatal(err)
	}
	socket := cbpf.Data{Arch: unix.AUDIT_ARCH_X86_64, Nr: unix.SYS_SOCKET, Args: [6]uint64{38}}
	compat := cbpf.Data{Arch: unix.AUDIT_ARCH_I386, Nr: 359, Args: [6]uint64{38}}
	tests := []struct {
		action uint32
		want   string
	}{
		{unix.SECCOMP_RET_ALLOW, "-4001"},
		{unix.SECCOMP_RET_LOG, "-4001"},
		{unix.SECCOMP_RET_TRACE, "-4001"},
		{unix.SECCOMP_RET_USER_NOTIF, "-4001"},
		{unix.SECCOMP_RET_ERRNO | 97, "EAFNOSUPPORT"},
		{unix.SECCOMP_RET_ERRNO, "0"},
		{unix.SECCOMP_RET_TRAP, "SIGSYS"},
		{unix.SECCOMP_RET_KILL_THREAD, "SIGSYS"},
		{unix.SECCOMP_RET_KILL_PROCESS, "SIGSYS"},
	}
	for _, call := range []struct {
		abi  string
		data cbpf.Data
	}{{"x86-64", socket}, {"i386", compat}} {
		t.Run(call.abi, func(t *testing.T) {
			if call.abi == "i386" {
				kerneltest.NeedI386(t)
			}
			for _, tt := range tests {
				// Only the call in question: the program makes others.
				filter := cbpf.Filter{onlyIf(call.data.Nr, ret(tt.action))}
				answers, err := Ask(program, []Case{Judged(filter, []cbpf.Data{call.data})})
				if err != nil {
					t.Fatal(err)
				}
				if got := answers[0][0]; got.String() != tt.want || !Agrees(cbpf.Action(tt.action), got) {
					t.Errorf("action %#x: %v, want %s", tt.action, got, tt.want)
				}
			}
		})
	}
	broken := Case{cbpf.Filter{{{Code: 0xffff}}}, []Call{CallOf(socket)}}
	answers, err := Ask(program, []Case{broken})
	if err != nil || answers[0][0].String() != "the filter was refused: EINVAL" {
		t.Errorf("a filter that is none: %v, %v", answers, err)
	}
}

func onlyIf(nr uint32, p cbpf.Program) cbpf.Program {
	return append(append(cbpf.Program{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: nr, Jf: uint8(len(p))},
	}, p...), ret(unix.SECCOMP_RET_ALLOW)...)
}

// TestMutants wants each name once, and the profile unharmed.
func TestMutants(t *testing.T) {
	errno := uint(97)
	rule := specs.LinuxSyscall{Names: []string{"socket"}, Action: specs.ActErrno, ErrnoRet: &errno,
		Args: []specs.LinuxSeccompArg{{Op: specs.OpMaskedEqual, Value: 0xffffffff, ValueTwo: 38}}}
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86_64}, Syscalls: []specs.LinuxSyscall{rule}}
	before := text(p.Syscalls[0])
	names := map[string]bool{}
	for _, m := range Mutants(p, 38) {
		if names[m.Name] {
			t.Errorf("%s: twice", m.Name)
		}
		names[m.Name] = true
	}
	if got := text(p.Syscalls[0]); got != before || len(p.Architectures) != 1 {
		t.Errorf("the profile was changed: %s", got)
	}
	for _, want := range []string{"without ABI SCMP_ARCH_X86_64", "default SCMP_ACT_LOG", "rule 0, socket: dropped",
		"rule 0, " + before + ": comparison 0 mask 0xffff", "rule 0, " + before + ": action of the default"} {
		if !names[want] {
			var all []string
			for n := range names {
				all = append(all, n)
			}
			t.Errorf("no mutant %q among %s", want, strings.Join(all, "\n"))
		}
	}
}
