package report

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// exampleDoctor is a report with each state, of a host with several hundred
// subjects.
func exampleDoctor(t testing.TB) *Doctor {
	t.Helper()
	d := NewDoctor(Build{Version: "1.0", Commit: "0123abcd", Go: "go1.26", Platform: "linux/amd64", Libseccomp: "2.5.4"})
	d.Host = DoctorHost{
		Name: "node-7", ID: "7f3a", Time: "2026-11-29T23:00:00Z", System: "Debian GNU/Linux 12 (bookworm)", Kernel: "6.12.90+deb12-amd64",
		Machine: "amd64", AFALG: HasModule, Root: true,
		Facts: []Fact{
			{"modules loaded", "af_alg, algif_hash", "/proc/modules"},
			{"crypto.af_alg_restrict", "absent: Linux 7.3 brings it", "/proc/sys/crypto"},
			{"LSMs", "lockdown, capability, apparmor, bpf", "/sys/kernel/security/lsm"},
			{"known fixes", "not told by a version of Debian's: compare its changelog", "uname"},
		},
	}
	d.Policy = &Policy{"node", "sha256:9f2c4e1d77a0b3c5"}
	d.Users = []User{
		{Name: "cryptsetup", State: Used, Executable: "/usr/sbin/cryptsetup", Algorithms: []string{"skcipher:xts(aes)"}, Seen: "2026-11-29T22:58:00Z",
			Evidence: []Evidence{{"socket", "pid 812 holds one, bound to xts(aes)"}, {"package", "cryptsetup-bin 2:2.6.1"}}},
		{Name: "iwd", State: Unused, Executable: "/usr/libexec/iwd", Unit: "iwd.service", Evidence: []Evidence{{"package", "iwd 2.3 is installed"}, {"unit", "iwd.service is disabled"}}},
		{Name: "strongSwan", State: Unknown, Unit: "strongswan.service", Evidence: []Evidence{{"unit", "it runs; whether it loaded af-alg was not readable"}}},
	}
	d.Layers = []Layer{
		{"seccomp", "containers of docker", Yes, []string{"hash", "skcipher", "aead", "rng", "AF_RXRPC", "AF_RDS"}, "proved over the compiled filters of 407 processes"},
		{"modprobe.d", "the host", Yes, []string{"aead", "rng"}, "not proved: who may load modules may load these"},
		{"kernel half", "the host", No, nil, "BPF is no active LSM, and the kernel preempts"},
		{"AppArmor", "docker-default", Unknown, []string{"hash"}, "the loaded policy cannot be read back"},
	}
	for _, c := range []struct{ name, title string }{
		{"hash", "AF_ALG, type hash"}, {"skcipher", "AF_ALG, type skcipher"}, {"aead", "AF_ALG, type aead"}, {"rng", "AF_ALG, type rng"},
		{"AF_RXRPC", "sockets of AF_RXRPC"}, {"AF_RDS", "sockets of AF_RDS"}, {"AF_KEY", "sockets of AF_KEY"},
		{"NETLINK_XFRM", "AF_NETLINK, protocol NETLINK_XFRM"}, {"TCP_ULP", "setsockopt(SOL_TCP, TCP_ULP)"}, {"user namespaces", "making one"}, {"TIPC", "sockets of AF_TIPC"},
	} {
		d.Matrix.Columns = append(d.Matrix.Columns, Column{c.name, c.title})
	}
	proved := Cell{State: ProvedClosed, By: []string{"seccomp"}}
	modprobe := Cell{State: UnprovedClosed, By: []string{"modprobe.d"}, Reason: "the module cannot load"}
	unknown := Cell{State: Unknown, Reason: "its filters cannot be read: ptrace is restricted"}
	open := func(call string) Cell { return Cell{State: Open, Witness: call, Reason: "no layer is in its way"} }
	allowed := func(rule string) Cell { return Cell{State: Allowed, Rule: rule} }
	left := Cell{State: LeftOpen, Witness: "socket(AF_TIPC, SOCK_SEQPACKET, 0) = 3", Reason: "no policy asks for it to be closed"}
	add := func(s Subject, cells ...Cell) {
		if err := d.Matrix.Add(s, append(cells, left)...); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 407 {
		add(Subject{Name: fmt.Sprintf("web-%d", i), Kind: "container", Container: "docker:0123456789abcdef", Processes: 3},
			proved, proved, proved, proved, proved, proved, proved, proved, proved, proved)
	}
	add(Subject{Name: "cryptsetup", Kind: "unit", Unit: "systemd-cryptsetup@data.service", Processes: 1},
		proved, allowed("disks"), modprobe, modprobe, proved, proved, proved, proved, proved, proved)
	add(Subject{Name: "ipsec-sidecar", Kind: "container", Processes: 2},
		proved, proved, proved, proved, proved, proved, proved, allowed("ipsec-sidecar"), proved, proved)
	add(Subject{Name: "backup", Kind: "unit", Processes: 1},
		modprobe, modprobe, modprobe, modprobe, modprobe, modprobe, modprobe, modprobe, modprobe, modprobe)
	add(Subject{Name: "4711 debugger", Kind: "process", Processes: 1},
		unknown, unknown, modprobe, modprobe, unknown, unknown, unknown, unknown, unknown, unknown)
	add(Subject{Name: "legacy-ci-runner", Kind: "container", Container: "docker:fedcba9876543210", Processes: 12},
		open("socket(AF_ALG, SOCK_SEQPACKET, 0) = 3"), open("socket(AF_ALG, SOCK_SEQPACKET, 0) = 3"), modprobe, modprobe,
		open("socket(AF_RXRPC, SOCK_DGRAM, 0) = 3"), open("socket(AF_RDS, SOCK_SEQPACKET, 0) = 3"), open("socket(AF_KEY, SOCK_RAW, 2) = 3"),
		proved, open("setsockopt(3, SOL_TCP, TCP_ULP)"), open("clone(CLONE_NEWUSER)"))
	d.Next = []Step{
		{Title: "Give the runner the profile of the others", Command: "docker update --security-opt seccomp=/etc/afalg-policy/docker.json legacy-ci-runner",
			Closes: []string{"hash", "skcipher", "AF_RXRPC"}, Breaks: []string{}, When: "when the container starts again", Undo: "docker start --security-opt …"},
		{Title: "Close the class on the whole host", Command: "afalg-policy generate host builtin:page-cache -o /tmp/host && afalg-policy install host --policy builtin:page-cache --dry-run",
			Closes: []string{"AF_RXRPC", "AF_RDS", "AF_KEY"}, Breaks: []string{"IPsec by strongSwan: it needs AF_KEY and NETLINK_XFRM"}, When: "reboot", Undo: "afalg-policy uninstall host"},
		{Title: "Load the kernel half", Command: "afalg-policy lsm load builtin:node", Breaks: []string{}, When: "now"},
	}
	d.CanGo = []Expiry{{"/etc/modprobe.d/disable-algif_aead.conf", "the kernel has the fix, and the policy closes aead by seccomp", "rm /etc/modprobe.d/disable-algif_aead.conf"}, {"rule hmaccalc", "nobody used it in 30 days", ""}}
	d.Contradictions = []Contradiction{{"algif_hash", []Fact{{"", "built in", "modules.builtin"}, {"", "loaded as a module", "/proc/modules"}}, "module"}}
	d.Unasked = []Unasked{{"filters of pid 4711", "ptrace is restricted by Yama"}, {"AppArmor's loaded rules", "the kernel does not give them back"}}
	d.Conclude()
	return d
}

// exampleFleet is the report of four hosts that differ.
func exampleFleet(t testing.TB) *Fleet {
	t.Helper()
	dir := t.TempDir()
	var files []string
	for i, change := range []func(d *Doctor){
		func(d *Doctor) {},
		func(d *Doctor) { d.Host.Kernel, d.Policy = "6.1.0-40-amd64", nil },
		func(d *Doctor) { d.Matrix.Rows = d.Matrix.Rows[2:]; d.Users[0].State = Unused },
		func(d *Doctor) { d.Matrix.Rows = d.Matrix.Rows[1:2]; d.Host.Facts = d.Host.Facts[1:] },
	} {
		d := exampleDoctor(t)
		d.Host.Name, d.Host.ID = fmt.Sprintf("node-%d", i+1), fmt.Sprint(i+1)
		change(d)
		d.Conclude()
		files = append(files, writeReport(t, dir, d.Host.Name, d))
	}
	broken := filepath.Join(dir, "broken.json")
	if err := os.WriteFile(broken, []byte(`{"report": "doctor", "version": 2}`), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := MergeDoctor(append(files, broken), Build{Version: "1.0"}, time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	f.relative(dir)
	return f
}

// relative takes the directory of a test out of the names of files.
func (f *Fleet) relative(dir string) {
	for i := range f.List {
		f.List[i].File = strings.TrimPrefix(f.List[i].File, dir+"/")
	}
	for i := range f.Unreadable {
		f.Unreadable[i].File = strings.TrimPrefix(f.Unreadable[i].File, dir+"/")
	}
	for i := range f.Notes {
		f.Notes[i] = strings.ReplaceAll(f.Notes[i], dir+"/", "")
	}
	for i := range f.Superseded {
		s := &f.Superseded[i]
		s.File, s.By = strings.TrimPrefix(s.File, dir+"/"), strings.TrimPrefix(s.By, dir+"/")
	}
}

func writeReport(t testing.TB, dir, name string, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, name+".json")
	if err := os.WriteFile(path, text, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}
