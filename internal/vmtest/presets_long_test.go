//go:build vm

package vmtest

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
)

// decision has the fields in use of a line in the broker's log.
type decision struct{ Executable, Algorithm, Verdict string }

const decisionsPath = "/run/decisions"

// decisions runs a script under a shipped policy, and returns the allowed
// algorithms and the denied ones, sorted.
func decisions(t *testing.T, vm *VM, policy string, grants []string, script string) (r Result, allowed, denied []string) {
	t.Helper()
	vm.Run(t, "rm", "-f", decisionsPath)
	args := []string{program(t), "run", policy, "--log", decisionsPath}
	for _, g := range grants {
		args = append(args, "--grant", g)
	}
	r = vm.Command(t, Command{Args: append(args, "--", "sh", "-c", script), Timeout: 5 * time.Minute})
	for line := range strings.Lines(string(vm.Run(t, "cat", decisionsPath).Stdout)) {
		var d decision
		if err := json.Unmarshal([]byte(line), &d); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		list := &denied
		if d.Verdict == "allowed" {
			list = &allowed
		}
		if !slices.Contains(*list, d.Algorithm) {
			*list = append(*list, d.Algorithm)
		}
	}
	slices.Sort(allowed)
	slices.Sort(denied)
	return r, allowed, denied
}

// charonScript starts strongSwan's daemon, and asks it which plugin computes.
const charonScript = `charon-systemd >/run/charon.log 2>&1 &
for n in $(seq 120); do
	swanctl --list-algs >/run/algs 2>/run/swanctl.log && break
	sleep .5
done
cat /run/algs
kill $!
wait $!
[ -s /run/algs ] || cat /run/charon.log /run/swanctl.log >&2`

// TestLongPresets runs programs of Debian under the policies that name them, and
// with AF_ALG closed.
func TestLongPresets(t *testing.T) {
	t.Parallel()
	vm := Boot(t, "6.12", Options{})
	vm.WriteFile(t, policyPath, withoutUnits(t, "strongswan"), 0o644)
	vm.Output(t, "modprobe", "-a", "xfrm_user", "af_key")
	vm.Output(t, "sh", "-c", "mkdir /run/links && cd /run/links && seq 1000 >a && cp -p a b && cp -p a c")
	for _, test := range []struct {
		name, policy, grants, script string
		allowed                      []string // some of them
		says, closed                 string   // part of what it says
	}{
		{"openssl", "builtin:openssl-afalg", "openssl-afalg",
			"openssl enc -engine afalg -e -aes-128-cbc -K 00112233445566778899aabbccddeeff -iv 00112233445566778899aabbccddeeff -in /etc/debian_version | od -An -tx1",
			[]string{"skcipher:cbc(aes)"}, "", ""},
		{"hardlink", "builtin:hardlink", "hardlink", "hardlink -n -v /run/links", []string{"hash:sha256"}, "sha256", "memcmp"},
		{"hardlink by crc32c", "builtin:hardlink", "hardlink", "hardlink -n -v -y crc32 /run/links", []string{"hash:crc32c"}, "crc32", "memcmp"},
		{"pki", "builtin:strongswan", "strongswan-tools", "pki --gen --type ecdsa --size 256 | wc -c",
			[]string{"hash:hmac(sha256)", "hash:xcbc(camellia)"}, "", ""}, // the log leaves out some of so many
		{"charon", policyPath, "strongswan strongswan-tools", charonScript, []string{"hash:hmac(sha256)"}, "[af-alg]", "HMAC_SHA2_256"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, allowed, denied := decisions(t, vm, test.policy, strings.Fields(test.grants), test.script)
			if r.Exit != 0 || !strings.Contains(both(r), test.says) || len(denied) != 0 {
				t.Errorf("exit status %d, denied %q\n%s", r.Exit, denied, both(r))
			}
			for _, a := range test.allowed {
				if !slices.Contains(allowed, a) {
					t.Errorf("%s was not asked for, only %q", a, allowed)
				}
			}
			r, allowed, denied = decisions(t, vm, test.policy, nil, test.script)
			if r.Exit != 0 || !strings.Contains(both(r), test.closed) || len(allowed) != 0 || len(denied) == 0 {
				t.Errorf("closed: exit status %d, allowed %q, denied %q\n%s", r.Exit, allowed, denied, both(r))
			}
		})
	}
}
