package seccomp

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	libseccomp "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
)

func number(n uint) *uint { return &n }

func rules(r ...specs.LinuxSyscall) []specs.LinuxSyscall { return r }

func allow(names ...string) specs.LinuxSyscall {
	return specs.LinuxSyscall{Names: names, Action: specs.ActAllow}
}

func arg(index uint, op specs.LinuxSeccompOperator, value uint64) specs.LinuxSeccompArg {
	return specs.LinuxSeccompArg{Index: index, Op: op, Value: value}
}

// TestNumbers joins the table of internal/afalg with libseccomp's.
func TestNumbers(t *testing.T) {
	if len(arches) != len(afalg.ABIs()) {
		t.Errorf("%d architectures, and %d ABIs", len(arches), len(afalg.ABIs()))
	}
	for _, abi := range afalg.ABIs() {
		arch := specs.Arch(abi.Arch)
		scmp, err := archOf(arch)
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]uint32{
			"socket": abi.Socket, "socketpair": abi.Socketpair, "socketcall": abi.Socketcall,
			"io_uring_setup": abi.IOUring, "io_uring_enter": abi.IOUring + 1, "io_uring_register": abi.IOUring + 2,
			"bind": abi.Bind, "setsockopt": abi.Setsockopt, "accept": abi.Accept, "accept4": abi.Accept4,
		} {
			if want == 0 {
				if nr, err := libseccomp.GetSyscallFromNameByArch(name, scmp); err == nil && nr > 0 {
					t.Errorf("%s has no %s, libseccomp has %d", abi.Name, name, nr)
				}
				continue
			}
			// The check goes by number: some names resolve to a pseudo number
			// first.
			if got, err := libseccomp.ScmpSyscall(abi.Bit | want).GetNameByArch(scmp); err != nil || got != name {
				t.Errorf("%s: %s is %d, libseccomp calls that %q (%v)", abi.Name, name, want, got, err)
			}
		}
	}
}

