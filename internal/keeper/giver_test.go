package keeper

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/listen"
)

// giver is a keeper that hands over, in the test.
func (w *world) giver(t *testing.T, script func(l *link, all []entry)) *process {
	t.Helper()
	door, info, err := listen.Make(w.door, unix.SOCK_SEQPACKET)
	if err != nil {
		t.Fatal(err)
	}
	runtimes, file, err := listen.Make(w.listen, unix.SOCK_STREAM)
	if err != nil {
		t.Fatal(err)
	}
	one := memory("1")
	f := os.NewFile(uintptr(door), "door")
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	two := w.launch()
	conn, err := l.(*net.UnixListener).AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	peer, err := newLink(conn)
	if err != nil {
		t.Fatal(err)
	}
	if m, err := peer.receive(0); err != nil || m.Kind != wishNow || m.Version != wireVersion {
		t.Fatalf("%+v, %v", m, err)
	}
	if err := peer.send(wire{Kind: begin, Version: wireVersion, Count: 3, Listen: &place{w.listen, idOf(file)}, Door: &place{w.door, idOf(info)}}); err != nil {
		t.Fatal(err)
	}
	script(peer, []entry{{listenName, runtimes}, {doorName, door}, {"one", one}})
	unix.Close(runtimes)
	unix.Close(one)
	l.Close()
	f.Close()
	conn.Close()
	return two
}

func sendAll(l *link, all ...entry) {
	m, fds := wire{Kind: descriptors}, []int{}
	for _, e := range all {
		m.Names, fds = append(m.Names, e.name), append(fds, e.fd)
	}
	_ = l.send(m, fds...)
}

// Whoever hands over dies, or errs. Before everything is there, the second begins
// anew; afterwards it goes on with everything.
func TestGiverFails(t *testing.T) {
	for name, tt := range map[string]struct {
		script func(*link, []entry)
		has    string // by its agent; "" if it ends
		error  string
	}{
		"dies at once":        {func(*link, []entry) {}, "listen=socket", ""},
		"dies amid":           {func(l *link, all []entry) { sendAll(l, all[0]) }, "listen=socket", ""},
		"dies before the end": {func(l *link, all []entry) { sendAll(l, all...) }, "listen=socket", ""},
		"dies at the end": {func(l *link, all []entry) {
			sendAll(l, all...)
			_, _ = l.receive(0)
			_ = l.send(wire{Kind: complete})
		}, "listen=socket one=1", ""},
		"takes back": {func(l *link, all []entry) {
			sendAll(l, all...)
			_ = l.send(wire{Kind: complete})
			_ = l.send(wire{Kind: back})
			_, _ = l.receive(0)
			_, _ = l.receive(0)
		}, "", `the other keeper says "back", and keeps everything`},
		"complete too soon": {func(l *link, all []entry) {
			sendAll(l, all[0])
			_ = l.send(wire{Kind: complete})
			_, _ = l.receive(0)
		}, "", `says "complete" where "descriptors" is due`},
		"no door": {func(l *link, all []entry) {
			sendAll(l, all[0], all[2], all[2])
			_ = l.send(wire{Kind: complete})
			_, _ = l.receive(0)
		}, "", "a socket is missing"},
		"a name": {func(l *link, all []entry) {
			sendAll(l, all[0], all[1], entry{"a:b", all[2].fd})
		}, "", `"a:b" is no name`},
		"two sockets": {func(l *link, all []entry) {
			sendAll(l, all[0], all[0])
		}, "", `"listen" is no name`},
		"refuses": {func(l *link, _ []entry) { _ = l.send(wire{Kind: refused, Reason: "no"}) }, "", `says "refused"`},
		"nothing": {func(l *link, _ []entry) { _ = l.send(wire{Kind: descriptors}) }, "", "without a descriptor"},
		"junk":    {func(l *link, _ []entry) { _, _ = l.conn.Write([]byte("{}{}")) }, "", "more than a message in a packet"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			two := w.giver(t, tt.script)
			if tt.has != "" {
				for { // it may have had an agent before
					if _, has := two.agent(); has == tt.has {
						break
					}
				}
				two.do("keep more x")
				return
			}
			<-two.done
			if status := two.cmd.ProcessState.ExitCode(); status != 3 || !two.saw("error: ", tt.error) {
				t.Errorf("status %d, want %q", status, tt.error)
			}
		})
	}
}

// The place is another user's, or a user other than root listens there.
func TestGiverIsAnotherUser(t *testing.T) {
	w := newWorld(t)
	l := &link{uid: 65534, pid: 1}
	if err := l.check(); err == nil || !strings.Contains(err.Error(), "only root and user 0 are heard") {
		t.Error(err)
	}
	l = &link{uid: 0, pid: 0}
	if err := l.check(); err == nil || !strings.Contains(err.Error(), "hostPID") {
		t.Error(err)
	}
	if err := os.Chmod(filepath.Dir(w.door), 0o777); err != nil {
		t.Fatal(err)
	}
	k := w.launch()
	<-k.done
	if k.cmd.ProcessState.ExitCode() != 3 || !k.saw("error: hand-over socket", "others may write to the directory") {
		t.Errorf("%v", k.cmd.ProcessState)
	}
}
