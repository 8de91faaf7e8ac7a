//go:build vm

package vmtest

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"regexp"
	"strings"
	"testing"
)

var (
	firstPolicy = regexp.MustCompile("(?s)```yaml\n(version: 1\n.*?)```")
	runCommand  = regexp.MustCompile(`(?m)^afalg-policy (run policy\.yaml .*?)( +# fails)?$`)
)

// testReadme follows the README, on the system that it asks for: its policy,
// and the commands that it runs under the broker.
func testReadme(t *testing.T, vm *VM) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	policy, commands := firstPolicy.FindSubmatch(readme), runCommand.FindAllSubmatch(readme, -1)
	if policy == nil || len(commands) != 2 {
		t.Fatalf("a policy: %t, %d commands", policy != nil, len(commands))
	}
	vm.WriteFile(t, "/run/readme/policy.yaml", policy[1], 0o644)
	sum := sha256.Sum256([]byte(vm.Output(t, "cat", "/etc/debian_version") + "\n"))
	for _, c := range commands {
		r := vm.Run(t, "sh", "-c", "cd /run/readme && "+program(t)+" "+string(c[1]))
		got, fails := strings.TrimSpace(string(r.Stdout)), len(c[2]) > 0
		if (r.Exit != 0) != fails || (got == hex.EncodeToString(sum[:])) == fails {
			t.Errorf("%s: exit status %d, %s\n%s", c[1], r.Exit, got, r.Stderr)
		}
	}
}
