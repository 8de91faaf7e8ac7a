//go:build vm

package vmtest

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
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
	programs := map[string][]byte{
		"digest":   arm64Program(t, "arm64", "build", "../../testdata/vm/digest"),
		"lsmload":  arm64Program(t, "arm64", "build", "../../testdata/vm/lsmload"),
		"lsm.test": arm64Program(t, "arm64", "test", "-c", "../lsm"),
	}
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
	t.Run("decisions", func(t *testing.T) {
		if r := vm.Run(t, "lsm.test", "-test.run", "^TestDecide$", "-test.short"); r.Exit != 0 {
			t.Errorf("%s%s", r.Stdout, r.Stderr)
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
	t.Run("guarded", func(t *testing.T) { askARM64Guard(t, vm, "lsm") })
}

// guardedRoutes is proberRoutes under a policy in the kernel. What each prober can
// ask is refused; a route of which the other one asks a part stays undecided.
func guardedRoutes(goarch string) map[string]string {
	guarded := maps.Clone(proberRoutes[goarch])
	for route, verdict := range guarded {
		switch {
		case verdict != "open":
		case route == "io_uring" || route == "socketpair":
			guarded[route] = "undecided  "
		default:
			guarded[route] = "EAFNOSUPPORT"
		}
	}
	return guarded
}

// askARM64Guard puts a policy in force in the kernel that allows one program
// here, and asks that, the prober and the kernel.
func askARM64Guard(t *testing.T, vm *VM, attachment string) {
	vm.WriteFile(t, "/policy.yaml", []byte(arm64Policy), 0o644)
	if got := vm.Output(t, "lsmload", "/policy.yaml"); got != attachment {
		t.Fatalf("attached by %s, want %s", got, attachment)
	}
	r := vm.Command(t, Command{Args: []string{"digest"}, Stdin: []byte("abc")})
	if want := fmt.Sprintf("%x\n", sha256.Sum256([]byte("abc"))); string(r.Stdout) != want {
		t.Errorf("the listed program: exit status %d, want %s%s%s", r.Exit, want, r.Stdout, r.Stderr)
	}
	for goarch := range proberRoutes {
		r := vm.Run(t, "prober-"+goarch, "probe")
		if d := cmp.Diff(guardedRoutes(goarch), routesOf(t, r)); d != "" {
			t.Errorf("%s: -want +got:\n%s\n%s", goarch, d, r.Stdout)
		}
		if bytes.Contains(r.Stdout, []byte(`"verdict":"open"`)) {
			t.Errorf("%s: some call is open\n%s", goarch, r.Stdout)
		}
	}
	var status struct {
		Faults []string
		Misses int
	}
	if err := json.Unmarshal([]byte(vm.Output(t, "lsmload", "status")), &status); err != nil || len(status.Faults) > 0 || status.Misses > 0 {
		t.Errorf("status %+v, %v", status, err)
	}
}

const arm64Policy = `version: 1
name: arm64
allow:
  - rule: digest
    binaries: [/bin/digest]
    algorithms: {hash: [sha256]}
`

func arm64Program(t *testing.T, goarch, command string, args ...string) []byte {
	t.Helper()
	data, err := machine.Program(goarch, command, args...)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
