package afalg

import (
	"slices"

	"golang.org/x/sys/unix"
)

// Kind is the relation of an ABI to the machine that runs it.
type Kind int

const (
	Native Kind = iota // the 64-bit ABI of the machine
	Compat             // its 32-bit ABI, with an architecture word of its own
	X32                // 64-bit registers, 32-bit pointers, the x86-64 architecture word
)

// ABI is a system call table as seccomp distinguishes them, with the numbers of
// the calls that reach AF_ALG. A number is 0 where the ABI lacks the call.
type ABI struct {
	Name   string // in reports
	Arch   string // in OCI profiles
	Short  string // in the conditions of Docker's profiles, which spell it so; "" in none
	GOARCH string // "" if Go has no port to it
	Audit  uint32 // AUDIT_ARCH_*, seccomp_data.arch
	Bit    uint32 // or-ed into every number
	Kind   Kind

	Socket, Socketpair, Socketcall uint32
	IOUring                        uint32 // io_uring_setup; enter and register follow it

	// Further calls of a session with an AF_ALG socket.
	Bind, Setsockopt, Accept, Accept4 uint32
}

// Flags of AUDIT_ARCH_* words, above the ELF machine number (linux/audit.h).
const (
	Audit64Bit        = 0x80000000
	AuditLittleEndian = 0x40000000
	AuditMIPSN32      = 0x20000000
)

// X32Bit is set in each number of x32 (__X32_SYSCALL_BIT).
const X32Bit = 0x40000000

// BigEndian reports whether the machines of the ABI are.
func (a ABI) BigEndian() bool { return a.Audit&AuditLittleEndian == 0 }

// LongSize is the size of a C long.
func (a ABI) LongSize() int {
	if a.Kind == Native {
		return 8
	}
	return 4
}

// uring is the number of io_uring_setup in every table since the numbers were
// unified (5.1); MIPS adds its base.
const uring = 425

const (
	mipsO32 = 4000
	mipsN64 = 5000
	mipsN32 = 6000
)

