package verify

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
)

// notifying is a filter that leaves AF_ALG to a listener. It returns verdict
// for a call of seccomp whose word at offset meets a test.
func notifying(offset uint32, code uint16, k, verdict uint32) cbpf.Filter {
	const socket, seccomp = unix.SYS_SOCKET, unix.SYS_SECCOMP
	return cbpf.Filter{cbpf.Program{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 4},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.AUDIT_ARCH_X86_64, Jf: 6},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: socket, Jt: 5},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: seccomp, Jf: 2},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset},
		{Code: unix.BPF_JMP | code | unix.BPF_K, K: k, Jt: 3},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_KILL_PROCESS},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF},
		{Code: unix.BPF_RET | unix.BPF_K, K: verdict},
	}}
}

const (
	lowFlags, highFlags, operation = 24, 28, 16 // in struct seccomp_data, little-endian
)

// TestOpenReplaceable shows that a call left to a listener is open where another can be
// loaded.
func TestOpenReplaceable(t *testing.T) {
	const allow, errno = uint32(unix.SECCOMP_RET_ALLOW), uint32(unix.SECCOMP_RET_ERRNO | 16)
	tests := []struct {
		name   string
		filter cbpf.Filter
		want   State
	}{
		{"seccomp refused", notifying(lowFlags, unix.BPF_JGE, 0, errno), Listener},
		{"flags below 8", notifying(lowFlags, unix.BPF_JGE, 8, allow), Open},
		{"the flag alone", notifying(lowFlags, unix.BPF_JSET, 8, allow), Open},
		{"the flag refused", notifying(lowFlags, unix.BPF_JSET, ^uint32(8), allow), Open},
		{"all but the flag", notifying(lowFlags, unix.BPF_JGE, 16, allow), Open},
		{"another operation", notifying(operation, unix.BPF_JGE, 2, allow), Listener},
		{"the operation", notifying(operation, unix.BPF_JEQ, 1, allow), Open},
		{"upper bits", notifying(highFlags, unix.BPF_JGE, 1, allow), Open},
		{"logged", notifying(lowFlags, unix.BPF_JEQ, 8, unix.SECCOMP_RET_LOG), Open},
		{"traced", notifying(lowFlags, unix.BPF_JEQ, 8, unix.SECCOMP_RET_TRACE), Open},
		{"notified", notifying(lowFlags, unix.BPF_JEQ, 8, unix.SECCOMP_RET_USER_NOTIF), Open},
		{"killed", notifying(lowFlags, unix.BPF_JEQ, 8, unix.SECCOMP_RET_KILL_THREAD), Listener},
		{"a flag below", notifying(lowFlags, unix.BPF_JEQ, 4, allow), Listener},
		{"refused by a second filter", append(notifying(lowFlags, unix.BPF_JGE, 0, allow), notifying(lowFlags, unix.BPF_JGE, 0, errno)...), Listener},
	}
	abis := []afalg.ABI{}
	for _, name := range []string{"SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"} {
		abi, _ := afalg.ABIOf(name)
		abis = append(abis, abi)
	}
	var memo Memo
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			verdicts, err := Routes(test.filter, abis, afalg.Family, Options{})
			if err != nil {
				t.Fatal(err)
			}
			if v := verdicts[0]; v.State != test.want || (v.State == Open) != strings.HasPrefix(v.Reason, Replaceable+" (seccomp with NEW_LISTENER on x86-64 is ") {
				t.Errorf("socket is %s (%s), want %s", v.State, v.Reason, test.want)
			}
			for _, ask := range []Asker{Directly, memo.Ask} {
				found, err := LintListener(test.filter, abis, ask)
				if err != nil || (len(found) == 1) != (test.want == Open) {
					t.Errorf("found %v, %v", found, err)
				}
			}
		})
	}
}

// TestOpenReplaceableElsewhere shows that a listener that one ABI permits replaces that
// of all.
func TestOpenReplaceableElsewhere(t *testing.T) {
	f := notifying(lowFlags, unix.BPF_JGE, 0, unix.SECCOMP_RET_ERRNO|16)
	f[0][8].K = unix.SECCOMP_RET_ALLOW // anything but x86-64
	x64, _ := afalg.ABIOf("SCMP_ARCH_X86_64")
	i386, _ := afalg.ABIOf("SCMP_ARCH_X86")
	for want, abis := range map[State][]afalg.ABI{Listener: {x64}, Open: {x64, i386}} {
		verdicts, err := Routes(f, abis, afalg.Family, Options{})
		if err != nil || verdicts[0].State != want {
			t.Errorf("with %d ABIs socket is %s, %v, want %s", len(abis), verdicts[0].State, err, want)
		}
	}
}
