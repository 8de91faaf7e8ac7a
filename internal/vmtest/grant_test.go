//go:build vm

package vmtest

import (
	"crypto/hmac"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
)

// digest has kcapi-dgst, a real client of AF_ALG, compute the hmac(sha512) of a
// file, as the FIPS integrity check does.
const digest = `printf key | kcapi-dgst -c 'hmac(sha512)' --keyfd 0 --hex -i /etc/debian_version`

// wantDigest is the output of digest where AF_ALG is allowed.
func wantDigest(t testing.TB, vm *VM) string {
	t.Helper()
	mac := hmac.New(sha512.New, []byte("key"))
	fmt.Fprintln(mac, vm.Output(t, "cat", "/etc/debian_version"))
	return hex.EncodeToString(mac.Sum(nil))
}

// testGrant runs the workload of the fips policy, with the grant and without.
func testGrant(t *testing.T, vm *VM) {
	want := wantDigest(t, vm)
	root := vm.HostRoot(t)
	tests := []struct {
		name    string
		profile []byte
		granted bool
	}{
		{"without", generate(t, "seccomp", "builtin:fips"), false},
		{"with", granted(t), true},
	}
	for _, c := range tests {
		for _, runtime := range Runtimes() {
			t.Run(runtime+"/"+c.name, func(t *testing.T) {
				r := vm.Container(t, Container{Runtime: runtime, Rootfs: root, Seccomp: c.profile, Args: []string{"sh", "-c", digest}})
				got := strings.TrimSpace(string(r.Stdout))
				if (got == want) != c.granted || (r.Exit == 0) != c.granted {
					t.Errorf("granted: %t\nexit status %d\ngot  %s\nwant %s\n%s", c.granted, r.Exit, got, want, r.Stderr)
				}
			})
		}
	}
}
