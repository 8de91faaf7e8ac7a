//go:build vm

package vmtest

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

// unitsOfRule matches the condition that limits a rule of a shipped policy to a
// unit.
var unitsOfRule = regexp.MustCompile(`(?m)^    units:.*\n(      - .*\n)*`)

// withoutUnits is a shipped policy for a machine without systemd, as its head
// says.
func withoutUnits(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile("../../policies/" + name + ".yaml")
	if err != nil {
		t.Fatal(err)
	}
	return unitsOfRule.ReplaceAll(data, nil)
}

const wifiScript = "/run/wifi.sh"

// bootWifi boots a machine with two radios.
func bootWifi(t *testing.T, o Options) *VM {
	t.Helper()
	o.Counted = true // timers of 802.11 and of the handshakes
	vm := Boot(t, "6.12", o)
	script, err := os.ReadFile("../../testdata/vm/wifi.sh")
	if err != nil {
		t.Fatal(err)
	}
	vm.WriteFile(t, wifiScript, script, 0o644)
	vm.Output(t, "bash", wifiScript, "prepare")
	return vm
}

// associate returns the result of iwd in a network.
func associate(t *testing.T, vm *VM, network string, run ...string) (result, log string) {
	t.Helper()
	args := append([]string{"bash", wifiScript, "associate", network, program(t), "run"}, run...)
	r := vm.Command(t, Command{Args: append(args, "--"), Timeout: 10 * time.Minute})
	if r.Exit != 0 {
		t.Fatalf("%s: exit status %d\n%s", network, r.Exit, both(r))
	}
	return strings.TrimSpace(string(r.Stdout)), string(r.Stderr)
}

// joins has a station try again, as people do: handshakes have timers, which
// expire on a machine that is busy with others.
func joins(t *testing.T, try func() (result, log string)) {
	t.Helper()
	for n := range 5 {
		got, log := try()
		if got == "authorized" {
			return
		}
		t.Logf("try %d: %s\n%s", n+1, got, log)
	}
	t.Error("it never joined")
}

// TestLongWifi has iwd join networks under builtin:iwd, each with an algorithm of
// its own.
func TestLongWifi(t *testing.T) {
	t.Parallel()
	vm := bootWifi(t, Options{})
	vm.WriteFile(t, policyPath, withoutUnits(t, "iwd"), 0o644)
	for _, network := range []string{"psk", "sae", "gcm", "cbc", "ttls", "peap"} {
		t.Run(network, func(t *testing.T) {
			joins(t, func() (string, string) { return associate(t, vm, network, policyPath, "--grant", "iwd") })
		})
	}
	// The list of Linux 7.3 lacks gcm(aes).
	t.Run("linux-7.3", func(t *testing.T) {
		joins(t, func() (string, string) {
			return associate(t, vm, "psk", "builtin:linux-7.3", "--grant", "linux-privileged", "--grant", "linux-unprivileged")
		})
		got, log := associate(t, vm, "gcm", "builtin:linux-7.3", "--grant", "linux-privileged", "--grant", "linux-unprivileged")
		if got != "refused" || !strings.Contains(log, "eapFail") {
			t.Errorf("gcm: %s\n%s", got, log)
		}
	})
	t.Run("no grant", func(t *testing.T) {
		got, log := associate(t, vm, "psk", policyPath)
		if got != "refused" || !strings.Contains(log, "The following options are missing in the kernel") {
			t.Errorf("%s\n%s", got, log)
		}
	})
	t.Run("learned", func(t *testing.T) { testLearnedWifi(t, vm) })
}

// testLearnedWifi learns the policy for a network, and joins it under that.
// Algorithms that iwd requires at its start, and does not use there, are in a
// comment.
func testLearnedWifi(t *testing.T, vm *VM) {
	const learned = "/run/learned.yaml"
	joins(t, func() (string, string) { return associate(t, vm, "psk", "builtin:baseline", "--learn", learned) })
	text := string(vm.ReadFile(t, learned))
	head, rules, _ := strings.Cut(text, "\nversion: 1\n")
	for _, probed := range []string{"aead:gcm(aes)", "hash:hmac(md4)", "skcipher:cbc(des3_ede)"} {
		if !strings.Contains(head, "# - "+probed+` by "/usr/libexec/iwd"`) {
			t.Errorf("%s is no comment", probed)
		}
	}
	if !strings.Contains(rules, "ecb(aes)") || strings.Contains(rules, "des") || strings.Contains(rules, "aead") {
		t.Errorf("learned\n%s", text)
	}
	t.Log(text)
}
