//go:build vm

package vmtest

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// unlike has the answers of a parent directly, and of its placeholder under a
// broker. docs/run.md lists these: nothing else may differ.
var unlike = []string{
	"bind of 25 bytes: ENOENT, EINVAL",
	"bind of 28 bytes: ENOENT, EINVAL",
	"bind of 30 bytes: ENOENT, EINVAL",
	"bind of 31 bytes: 0, EINVAL",
	"bind of 64 bytes: 0, EINVAL",
	"bind of 87 bytes: 0, EINVAL",
	"bind of 89 bytes: 0, EINVAL",
	"bind of 110 bytes: 0, EINVAL",
	"bind of 127 bytes: 0, EINVAL",
	"bind of 128 bytes: 0, EINVAL",
	"bind of a name of 64 letters: ENOENT, EINVAL",
	"bind of a name of 86 letters: ENOENT, EINVAL",
	"bind of a name of 87 letters: ENOENT, EINVAL",
	"bind of a name of 103 letters: ENOENT, EINVAL",
	"SO_DOMAIN of the parent: 38, 1",
	"an option of another level: ENOPROTOOPT, ENOTSUP",
	"a key by serial: ENOKEY, ENOPROTOOPT",
	"getsockname: ENOTSUP, 0",
	"getpeername: ENOTSUP, 0",
	"listen: ENOTSUP, EINVAL",
	"connect: ENOTSUP, EINVAL",
	"accept with an address: ECONNABORTED, EINVAL",
	"accept4 with an address: ECONNABORTED, EINVAL",
	"poll: [], [5]",
	"send: ENOTSUP, EPIPE",
	"receive: ENOTSUP, b''",
	"write: ENOTSUP, EPIPE",
	"read, again: ENOTSUP, EAGAIN",
	"shutdown 0 of the parent: ENOTSUP, ok",
	"shutdown 1 of the parent: ENOTSUP, ok",
	"shutdown 2 of the parent: ENOTSUP, ok",
}

// TestLongFidelity compares a workload of a broker with a direct run, call by
// call.
func TestLongFidelity(t *testing.T) {
	t.Parallel()
	vm := Boot(t, "6.12", Options{})
	vm.WriteFile(t, policyPath, []byte(brokerPolicy), 0o644)
	for _, name := range []string{"parent", "shapes"} {
		data, err := os.ReadFile("../../testdata/vm/" + name + ".py")
		if err != nil {
			t.Fatal(err)
		}
		vm.WriteFile(t, "/run/"+name+".py", data, 0o644)
	}
	t.Run("parent", func(t *testing.T) {
		direct, under := bothWays(t, vm, "python3 /run/parent.py")
		if d := cmp.Diff(unlike, differences(direct, under)); d != "" {
			t.Errorf("other lines differ than are known:\n%s", d)
		}
	})
	t.Run("shapes", func(t *testing.T) {
		direct, under := bothWays(t, vm, "python3 /run/shapes.py")
		if d := cmp.Diff(direct, under); d != "" || len(direct) < 50 {
			t.Errorf("%d lines, -direct +brokered:\n%s", len(direct), d)
		}
		denied := lines(brokered(t, vm, policyPath, "hmac", "python3 /run/shapes.py"))
		for _, line := range denied {
			ok := strings.Contains(line, " ENOENT") || strings.HasPrefix(line, "01 ") && strings.Contains(line, "sha512") ||
				strings.HasPrefix(line, "01 key") || strings.HasPrefix(line, "07 ")
			if !ok {
				t.Errorf("with hmac(sha512) alone: %s", line)
			}
		}
		if len(denied) < 30 {
			t.Errorf("with hmac(sha512) alone: %q", denied)
		}
	})
}

// bothWays runs a script directly and with everything granted.
func bothWays(t *testing.T, vm *VM, script string) (direct, under []string) {
	t.Helper()
	d := vm.Run(t, "sh", "-c", script)
	b := brokered(t, vm, policyPath, "everything", script)
	if d.Exit != 0 || b.Exit != 0 {
		t.Fatalf("exit status %d and %d\n%s\n%s", d.Exit, b.Exit, both(d), both(b))
	}
	return lines(d), lines(b)
}

func lines(r Result) []string { return strings.Split(strings.TrimSpace(string(r.Stdout)), "\n") }

// differences joins the lines that differ: "name: direct, brokered".
func differences(direct, under []string) []string {
	if len(direct) != len(under) {
		return []string{fmt.Sprintf("%d lines directly, %d brokered:\n%s", len(direct), len(under), cmp.Diff(direct, under))}
	}
	list := []string{}
	for i, line := range direct {
		if line == under[i] {
			continue
		}
		name, answer, _ := strings.Cut(line, ": ")
		_, other, _ := strings.Cut(under[i], ": ")
		list = append(list, name+": "+answer+", "+other)
	}
	return list
}

// both is the output of a command.
func both(r Result) string { return string(r.Stdout) + string(r.Stderr) }
