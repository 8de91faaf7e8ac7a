package subject

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/proc"
	"github.com/afalg-policy/afalg-policy/internal/testing/kerneltest"
)

var setpriv = []string{"setpriv", "--reuid=12345", "--regid=12345", "--clear-groups"}

func wantUser(t *testing.T, s Subject, uid int, why string) {
	t.Helper()
	got := -1
	if s.UID != nil {
		got = int(*s.UID)
	}
	if got != uid || s.Why(User) != why {
		t.Errorf("user %d, because %q\nwant %d, because %q", got, s.Why(User), uid, why)
	}
}

func wantContained(t *testing.T, s Subject, why string) {
	t.Helper()
	if s.Contained != (why == "") || s.Why(Containment) != why {
		t.Errorf("contained %v, because %q\nwant %v, because %q", s.Contained, s.Why(Containment), why == "", why)
	}
}

func TestCredentials(t *testing.T) {
	r := newReader(t, Options{})
	for _, tt := range []struct {
		name         string
		wrap         []string
		uid          int
		capabilities []string
		powers       string
	}{
		{"root", nil, 0, capabilityNames(ownCapabilities(t)), "CAP_SYS_PTRACE in CapEff"},
		{"user", setpriv, ordinary, nil, "CAP_SYS_PTRACE in CapBnd, without no_new_privs"},
		{"user without new privileges", append(setpriv[:4:4], "--no-new-privs"), ordinary, nil, ""},
		{"user bounded", append(setpriv[:4:4], "--bounding-set=-sys_ptrace"), ordinary, nil, ""},
		{"user with two", append(setpriv[:4:4], "--no-new-privs", "--inh-caps=+net_admin,+net_raw", "--ambient-caps=+net_admin,+net_raw"),
			ordinary, []string{"CAP_NET_ADMIN", "CAP_NET_RAW"}, ""},
		{"user that may inherit", append(setpriv[:4:4], "--no-new-privs", "--inh-caps=+sys_ptrace"), ordinary, nil, "CAP_SYS_PTRACE in CapInh"},
		{"nobody", []string{"setpriv", "--reuid=65534", "--clear-groups", "--no-new-privs"}, 65534, nil, ""},
		{"root of its own user namespace", append(setpriv[:4:4], "unshare", "-Ur"), ordinary, nil, ""},
		{"unmapped in its own", append(setpriv[:4:4], "unshare", "-U"), ordinary, nil, ""},
		{"root below root", []string{"unshare", "-Ur"}, 0, nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if slices.Contains(tt.wrap, "unshare") {
				kerneltest.NeedUserNamespaces(t)
			}
			args := append(slices.Clone(tt.wrap), program)
			c := start(t, command("wait", args[0], args[1:]...))
			for range 2 {
				s := r.Look(c.pid)
				wantUser(t, s, tt.uid, "")
				wantContained(t, s, tt.powers)
				if !slices.Equal(s.Capabilities, tt.capabilities) || s.Why(Capabilities) != "" {
					t.Errorf("capabilities %v, because %q\nwant %v", s.Capabilities, s.Why(Capabilities), tt.capabilities)
				}
			}
		})
	}
}

func ownCapabilities(t *testing.T) uint64 {
	t.Helper()
	text, err := os.ReadFile("/proc/self/status")
	must(t, err)
	st, err := proc.ParseStatus(text)
	must(t, err)
	return st.Effective
}

func TestPtraceSets(t *testing.T) {
	const bit = 1 << unix.CAP_SYS_PTRACE
	for _, tt := range []struct {
		st   proc.Status
		want string
	}{
		{proc.Status{}, ""},
		{proc.Status{Effective: ^uint64(bit), Permitted: ^uint64(bit), Inheritable: ^uint64(bit), Ambient: ^uint64(bit), Bounding: ^uint64(bit)}, ""},
		{proc.Status{Effective: bit}, "CapEff"},
		{proc.Status{Permitted: bit}, "CapPrm"},
		{proc.Status{Inheritable: bit, NoNewPrivs: true}, "CapInh"},
		{proc.Status{Ambient: bit}, "CapAmb"},
		{proc.Status{Bounding: bit}, "CapBnd, without no_new_privs"},
		{proc.Status{Bounding: bit, NoNewPrivs: true}, ""},
	} {
		if got := ptraceSet(&tt.st); got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.st, got, tt.want)
		}
	}
}

