package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/notify"
)

// hostile is a connection to the agent.
type hostile struct {
	t  *testing.T
	fd int
}

func (w *world) connect() hostile {
	w.t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: w.socket}); err != nil {
		w.t.Fatal(err)
	}
	return hostile{w.t, fd}
}

func (h hostile) send(text []byte, fds ...int) {
	h.t.Helper()
	// The agent may have closed already.
	if err := notify.SendFDs(h.fd, text, fds...); err != nil && !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
		h.t.Fatal(err)
	}
}

// taken waits until the agent has read everything sent.
func (h hostile) taken() {
	h.t.Helper()
	eventually(h.t, "the agent reads", func() bool {
		unread, err := unix.IoctlGetInt(h.fd, unix.TIOCOUTQ)
		return err != nil || unread == 0
	})
}

// state is the message that a runtime would send for this process.
func state(t *testing.T, change func(*specs.ContainerProcessState)) []byte {
	t.Helper()
	s := stateOf("evil", "one")
	s.Pid = os.Getpid()
	if change != nil {
		change(&s)
	}
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// Each attack is refused for its reason, costs no descriptor, and harms nobody.
func TestHostilePeers(t *testing.T) {
	w := newWorld(t).agent()
	good := w.container("good", "one")
	good.ask("socket", "ok")
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	fd := int(null.Fd())
	named, err := unix.MemfdCreate("seccomp notify", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(named)
	many := make([]int, 10)
	for i := range many {
		many[i] = fd
	}
	names := func(n int) func(*specs.ContainerProcessState) {
		return func(s *specs.ContainerProcessState) {
			s.Fds = strings.Split(strings.Repeat("other ", n-1)+specs.SeccompFdName, " ")
		}
	}
	valid := state(t, nil)
	for _, tt := range []struct {
		name   string
		attack func(hostile)
		want   string
	}{
		{"junk", func(h hostile) { h.send([]byte("GET / HTTP/1.1\r\n\r\n"), fd) }, "read the state: invalid character 'G'"},
		{"half", func(h hostile) { h.send(valid[:40], fd) }, "closed in the middle of its state"},
		{"other types", func(h hostile) { h.send([]byte(`{"pid":"x"}`), fd) }, "read the state: json: cannot unmarshal string"},
		{"a list", func(h hostile) { h.send([]byte(`[]`), fd) }, "read the state: json: cannot unmarshal array"},
		{"deep", func(h hostile) { h.send(bytes.Repeat([]byte("["), 100000), fd) }, "exceeded max depth"},
		{"without end", func(h hostile) {
			h.send([]byte(`{"a":"`), fd)
			for range 40 {
				h.send(bytes.Repeat([]byte("a"), 32<<10))
			}
		}, "larger than 1024 KiB, the most that is read"},
		{"no descriptor", func(h hostile) { h.send(valid) }, "no descriptor came with the state"},
		{"ten descriptors", func(h hostile) { h.send(valid, many...) }, "10 descriptors came with a state that names 1"},
		{"ten named descriptors", func(h hostile) { h.send(state(t, names(10)), many...) }, "is no seccomp listener but /dev/null"},
		{"too many descriptors", func(h hostile) { h.send(valid, append(many, many...)...) }, "more than 16 descriptors"},
		{"as many as there can be", func(h hostile) {
			h.send(valid, bytesOf(fd, notify.MaxFDs)...)
		}, "more than 16 descriptors"},
		{"later descriptors", func(h hostile) {
			h.send(valid[:10], fd)
			h.taken()
			h.send(valid[10:], fd)
		}, "more than 0 descriptors"},
		{"no name", func(h hostile) {
			h.send(state(t, func(s *specs.ContainerProcessState) { s.Fds = []string{"pidFd"} }), fd)
		}, "none of the descriptors is named seccompFd"},
		{"two names", func(h hostile) {
			h.send(state(t, func(s *specs.ContainerProcessState) { s.Fds = []string{"seccompFd", "seccompFd"} }), fd, fd)
		}, "more than one descriptor is named seccompFd"},
		{"no listener", func(h hostile) { h.send(valid, fd) }, "is no seccomp listener but /dev/null"},
		{"a name like a listener's", func(h hostile) { h.send(valid, named) }, "is no seccomp listener but /memfd:seccomp notify"},
		{"the socket itself", func(h hostile) { h.send(valid, h.fd) }, "is no seccomp listener but socket:"},
		{"two states", func(h hostile) { h.send(append(valid, valid...), fd) }, "more than a state in the message"},
		{"no id", func(h hostile) {
			h.send(state(t, func(s *specs.ContainerProcessState) { s.State.ID = "" }), fd)
		}, "the container's id \"\" is not one"},
		{"an id of two lines", func(h hostile) {
			h.send(state(t, func(s *specs.ContainerProcessState) { s.State.ID = "a\nb" }), fd)
		}, `the container's id "a\nb" is not one`},
		{"no process", func(h hostile) {
			h.send(state(t, func(s *specs.ContainerProcessState) { s.Pid = -1 }), fd)
		}, `its process -1 is not one`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := w.held()
			h := w.connect()
			h.t = t
			tt.attack(h)
			unix.Close(h.fd)
			w.expect("failed: peer: process ", tt.want)
			eventually(t, fmt.Sprintf("%d descriptors as before", before), func() bool { return w.held() == before })
			good.ask("socket", "ok")
		})
	}
	w.container("after", "one").ask("socket", "ok")
}

// A peer that says nothing is no failure: hooks ask in this way whether an
// agent is there. The next line is about the peer after it.
func TestKnock(t *testing.T) {
	w := newWorld(t).agent()
	before := w.held()
	unix.Close(w.connect().fd)
	eventually(t, fmt.Sprintf("%d descriptors as before", before), func() bool { return w.held() == before })
	h := w.connect()
	h.send([]byte("junk"))
	unix.Close(h.fd)
	if line := w.process.next(); !strings.Contains(line, "read the state: invalid character 'j'") {
		t.Errorf("the first line is %q", line)
	}
}

func bytesOf(fd, n int) []int {
	fds := make([]int, n)
	for i := range fds {
		fds[i] = fd
	}
	return fds
}

// A peer's words about the process must fit.
func TestWrongProcess(t *testing.T) {
	w := newWorld(t).agent()
	for _, tt := range []struct {
		name string
		pid  int
		want string
	}{
		{"none", maxPID - 1, "look at its process: "},
		{"without a filter", os.Getpid(), "is under no filter"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := order{State: stateOf(tt.name, "one")}
			o.State.Pid = tt.pid
			p := w.join(o, nil)
			w.expect("failed: peer: ", "is refused, and goes on (", "; its trapped calls fail with ENOSYS: ", tt.want)
			p.ask("socket", "ENOSYS")
		})
	}
}

