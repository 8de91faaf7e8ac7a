//go:build vm

package vmtest

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// abis are the compiler flags of the machine's three ABIs.
var abis = map[string]string{"x86-64": "-m64", "i386": "-m32", "x32": "-mx32"}

// clients builds testdata/vm/family.c for every ABI, statically.
func clients(t *testing.T) map[string]string {
	t.Helper()
	dir := t.TempDir()
	binaries := map[string]string{}
	for abi, flag := range abis {
		binaries[abi] = filepath.Join(dir, abi)
		compile(t, binaries[abi], flag, "-static", "-D_GNU_SOURCE", "../../testdata/vm/family.c")
	}
	return binaries
}

// programs are testdata's clients. Like all other files for machines, they are
// built before any machine boots: a compiler beside emulated machines takes
// their time.
type programs struct {
	byABI   map[string]string
	raw     string // makes 32-bit calls itself
	classes string // tries denied classes
}

func buildPrograms(t *testing.T) programs {
	t.Helper()
	return programs{clients(t), rawClient(t, "socketcall"), buildClasses(t)}
}

// step is one question to a machine.
type step struct {
	name string
	ask  func(t *testing.T, vm *VM)
}

// TestMachine asks each kernel, in one boot, the questions that only it can
// answer: the routes, real clients, and for each platform that the granted
// container computes and its neighbour does not.
func TestMachine(t *testing.T) {
	p, platforms := buildPrograms(t), buildPlatforms(t, engines())
	testKernels(t, func(version string) []step {
		return slices.Concat([]step{{"commands", testCommands}}, doctorFirst(newest(version)), []step{
			{"mounts", testMounts},
			{"sockets", func(t *testing.T, vm *VM) { testSockets(t, vm, p.byABI) }},
			{"routes", testRoutes},
			{"inherited", testInherited},
			{"attacks on classes", func(t *testing.T, vm *VM) { testClassAttacks(t, vm, version, p.classes) }},
			{"apparmor routes", testAppArmorRoutes},
			{"apparmor classes", func(t *testing.T, vm *VM) {
				if newest(version) {
					testAppArmorClasses(t, vm)
				}
			}},
			{"grant", testGrant},
			{"readme", testReadme},
			{"clients", func(t *testing.T, vm *VM) { testClients(t, vm, version) }},
			{"units", func(t *testing.T, vm *VM) { testUnits(t, vm, p.byABI["x86-64"], unitTruth) }},
			{"platforms", func(t *testing.T, vm *VM) { testTruths(t, vm, version, platforms) }},
			{"panic", testPanic},
		})
	})
}

// TestLongMachine asks each kernel the rest.
func TestLongMachine(t *testing.T) {
	p := buildPrograms(t)
	testKernels(t, func(version string) []step {
		return slices.Concat(doctorFirst(!newest(version)), []step{
			{"containers", func(t *testing.T, vm *VM) { testContainers(t, vm, p.byABI) }},
			{"host root", testHostRoot},
			{"apparmor", func(t *testing.T, vm *VM) { testAppArmor(t, vm, p.byABI) }},
			{"workload", func(t *testing.T, vm *VM) { testWorkload(t, vm, version) }},
			{"programs", func(t *testing.T, vm *VM) { testPrograms(t, vm, p) }},
			{"apparmor families", func(t *testing.T, vm *VM) { testAppArmorFamilies(t, vm, p) }},
			{"apparmor types", testAppArmorTypes},
			{"learn", testLearning},
			{"units", func(t *testing.T, vm *VM) { testUnits(t, vm, p.byABI["x86-64"], unitWhole) }},
			{"netlink in a unit", testNetlink},
			{"agent as a service", testAgentService},
			{"sysctl of a module", testUdevRule},
		})
	})
}

// newest reports whether a kernel is the last of Kernels, which has the tests
// that one kernel answers for all.
func newest(version string) bool { return version == Kernels()[len(Kernels())-1] }

