//go:build vm

package vmtest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/hostfacts"
)

// hostPolicy closes what can be closed for a whole host, and keeps a type.
const hostPolicy = `version: 1
name: host
deny:
  presets: [page-cache]
  families: [AF_TIPC, AF_PACKET]
  user-namespaces: true
allow:
  - rule: hasher
    users: [root]
    algorithms: {hash: [hmac(sha512)]}
`

// hostAsk says of each type, family and protocol what the kernel answers. Debian's
// kernels load neither RDS nor TIPC on demand.
const hostAsk = `
import errno, socket, subprocess
def ask(name, f):
    try:
        print(name, f() or "open")
    except OSError as e:
        print(name, errno.errorcode[e.errno])
def bound(type, name):
    s = socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET)
    s.bind((type, name))
    return s
def digest():
    s = bound("hash", "hmac(sha512)")
    s.setsockopt(socket.SOL_ALG, socket.ALG_SET_KEY, b"key")
    o, _ = s.accept()
    o.sendall(b"text")
    return o.recv(64).hex()[:8]
def none(f):
    f.close()
for type, name in ("aead", "gcm(aes)"), ("rng", "stdrng"), ("skcipher", "cbc(aes)"):
    ask(type, lambda: none(bound(type, name)))
ask("hash", digest)
for module in "rds", "tipc":
    subprocess.run(["modprobe", "--quiet", module])
for name, family, type, protocol in (("RXRPC", 33, 2, 2), ("KEY", 15, 3, 2), ("XFRM", 16, 3, 6), ("RDS", 21, 5, 0),
        ("TIPC", 30, 5, 0), ("PACKET", 17, 3, 0), ("ROUTE", 16, 3, 0)):
    ask(name, lambda: none(socket.socket(family, type, protocol)))
print("userns", "open" if subprocess.run(["unshare", "--user", "true"], stderr=subprocess.DEVNULL).returncode == 0 else "closed")
`

// hostOpen is the answer without settings, except for what the kernel was told at boot:
// packet_init is built in, and rng_init is in a module.
const hostOpen = `aead open
rng ENOENT
skcipher open
hash b585312a
RXRPC open
KEY open
XFRM open
RDS open
TIPC open
PACKET EAFNOSUPPORT
ROUTE open
userns open
`

const hostClosed = `aead ENOENT
rng ENOENT
skcipher ENOENT
hash b585312a
RXRPC EAFNOSUPPORT
KEY EAFNOSUPPORT
XFRM EPROTONOSUPPORT
RDS EAFNOSUPPORT
TIPC EAFNOSUPPORT
PACKET EAFNOSUPPORT
ROUTE open
userns closed
`

const hostUnload = "modprobe -r algif_aead algif_rng algif_skcipher algif_hash rxrpc af_key xfrm_user rds tipc && modprobe -r af_alg"

// TestLongHost installs the settings of a host on each kernel: what they claim to
// close is closed, what they leave works, and uninstall brings everything back.
func TestLongHost(t *testing.T) {
	t.Parallel()
	for _, version := range Kernels() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			vm := Boot(t, version, Options{Append: "initcall_blacklist=packet_init,rng_init"})
			vm.Output(t, "install", "-D", program(t), installed)
			vm.WriteFile(t, "/etc/afalg-policy/host.yaml", []byte(hostPolicy), 0o644)
			before := hostSnapshot(t, vm)
			hostAnswers(t, vm, "before", hostOpen)
			vm.Output(t, "sh", "-c", hostUnload)

			vm.Output(t, installed, "install", "host", "--policy", "/etc/afalg-policy/host.yaml", "--accept", "hasher")
			hostAnswers(t, vm, "installed", hostClosed)
			hostStatus(t, vm, "installed", "yes", "")
			t.Run("root goes round", func(t *testing.T) { testHostRound(t, vm) })

			vm.Output(t, installed, "uninstall", "host")
			hostAnswers(t, vm, "uninstalled", hostOpen)
			if diff := cmp.Diff(before, hostSnapshot(t, vm)); diff != "" {
				t.Errorf("after uninstall (-before +after):\n%s", diff)
			}
		})
	}
}

