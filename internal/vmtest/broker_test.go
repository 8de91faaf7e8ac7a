//go:build vm

package vmtest

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// brokerPolicy allows all to all, or one algorithm: other tests are about the
// binaries.
const brokerPolicy = `version: 1
name: clients
allow:
  - rule: everything
    anyone: true
    algorithms: {hash: ["*"], skcipher: ["*"], aead: ["*"], rng: ["*"]}
  - rule: hmac
    anyone: true
    algorithms: {hash: ["hmac(sha512)"]}
`

const policyPath = "/run/policy.yaml"

// client is a real program that uses AF_ALG.
type client struct {
	name, script string
	// vary matches what differs from run to run.
	vary *regexp.Regexp
	// denied is a part of its output when only hmac(sha512) is allowed, and
	// status its exit status then.
	denied string
	status int
	// only names a kernel: the slow ones are asked once.
	only string
}

var clientsOfALG = []client{
	{name: "kcapi-dgst hmac(sha512)", script: digest},
	{name: "kcapi-dgst sha256", script: "kcapi-dgst -c sha256 --hex -i /etc/debian_version",
		denied: "AF_ALG: bind failed (errno: -2)", status: 254},
	{name: "kcapi-enc", script: "echo a block of bytes! | kcapi-enc -e -c 'cbc(aes)' --pbkdfiter 1 -p pass -s aabb --iv 00112233445566778899aabbccddeeff | od -An -tx1; kcapi-enc --help >/dev/null 2>&1; true",
		denied: "AF_ALG: bind failed (errno: -2)"},
	{name: "kcapi-rng", script: "kcapi-rng -b 8 --hex | wc -c", denied: "AF_ALG: bind failed (errno: -2)"},
	{name: "hardlink", script: "mkdir -p /tmp/h$$; cd /tmp/h$$; seq 1000 >a; cp -p a b; hardlink -v . | grep Method; stat -c %h a",
		denied: "Method:                   memcmp"},
	{name: "cryptsetup benchmark", script: "cryptsetup benchmark -c aes-xts-plain64 -s 256", vary: regexp.MustCompile(` +[0-9.]+ MiB/s`),
		denied: "Cipher aes-xts-plain64 (with 256 bits key) is not available.", status: 1, only: "6.12"},
	{name: "stress-ng", script: "stress-ng --af-alg 1 --af-alg-ops 3 -t 5 2>&1 | grep -o 'successful run completed'",
		denied: "successful run completed", only: "6.12"},
	{name: "python", script: "python3 " + pythonClient, denied: "skcipher cbc(aes) ENOENT\n"},
	{name: "iwd", script: iwdScript, denied: "support found\n"},
}

// iwdScript starts iwd far enough to say which algorithms it misses, or that it
// is up.
const iwdScript = `/usr/libexec/iwd >/tmp/iwd.log 2>&1 &
until grep -m1 'version\|support found' /tmp/iwd.log; do
	kill -0 $! || break
	sleep .1
done
kill $! 2>/dev/null
wait`

const pythonClient = "/usr/local/lib/vmtest-client.py"

// pythonScript uses each type as Python's documentation does, and moves data by
// splice and sendfile as well.
const pythonScript = `import errno, os, socket

def ask(kind, name, use):
    try:
        with socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET) as parent:
            parent.bind((kind, name))
            print(kind, name, use(parent))
    except OSError as e:
        print(kind, name, errno.errorcode[e.errno])

def digest(parent):
    with parent.accept()[0] as op:
        op.sendall(b"abc")
        return op.recv(64).hex()

def keyed(parent):
    parent.setsockopt(socket.SOL_ALG, socket.ALG_SET_KEY, b"key")
    return digest(parent)

def spliced(parent):
    parent.setsockopt(socket.SOL_ALG, socket.ALG_SET_KEY, b"key")
    with parent.accept()[0] as op, open("/etc/debian_version", "rb") as f:
        r, w = os.pipe()
        n = os.splice(f.fileno(), w, 4)
        os.splice(r, op.fileno(), n)
        return op.recv(64).hex()

def sent(parent):
    parent.setsockopt(socket.SOL_ALG, socket.ALG_SET_KEY, b"key")
    with parent.accept()[0] as op, open("/etc/debian_version", "rb") as f:
        os.sendfile(op.fileno(), f.fileno(), 0, 4)
        return op.recv(64).hex()

def cipher(parent):
    parent.setsockopt(socket.SOL_ALG, socket.ALG_SET_KEY, b"k" * 16)
    with parent.accept()[0] as op:
        op.sendmsg_afalg([b"x" * 32], op=socket.ALG_OP_ENCRYPT, iv=b"i" * 16)
        return op.recv(32).hex()

def sealed(parent):
    parent.setsockopt(socket.SOL_ALG, socket.ALG_SET_KEY, b"k" * 16)
    parent.setsockopt(socket.SOL_ALG, socket.ALG_SET_AEAD_AUTHSIZE, None, 16)
    with parent.accept()[0] as op:
        op.sendmsg_afalg([b"a" * 8 + b"x" * 16], op=socket.ALG_OP_ENCRYPT, iv=b"i" * 12, assoclen=8)
        return op.recv(8 + 16 + 16).hex()

def random(parent):
    parent.setsockopt(socket.SOL_ALG, socket.ALG_SET_KEY, b"")
    with parent.accept()[0] as op:
        return len(op.recv(16))

ask("hash", "sha256", digest)
ask("hash", "hmac(sha512)", keyed)
ask("hash", "hmac(sha512)", spliced)
ask("hash", "hmac(sha512)", sent)
ask("skcipher", "cbc(aes)", cipher)
ask("aead", "gcm(aes)", sealed)
ask("rng", "stdrng", random)
ask("hash", "no-such-hash", digest)
`

