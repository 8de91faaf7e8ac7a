//go:build vm

package vmtest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	agentSocket = "/run/afalg-policy/agent.sock"
	agentPolicy = "/etc/afalg-policy/policy.yaml"
	agentLog    = "/run/agent.log"
)

// containerPolicy allows one algorithm to one binary. A container needs its
// digest.
func containerPolicy(t *testing.T) []byte {
	t.Helper()
	return fmt.Appendf(nil, `version: 1
name: containers
allow:
  - rule: digest
    binaries:
      - path: /usr/bin/kcapi-dgst
        sha256: %q
    algorithms:
      hash: ["hmac(sha512)"]
  - rule: by-path
    binaries:
      - path: /usr/bin/kcapi-dgst
    algorithms:
      hash: [sha256]
  - rule: everything
    anyone: true
    algorithms: {hash: ["*"], skcipher: ["*"], aead: ["*"], rng: ["*"]}
`, digestOf(t, "/usr/bin/kcapi-dgst"))
}

func digestOf(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// agentProfile is a profile that goes with the agent.
func agentProfile(t *testing.T, flags ...string) []byte {
	t.Helper()
	policy := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(policy, containerPolicy(t), 0o600); err != nil {
		t.Fatal(err)
	}
	return generate(t, append([]string{"seccomp", policy, "--broker", agentSocket}, flags...)...)
}

// A container's uses of AF_ALG, line by line.
const (
	inContainer = `printf key | kcapi-dgst -c 'hmac(sha512)' --keyfd 0 --hex -i /etc/debian_version 2>&1
kcapi-dgst -c sha256 --hex -i /etc/debian_version 2>&1
cp /usr/bin/kcapi-dgst /tmp/other && printf key | /tmp/other -c 'hmac(sha512)' --keyfd 0 --hex -i /etc/debian_version 2>&1
true`
	noSocket = "libkcapi - Error: AF_ALG: socket syscall failed (errno: -97)\n"
	noBind   = "libkcapi - Error: AF_ALG: bind failed (errno: -2)\n"
)

// said is the output of inContainer.
func said(t *testing.T, vm *VM, granted bool) string {
	if granted {
		return wantDigest(t, vm) + noBind + noSocket // without a newline
	}
	return noSocket + noSocket + noSocket
}

// TestLongAgent has containers ask the agent, the real clients among them.
func TestLongAgent(t *testing.T) {
	t.Parallel()
	for _, version := range Kernels() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			vm := Boot(t, version, Options{})
			vm.WriteFile(t, agentPolicy, containerPolicy(t), 0o644)
			startAgent(t, vm, realAgent(t))
			prepareClients(t, vm)
			root := vm.HostRoot(t)
			for _, runtime := range Runtimes() {
				t.Run(runtime, func(t *testing.T) { testAgentRuntime(t, vm, runtime, root) })
			}
			t.Run("clients", func(t *testing.T) { testAgentClients(t, vm, root) })
			t.Run("log", func(t *testing.T) { testAgentLog(t, vm) })
			t.Run("down", func(t *testing.T) { testAgentDown(t, vm, root) })
			if t.Failed() {
				t.Logf("%s", vm.Run(t, "cat", "/run/agent.out").Stdout)
			}
		})
	}
}

// startAgent starts an agent by hand, or a stand-in for one, and waits until it
// listens.
func startAgent(t *testing.T, vm *VM, command string) {
	t.Helper()
	vm.Output(t, "sh", "-c", "rm -f "+agentSocket+"; mkdir -p /run/afalg-policy; "+command+" >/run/agent.out 2>&1 </dev/null & echo $! >/run/agent.pid; "+
		"until [ -S "+agentSocket+" ]; do kill -0 $! || { cat /run/agent.out >&2; exit 1; }; sleep .1; done")
}

func realAgent(t *testing.T) string {
	return program(t) + " agent " + agentPolicy + " --listen " + agentSocket + " --log " + agentLog
}

func testAgentRuntime(t *testing.T, vm *VM, runtime, root string) {
	for _, c := range []struct {
		name    string
		granted bool
		flags   []string
	}{
		{"without", false, nil},
		{"with", true, []string{"--grant", "digest", "--grant", "by-path"}},
		{"base none", true, []string{"--grant", "digest", "--base", "none"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := vm.Container(t, Container{Runtime: runtime, Rootfs: root, Seccomp: agentProfile(t, c.flags...), Args: []string{"sh", "-c", inContainer}})
			if d := cmp.Diff(said(t, vm, c.granted), string(r.Stdout)); d != "" || r.Exit != 0 {
				t.Errorf("exit status %d, -want +got:\n%s\n%s", r.Exit, d, r.Stderr)
			}
		})
	}
}

// testAgentClients runs the real clients in containers, and compares their
// output with that outside. iwd goes as far as it can without a bus.
func testAgentClients(t *testing.T, vm *VM, root string) {
	var script strings.Builder
	for _, c := range clientsOfALG {
		if c.only == "" {
			fmt.Fprintf(&script, "echo == %q\n( %s ) 2>&1\n", c.name, c.script)
		}
	}
	direct := vm.Command(t, Command{Args: []string{"sh", "-c", script.String()}, Timeout: 4 * time.Minute})
	profile := agentProfile(t, "--grant", "everything")
	for _, runtime := range Runtimes() {
		r := vm.Container(t, Container{
			Runtime: runtime, Rootfs: root, Seccomp: profile, Args: []string{"sh", "-c", script.String()}, Timeout: 4 * time.Minute,
		})
		if d := cmp.Diff(string(direct.Stdout), string(r.Stdout)); d != "" {
			t.Errorf("%s, -outside +inside:\n%s\n%s", runtime, d, r.Stderr)
		}
	}
}

// testAgentLog looks for the decisions about the earlier containers.
func testAgentLog(t *testing.T, vm *VM) {
	type line struct{ Container, Executable, SHA256, Algorithm, Verdict, Rule, Reason string }
	found := map[string]bool{}
	for text := range strings.Lines(string(vm.Run(t, "cat", agentLog).Stdout)) {
		var l line
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		if l.Verdict != "" && l.Container == "" {
			t.Errorf("a decision about no container: %s", text)
		}
		found[strings.Join([]string{l.Verdict, l.Algorithm, l.Rule, l.Executable}, " ")] = true
	}
	for _, want := range []string{
		"allowed hash:hmac(sha512) digest /usr/bin/kcapi-dgst",
		"denied hash:sha256  /usr/bin/kcapi-dgst",
		"denied   /tmp/other",
	} {
		if !found[want] {
			t.Errorf("no line %q in the log; there are %v", want, found)
		}
	}
}

// testAgentDown shows that a container does not start without its agent.
func testAgentDown(t *testing.T, vm *VM, root string) {
	vm.Output(t, "sh", "-c", "kill -KILL $(cat /run/agent.pid)")
	for _, runtime := range Runtimes() {
		r := vm.Container(t, Container{Runtime: runtime, Rootfs: root, Seccomp: agentProfile(t, "--grant", "digest"), Args: []string{"echo", "up"}})
		if r.Exit == 0 || len(r.Stdout) > 0 {
			t.Errorf("%s started a container without the agent: exit status %d %s", runtime, r.Exit, r.Stdout)
		}
	}
}