// A silent peer delays nobody, and is given up.
func TestSilentPeers(t *testing.T) {
	w := newWorld(t).agent(hurried)
	w.container("first", "one").ask("socket", "ok") // the costs of the first time
	before := w.held()
	var took time.Duration
	for try := range 10 { // a busy machine may take as long as a greeting
		start := time.Now()
		for range maxGreetings - 1 {
			h := w.connect()
			defer unix.Close(h.fd)
			h.send([]byte(`{"ociVersion":`))
		}
		good := w.container(fmt.Sprintf("good%d", try), "one")
		good.ask("socket", "ok")
		took = time.Since(start)
		w.expect("failed: peer: ", "its state did not come within "+testGreeting.String())
		good.in.Close()
		if took <= testGreeting {
			break
		}
	}
	if took > testGreeting {
		t.Errorf("a container waited for %v", took)
	}
	// Some stay open for the broker's last callers.
	eventually(t, "the descriptors as before", func() bool { return w.held() < before+maxGreetings/4 })
}

// A message may come in pieces, and with unknown keys.
func TestPieces(t *testing.T) {
	w := newWorld(t).agent()
	text := state(t, nil)
	text = append([]byte(`{"unknown":{"a":[1,2]},`), text[1:]...)
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	h := w.connect()
	for i := range text {
		if i == 0 {
			h.send(text[:1], int(null.Fd()))
		} else {
			h.send(text[i : i+1])
		}
	}
	// The agent read everything, and only the descriptor was wrong; the peer
	// did not close.
	w.expect(`failed: peer: `, `container "evil"`, "is no seccomp listener")
	unix.Close(h.fd)
}

// The container of another user is served, and gets nothing.
func TestUntrustedPeer(t *testing.T) {
	w := newWorld(t).agent()
	who := &syscall.Credential{Uid: nobody, Gid: nobody}
	if info, err := os.Stat(w.socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
	if err := os.Chmod(w.socket, 0o666); err != nil {
		t.Fatal(err)
	}
	p := w.join(order{State: stateOf("theirs", "one")}, who)
	w.expect("failed: peer: ", "of user 65534", `container "theirs" is served without its grants`)
	p.ask("socket", "EAFNOSUPPORT")
	w.expect("decided: theirs socket allowed=false", "the workload holds no grant")
	w.container("ours", "one").ask("socket", "ok")
}