// testKernels boots a machine for each kernel, and takes the steps in it.
func testKernels(t *testing.T, steps func(version string) []step) {
	t.Parallel()
	for _, version := range Kernels() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			vm := Boot(t, version, Options{Systemd: true, Memory: 3072})
			t.Logf("%s booted in %v", vm.Release, vm.Booted.Round(time.Millisecond))
			if !strings.HasPrefix(vm.Release, version+".") {
				t.Fatalf("release %s, want %s", vm.Release, version)
			}
			if got := vm.Output(t, "cat", "/proc/1/comm"); got != "systemd" {
				t.Fatalf("process 1 is %s", got)
			}
			for _, s := range steps(version) {
				t.Run(s.name, func(t *testing.T) { s.ask(t, vm) })
			}
		})
	}
}

func testCommands(t *testing.T, vm *VM) {
	tests := []struct {
		name string
		c    Command
		want Result
	}{
		{"streams and status", Command{Args: []string{"sh", "-c", "cat; echo bad >&2; exit 3"}, Stdin: []byte("in")},
			Result{Stdout: []byte("in"), Stderr: []byte("bad\n"), Exit: 3}},
		{"environment", Command{Args: []string{"sh", "-c", `echo "$A $HOME"`}, Env: []string{"A=1"}},
			Result{Stdout: []byte("1 /root\n")}},
		{"signal", Command{Args: []string{"sh", "-c", "kill -SYS $$"}},
			Result{Exit: 128 + 31, Signal: "SIGSYS"}},
		{"time-out", Command{Args: []string{"sh", "-c", "echo so far; sleep 60 & wait"}, Timeout: 3 * time.Second},
			Result{Stdout: []byte("so far\n"), Exit: 128 + 9, Signal: "SIGKILL", TimedOut: true}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := vm.Command(t, tt.c)
			got.Took = 0
			if len(got.Stderr) == 0 {
				got.Stderr = nil
			}
			if len(got.Stdout) == 0 {
				got.Stdout = nil
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
		})
	}
	t.Run("no such program", func(t *testing.T) {
		_, err := vm.Do(t.Context(), Command{Args: []string{"/no/such/program"}})
		const want = "fork/exec /no/such/program: no such file or directory"
		if err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	})
	t.Run("file", func(t *testing.T) {
		vm.WriteFile(t, "/etc/vmtest/a b", []byte("text\n"), 0o640)
		if got := vm.Output(t, "stat", "-c", "%a %s", "/etc/vmtest/a b"); got != "640 5" {
			t.Errorf("got %s", got)
		}
		if _, err := os.Stat("/etc/vmtest"); err == nil {
			t.Error("the machine wrote to the host")
		}
	})
}

func testMounts(t *testing.T, vm *VM) {
	want := map[string]string{
		"/": "overlay", "/proc": "proc", "/sys": "sysfs", "/sys/kernel/security": "securityfs",
		"/sys/fs/bpf": "bpf", "/sys/fs/cgroup": "cgroup2", "/run": "tmpfs", "/dev": "devtmpfs",
	}
	compareMounts(t, vm, want)
	lsms := strings.Split(string(vm.ReadFile(t, lsmList)), ",")
	for _, lsm := range []string{"apparmor", "bpf"} {
		if !slices.Contains(lsms, lsm) {
			t.Errorf("LSMs %v, want %s among them", lsms, lsm)
		}
	}
	vm.Output(t, "ip", "-6", "route", "get", "::1")
}