func TestCapabilityNames(t *testing.T) {
	all := capabilityNames(^uint64(0))
	if len(all) != 64 || all[12] != "CAP_NET_ADMIN" || all[40] != "CAP_CHECKPOINT_RESTORE" || all[41] != "CAP_41" || slices.Contains(all, "") {
		t.Errorf("%v", all)
	}
	if last, err := os.ReadFile("/proc/sys/kernel/cap_last_cap"); err != nil || strings.TrimSpace(string(last)) != "40" {
		t.Errorf("the last capability of this kernel is %s, %v: complete the table", last, err)
	}
}

// An ordinary user's reader knows as much of its own processes, dumpable or
// not, and little of others.
func TestOrdinaryReader(t *testing.T) {
	kerneltest.NeedUserNamespaces(t)
	path := installed(t)
	own := start(t, as(command("wait", path), ordinary))
	below := start(t, as(command("wait", "unshare", "-Urm", path), ordinary))
	other := start(t, command("wait", path))
	hidden := publicDir(t) + "/hidden"
	must(t, copyFile(program, hidden))
	must(t, os.Chmod(hidden, 0o711)) // unreadable, so not dumpable
	unreadable := start(t, as(command("wait", hidden), ordinary))
	tids := []string{fmt.Sprint(own.pid), fmt.Sprint(below.pid), fmt.Sprint(other.pid), fmt.Sprint(unreadable.pid)}
	for _, kind := range []string{"plain", "hidden"} {
		t.Run(kind, func(t *testing.T) {
			s := looked(t, as(command("look", program, append([]string{kind}, tids...)...), ordinary))
			for _, s := range s[:2] {
				wantDigest(t, s, sha(t, path), "")
				wantUser(t, s, ordinary, "")
			}
			wantBinary(t, s[0], path, false, "")
			wantContained(t, s[0], "CAP_SYS_PTRACE in CapBnd, without no_new_privs")
			wantBinary(t, s[1], path, true, "")
			wantContained(t, s[1], "")
			for i, uid := range []int{0, ordinary} {
				s := s[2+i]
				wantBinary(t, s, "", false, "read the link exe: permission denied")
				wantDigest(t, s, "", "read the link exe: permission denied")
				wantUser(t, s, uid, "")
				if want := "its user namespace: permission denied"; s.Why(Capabilities) != want || s.Capabilities != nil || s.PID == 0 {
					t.Errorf("%+v", s)
				}
			}
			wantContained(t, s[2], "CAP_SYS_PTRACE in CapEff, and its user namespace: permission denied")
		})
	}
}

// In a user namespace of its own a reader cannot tell users, and distinguishes
// the namespaces below it from those above.
func TestReaderInOtherUserNamespace(t *testing.T) {
	kerneltest.NeedUserNamespaces(t)
	c := start(t, command("wait", program))
	cmd := shellCommand("wait", `
		for wrap in "" "unshare -Ur"; do
			rm -f "$OUT"; mkfifo "$OUT" # one that is killed may hold the last one open still
			$wrap "$SELF" <&3 >"$OUT" & pid=$!
			`+untilReady+`
			TEST_CHILD_ROLE=look "$SELF" hidden $pid
			kill $pid
		done
		TEST_CHILD_ROLE=look "$SELF" hidden `+fmt.Sprint(c.pid), "unshare", "-Ur")
	reader, writer, err := os.Pipe()
	must(t, err)
	defer writer.Close()
	cmd.ExtraFiles = []*os.File{reader}
	cmd.Env = append(cmd.Env, "OUT="+publicDir(t)+"/out")
	s := looked(t, cmd)
	for _, s := range s {
		wantUser(t, s, -1, "the reader is in a user namespace of its own")
		if s.Capabilities != nil {
			t.Errorf("capabilities %v", s.Capabilities)
		}
	}
	wantContained(t, s[0], "CAP_SYS_PTRACE in CapEff")
	wantBinary(t, s[0], program, false, "")
	wantContained(t, s[1], "")
	wantBinary(t, s[1], program, true, "")
	wantContained(t, s[2], "CAP_SYS_PTRACE in CapEff, and its user namespace: permission denied")
}

// A namespace beside the reader's is not below it.
func TestBelow(t *testing.T) {
	kerneltest.NeedUserNamespaces(t)
	r := newReader(t, Options{})
	inner := start(t, command("wait", "unshare", "-Ur", "unshare", "-Ur", program))
	task, err := r.take(inner.pid)
	must(t, err)
	defer r.give(task)
	own, err := namespaceAt(task.dir, "ns/user", task.buf)
	must(t, err)
	for above, want := range map[namespace]bool{initialUser: true, own: false, own + 1000: false} {
		if got := task.below(above); got != want {
			t.Errorf("%d below %d: %v", own, above, got)
		}
	}
}
