//go:build vm

package vmtest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/testing/box"
)

// classesScript asks for each class; classesPolicy closes some of them.
const (
	classesScript = "../../testdata/vm/classes.py"
	classesPolicy = "../../testdata/vm/classes.yaml"
)

// closedUserNamespaces are the answers of a unit that makes none.
const closedUserNamespaces = `unshare-user EPERM
clone-user EPERM
clone3-user ENOSYS
setns-user EPERM
setns-any EPERM
`

const (
	openUserNamespaces = "unshare-user ok\nclone-user ok\nclone3-user ok\nsetns-user ok\nsetns-any ok\n"
	closedPackets      = "packet-raw EAFNOSUPPORT\npacket-dgram EAFNOSUPPORT\n"
	openPackets        = "packet-raw ok\npacket-dgram ok\n"
	// What systemd cannot tell apart, and what nobody closes.
	openToUnits = "inet-packet ok\ninet6-raw ok\nxfrm ok\nroute ok\nunix ok\nunshare-net ok\nsetns-net ok\n"
)

var classUnits = []struct{ name, own, want string }{
	{"free", "", openPackets + openToUnits + openUserNamespaces},
	{"plain", "", closedPackets + openToUnits + closedUserNamespaces},
	{"capture", "", openPackets + openToUnits + closedUserNamespaces},
	{"sandbox", "", closedPackets + openToUnits + openUserNamespaces},
	// Ours takes user namespaces off what a unit says itself, and gives none back.
	{"lists", "RestrictNamespaces=user net", closedPackets + openToUnits + closedUserNamespaces},
	{"denies", "RestrictNamespaces=~ipc", closedPackets + openToUnits + closedUserNamespaces},
	{"none", "RestrictNamespaces=yes", "packet-raw EAFNOSUPPORT\nunshare-net EPERM\nsetns-net EPERM\n" + closedUserNamespaces},
	// systemd makes this one before its filters.
	{"private", "PrivateUsers=yes", "packet-raw EAFNOSUPPORT\nunix ok\nunshare-user EPERM\n"},
	{"dynamic", "DynamicUser=yes", "packet-raw EAFNOSUPPORT\nunix ok\nunshare-user EPERM\n"},
}

