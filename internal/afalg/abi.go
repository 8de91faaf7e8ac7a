package afalg

import "golang.org/x/sys/unix"

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
	Name      string // in reports
	Arch      string // in OCI profiles
	Audit     uint32 // AUDIT_ARCH_*, seccomp_data.arch
	Bit       uint32 // or-ed into every number
	Kind      Kind
	BigEndian bool

	Socket, Socketpair, Socketcall uint32
	IOUring                        uint32 // io_uring_setup; enter and register follow it

	// Further calls of a session with an AF_ALG socket.
	Bind, Setsockopt, Accept, Accept4 uint32
}

// ioUringUnified is the number of io_uring_setup in every table since the
// numbers were unified (5.1); MIPS adds its base.
const ioUringUnified = 425

const (
	mipsO32 = 4000
	mipsN64 = 5000
	mipsN32 = 6000
)

// ABIs lists every ABI that a profile may admit, in the order of reports.
// The numbers are those of the kernel's system call tables; a test compares
// them with libseccomp's.
func ABIs() []ABI {
	const u = ioUringUnified
	return []ABI{
		{"x86-64", "SCMP_ARCH_X86_64", unix.AUDIT_ARCH_X86_64, 0, Native, false, 41, 53, 0, u, 49, 54, 43, 288},
		{"i386", "SCMP_ARCH_X86", unix.AUDIT_ARCH_I386, 0, Compat, false, 359, 360, 102, u, 361, 366, 0, 364},
		{"x32", "SCMP_ARCH_X32", unix.AUDIT_ARCH_X86_64, 0x40000000, X32, false, 41, 53, 0, u, 49, 541, 43, 288},
		{"aarch64", "SCMP_ARCH_AARCH64", unix.AUDIT_ARCH_AARCH64, 0, Native, false, 198, 199, 0, u, 200, 208, 202, 242},
		{"arm", "SCMP_ARCH_ARM", unix.AUDIT_ARCH_ARM, 0, Compat, false, 281, 288, 0, u, 282, 294, 285, 366},
		{"s390x", "SCMP_ARCH_S390X", unix.AUDIT_ARCH_S390X, 0, Native, true, 359, 360, 102, u, 361, 366, 0, 364},
		{"s390", "SCMP_ARCH_S390", unix.AUDIT_ARCH_S390, 0, Compat, true, 359, 360, 102, u, 361, 366, 0, 364},
		{"riscv64", "SCMP_ARCH_RISCV64", unix.AUDIT_ARCH_RISCV64, 0, Native, false, 198, 199, 0, u, 200, 208, 202, 242},
		{"loong64", "SCMP_ARCH_LOONGARCH64", unix.AUDIT_ARCH_LOONGARCH64, 0, Native, false, 198, 199, 0, u, 200, 208, 202, 242},
		{"ppc64le", "SCMP_ARCH_PPC64LE", unix.AUDIT_ARCH_PPC64LE, 0, Native, false, 326, 333, 102, u, 327, 339, 330, 344},
		{"ppc64", "SCMP_ARCH_PPC64", unix.AUDIT_ARCH_PPC64, 0, Native, true, 326, 333, 102, u, 327, 339, 330, 344},
		{"ppc", "SCMP_ARCH_PPC", unix.AUDIT_ARCH_PPC, 0, Compat, true, 326, 333, 102, u, 327, 339, 330, 344},
		{"mips64", "SCMP_ARCH_MIPS64", unix.AUDIT_ARCH_MIPS64, 0, Native, true, mipsN64 + 40, mipsN64 + 52, 0, mipsN64 + u, mipsN64 + 48, mipsN64 + 53, mipsN64 + 42, mipsN64 + 293},
		{"mips64n32", "SCMP_ARCH_MIPS64N32", unix.AUDIT_ARCH_MIPS64N32, 0, Compat, true, mipsN32 + 40, mipsN32 + 52, 0, mipsN32 + u, mipsN32 + 48, mipsN32 + 53, mipsN32 + 42, mipsN32 + 297},
		{"mips", "SCMP_ARCH_MIPS", unix.AUDIT_ARCH_MIPS, 0, Compat, true, mipsO32 + 183, mipsO32 + 184, mipsO32 + 102, mipsO32 + u, mipsO32 + 169, mipsO32 + 181, mipsO32 + 168, mipsO32 + 334},
		{"mipsel64", "SCMP_ARCH_MIPSEL64", unix.AUDIT_ARCH_MIPSEL64, 0, Native, false, mipsN64 + 40, mipsN64 + 52, 0, mipsN64 + u, mipsN64 + 48, mipsN64 + 53, mipsN64 + 42, mipsN64 + 293},
		{"mipsel64n32", "SCMP_ARCH_MIPSEL64N32", unix.AUDIT_ARCH_MIPSEL64N32, 0, Compat, false, mipsN32 + 40, mipsN32 + 52, 0, mipsN32 + u, mipsN32 + 48, mipsN32 + 53, mipsN32 + 42, mipsN32 + 297},
		{"mipsel", "SCMP_ARCH_MIPSEL", unix.AUDIT_ARCH_MIPSEL, 0, Compat, false, mipsO32 + 183, mipsO32 + 184, mipsO32 + 102, mipsO32 + u, mipsO32 + 169, mipsO32 + 181, mipsO32 + 168, mipsO32 + 334},
	}
}

// ABIOf finds an ABI by its OCI name.
func ABIOf(arch string) (ABI, bool) {
	for _, a := range ABIs() {
		if a.Arch == arch {
			return a, true
		}
	}
	return ABI{}, false
}
