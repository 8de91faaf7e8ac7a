//go:build vm

package vmtest

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/afalg-policy/afalg-policy/internal/testing/selinuxtest"
)

// selinuxPolicy has a rule that a domain can hold, and denied classes.
const selinuxPolicy = `version: 1
name: selinux
deny:
  families: [AF_RXRPC, AF_KEY, AF_PACKET, AF_VSOCK]
  sockets:
    - {family: AF_NETLINK, protocol: NETLINK_XFRM}
  user-namespaces: true
allow:
  - rule: digest
    users: [root]
    algorithms:
      hash: [sha256]
  - rule: tunnel
    users: [root]
    sockets:
      - {family: AF_NETLINK, protocol: NETLINK_XFRM}
`

// selinuxOpen is a policy of SELinux that allows everything.
const selinuxOpen = "../../testdata/vm/selinux.cil"

// selinuxModule generates a module in which holder_t holds the rule.
func selinuxModule(t *testing.T, holder string, args ...string) string {
	t.Helper()
	policy := filepath.Join(t.TempDir(), "policy.yaml")
	write(t, policy, selinuxPolicy, 0o600)
	args = append([]string{"selinux", policy, "--kernel", "6.1", "--domain", "digest=" + holder, "--accept", "digest"}, args...)
	return string(generate(t, args...))
}

// onAny finds the rules of a module, which are about every label.
var onAny = regexp.MustCompile(`(?m)^(\((?:deny|neverallow) \S+) afalg_policy_any`)

// selinuxPolicies compiles what the machine loads.
func selinuxPolicies(t *testing.T) map[string][]byte {
	t.Helper()
	module := selinuxModule(t, "holder_t")
	debian := selinuxtest.Debian(t)
	with := func(base []string, module string) []string {
		return append(base[:len(base):len(base)], selinuxtest.Write(t, "module.cil", module))
	}
	open := []string{selinuxOpen}
	policies := map[string][]byte{}
	for name, files := range map[string][]string{
		"open":   open,
		"denied": with(open, module),
		// What a rule on the domain's own label would leave open.
		"self":          with(open, onAny.ReplaceAllString(module, "$1 self")),
		"constrained":   with(open, selinuxModule(t, "holder_t", "--userspace", "3.4")),
		"debian":        debian,
		"debian denied": with(debian, selinuxModule(t, "NetworkManager_t")),
	} {
		compile := selinuxtest.Compile
		if name == "constrained" {
			compile = selinuxtest.CompileOlder
		}
		policy, err := compile(t, files...)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		policies[name] = policy
	}
	return policies
}

// selinuxMachine is a machine under SELinux, in enforcing mode.
type selinuxMachine struct {
	*VM
	client string // asks for families
}

func (m selinuxMachine) load(t *testing.T, policy string) {
	t.Helper()
	if r := m.Run(t, "dd", "if=/run/selinux/"+policy, "of=/sys/fs/selinux/load", "bs=64M", "status=none"); r.Exit != 0 {
		t.Fatalf("load %s: %s\n%s", policy, r.Stderr, m.Output(t, "dmesg"))
	}
}

// enters starts a command in a domain, as runcon does.
const enters = `printf %s "$0" >/proc/self/attr/exec && exec "$@"`

// in runs a command in a domain, and returns what it prints.
func (m selinuxMachine) in(t *testing.T, domain string, args ...string) string {
	t.Helper()
	r := m.Run(t, append([]string{"sh", "-c", enters, "system_u:system_r:" + domain}, args...)...)
	if len(r.Stderr) > 0 {
		t.Errorf("%s in %s: %s", args, domain, r.Stderr)
	}
	return string(r.Stdout)
}

func (m selinuxMachine) expect(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got\n%swant\n%s", what, got, want)
	}
}

// TestLongSELinux loads the module into kernels under SELinux, with a policy that
// allows everything and with Debian's.
func TestLongSELinux(t *testing.T) {
	client, policies := clients(t)["x86-64"], selinuxPolicies(t)
	script, err := os.ReadFile("../../testdata/vm/selinux.py")
	if err != nil {
		t.Fatal(err)
	}
	for _, version := range Kernels() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			m := selinuxMachine{Boot(t, version, Options{Append: "security=selinux enforcing=0"}), client}
			m.WriteFile(t, "/run/selinux.py", script, 0o644)
			for name, policy := range policies {
				m.WriteFile(t, "/run/selinux/"+name, policy, 0o644)
			}
			m.Output(t, "mount", "-t", "selinuxfs", "selinuxfs", "/sys/fs/selinux")
			m.load(t, "open")
			m.Output(t, "sh", "-c", "echo 1 >/sys/fs/selinux/enforce")
			t.Run("open", m.testOpen)
			t.Run("denied", func(t *testing.T) { m.testDenied(t, "denied") })
			if newest(version) {
				t.Run("constrained", func(t *testing.T) { m.testDenied(t, "constrained") })
			}
			t.Run("label", m.testLabel)
			t.Run("undone", m.testUndone)
			t.Run("debian", m.testDebian)
		})
	}
}

const (
	algOpen   = "1 open\n38 open\n"
	algDenied = "1 open\n38 EACCES\n"
)

