//go:build vm

package vmtest

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// bluetoothScript starts bluetoothd, and lists the adapters that it offers to
// others over the bus.
const bluetoothScript = `/usr/libexec/bluetooth/bluetoothd -n >/run/bluetoothd.log 2>&1 &
for n in $(seq 60); do
	bluetoothctl list >/run/adapters 2>/dev/null </dev/null && [ $(grep -c Controller /run/adapters) -ge 1 ] && break
	sleep .5
done
cat /run/adapters
kill $!
wait $!
while pidof bluetoothd >/dev/null; do sleep .2; done
cat /run/bluetoothd.log >&2`

// TestLongBluetooth runs bluetoothd with simulated adapters. There are two,
// since a slow machine loses the first: it does not answer in time.
func TestLongBluetooth(t *testing.T) {
	t.Parallel()
	vm := Boot(t, "6.12", Options{Counted: true}) // the adapters answer in time
	vm.WriteFile(t, policyPath, withoutUnits(t, "bluetooth"), 0o644)
	vm.Output(t, "sh", "-c", `modprobe hci_vhci && mkdir -p /run/dbus && dbus-daemon --system --fork
btvirt -l2 >/run/btvirt.log 2>&1 &`)
	start := func(policy string, grants ...string) (Result, []string, []string) {
		return decisions(t, vm, policy, grants, bluetoothScript)
	}
	adapters := func(r Result) int { return strings.Count(string(r.Stdout), "Controller ") }
	r, allowed, denied := start(policyPath, "bluetoothd")
	if want := []string{"hash:cmac(aes)", "skcipher:ecb(aes)"}; adapters(r) == 0 || !slices.Equal(allowed, want) || len(denied) > 0 {
		t.Errorf("exit status %d, %d adapters, allowed %q, denied %q\n%s", r.Exit, adapters(r), allowed, denied, both(r))
	}
	r, allowed, denied = start("builtin:baseline")
	if adapters(r) == 0 || len(allowed) > 0 || len(denied) == 0 {
		t.Errorf("closed: exit status %d, %d adapters, allowed %q, denied %q\n%s", r.Exit, adapters(r), allowed, denied, both(r))
	}
	t.Run("kernel half", func(t *testing.T) {
		for _, c := range []struct {
			policy  string
			allowed bool
		}{{policyPath, true}, {"builtin:baseline", false}} {
			loadInKernel(t, vm, c.policy)
			r := vm.Command(t, Command{Args: []string{"sh", "-c", bluetoothScript}, Timeout: 5 * time.Minute})
			uses := vm.Output(t, program(t), "lsm", "learn", "--paths")
			computes := strings.Contains(uses, "cmac(aes)") && strings.Contains(uses, "ecb(aes)")
			if adapters(r) == 0 || computes != c.allowed {
				t.Errorf("%s: exit status %d, %d adapters, uses\n%s\n%s", c.policy, r.Exit, adapters(r), uses, both(r))
			}
			vm.Output(t, program(t), "lsm", "unload")
		}
	})
}