// testClients runs the real clients under the broker.
func testClients(t *testing.T, vm *VM, version string) {
	prepareClients(t, vm)
	for _, c := range clientsOfALG {
		if c.only == "" || c.only == version {
			t.Run(c.name, func(t *testing.T) { testClient(t, vm, c) })
		}
	}
}

// prepareClients gives the clients what they need of a machine; the bus goes
// with the test, since later clients ask systemd itself.
func prepareClients(t *testing.T, vm *VM) {
	t.Helper()
	vm.WriteFile(t, policyPath, []byte(brokerPolicy), 0o644)
	vm.WriteFile(t, pythonClient, []byte(pythonScript), 0o644)
	bus := vm.Output(t, "sh", "-c", "mkdir -p /run/dbus; dbus-daemon --system --fork --print-pid")
	t.Cleanup(func() {
		if _, err := vm.Do(context.Background(), Command{Args: []string{"sh", "-c", "kill " + bus + "; rm -rf /run/dbus"}}); err != nil {
			t.Error(err)
		}
	})
	vm.Output(t, "modprobe", "mac80211_hwsim", "radios=1")
}

// brokered runs a shell command under "run".
func brokered(t *testing.T, vm *VM, policy, grant, script string, flags ...string) Result {
	t.Helper()
	args := append([]string{program(t), "run", policy, "--grant", grant}, flags...)
	return vm.Command(t, Command{Args: append(args, "--", "sh", "-c", script), Timeout: 4 * time.Minute})
}

// testClient compares a client under the broker with a direct run.
func testClient(t *testing.T, vm *VM, c client) {
	said := func(r Result) string {
		text := fmt.Sprintf("exit status %d\n%s%s", r.Exit, r.Stdout, r.Stderr)
		if c.vary != nil {
			text = c.vary.ReplaceAllString(text, " …")
		}
		return text
	}
	direct := vm.Command(t, Command{Args: []string{"sh", "-c", c.script}, Timeout: 4 * time.Minute})
	allowed := brokered(t, vm, policyPath, "everything", c.script)
	if d := cmp.Diff(said(direct), said(allowed)); d != "" {
		t.Errorf("allowed, -direct +brokered:\n%s", d)
	}
	less := brokered(t, vm, policyPath, "hmac", c.script, "--log", "/run/log")
	if c.denied == "" {
		if d := cmp.Diff(said(direct), said(less)); d != "" {
			t.Errorf("with hmac(sha512) alone, -direct +brokered:\n%s", d)
		}
		return
	}
	if !strings.Contains(said(less), c.denied) || less.Exit != c.status {
		t.Errorf("with hmac(sha512) alone: want status %d, %q\n%s", c.status, c.denied, said(less))
	}
	if direct.Exit == 0 && strings.Contains(said(direct), c.denied) && c.name != "stress-ng" {
		t.Errorf("a direct run says the same:\n%s", said(direct))
	}
}

// testLearning learns a policy, and runs the same under it.
func testLearning(t *testing.T, vm *VM) {
	prepareClients(t, vm)
	const learned = "/run/learned.yaml"
	r := brokered(t, vm, policyPath, "hmac", digest+"; python3 "+pythonClient, "--learn", learned, "--deny-type", "aead")
	if r.Exit != 0 || !strings.Contains(string(r.Stderr), "WARNING: learning: NOTHING IS ENFORCED") {
		t.Fatalf("exit status %d\n%s%s", r.Exit, r.Stdout, r.Stderr)
	}
	if !strings.Contains(string(r.Stdout), "aead gcm(aes) ENOENT\n") {
		t.Errorf("aead was not denied while learning:\n%s", r.Stdout)
	}
	var check struct {
		Plan struct {
			Allow []struct {
				Rule       string
				Binaries   []struct{ Path, SHA256 string }
				Algorithms map[string][]string
			}
		}
	}
	if err := json.Unmarshal([]byte(vm.Output(t, program(t), "check", learned, "-o", "json")), &check); err != nil {
		t.Fatal(err)
	}
	rules := check.Plan.Allow
	var got []string
	for _, rule := range rules {
		for _, b := range rule.Binaries {
			got = append(got, fmt.Sprintf("%s %v %v", b.Path, b.SHA256 != "", rule.Algorithms))
		}
	}
	slices.Sort(got)
	want := []string{
		"/usr/bin/kcapi-dgst true map[hash:[hmac(sha512)]]",
		"/usr/bin/python3.11 true map[hash:[hmac(sha512) sha256] rng:[stdrng] skcipher:[cbc(aes)]]",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatalf("learned, -want +got:\n%s", d)
	}
	var grants []string
	for _, rule := range rules[1:] {
		grants = append(grants, "--grant", rule.Rule)
	}
	again := brokered(t, vm, learned, rules[0].Rule, digest+"; python3 "+pythonClient, grants...)
	if d := cmp.Diff(string(r.Stdout), string(again.Stdout)); d != "" || again.Exit != 0 {
		t.Errorf("under what was learned: exit status %d, -learning +enforced:\n%s\n%s", again.Exit, d, again.Stderr)
	}
}