// compareMounts compares some mounts, and what is mounted there.
func compareMounts(t *testing.T, vm *VM, want map[string]string) {
	t.Helper()
	got := map[string]string{}
	for line := range strings.Lines(string(vm.ReadFile(t, "/proc/self/mounts"))) {
		f := strings.Fields(line)
		if _, ok := want[f[1]]; ok {
			got[f[1]] = f[2]
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// allOpen is the client's output for AF_UNIX, AF_ALG and a family that no
// kernel has.
const allOpen = "1 open\n38 open\n63 EAFNOSUPPORT\n"

func testSockets(t *testing.T, vm *VM, binaries map[string]string) {
	for abi, binary := range binaries {
		t.Run(abi, func(t *testing.T) {
			r := vm.Run(t, binary, "1", "38", "63")
			if got := string(r.Stdout); got != allOpen {
				t.Errorf("exit status %d\n%s%s", r.Exit, got, r.Stderr)
			}
		})
	}
	vm.Output(t, "kcapi-dgst", "-c", "sha256", "--hex", "-i", "/etc/hostname")
}

// denyALG answers ENOTTY, which nothing else does here.
const denyALG = `{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [
	{"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 25, "args": [{"index": 0, "value": 38, "op": "SCMP_CMP_EQ"}]}]}`

func testContainers(t *testing.T, vm *VM, binaries map[string]string) {
	rootfs := vm.Rootfs(t, map[string]string{"/x86-64": binaries["x86-64"], "/i386": binaries["i386"], "/x32": binaries["x32"]})
	tests := []struct {
		name, abi, seccomp, stdout string
		exit                       int
	}{
		{"no profile", "x86-64", "", allOpen, 0},
		{"no profile", "i386", "", allOpen, 0},
		{"no profile", "x32", "", allOpen, 0},
		{"a profile", "x86-64", denyALG, "1 open\n38 ENOTTY\n63 EAFNOSUPPORT\n", 0},
		{"a profile", "i386", denyALG, "", 128 + 31}, // the architecture is not admitted: SIGSYS
	}
	for _, runtime := range Runtimes() {
		for _, tt := range tests {
			t.Run(runtime+"/"+tt.name+"/"+tt.abi, func(t *testing.T) {
				r := vm.Container(t, Container{
					Runtime: runtime, Rootfs: rootfs, Args: []string{"/" + tt.abi, "1", "38", "63"},
					Seccomp: []byte(tt.seccomp),
				})
				if got := string(r.Stdout); got != tt.stdout || r.Exit != tt.exit {
					t.Errorf("exit status %d, want %d\n%s%s", r.Exit, tt.exit, got, r.Stderr)
				}
			})
		}
	}
}

func testHostRoot(t *testing.T, vm *VM) {
	root := vm.HostRoot(t)
	for _, runtime := range Runtimes() {
		t.Run(runtime, func(t *testing.T) {
			r := vm.Container(t, Container{
				Runtime: runtime, Rootfs: root,
				Args: []string{"python3", "-c", `import socket; socket.socket(socket.AF_INET6).bind(("::1", 0)); print("bound")`},
			})
			if got := string(r.Stdout); got != "bound\n" {
				t.Errorf("exit status %d\n%s%s", r.Exit, got, r.Stderr)
			}
		})
	}
}

const apparmorProfile = `abi <abi/3.0>,
profile vmtest-family flags=(attach_disconnected) {
  file,
  capability,
  network,
  deny network alg,
}
`

func testAppArmor(t *testing.T, vm *VM, binaries map[string]string) {
	vm.WriteFile(t, "/tmp/vmtest-profile", []byte(apparmorProfile), 0o644)
	vm.Output(t, "apparmor_parser", "--replace", "--skip-cache", "/tmp/vmtest-profile")
	const want = "1 open\n38 EACCES\n63 EAFNOSUPPORT\n"
	for abi, binary := range binaries {
		t.Run(abi, func(t *testing.T) {
			r := vm.Run(t, "aa-exec", "-p", "vmtest-family", "--", binary, "1", "38", "63")
			if got := string(r.Stdout); got != want {
				t.Errorf("exit status %d\n%s%s", r.Exit, got, r.Stderr)
			}
		})
	}
}

// testPanic comes last: a machine that dies is an error for every later
// command, never a result.
func testPanic(t *testing.T, vm *VM) {
	_, err := vm.Do(t.Context(), Command{Args: []string{"sh", "-c", "echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger"}})
	if err == nil || !strings.Contains(err.Error(), "Kernel panic - not syncing: sysrq triggered crash") {
		t.Errorf("got %v", err)
	}
	if _, again := vm.Do(t.Context(), Command{Args: []string{"true"}}); again == nil {
		t.Error("a command ran in a dead machine")
	}
}

// A machine that dies while it boots is an error at once, with the reason.
func TestPanicAtBoot(t *testing.T) {
	t.Parallel()
	start := time.Now()
	vm, err := boot(t.ArtifactDir(), Kernels()[0], Options{Append: "rdinit=/missing"})
	if vm != nil {
		vm.Stop()
	}
	if err == nil || !strings.Contains(err.Error(), "Kernel panic - not syncing") {
		t.Errorf("after %s: %v", time.Since(start), err)
	}
}
