package live

import (
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
)

// strictCalls are the numbers of read, write, exit and sigreturn on a machine,
// by architecture word.
var strictCalls = map[string]map[uint32][]uint32{
	"amd64": {unix.AUDIT_ARCH_X86_64: {0, 1, 60, 15}, unix.AUDIT_ARCH_I386: {3, 4, 1, 119}},
	"arm64": {unix.AUDIT_ARCH_AARCH64: {63, 64, 93, 139}, unix.AUDIT_ARCH_ARM: {3, 4, 1, 119}},
}

// strictFilter is a program that does what the kernel does in strict mode. On a
// machine with unknown numbers it allows everything: the unknown counts as
// open.
func strictFilter(m Mode) cbpf.Filter {
	calls, known := strictCalls[runtime.GOARCH]
	if m != Strict || !known {
		return nil
	}
	const (
		load = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		jeq  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		ret  = unix.BPF_RET | unix.BPF_K
	)
	var p cbpf.Program
	for _, arch := range []uint32{unix.AUDIT_ARCH_X86_64, unix.AUDIT_ARCH_I386, unix.AUDIT_ARCH_AARCH64, unix.AUDIT_ARCH_ARM} {
		numbers := calls[arch]
		if numbers == nil {
			continue
		}
		p = append(p,
			unix.SockFilter{Code: load, K: 4},
			unix.SockFilter{Code: jeq, K: arch, Jf: uint8(len(numbers) + 3)},
			unix.SockFilter{Code: load, K: 0})
		for i, nr := range numbers {
			p = append(p, unix.SockFilter{Code: jeq, K: nr, Jt: uint8(len(numbers) - i)})
		}
		p = append(p,
			unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_KILL_THREAD},
			unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_ALLOW})
	}
	return cbpf.Filter{append(p, unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_KILL_THREAD})}
}