// TestBoxClasses shows what a unit may make under its drop-in, and that the same
// questions are answered with yes without.
func TestBoxClasses(t *testing.T) {
	t.Parallel()
	vm := box.Start(t)
	script, err := os.ReadFile(classesScript)
	if err != nil {
		t.Fatal(err)
	}
	vm.WriteFile(t, "/etc/vmtest/classes.py", script, 0o644)
	names := []string{"other.service"}
	vm.WriteFile(t, "/etc/systemd/system/other.service", []byte("[Service]\nExecStart=/usr/bin/unshare --user sleep infinity\n"), 0o644)
	for _, u := range classUnits {
		names = append(names, u.name+".service")
		vm.WriteFile(t, "/etc/systemd/system/"+u.name+".service", fmt.Appendf(nil,
			"[Service]\nType=oneshot\nStandardOutput=truncate:/run/classes.%s\nExecStart=/usr/bin/python3 /etc/vmtest/classes.py\n%s\n", u.name, u.own), 0o644)
	}
	dir := t.TempDir()
	facts, out := filepath.Join(dir, "show"), filepath.Join(dir, "out")
	show := vm.Output(t, append([]string{"systemctl", "show", "--property=Id,RestrictAddressFamilies,RestrictNamespaces", "*.service"}, names...)...)
	if err := os.WriteFile(facts, []byte(show), 0o600); err != nil {
		t.Fatal(err)
	}
	generate(t, "systemd", classesPolicy, "--show", facts, "--grant", "capture", "--grant", "sandbox", "--accept", "sockets",
		"--except", "free.service", "--accept", "free.service", "--except", "other.service", "--accept", "other.service", "-o", out)
	written, err := filepath.Glob(filepath.Join(out, "*", "*.conf"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range written {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		vm.WriteFile(t, "/etc/systemd/system/"+strings.TrimPrefix(path, out+"/"), text, 0o644)
	}
	vm.Output(t, "systemctl", "daemon-reload")
	vm.Output(t, append([]string{"systemctl", "start"}, names...)...)
	const lists = "RestrictNamespaces=cgroup ipc net mnt pid uts"
	if got := vm.Output(t, "systemctl", "show", "--property=RestrictNamespaces", "plain.service"); got != lists {
		t.Errorf("systemctl shows %s, want %s", got, lists)
	}
	for _, u := range classUnits {
		t.Run(u.name, func(t *testing.T) {
			got := string(vm.ReadFile(t, "/run/classes."+u.name))
			if d := cmp.Diff(u.want, answersTo(u.want, got)); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

// appArmorClasses are the answers under the container profile for classesPolicy,
// and, with a grant, of what that opens. Its abi does not mediate user namespaces.
const (
	appArmorPackets = "packet-raw EACCES\npacket-dgram EACCES\ninet-packet EACCES\n"
	appArmorClasses = "inet6-raw EACCES\nkey EACCES\nalg EACCES\nxfrm ok\nroute ok\nunix ok\nunshare-user ok\n"
)

// testAppArmorClasses shows which classes a profile closes: families, and types of
// families. The kernel takes AF_INET with SOCK_PACKET for AF_PACKET before it asks.
// The machine answers yes to each question without a profile.
func testAppArmorClasses(t *testing.T, vm *VM) {
	script, err := os.ReadFile(classesScript)
	if err != nil {
		t.Fatal(err)
	}
	vm.WriteFile(t, "/etc/vmtest/classes.py", script, 0o644)
	accept := []string{"--accept", "sockets", "--accept", "user-namespaces"}
	loadAppArmor(t, vm, "vmtest-classes", generate(t, append([]string{"apparmor", classesPolicy, "--profile", "vmtest-classes"}, accept...)...))
	loadAppArmor(t, vm, "vmtest-capture", generate(t, append([]string{"apparmor", classesPolicy, "--profile", "vmtest-capture", "--grant", "capture", "--accept", "capture"}, accept...)...))
	for _, tt := range []struct {
		name, want string
		under      []string
	}{
		{"no profile", strings.ReplaceAll(appArmorPackets+appArmorClasses, "EACCES", "ok"), nil},
		{"profile", appArmorPackets + appArmorClasses, []string{"aa-exec", "-p", "vmtest-classes", "--"}},
		{"grant", strings.ReplaceAll(appArmorPackets, "EACCES", "ok") + appArmorClasses, []string{"aa-exec", "-p", "vmtest-capture", "--"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := vm.Output(t, append(tt.under, "python3", "/etc/vmtest/classes.py")...) + "\n"
			if d := cmp.Diff(tt.want, answersTo(tt.want, got)); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

// testGuardClasses shows that the kernel half is not loaded until it is accepted that
// it leaves classes open, and closes families to everybody; and what it closes.
func testGuardClasses(t *testing.T, vm *VM) {
	for from, to := range map[string]string{classesScript: "/etc/vmtest/classes.py", classesPolicy: "/etc/vmtest/classes.yaml"} {
		text, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		vm.WriteFile(t, to, text, 0o644)
	}
	load := []string{program(t), "lsm", "load", "/etc/vmtest/classes.yaml"}
	refused := vm.Run(t, load...)
	for _, name := range []string{"capture", "sockets", "user-namespaces"} {
		if refused.Exit != 1 || !strings.Contains(string(refused.Stderr), "(accept with --accept "+name+")") {
			t.Errorf("exit status %d, want 1\n%s", refused.Exit, refused.Stderr)
		}
		load = append(load, "--accept", name)
	}
	vm.Output(t, load...)
	const want = "packet-raw EAFNOSUPPORT\npacket-dgram EAFNOSUPPORT\ninet-packet EAFNOSUPPORT\nkey EAFNOSUPPORT\nxfrm ok\ninet6-raw ok\nunix ok\nunshare-user ok\n"
	got := vm.Output(t, "python3", "/etc/vmtest/classes.py") + "\n"
	if d := cmp.Diff(want, answersTo(want, got)); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	vm.Output(t, program(t), "lsm", "unload")
	// The links go a moment after that, and until then sockets are denied.
	vm.Output(t, "sh", "-c", `for n in $(seq 100); do python3 -c 'import socket; socket.socket(38, 5, 0)' 2>/dev/null && exit 0; sleep .1; done; exit 1`)
}

// answersTo keeps the lines of an output that answer the questions of another, in
// its order.
func answersTo(asked, output string) string {
	var kept strings.Builder
	for line := range strings.Lines(asked) {
		question, _, _ := strings.Cut(line, " ")
		for answer := range strings.Lines(output) {
			if strings.HasPrefix(answer, question+" ") {
				kept.WriteString(answer)
			}
		}
	}
	return kept.String()
}
