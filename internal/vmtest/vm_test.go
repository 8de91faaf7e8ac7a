//go:build vm

package vmtest

import (
	"os"
	"os/exec"
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
		out, err := exec.Command("gcc", flag, "-static", "-O1", "-Wall", "-Werror", "-D_GNU_SOURCE",
			"-o", binaries[abi], "../../testdata/vm/family.c").CombinedOutput()
		if err != nil {
			t.Fatalf("gcc %s: %v\n%s", flag, err, out)
		}
	}
	return binaries
}

func TestMachine(t *testing.T) {
	binaries := clients(t)
	for _, version := range Kernels() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			vm := Boot(t, version, Options{})
			t.Logf("%s booted in %v", vm.Release, vm.Booted.Round(time.Millisecond))
			for _, runtime := range Runtimes() {
				t.Log(vm.Output(t, runtime, "--version"))
			}
			if !strings.HasPrefix(vm.Release, version+".") {
				t.Errorf("release %s, want %s", vm.Release, version)
			}
			t.Run("commands", func(t *testing.T) { testCommands(t, vm) })
			t.Run("mounts", func(t *testing.T) { testMounts(t, vm) })
			t.Run("sockets", func(t *testing.T) { testSockets(t, vm, binaries) })
			t.Run("containers", func(t *testing.T) { testContainers(t, vm, binaries) })
			t.Run("host root", func(t *testing.T) { testHostRoot(t, vm) })
			t.Run("apparmor", func(t *testing.T) { testAppArmor(t, vm, binaries) })
			t.Run("routes", func(t *testing.T) { testRoutes(t, vm) })
			t.Run("inherited", func(t *testing.T) { testInherited(t, vm) })
			t.Run("workload", func(t *testing.T) { testWorkload(t, vm) })
			t.Run("clients", func(t *testing.T) { testClients(t, vm, binaries) })
			t.Run("apparmor routes", func(t *testing.T) { testAppArmorRoutes(t, vm) })
			t.Run("grant", func(t *testing.T) { testGrant(t, vm) })
			t.Run("panic", func(t *testing.T) { testPanic(t, vm) })
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
		{"time-out", Command{Args: []string{"sh", "-c", "echo so far; sleep 60 & wait"}, Timeout: time.Second},
			Result{Stdout: []byte("so far\n"), Exit: 128 + 9, Signal: "SIGKILL", TimedOut: true}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := vm.Command(t, tt.c)
			if took := got.Took; took > 40*time.Second {
				t.Errorf("took %v", took)
			}
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
	got := map[string]string{}
	for line := range strings.Lines(vm.Output(t, "cat", "/proc/self/mounts")) {
		f := strings.Fields(line)
		if _, ok := want[f[1]]; ok {
			got[f[1]] = f[2]
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	lsms := strings.Split(vm.Output(t, "cat", "/sys/kernel/security/lsm"), ",")
	for _, lsm := range []string{"apparmor", "bpf"} {
		if !slices.Contains(lsms, lsm) {
			t.Errorf("LSMs %v, want %s among them", lsms, lsm)
		}
	}
	vm.Output(t, "ip", "-6", "route", "get", "::1")
}

// allOpen is what the client prints for AF_UNIX, AF_ALG and a family that no
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

// testPanic comes last: a machine that dies is an error for every command
// from then on, never a result.
func testPanic(t *testing.T, vm *VM) {
	_, err := vm.Do(t.Context(), Command{Args: []string{"sh", "-c", "echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger"}})
	if err == nil || !strings.Contains(err.Error(), "Kernel panic - not syncing: sysrq triggered crash") {
		t.Errorf("got %v", err)
	}
	if _, again := vm.Do(t.Context(), Command{Args: []string{"true"}}); again == nil {
		t.Error("a command ran in a dead machine")
	}
}
