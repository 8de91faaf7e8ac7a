package probe

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
)

// testFilter answers some calls and allows the rest.
type testFilter []testRule

type testRule struct {
	arch uint32 // AUDIT_ARCH_*, 0 for any
	nr   uint32
	all  bool    // every number of the arch
	arg  *uint64 // argument 0, low and high half; nil for any
	low  bool    // compare the low half of arg only
	typ  *uint32 // argument 1, low half; nil for any
	bits []bits  // of other arguments
	do   uint32
}

// bits are some of the low half of an argument.
type bits struct{ arg, mask, value uint32 }

const (
	retAllow       = unix.SECCOMP_RET_ALLOW
	retKillProcess = unix.SECCOMP_RET_KILL_PROCESS
	retKillThread  = unix.SECCOMP_RET_KILL_THREAD
	retTrap        = unix.SECCOMP_RET_TRAP
)

func retErrno(e unix.Errno) uint32 { return unix.SECCOMP_RET_ERRNO | uint32(e) }

func ptr[T any](v T) *T { return &v }

// Offsets within struct seccomp_data on a little-endian machine.
const (
	dataNr    = 0
	dataArch  = 4
	dataArgs  = 16
	argsWords = 8
)

// program compiles the rules one after the other. Each one that does not match
// falls through.
func (f testFilter) program() []unix.SockFilter {
	var prog []unix.SockFilter
	for _, r := range f {
		prog = append(prog, r.program()...)
	}
	return append(prog, ret(retAllow))
}

func (r testRule) program() []unix.SockFilter {
	type test struct{ offset, value, mask uint32 }
	const all = 1<<32 - 1
	var tests []test
	if r.arch != 0 {
		tests = append(tests, test{dataArch, r.arch, all})
	}
	if !r.all {
		tests = append(tests, test{dataNr, r.nr, all})
	}
	if r.arg != nil {
		tests = append(tests, test{dataArgs, uint32(*r.arg), all})
		if !r.low {
			tests = append(tests, test{dataArgs + 4, uint32(*r.arg >> 32), all})
		}
	}
	if r.typ != nil {
		tests = append(tests, test{dataArgs + argsWords, *r.typ, all})
	}
	for _, b := range r.bits {
		tests = append(tests, test{dataArgs + argsWords*b.arg, b.value, b.mask})
	}
	var prog []unix.SockFilter
	for i, t := range tests {
		left := 3*(len(tests)-i-1) + 1
		prog = append(prog,
			unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: t.offset},
			unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: t.mask},
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: t.value, Jf: uint8(left)})
	}
	return append(prog, ret(r.do))
}

func ret(action uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: action}
}

// install applies the filter to every thread of the process.
func (f testFilter) install() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("setting no_new_privs: %w", err)
	}
	prog := f.program()
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	r, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&fprog)))
	if errno != 0 {
		return fmt.Errorf("loading a test filter: %w", errno)
	}
	if r != 0 {
		return errors.New("loading a test filter: a thread could not take it")
	}
	return nil
}

const (
	i386Arch = unix.AUDIT_ARCH_I386
	amd64    = unix.AUDIT_ARCH_X86_64
)

var (
	algLow  = ptr(uint64(afalg.Family))
	notSupp = retErrno(unix.EAFNOSUPPORT)
)

var (
	netlink = bits{0, 1<<32 - 1, unix.AF_NETLINK}
	xfrm    = bits{2, 1<<32 - 1, unix.NETLINK_XFRM}
	packet  = bits{0, 1<<32 - 1, unix.AF_PACKET}
	rawType = bits{1, ^uint32(unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK), unix.SOCK_RAW}
	tcp     = bits{1, 1<<32 - 1, unix.SOL_TCP}
	ulp     = bits{2, 1<<32 - 1, unix.TCP_ULP}
	newUser = bits{0, unix.CLONE_NEWUSER, unix.CLONE_NEWUSER}
)