// TestCompile checks verdicts of compiled programs: they show what the runtimes
// change in a profile.
func TestCompile(t *testing.T) {
	const x64 = uint32(unix.AUDIT_ARCH_X86_64)
	tests := []struct {
		name    string
		profile specs.LinuxSeccomp
		options Options
		data    cbpf.Data
		want    string
	}{
		{"default", specs.LinuxSeccomp{DefaultAction: specs.ActErrno}, Options{Runtime: Crun, Native: specs.ArchX86_64},
			cbpf.Data{Arch: x64, Nr: unix.SYS_READ}, "ERRNO(1)"},
		{"default errno", specs.LinuxSeccomp{DefaultAction: specs.ActErrno, DefaultErrnoRet: number(38)}, Options{Runtime: Crun, Native: specs.ArchX86_64},
			cbpf.Data{Arch: x64, Nr: unix.SYS_READ}, "ERRNO(38)"},
		{"the native ABI is admitted unlisted", specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86}},
			Options{Runtime: Runc, Native: specs.ArchX86_64}, cbpf.Data{Arch: x64, Nr: unix.SYS_READ}, "ALLOW"},
		{"an ABI that is not listed is killed", specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: rules(
			specs.LinuxSyscall{Names: []string{"bind"}, Action: specs.ActErrno})},
			Options{Runtime: Runc, Native: specs.ArchX86_64}, cbpf.Data{Arch: unix.AUDIT_ARCH_I386, Nr: 3}, "KILL_THREAD"},
		{"a rule that equals the default is dropped, so the wider rule stands alone",
			specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: rules(allow("socket"),
				specs.LinuxSyscall{Names: []string{"socket"}, Action: specs.ActErrno, ErrnoRet: number(1), Args: []specs.LinuxSeccompArg{arg(0, specs.OpEqualTo, 38)}})},
			Options{Runtime: Runc, Native: specs.ArchX86_64}, cbpf.Data{Arch: x64, Nr: unix.SYS_SOCKET, Args: [6]uint64{38}}, "ALLOW"},
		{"two comparisons of one argument are OR",
			specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: rules(specs.LinuxSyscall{Names: []string{"socket"}, Action: specs.ActAllow,
				Args: []specs.LinuxSeccompArg{arg(0, specs.OpNotEqual, 38), arg(0, specs.OpNotEqual, 40)}})},
			Options{Runtime: Runc, Native: specs.ArchX86_64}, cbpf.Data{Arch: x64, Nr: unix.SYS_SOCKET, Args: [6]uint64{38}}, "ALLOW"},
		{"comparisons of two arguments are AND",
			specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: rules(specs.LinuxSyscall{Names: []string{"socket"}, Action: specs.ActAllow,
				Args: []specs.LinuxSeccompArg{arg(0, specs.OpNotEqual, 38), arg(1, specs.OpEqualTo, 5)}})},
			Options{Runtime: Crun, Native: specs.ArchX86_64}, cbpf.Data{Arch: x64, Nr: unix.SYS_SOCKET, Args: [6]uint64{38, 5}}, "ERRNO(1)"},
		{"a call above every rule: runc says ENOSYS", specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: rules(allow("openat"))},
			Options{Runtime: Runc, Native: specs.ArchX86_64}, cbpf.Data{Arch: x64, Nr: unix.SYS_OPENAT + 1}, "ERRNO(38)"},
		{"a call above every rule: crun says the default", specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: rules(allow("openat"))},
			Options{Runtime: Crun, Native: specs.ArchX86_64}, cbpf.Data{Arch: x64, Nr: unix.SYS_OPENAT + 1}, "ERRNO(1)"},
		{"below the stub's bound the filter decides", specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: rules(allow("openat"))},
			Options{Runtime: Runc, Native: specs.ArchX86_64}, cbpf.Data{Arch: x64, Nr: unix.SYS_READ}, "ERRNO(1)"},
		{"x32 has a bound of its own", specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchX32}, Syscalls: rules(allow("openat"))},
			Options{Runtime: Runc, Native: specs.ArchX86_64}, cbpf.Data{Arch: x64, Nr: 1<<30 | unix.SYS_OPENAT}, "ALLOW"},
		{"x32 above its bound", specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchX32}, Syscalls: rules(allow("openat"))},
			Options{Runtime: Runc, Native: specs.ArchX86_64}, cbpf.Data{Arch: x64, Nr: 1<<30 | 500}, "ERRNO(38)"},
		{"no stub in a profile that allows", specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: rules(
			specs.LinuxSyscall{Names: []string{"bind"}, Action: specs.ActErrno})},
			Options{Runtime: Runc, Native: specs.ArchX86_64}, cbpf.Data{Arch: x64, Nr: 500}, "ALLOW"},
		{"an unknown call is skipped", specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: rules(allow("read", "no_such_call"))},
			Options{Runtime: Runc, Native: specs.ArchX86_64}, cbpf.Data{Arch: x64, Nr: unix.SYS_READ}, "ALLOW"},
		{"s390x, whose byte order is not this machine's", specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: rules(allow("read", "write"))},
			Options{Runtime: Crun, Native: specs.ArchS390X}, cbpf.Data{Arch: unix.AUDIT_ARCH_S390X, Nr: 3}, "ALLOW"},
		{"s390x multiplexes unknown calls through 0", specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: rules(allow("read"))},
			Options{Runtime: Runc, Native: specs.ArchS390X}, cbpf.Data{Arch: unix.AUDIT_ARCH_S390X, Nr: 0}, "ERRNO(38)"},
		{"loong64", specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: rules(allow("socket"))},
			Options{Runtime: Runc, Native: specs.ArchLOONGARCH64}, cbpf.Data{Arch: unix.AUDIT_ARCH_LOONGARCH64, Nr: 198}, "ALLOW"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			program, err := Compile(&test.profile, test.options)
			if err != nil {
				t.Fatal(err)
			}
			e := cbpf.EndianOf(abiOf(test.options.Native).BigEndian())
			got, _, err := cbpf.Program(program.Insns).Run(test.data, e)
			if err != nil {
				t.Fatal(err)
			}
			if got.String() != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

func TestLevel(t *testing.T) {
	many := make([]string, treeThreshold+1)
	for i := range many {
		many[i] = "read"
	}
	tests := []struct {
		runtime Runtime
		names   []string
		want    int
	}{
		{Runc, many, 2}, {Runc, many[1:], 1}, {Crun, many, 1},
	}
	for _, test := range tests {
		p, err := Compile(&specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: rules(allow(test.names...))},
			Options{Runtime: test.runtime, Native: specs.ArchX86_64})
		if err != nil || p.Level != test.want {
			t.Errorf("%s with %d rules: level %d (%v), want %d", test.runtime, len(test.names), p.Level, err, test.want)
		}
	}
}