// abis are in the order of reports: after each 64-bit ABI come those that
// share its machine. The numbers are those of the kernel's system call tables;
// a test compares them with libseccomp's.
var abis = []ABI{
	{"x86-64", "SCMP_ARCH_X86_64", "amd64", "amd64", unix.AUDIT_ARCH_X86_64, 0, Native, 41, 53, 0, uring, 49, 54, 43, 288},
	{"i386", "SCMP_ARCH_X86", "x86", "386", unix.AUDIT_ARCH_I386, 0, Compat, 359, 360, 102, uring, 361, 366, 0, 364},
	{"x32", "SCMP_ARCH_X32", "", "", unix.AUDIT_ARCH_X86_64, X32Bit, X32, 41, 53, 0, uring, 49, 541, 43, 288},
	{"aarch64", "SCMP_ARCH_AARCH64", "arm64", "arm64", unix.AUDIT_ARCH_AARCH64, 0, Native, 198, 199, 0, uring, 200, 208, 202, 242},
	{"arm", "SCMP_ARCH_ARM", "arm", "arm", unix.AUDIT_ARCH_ARM, 0, Compat, 281, 288, 0, uring, 282, 294, 285, 366},
	{"s390x", "SCMP_ARCH_S390X", "s390x", "s390x", unix.AUDIT_ARCH_S390X, 0, Native, 359, 360, 102, uring, 361, 366, 0, 364},
	{"s390", "SCMP_ARCH_S390", "s390", "", unix.AUDIT_ARCH_S390, 0, Compat, 359, 360, 102, uring, 361, 366, 0, 364},
	{"riscv64", "SCMP_ARCH_RISCV64", "riscv64", "riscv64", unix.AUDIT_ARCH_RISCV64, 0, Native, 198, 199, 0, uring, 200, 208, 202, 242},
	{"loong64", "SCMP_ARCH_LOONGARCH64", "loongarch64", "loong64", unix.AUDIT_ARCH_LOONGARCH64, 0, Native, 198, 199, 0, uring, 200, 208, 202, 242},
	{"ppc64le", "SCMP_ARCH_PPC64LE", "ppc64le", "ppc64le", unix.AUDIT_ARCH_PPC64LE, 0, Native, 326, 333, 102, uring, 327, 339, 330, 344},
	{"ppc64", "SCMP_ARCH_PPC64", "ppc64", "ppc64", unix.AUDIT_ARCH_PPC64, 0, Native, 326, 333, 102, uring, 327, 339, 330, 344},
	{"ppc", "SCMP_ARCH_PPC", "ppc", "", unix.AUDIT_ARCH_PPC, 0, Compat, 326, 333, 102, uring, 327, 339, 330, 344},
	{"mips64", "SCMP_ARCH_MIPS64", "mips64", "mips64", unix.AUDIT_ARCH_MIPS64, 0, Native, mipsN64 + 40, mipsN64 + 52, 0, mipsN64 + uring, mipsN64 + 48, mipsN64 + 53, mipsN64 + 42, mipsN64 + 293},
	{"mips64n32", "SCMP_ARCH_MIPS64N32", "mips64n32", "", unix.AUDIT_ARCH_MIPS64N32, 0, Compat, mipsN32 + 40, mipsN32 + 52, 0, mipsN32 + uring, mipsN32 + 48, mipsN32 + 53, mipsN32 + 42, mipsN32 + 297},
	{"mips", "SCMP_ARCH_MIPS", "", "mips", unix.AUDIT_ARCH_MIPS, 0, Compat, mipsO32 + 183, mipsO32 + 184, mipsO32 + 102, mipsO32 + uring, mipsO32 + 169, mipsO32 + 181, mipsO32 + 168, mipsO32 + 334},
	{"mipsel64", "SCMP_ARCH_MIPSEL64", "mipsel64", "mips64le", unix.AUDIT_ARCH_MIPSEL64, 0, Native, mipsN64 + 40, mipsN64 + 52, 0, mipsN64 + uring, mipsN64 + 48, mipsN64 + 53, mipsN64 + 42, mipsN64 + 293},
	{"mipsel64n32", "SCMP_ARCH_MIPSEL64N32", "mips3l64n32", "", unix.AUDIT_ARCH_MIPSEL64N32, 0, Compat, mipsN32 + 40, mipsN32 + 52, 0, mipsN32 + uring, mipsN32 + 48, mipsN32 + 53, mipsN32 + 42, mipsN32 + 297},
	{"mipsel", "SCMP_ARCH_MIPSEL", "mipsel", "mipsle", unix.AUDIT_ARCH_MIPSEL, 0, Compat, mipsO32 + 183, mipsO32 + 184, mipsO32 + 102, mipsO32 + uring, mipsO32 + 169, mipsO32 + 181, mipsO32 + 168, mipsO32 + 334},
}

// ABIs lists every ABI that a profile may admit, in the order of reports.
func ABIs() []ABI { return slices.Clone(abis) }

// ABINamed finds an ABI by its name in reports.
func ABINamed(name string) (ABI, bool) {
	return find(func(a ABI) bool { return a.Name == name })
}

// ABIOf finds an ABI by its OCI name.
func ABIOf(arch string) (ABI, bool) {
	return find(func(a ABI) bool { return a.Arch == arch })
}

// ABIOfGOARCH finds the ABI of a Go program by its GOARCH.
func ABIOfGOARCH(goarch string) (ABI, bool) {
	return find(func(a ABI) bool { return a.GOARCH == goarch && goarch != "" })
}

func find(is func(ABI) bool) (ABI, bool) {
	if i := slices.IndexFunc(abis, is); i >= 0 {
		return abis[i], true
	}
	return ABI{}, false
}

// Siblings returns the ABIs of the machine that runs an ABI, the native one
// first. It is nil if there is no architecture of that name.
func Siblings(arch string) []ABI {
	first := slices.IndexFunc(abis, func(a ABI) bool { return a.Arch == arch })
	if first < 0 {
		return nil
	}
	last := first + 1
	for abis[first].Kind != Native {
		first--
	}
	for last < len(abis) && abis[last].Kind != Native {
		last++
	}
	return slices.Clone(abis[first:last])
}

// Machine returns the ABIs that a kernel for the architecture can run, whatever
// a profile admits: its own first, then those that share the machine. It is nil
// if there is no architecture of that name.
func Machine(arch string) []ABI {
	if own, ok := ABIOf(arch); ok && own.Kind != Native {
		return []ABI{own} // a kernel of 32 bits runs nothing else
	}
	return Siblings(arch)
}
