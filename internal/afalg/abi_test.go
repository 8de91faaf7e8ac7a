package afalg

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestABIsAreApart checks the promise of the tables: a filter can distinguish
// any two calls by architecture and number, and no name is used twice.
func TestABIsAreApart(t *testing.T) {
	type seen struct{ arch, nr uint32 }
	calls, names, machines := map[seen]string{}, map[string]bool{}, map[string]string{}
	for _, a := range ABIs() {
		for _, name := range []string{a.Name, a.Arch} {
			if names[name] {
				t.Errorf("%s: name used twice", name)
			}
			names[name] = true
		}
		if got, ok := ABIOf(a.Arch); !ok || got != a {
			t.Errorf("ABIOf(%q) = %v, %v", a.Arch, got, ok)
		}
		if got, ok := ABINamed(a.Name); !ok || got != a {
			t.Errorf("ABINamed(%q) = %v, %v", a.Name, got, ok)
		}
		for _, name := range []string{a.Short, a.GOARCH} {
			if name != "" && machines[name] != "" && machines[name] != a.Name {
				t.Errorf("%s is a name of %s and of %s", name, machines[name], a.Name)
			}
			machines[name] = a.Name
		}
		for _, c := range []struct {
			name string
			nr   uint32
		}{
			{"socket", a.Socket}, {"socketpair", a.Socketpair}, {"socketcall", a.Socketcall},
			{"io_uring_setup", a.IOUring}, {"io_uring_enter", a.IOUring + 1}, {"io_uring_register", a.IOUring + 2},
			{"bind", a.Bind}, {"setsockopt", a.Setsockopt}, {"accept", a.Accept}, {"accept4", a.Accept4},
		} {
			if c.nr == 0 {
				continue
			}
			key, what := seen{a.Audit, a.Bit | c.nr}, a.Name+" "+c.name
			if calls[key] != "" {
				t.Errorf("%s and %s share arch %#x number %d", calls[key], what, key.arch, key.nr)
			}
			calls[key] = what
		}
	}
	for _, find := range []func(string) (ABI, bool){ABIOf, ABIOfGOARCH, ABINamed} {
		for _, name := range []string{"", "SCMP_ARCH_NONE"} {
			if a, ok := find(name); ok {
				t.Errorf("%q is %s", name, a.Name)
			}
		}
	}
}

// TestAuditWords splits AUDIT_ARCH_* (include/uapi/linux/audit.h): bit 31 says
// 64-bit, bit 30 little-endian, bit 29 MIPS n32, the rest is the ELF machine.
func TestAuditWords(t *testing.T) {
	const (
		bits64 = 0x80000000
		little = 0x40000000
		n32    = 0x20000000
	)
	machines := map[string]uint32{ // include/uapi/linux/elf-em.h
		"x86-64": 62, "i386": 3, "x32": 62, "aarch64": 183, "arm": 40, "s390x": 22, "s390": 22, "riscv64": 243,
		"loong64": 258, "ppc64le": 21, "ppc64": 21, "ppc": 20,
		"mips64": 8, "mips64n32": 8, "mips": 8, "mipsel64": 8, "mipsel64n32": 8, "mipsel": 8,
	}
	for _, a := range ABIs() {
		want := machines[a.Name]
		isN32 := strings.HasSuffix(a.Name, "n32")
		if a.Kind != Compat || isN32 {
			want |= bits64
		}
		if !a.BigEndian() {
			want |= little
		}
		if isN32 {
			want |= n32
		}
		if a.Audit != want {
			t.Errorf("%s: audit word %#x, want %#x", a.Name, a.Audit, want)
		}
	}
	if len(machines) != len(ABIs()) {
		t.Errorf("%d machines for %d ABIs", len(machines), len(ABIs()))
	}
}

// TestOrder checks the order of reports: a 64-bit ABI comes before those that
// share its machine, and every other ABI follows one of its byte order.
func TestOrder(t *testing.T) {
	var native ABI
	for _, a := range ABIs() {
		switch {
		case a.Kind == Native:
			native = a
		case a.BigEndian() != native.BigEndian():
			t.Errorf("%s follows %s of the other byte order", a.Name, native.Name)
		}
		if (a.Kind == X32) != (a.Bit != 0) {
			t.Errorf("%s: bit %#x", a.Name, a.Bit)
		}
	}
}

// TestMachine lists what a kernel runs, and what shares its machine.
func TestMachine(t *testing.T) {
	for arch, want := range map[string]string{
		"SCMP_ARCH_X86_64":   "x86-64 i386 x32 / x86-64 i386 x32",
		"SCMP_ARCH_X86":      "i386 / x86-64 i386 x32",
		"SCMP_ARCH_S390X":    "s390x s390 / s390x s390",
		"SCMP_ARCH_PPC64LE":  "ppc64le / ppc64le",
		"SCMP_ARCH_MIPSEL64": "mipsel64 mipsel64n32 mipsel / mipsel64 mipsel64n32 mipsel",
		"SCMP_ARCH_MIPSEL":   "mipsel / mipsel64 mipsel64n32 mipsel",
		"SCMP_ARCH_VAX":      "/",
	} {
		var got []string
		for _, a := range Machine(arch) {
			got = append(got, a.Name)
		}
		got = append(got, "/")
		for _, a := range Siblings(arch) {
			got = append(got, a.Name)
		}
		if got := strings.Join(got, " "); got != want {
			t.Errorf("%s: %q, want %q", arch, got, want)
		}
	}
}