func TestRefused(t *testing.T) {
	call := func(s specs.LinuxSyscall) *specs.LinuxSeccomp {
		return &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: rules(s)}
	}
	seven := make([]specs.LinuxSeccompArg, 7)
	for i := range seven {
		seven[i] = arg(uint(i%6), specs.OpEqualTo, 1)
	}
	tests := []struct {
		name    string
		profile *specs.LinuxSeccomp
		want    string
	}{
		{"no default", &specs.LinuxSeccomp{}, `default action: unknown action ""`},
		{"notify by default", &specs.LinuxSeccomp{DefaultAction: specs.ActNotify}, "SCMP_ACT_NOTIFY cannot be the default action"},
		{"errno", call(specs.LinuxSyscall{Names: []string{"bind"}, Action: specs.ActErrno, ErrnoRet: number(1 << 16)}), "syscalls[0]: errno 65536 does not fit"},
		{"action", call(specs.LinuxSyscall{Names: []string{"bind"}, Action: "ALLOW"}), `syscalls[0]: unknown action "ALLOW"`},
		{"operator", call(specs.LinuxSyscall{Names: []string{"bind"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{arg(0, "=", 1)}}), `syscalls[0]: unknown operator "="`},
		{"argument", call(specs.LinuxSyscall{Names: []string{"bind"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{arg(6, specs.OpEqualTo, 1)}}), "syscalls[0]: comparison of argument 6"},
		{"seven comparisons", call(specs.LinuxSyscall{Names: []string{"bind"}, Action: specs.ActAllow, Args: seven}), "crun reads 6"},
		{"architecture", &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{"SCMP_ARCH_VAX"}}, `unknown architecture "SCMP_ARCH_VAX"`},
		{"contradiction", &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchX86}, Syscalls: []specs.LinuxSyscall{
			{Names: []string{"socket"}, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{arg(0, specs.OpEqualTo, 38)}},
			{Names: []string{"socket"}, Action: specs.ActKillProcess, Args: []specs.LinuxSeccompArg{arg(0, specs.OpEqualTo, 40)}},
		}}, "file exists: another rule answers the same calls otherwise"},
		{"other byte order", &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchS390X}}, "adding architecture SCMP_ARCH_S390X to a filter for SCMP_ARCH_X86_64"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := Compile(test.profile, Options{Runtime: Runc, Native: specs.ArchX86_64})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

// TestDeterministic shows that map order does not reach the program.
func TestDeterministic(t *testing.T) {
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32},
		Syscalls: rules(allow("read", "write", "socket", "openat"))}
	var first string
	for i := range 20 {
		program, err := Compile(p, Options{Runtime: Runc, Native: specs.ArchX86_64})
		if err != nil {
			t.Fatal(err)
		}
		if text := fmt.Sprint(program.Insns); i == 0 {
			first = text
		} else if text != first {
			t.Fatalf("run %d differs", i)
		}
	}
}

// TestTogether shows that a program is the same, whether or not the other
// runtime's was made from the same collection of rules before.
func TestTogether(t *testing.T) {
	where := func(name string, a specs.LinuxSeccompArg) specs.LinuxSyscall {
		return specs.LinuxSyscall{Names: []string{name}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{a}}
	}
	many := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX86, specs.ArchX32}}
	many.Syscalls = rules(
		where("socket", arg(0, specs.OpLessThan, 38)), where("socket", arg(0, specs.OpEqualTo, 40)),
		where("clone", arg(0, specs.OpMaskedEqual, 2114060288)), where("personality", arg(0, specs.OpEqualTo, 8)))
	for nr := range libseccomp.ScmpSyscall(300) { // enough for a tree
		if name, err := nr.GetNameByArch(libseccomp.ArchAMD64); err == nil && name != "socket" && name != "clone" && name != "personality" {
			many.Syscalls = append(many.Syscalls, specs.LinuxSyscall{Names: []string{name}, Action: specs.ActAllow})
		}
	}
	few := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: rules(allow("read"), where("write", arg(1, specs.OpNotEqual, 17)))}
	ways := waysWith(Options{Runtime: Runc, Native: specs.ArchX86_64})
	for i, p := range []*specs.LinuxSeccomp{many, few} {
		for _, order := range [][]Options{ways, {ways[1], ways[0], ways[1]}} {
			together, err := compileEach(p, order)
			if err != nil {
				t.Fatal(err)
			}
			for j, o := range order {
				alone, err := compileEach(p, []Options{o})
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(alone[0], together[j]); d != "" {
					t.Errorf("profile %d, %s: -alone +together:\n%s", i, o.Runtime, d)
				}
			}
		}
	}
}
