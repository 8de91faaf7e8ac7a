package agent

import (
	"encoding/json"
	"net"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/notify"
)

// With a store, an agent may end in any way: calls made meanwhile wait for the
// next agent, and the container is as it was.
func TestRestart(t *testing.T) {
	for _, end := range []syscall.Signal{unix.SIGTERM, unix.SIGKILL} {
		t.Run(end.String(), func(t *testing.T) {
			s := newSystemd(t, t.TempDir()+"/notify")
			env := "NOTIFY_SOCKET=" + s.conn.LocalAddr().String()
			w := newWorld(t).agent(env)
			granted, bare := w.container("granted", "one"), w.container("bare")
			granted.ask("socket", "ok")
			s.expect("FDSTORE=1", "FDNAME=C")
			w.signal(end)
			w.status()
			if end == unix.SIGTERM && w.saw("note: 2 containers left to the service manager's store") != 1 {
				t.Error("what is left was not told of")
			}
			granted.in.Write([]byte("socket\n"))
			eventually(t, "the call waits", func() bool { return granted.calls(unix.SYS_SOCKET) })

			w.restart(s, env)
			if got := granted.next(); got != "socket ok" {
				t.Errorf("a call that waited: %s", got)
			}
			w.signal(unix.SIGHUP)
			w.expect("holds for 2 containers")
			bare.ask("socket", "EAFNOSUPPORT")
			w.expect("decided: bare socket", "the workload holds no grant")
			w.container("new", "one").ask("socket", "ok")

			// A container that ends, now or while no agent runs, leaves the
			// store.
			bare.in.Close()
			eventually(t, "two are left in the store", func() bool { return s.stored() == 2 })
			w.signal(unix.SIGKILL)
			w.status()
			granted.in.Close()
			<-granted.done
			w.restart(s, env)
			eventually(t, "one is left in the store", func() bool { return s.stored() == 1 })
			if n := w.saw("failed: "); n > 0 {
				t.Errorf("%d failures", n)
			}
		})
	}
}