// TestCalls lists every call of the ABIs with a shape of their own.
func TestCalls(t *testing.T) {
	tests := map[string]string{
		"SCMP_ARCH_X86_64": `
socket socket(41) arg0=38 high=0
socket-highbits socket(41) arg0=38 high≠0
socketpair socketpair(53) arg0=38
io_uring io_uring_setup(425)
io_uring io_uring_enter(426)
io_uring io_uring_register(427)`,
		"SCMP_ARCH_X86": `
compat-socket socket(359) arg0=38
compat-socketcall socketcall(102) arg0=1
socketpair socketpair(360) arg0=38
socketpair socketcall(102) arg0=8
io_uring io_uring_setup(425)
io_uring io_uring_enter(426)
io_uring io_uring_register(427)`,
		"SCMP_ARCH_X32": `
x32-socket socket(1073741865) arg0=38
socketpair socketpair(1073741877) arg0=38
io_uring io_uring_setup(1073742249)
io_uring io_uring_enter(1073742250)
io_uring io_uring_register(1073742251)`,
		"SCMP_ARCH_S390X": `
socket socket(359) arg0=38 high=0
socket-highbits socket(359) arg0=38 high≠0
compat-socketcall socketcall(102) arg0=1
socketpair socketpair(360) arg0=38
socketpair socketcall(102) arg0=8
io_uring io_uring_setup(425)
io_uring io_uring_enter(426)
io_uring io_uring_register(427)`,
		"SCMP_ARCH_MIPS64": `
socket socket(5040) arg0=38 high=0
socket-highbits socket(5040) arg0=38 high≠0
socketpair socketpair(5052) arg0=38
io_uring io_uring_setup(5425)
io_uring io_uring_enter(5426)
io_uring io_uring_register(5427)`,
	}
	for arch, want := range tests {
		a, _ := ABIOf(arch)
		var got strings.Builder
		for _, c := range a.Calls(Family) {
			fmt.Fprintf(&got, "\n%s %s(%d)", c.Route, c.Name, c.Nr)
			if c.Arg0 != nil {
				fmt.Fprintf(&got, " arg0=%d", *c.Arg0)
			}
			got.WriteString(map[High]string{HighZero: " high=0", HighSet: " high≠0"}[c.High])
		}
		if got.String() != want {
			t.Errorf("%s: got%s\nwant%s", arch, got.String(), want)
		}
	}
}

// TestRoutes joins the two tables of routes: every route visible to a filter
// belongs to some call, and no call has a route that reports do not know.
func TestRoutes(t *testing.T) {
	var listed, called []Route
	for _, r := range Routes() {
		listed = append(listed, r.Route)
		if r.How == "" || r.Seccomp == "" {
			t.Errorf("%s is not described", r.Route)
		}
	}
	for _, a := range ABIs() {
		for _, c := range a.Calls(Family) {
			if !slices.Contains(listed, c.Route) {
				t.Errorf("%s: unknown route %q", a.Name, c.Route)
			}
			called = append(called, c.Route)
		}
	}
	for _, r := range listed {
		if slices.Contains(called, r) == (r == RouteInherited) {
			t.Errorf("%s: called %v", r, r == RouteInherited)
		}
	}
}

// buildAudits maps GOARCH to the audit word.
var buildAudits = map[string]uint32{
	"amd64": unix.AUDIT_ARCH_X86_64, "386": unix.AUDIT_ARCH_I386, "arm64": unix.AUDIT_ARCH_AARCH64, "arm": unix.AUDIT_ARCH_ARM,
	"s390x": unix.AUDIT_ARCH_S390X, "riscv64": unix.AUDIT_ARCH_RISCV64, "loong64": unix.AUDIT_ARCH_LOONGARCH64,
	"ppc64le": unix.AUDIT_ARCH_PPC64LE, "ppc64": unix.AUDIT_ARCH_PPC64,
	"mips64": unix.AUDIT_ARCH_MIPS64, "mips": unix.AUDIT_ARCH_MIPS, "mips64le": unix.AUDIT_ARCH_MIPSEL64, "mipsle": unix.AUDIT_ARCH_MIPSEL,
}

// TestGoNames finds an ABI for each GOARCH with Linux and seccomp.
func TestGoNames(t *testing.T) {
	for goarch, audit := range buildAudits {
		if a, ok := ABIOfGOARCH(goarch); !ok || a.Audit != audit || a.Bit != 0 {
			t.Errorf("%s: %+v, %v", goarch, a, ok)
		}
	}
}

// TestBuildABI compares the numbers of the machine that runs the test with the
// kernel headers behind x/sys.
func TestBuildABI(t *testing.T) {
	a, ok := ABIOfGOARCH(runtime.GOARCH)
	if !ok {
		t.Fatalf("no ABI for %s", runtime.GOARCH)
	}
	got := [...]uint32{a.Socket, a.Socketpair, a.IOUring, a.IOUring + 1, a.IOUring + 2, a.Bind, a.Setsockopt, a.Accept4}
	want := [...]uint32{
		unix.SYS_SOCKET, unix.SYS_SOCKETPAIR, unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER,
		unix.SYS_BIND, unix.SYS_SETSOCKOPT, unix.SYS_ACCEPT4,
	}
	if got != want {
		t.Errorf("%s: got %v, want %v", a.Name, got, want)
	}
}
