//go:build vm

package vmtest

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/testing/machine"
)

const lsmList = "/sys/kernel/security/lsm"

// proberRoutes has the machine's routes as the prober finds them, compiled for each
// of its ABIs. It leaves undecided what only a program of the other can ask.
var proberRoutes = map[string]map[string]string{
	"arm64": {
		"socket": "open", "socket-highbits": "open", "io_uring": "open", "socketpair": "open", "inherited": "closed",
		"compat-socket": "undecided  ", "compat-socketcall": "unavailable  ", "x32-socket": "unavailable  ",
	},
	"arm": {
		"socket": "undecided  ", "socket-highbits": "undecided  ", "io_uring": "open", "socketpair": "open", "inherited": "closed",
		"compat-socket": "open", "compat-socketcall": "unavailable  ", "x32-socket": "unavailable  ",
	},
}

// TestLongARM64 looks at the machine of the other architecture: whether it is
// one, has what BPF needs, and computes through AF_ALG.
func TestLongARM64(t *testing.T) {
	t.Parallel()
	programs := map[string][]byte{"digest": arm64Program(t, "arm64", "build", "../../testdata/vm/digest")}
	for goarch := range proberRoutes {
		programs["prober-"+goarch] = arm64Program(t, goarch, "test", "-c", "../probe")
	}
	vm := Boot(t, "6.12", Options{ARM64: true, Append: "lsm=landlock,lockdown,yama,apparmor,bpf"})
	t.Logf("%s booted in %v", vm.Release, vm.Booted.Round(time.Millisecond))
	for name, data := range programs {
		vm.WriteFile(t, "/bin/"+name, data, 0o755)
	}
	t.Run("kernel", func(t *testing.T) {
		if !strings.HasPrefix(vm.Release, "6.12.") || !strings.HasSuffix(vm.Release, "-arm64") {
			t.Errorf("release %s", vm.Release)
		}
		// A kernel that preempts says so; under one that does not, fmod_ret may be used.
		if version := string(vm.ReadFile(t, "/proc/version")); strings.Contains(version, "PREEMPT") {
			t.Errorf("the kernel preempts: %s", version)
		}
		// The kernel adds the ones that are always first or last.
		if got := string(vm.ReadFile(t, lsmList)); got != "lockdown,capability,landlock,yama,apparmor,bpf,ima,evm" {
			t.Errorf("LSMs %s", got)
		}
		if magic := []byte{0x9f, 0xeb}; !bytes.HasPrefix(vm.ReadFile(t, "/sys/kernel/btf/vmlinux"), magic) {
			t.Error("the kernel does not describe its types")
		}
	})
	t.Run("mounts", func(t *testing.T) {
		compareMounts(t, vm, map[string]string{
			"/": "tmpfs", "/tmp": "tmpfs", "/proc": "proc", "/sys": "sysfs", "/sys/kernel/security": "securityfs",
			"/sys/fs/bpf": "bpf", "/sys/fs/cgroup": "cgroup2",
		})
	})
	t.Run("digest", func(t *testing.T) {
		r := vm.Command(t, Command{Args: []string{"digest"}, Stdin: []byte("abc")})
		if want := fmt.Sprintf("%x\n", sha256.Sum256([]byte("abc"))); string(r.Stdout) != want {
			t.Errorf("exit status %d, want %s%s%s", r.Exit, want, r.Stdout, r.Stderr)
		}
	})
	for goarch, want := range proberRoutes {
		t.Run("routes of "+goarch, func(t *testing.T) {
			r := vm.Run(t, "prober-"+goarch, "probe")
			if d := cmp.Diff(want, routesOf(t, r)); d != "" {
				t.Errorf("-want +got:\n%s\n%s", d, r.Stdout)
			}
		})
	}
}

func arm64Program(t *testing.T, goarch, command string, args ...string) []byte {
	t.Helper()
	data, err := machine.Program(goarch, command, args...)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