// testHostRound does what the files say that they leave open, and status must see it.
// What the kernel was told at boot is not to be gone round.
func testHostRound(t *testing.T, vm *VM) {
	if r := vm.Run(t, "modprobe", "algif_aead"); r.Exit == 0 {
		t.Error("modprobe loads algif_aead")
	}
	if r := vm.Run(t, "modprobe", "--ignore-install", "algif_rng"); r.Exit == 0 {
		t.Error("a module is loaded of which the kernel was told not to set it up")
	}
	vm.Output(t, "modprobe", "--ignore-install", "algif_aead")
	hostStatus(t, vm, "loaded by root", "no", "algif_aead is loaded")
	vm.Output(t, "modprobe", "-r", "algif_aead")
	vm.WriteFile(t, "/etc/modprobe.d/00-a.conf", []byte("install algif_aead /sbin/modprobe --ignore-install algif_aead\n"), 0o644)
	hostStatus(t, vm, "an earlier file", "no", "modprobe would load algif_aead")
	vm.Output(t, "rm", "/etc/modprobe.d/00-a.conf")
	vm.Output(t, "modprobe", "-r", "algif_aead")
	vm.Output(t, "sysctl", "-w", "user.max_user_namespaces=10")
	hostStatus(t, vm, "a sysctl", "no", "user.max_user_namespaces is 10 and not 0")
	vm.Output(t, "sysctl", "-w", "user.max_user_namespaces=0")
	hostStatus(t, vm, "mended", "yes", "")
}

func hostAnswers(t *testing.T, vm *VM, when, want string) {
	t.Helper()
	if diff := cmp.Diff(want, vm.Output(t, "python3", "-c", hostAsk)+"\n"); diff != "" {
		t.Errorf("%s (-want +got):\n%s", when, diff)
	}
}

func hostSnapshot(t *testing.T, vm *VM) string {
	t.Helper()
	return vm.Output(t, "sh", "-c", `find /etc/modprobe.d /etc/sysctl.d /etc/udev /etc/afalg-policy /etc/default /var/lib/afalg-policy -printf '%p %y %m %l %T@\n' 2>/dev/null | grep -v ' d ' | sort; sysctl user.max_user_namespaces kernel.unprivileged_userns_clone`)
}

func hostStatus(t *testing.T, vm *VM, when, active, reason string) {
	t.Helper()
	r := vm.Run(t, installed, "status", "host", "--json")
	var report struct {
		Platforms []struct {
			Installed, Active, Probed string
			Reasons                   []string
		}
	}
	if err := json.Unmarshal(r.Stdout, &report); err != nil || len(report.Platforms) != 1 {
		t.Fatalf("%s: exit status %d: %v\n%s%s", when, r.Exit, err, r.Stdout, r.Stderr)
	}
	got := report.Platforms[0]
	if told := strings.Join(got.Reasons, "; "); got.Installed != "yes" || got.Active != active || !strings.Contains(told, reason) || (active == "yes") != (r.Exit == 0) {
		t.Errorf("%s: exit status %d, %+v, want active %s: %q", when, r.Exit, got, active, reason)
	}
}

// TestKernelFacts reads Debian's kernels as an image: their texts agree.
func TestKernelFacts(t *testing.T) {
	for _, version := range Kernels() {
		k, err := findKernel(version, amd64)
		if err != nil {
			t.Fatal(err)
		}
		f, err := hostfacts.Read(filepath.Dir(filepath.Dir(k.image)), hostfacts.Given{})
		if err != nil {
			t.Fatal(err)
		}
		if !f.Complete || f.Config["KALLSYMS"] != "y" || f.Contradictions != nil || f.Unread != nil || !strings.HasPrefix(f.Version.String(), version) {
			t.Errorf("%s: %s, complete %v, %q, %q", version, f.Version, f.Complete, f.Contradictions, f.Unread)
		}
		for module, want := range map[string]hostfacts.Presence{"af_packet": hostfacts.Builtin, "algif_aead": hostfacts.Module, "rds": hostfacts.Module, "mctp": hostfacts.Absent} {
			if got := f.Presence(module); got != want {
				t.Errorf("%s: %s is %q, want %q", version, module, got, want)
			}
		}
	}
}

// hostFiles are the settings of a policy for any host, where an initramfs keeps them.
func hostFiles(t *testing.T, policy string, flags ...string) map[string][]byte {
	t.Helper()
	out := t.TempDir()
	generate(t, append([]string{"host", policy, "-o", out}, flags...)...)
	name := "etc/modprobe.d/00-afalg-policy.conf"
	data, err := os.ReadFile(filepath.Join(out, name))
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{name: data}
}