// A call that a killed agent was answering would wait for ever: the kernel does
// not report it again.
func TestCallUnderWay(t *testing.T) {
	s := newSystemd(t, t.TempDir()+"/notify")
	stuck := t.TempDir() + "/stuck"
	env := []string{"NOTIFY_SOCKET=" + s.conn.LocalAddr().String(), stuckVariable + "=" + stuck}
	w := newWorld(t).agent(env...)
	c := w.container("c", "one")
	c.ask("socket", "ok")
	if err := os.WriteFile(stuck, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c.in.Write([]byte("socket\n"))
	eventually(t, "the call is under way", func() bool { _, err := os.Lstat(stuck + ".now"); return err == nil })
	w.signal(unix.SIGKILL)
	w.status()
	if err := os.Remove(stuck); err != nil {
		t.Fatal(err)
	}
	w.restart(s, env...)
	if got := c.next(); got != "socket ENOSYS" {
		t.Errorf("the call that was under way: %s", got)
	}
	if n := w.saw(`failed: store: container "c": 1 calls were under way when the agent was killed`); n != 1 {
		t.Errorf("%d lines about the call", n)
	}
	c.ask("socket", "ok")
}

// After a restart, the new policy counts.
func TestRestartWithAnotherPolicy(t *testing.T) {
	s := newSystemd(t, t.TempDir()+"/notify")
	env := "NOTIFY_SOCKET=" + s.conn.LocalAddr().String()
	w := newWorld(t).agent(env)
	one, both := w.container("one", "one"), w.container("both", "one", "two")
	w.signal(unix.SIGTERM)
	w.status()
	w.write(policyHead + ruleTwo)
	w.restart(s, env)
	one.ask("socket", "EAFNOSUPPORT")
	both.ask("socket", "ok")
	if n := w.saw(`failed: grant: container "one": the policy has no rule one, which is ignored`); n != 1 {
		t.Errorf("%d lines about the grant", n)
	}
}

// The socket may be the service manager's.
func TestActivation(t *testing.T) {
	w := newWorld(t)
	passed, err := net.ListenUnix("unix", &net.UnixAddr{Name: w.socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer passed.Close()
	f, err := passed.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	env := []string{"LISTEN_FDS=1", "LISTEN_FDNAMES=listen"}
	w.launch([]*os.File{f}, env...)
	w.expect("note: serving on " + w.socket)
	w.container("c", "one").ask("socket", "ok")
	w.signal(unix.SIGTERM)
	if status := w.status(); status != 0 {
		t.Errorf("status %d", status)
	}
	if _, err := os.Lstat(w.socket); err != nil {
		t.Errorf("the agent removed a socket that is not its own: %v", err)
	}

	other := *w
	other.socket = w.socket + ".other"
	other.launch([]*os.File{f}, env...)
	other.expect("host error: the socket that was passed in is " + w.socket + ", not " + other.socket)
	if status := other.status(); status != 3 {
		t.Errorf("status %d", status)
	}

	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for _, tt := range []struct {
		files []*os.File
		names string
		want  string
	}{
		{[]*os.File{null}, "listen", "host error: use the socket that was passed in: nobody can connect to it"},
		{[]*os.File{f, f}, "listen:listen", `host error: 2 sockets named "listen" were passed in`},
		{[]*os.File{f, null}, "listen:stray", `failed: store: descriptor "stray" was passed in, and is not one of ours: it was closed`},
		{[]*os.File{f, null}, "listen:C1", ""},
	} {
		w.launch(tt.files, "LISTEN_FDS="+string(rune('0'+len(tt.files))), "LISTEN_FDNAMES="+tt.names)
		if tt.want == "" {
			w.expect("note: serving on")
		} else {
			w.expect(tt.want)
		}
		w.cmd.Process.Kill()
		w.status()
	}
}

// A full store can be passed on: all names fit into a variable (MAX_ARG_STRLEN).
func TestKeysFit(t *testing.T) {
	unit, err := os.ReadFile("../../dist/afalg-policy-agent.service")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^FileDescriptorStoreMax=(\d+)$`).FindSubmatch(unit)
	if m == nil {
		t.Fatal("the unit names no FileDescriptorStoreMax")
	}
	most, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	var k keys
	k.follow(map[string][]int{"Czzzzzy": nil, "S9": nil, "C-": nil, "Czzzzzzzz": nil})
	key := k.next(keyPrefix)
	if key != "Czzzzzz" {
		t.Errorf("after Czzzzzy comes %s", key)
	}
	const longest = 128 << 10
	if variable := "LISTEN_FDNAMES=listen" + strings.Repeat(":"+key, most) + "\x00"; len(variable) > longest {
		t.Errorf("the names of %d descriptors take %d bytes, and Linux takes %d", most, len(variable), longest)
	}
	if most < 3*maxContainers {
		t.Errorf("%d descriptors are not three for each of %d containers", most, maxContainers)
	}
}

// listener makes a listener for this process, with a thread that stays.
func listener(t *testing.T) int {
	t.Helper()
	made := make(chan any)
	done := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
		fd, err := notify.Install(trap)
		if err != nil {
			made <- err
			return
		}
		made <- fd
		<-done
	}()
	t.Cleanup(func() { close(done) })
	fd, ok := (<-made).(int)
	if !ok {
		t.Fatal("no listener")
	}
	return fd
}

func memory(t *testing.T, text string, seals int) int {
	t.Helper()
	fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Write(fd, []byte(text)); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		t.Fatal(err)
	}
	return fd
}

// Contents of the store count only as far as the agent could have put them
// there.
func TestRecall(t *testing.T) {
	good := record{Version: 1, ID: "c", PID: 7, UID: 3, Trusted: true, Grants: []string{"one"}}
	text, err := json.Marshal(good)
	if err != nil {
		t.Fatal(err)
	}
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	again := func() int {
		fd, err := unix.Dup(int(null.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	rec := func(s string) int { return memory(t, s, recordSeals) }
	for _, tt := range []struct {
		name   string
		fds    []int
		served bool
		grants int
		want   string // of the error
	}{
		{"good", []int{listener(t), rec(string(text))}, true, 1, ""},
		{"the other order", []int{rec(string(text)), listener(t)}, true, 1, ""},
		{"no listener", []int{rec(string(text))}, false, 0, ""},
		{"nothing of ours", []int{again()}, false, 0, ""},
		{"two listeners", []int{listener(t), listener(t), rec(string(text))}, false, 0, "2 listeners"},
		{"no record", []int{listener(t)}, true, 0, "0 records"},
		{"two records", []int{listener(t), rec(string(text)), rec(string(text))}, true, 0, "2 records"},
		{"no memory", []int{listener(t), again()}, true, 0, "read a record: invalid argument"},
		{"not sealed", []int{listener(t), memory(t, string(text), unix.F_SEAL_WRITE)}, true, 0, "it could have been changed (seals 0x8)"},
		{"junk", []int{listener(t), rec("junk")}, true, 0, "invalid character"},
		{"two", []int{listener(t), rec(string(text) + string(text))}, true, 0, "more than a record"},
		{"another version", []int{listener(t), rec(`{"version":2,"id":"c"}`)}, true, 0, "version 2"},
		{"an unknown key", []int{listener(t), rec(`{"version":1,"id":"c","more":1}`)}, true, 0, "unknown field"},
		{"no id", []int{listener(t), rec(`{"version":1}`)}, true, 0, "no container is named"},
		{"grants of a stranger", []int{listener(t), rec(`{"version":1,"id":"c","grants":["one"]}`)}, true, 0, "not trusted"},
		{"too much", []int{listener(t), rec(strings.Repeat(" ", maxRecord+1))}, true, 0, "1048577 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := recall("C1", tt.fds)
			switch {
			case tt.want == "" && err != nil, tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("error %v, want %q", err, tt.want)
			case (c != nil) != tt.served:
				t.Fatalf("container %v, want one: %v", c, tt.served)
			}
			if c != nil {
				if len(c.Grants) != tt.grants {
					t.Errorf("grants %q", c.Grants)
				}
				c.listener.Close()
			}
			for _, fd := range tt.fds {
				if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil {
					t.Errorf("descriptor %d is left open", fd)
				}
			}
		})
	}
}

func TestSeal(t *testing.T) {
	want := record{Version: 1, ID: "c", PID: 7, UID: 3, Trusted: true, Grants: []string{"one", "two"}}
	f, err := want.seal()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, err := unseal(int(f.Fd()))
	if err != nil || got.ID != want.ID || strings.Join(got.Grants, " ") != "one two" || !got.Trusted || got.PID != 7 || got.UID != 3 {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	if _, err := f.WriteAt([]byte("x"), 0); err == nil {
		t.Error("a sealed record was changed")
	}
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"version":1,"id":"c","pid":7,"uid":3,"trusted":true,"grants":["one"]}`))
	f.Add([]byte(`{"version":1,"id":"c","grants":["one"]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := parseRecord(text)
		if err != nil {
			return
		}
		if r.ID == "" || !r.Trusted && len(r.Grants) > 0 {
			t.Errorf("%+v was read from %q", r, text)
		}
	})
}