const classAnswers = `AF_ALG %[1]s
AF_RXRPC %[2]s
AF_KEY %[2]s
XFRM %[2]s
ROUTE ok
AF_PACKET %[2]s
SOCK_PACKET %[2]s
AF_VSOCK %[2]s
AF_INET ok
raw ok
`

// use asks for sockets in both domains, and for the use of sockets of others.
func (m selinuxMachine) use(t *testing.T, want string, args ...string) {
	t.Helper()
	m.expect(t, "use", m.Output(t, append([]string{"python3", "/run/selinux.py"}, args...)...)+"\n", want)
}

// testOpen is the control: nothing is closed, and a socket may be handed on.
func (m selinuxMachine) testOpen(t *testing.T) {
	m.load(t, "open")
	for _, domain := range []string{"kernel_t", "plain_t", "holder_t", "outside_t", "apart.inner_t"} {
		m.expect(t, domain, m.in(t, domain, m.client, "1", "38"), algOpen)
	}
	m.use(t, fmt.Sprintf(classAnswers, "ok", "ok")+fmt.Sprintf(classAnswers, "ok", "ok")+`labelled ok
inherited by plain_t socket
passed to plain_t ok
inherited by holder_t socket
passed to holder_t ok
`)
	m.expect(t, "user namespaces", m.in(t, "plain_t", "unshare", "--user", "echo", "made"), "made\n")
}

func (m selinuxMachine) testUndone(t *testing.T) {
	m.load(t, "open")
	m.expect(t, "plain_t", m.in(t, "plain_t", m.client, "1", "38"), algOpen)
}

// testDenied begins under the policy that allows everything. Sockets that were
// made there are of no use any more, and none can be had by another way.
func (m selinuxMachine) testDenied(t *testing.T, policy string) {
	m.load(t, "open")
	m.use(t, `kept: bind EACCES
kept: accept EACCES
kept: getsockopt EACCES
kept: sendmsg EACCES
kept: recvmsg EACCES
kept: write EACCES
kept: read EACCES
`+fmt.Sprintf(classAnswers, "EACCES", "EACCES")+fmt.Sprintf(classAnswers, "ok", "EACCES")+`labelled EACCES
inherited by plain_t /null
passed to plain_t EBADF
inherited by holder_t socket
passed to holder_t ok
`, "/run/selinux/"+policy)
	for domain, want := range map[string]string{
		"kernel_t": algDenied, "plain_t": algDenied, "holder_t": algOpen, "permissive_t": algOpen,
		"outside_t":     algDenied, // has no attribute of domains
		"apart.inner_t": algDenied,
	} {
		m.expect(t, domain, m.in(t, domain, m.client, "1", "38"), want)
	}
	if r := m.Run(t, "sh", "-c", enters, "system_u:system_r:plain_t", "unshare", "--user", "true"); r.Exit == 0 || !strings.Contains(string(r.Stderr), "Permission denied") {
		t.Errorf("user namespaces: exit status %d, %s", r.Exit, r.Stderr)
	}
	for domain, column := range map[string]string{"plain_t": "SELinux", "holder_t": "SELinux, domain with the rule"} {
		args := append([]string{"sh", "-c", enters, "system_u:system_r:" + domain, program(t)}, probing...)
		compareRoutes(t, otherRoutes.column(t, column), m.Run(t, args...))
	}
}

// testLabel shows the attack that a rule about the domain's own label leaves
// open.
func (m selinuxMachine) testLabel(t *testing.T) {
	m.load(t, "self")
	m.expect(t, "own label", m.in(t, "plain_t", m.client, "1", "38"), algDenied)
	r := m.Output(t, "sh", "-c", "python3 /run/selinux.py | grep ^labelled")
	m.expect(t, "another label", r, "labelled ok")
}

// askAccess asks the kernel whether domains may make sockets of AF_ALG. The
// permission is the fourth of the class.
const askAccess = `import os, sys
index = open("/sys/fs/selinux/class/alg_socket/index").read()
for domain in sys.argv[1:]:
    context = "system_u:system_r:%s:s0" % domain
    f = os.open("/sys/fs/selinux/access", os.O_RDWR)
    os.write(f, " ".join([context, context, index]).encode())
    print(domain, int(os.read(f, 100).split()[0], 16) >> 3 & 1)
`

// testDebian asks the kernel what Debian's policy decides, with the module and
// without: for domains that are unconfined, for those that Debian itself allows
// AF_ALG or not, and for one that holds the rule.
func (m selinuxMachine) testDebian(t *testing.T) {
	for _, tt := range []struct{ policy, may, said string }{
		{"debian", "unconfined_t 1\nkernel_t 1\nbluetooth_t 1\nNetworkManager_t 1\nsyslogd_t 0", algOpen},
		{"debian denied", "unconfined_t 0\nkernel_t 0\nbluetooth_t 0\nNetworkManager_t 1\nsyslogd_t 0", algDenied},
	} {
		m.load(t, tt.policy)
		m.expect(t, tt.policy, m.Output(t, "python3", "-c", askAccess, "unconfined_t", "kernel_t", "bluetooth_t", "NetworkManager_t", "syslogd_t"), tt.may)
		m.expect(t, tt.policy+", in kernel_t", m.Output(t, m.client, "1", "38")+"\n", tt.said)
	}
}