// testFilters are installed by name in a child of the test.
var testFilters = map[string]testFilter{
	"none": {},
	// A complete filter, with the documented errno.
	"complete": {
		{arch: amd64, nr: 41, arg: algLow, low: true, do: notSupp},
		{arch: amd64, nr: 53, arg: algLow, low: true, do: notSupp},
		{arch: amd64, nr: 425, do: retErrno(unix.ENOSYS)},
		{arch: i386Arch, nr: 359, arg: algLow, low: true, do: notSupp},
		{arch: i386Arch, nr: 360, arg: algLow, low: true, do: notSupp},
		{arch: i386Arch, nr: 102, do: notSupp},
		{arch: i386Arch, nr: 425, do: retErrno(unix.EPERM)},
	},
	"64-bit-comparison":   {{arch: amd64, nr: 41, arg: algLow, do: notSupp}},
	"kill-process":        {{arch: amd64, nr: 41, arg: algLow, low: true, do: retKillProcess}},
	"kill-thread":         {{arch: amd64, nr: 41, arg: algLow, low: true, do: retKillThread}},
	"trap":                {{arch: amd64, nr: 41, arg: algLow, low: true, do: retTrap}},
	"no-i386":             {{arch: i386Arch, all: true, do: retKillProcess}},
	"i386-enosys":         {{arch: i386Arch, all: true, do: retErrno(unix.ENOSYS)}},
	"no-sockets":          {{arch: amd64, nr: 41, do: retErrno(unix.EPERM)}},
	"unix-only":           {{arch: amd64, nr: 41, arg: ptr(uint64(unix.AF_UNIX)), do: retAllow}, {arch: amd64, nr: 41, do: notSupp}},
	"enter-only":          {{arch: amd64, nr: 426, do: retErrno(unix.EPERM)}, {arch: i386Arch, nr: 425, do: retErrno(unix.EPERM)}},
	"odd-types":           {{arch: amd64, nr: 41, typ: ptr(uint32(gateType)), do: retErrno(unix.EPERM)}},
	"the-type-that-works": {{arch: amd64, nr: 41, arg: algLow, low: true, typ: ptr(uint32(unix.SOCK_SEQPACKET)), do: retErrno(unix.EPERM)}},
	"denies-with-einval":  {{arch: amd64, nr: 41, arg: algLow, low: true, do: retErrno(unix.EINVAL)}},
	"out-of-descriptors":  {{arch: amd64, nr: 41, arg: algLow, low: true, do: retErrno(unix.EMFILE)}},
	"blind":               {{arch: amd64, nr: 55, do: retErrno(unix.EPERM)}},
	"classes": {
		{arch: amd64, nr: 41, bits: []bits{netlink, xfrm}, do: notSupp},
		{arch: amd64, nr: 53, bits: []bits{netlink, xfrm}, do: notSupp},
		{arch: amd64, nr: 41, bits: []bits{packet, rawType}, do: notSupp},
		{arch: amd64, nr: 53, bits: []bits{packet, rawType}, do: notSupp},
		{arch: amd64, nr: 425, do: retErrno(unix.ENOSYS)},
		{arch: i386Arch, nr: 359, bits: []bits{netlink, xfrm}, do: notSupp},
		{arch: i386Arch, nr: 359, bits: []bits{packet, rawType}, do: notSupp},
		{arch: i386Arch, nr: 360, bits: []bits{netlink, xfrm}, do: notSupp},
		{arch: i386Arch, nr: 360, bits: []bits{packet, rawType}, do: notSupp},
		{arch: i386Arch, nr: 102, do: notSupp},
		{arch: i386Arch, nr: 425, do: retErrno(unix.ENOSYS)},
		{arch: amd64, nr: 54, bits: []bits{tcp, ulp}, do: retErrno(unix.ENOPROTOOPT)},
		{arch: i386Arch, nr: 366, bits: []bits{tcp, ulp}, do: retErrno(unix.ENOPROTOOPT)},
		{arch: amd64, nr: 56, bits: []bits{newUser}, do: retErrno(unix.EINVAL)},
		{arch: amd64, nr: 272, bits: []bits{newUser}, do: retErrno(unix.EINVAL)},
		{arch: i386Arch, nr: 120, bits: []bits{newUser}, do: retErrno(unix.EPERM)},
		{arch: i386Arch, nr: 310, bits: []bits{newUser}, do: retKillProcess},
		{nr: 435, do: retErrno(unix.ENOSYS)},
	},
	// What is closed is spelled in other ways, and the calls that matter are left out.
	"naive-classes": {
		{arch: amd64, nr: 41, bits: []bits{netlink, xfrm}, do: notSupp},
		{arch: amd64, nr: 41, bits: []bits{packet, {1, 1<<32 - 1, unix.SOCK_RAW}}, do: notSupp},
		{arch: amd64, nr: 54, bits: []bits{tcp, ulp}, do: retErrno(unix.ENOPROTOOPT)},
		{arch: amd64, nr: 272, bits: []bits{newUser}, do: retErrno(unix.EPERM)},
	},
	"no-execve": {{arch: amd64, nr: 59, do: retErrno(unix.EACCES)}},
}

// runFiltered is the filtered child of a test: it installs a filter, and then
// takes the role in the remaining arguments.
func runFiltered(args []string) error {
	f, ok := testFilters[args[0]]
	if !ok {
		return fmt.Errorf("no test filter %q", args[0])
	}
	if err := f.install(); err != nil {
		return err
	}
	return runProbe(args[1:], os.Stdout)
}
