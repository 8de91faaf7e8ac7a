package live

import (
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
)

// strictCalls are the numbers of read, write, exit and sigreturn, by ABI. On
// x32 there are none.
var strictCalls = map[string][]uint32{
	"x86-64": {0, 1, 60, 15}, "i386": {3, 4, 1, 119},
	"aarch64": {63, 64, 93, 139}, "arm": {3, 4, 1, 119},
}

// strictFilter is a program that does what the kernel does in strict mode. On a
// machine with unknown numbers it allows everything: the unknown counts as
// open.
func strictFilter(m Mode) cbpf.Filter {
	own, _ := afalg.ABIOfGOARCH(runtime.GOARCH)
	if m != Strict || own.Kind != afalg.Native || strictCalls[own.Name] == nil {
		return nil
	}
	const (
		load = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		jeq  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		ret  = unix.BPF_RET | unix.BPF_K
	)
	var p cbpf.Program
	for _, abi := range afalg.Machine(own.Arch) {
		numbers := strictCalls[abi.Name]
		if numbers == nil {
			continue
		}
		p = append(p,
			unix.SockFilter{Code: load, K: 4},
			unix.SockFilter{Code: jeq, K: abi.Audit, Jf: uint8(len(numbers) + 3)},
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
