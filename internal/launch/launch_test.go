package launch

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/notify"
	"github.com/afalg-policy/afalg-policy/internal/testing/kerneltest"
)

func newPair(t *testing.T) (mine, theirs control) {
	t.Helper()
	mine, theirs, err := newControl()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mine.close(); theirs.close() })
	return mine, theirs
}

func openNull(t *testing.T) int {
	t.Helper()
	fd, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func openFDs(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestMessages(t *testing.T) {
	mine, theirs := newPair(t)
	null := openNull(t)
	long := strings.Repeat("long ", 2000)
	for _, m := range []message{
		{kind: kindSignal}, {kindEnded, 1<<32 - 1, ""}, {kindFailed, 127, "no such file: \x00\xff"}, {kindFailed, 3, long},
	} {
		for _, fds := range [][]int{nil, {null}} {
			if err := mine.send(m, fds...); err != nil {
				t.Fatal(err)
			}
			got, fd, err := theirs.receive()
			want := m
			want.text = want.text[:min(len(want.text), maxMessage-5)]
			if got != want || err != nil || fd < 0 != (fds == nil) {
				t.Errorf("%.40v came as %.40v, %d, %v", want, got, fd, err)
			}
			if fd >= 0 {
				unix.Close(fd)
			}
		}
	}
}

// Anything but a message is an error, and a closed peer is kind 0; neither
// leaves a descriptor.
func TestNoMessages(t *testing.T) {
	null := openNull(t)
	for want, send := range map[string]func(c control) error{
		"{0 0 } -1 <nil>":                                func(c control) error { return unix.Shutdown(int(c), unix.SHUT_WR) },
		"{0 0 } -1 a message of 4 bytes":                 func(c control) error { return notify.SendFDs(int(c), []byte("four"), null) },
		"{0 0 } -1 more than 1 descriptors in a message": func(c control) error { return notify.SendFDs(int(c), []byte("s1234"), null, null) },
		"{0 0 } -1 a message of more than 4096 bytes":    func(c control) error { return notify.SendFDs(int(c), make([]byte, maxMessage+1), null) },
		fmt.Sprintf("%v -1 <nil>", message{kindSignal, binary.NativeEndian.Uint32([]byte("1234")), ""}): func(c control) error { return notify.SendFDs(int(c), []byte("g1234")) },
	} {
		mine, theirs := newPair(t)
		before := openFDs(t)
		if err := send(mine); err != nil {
			t.Fatal(err)
		}
		m, fd, err := theirs.receive()
		if got := fmt.Sprintf("%v %d %v", m, fd, err); got != want {
			t.Errorf("%s, want %s", got, want)
		}
		if after := openFDs(t); after != before {
			t.Errorf("%s: %d descriptors open, then %d", want, before, after)
		}
	}
}

func TestPassOn(t *testing.T) {
	null := openNull(t)
	before := openFDs(t)
	numbers, release, err := passOn(null, null)
	if err != nil || len(numbers) != 2 {
		t.Fatal(numbers, err)
	}
	for _, number := range numbers {
		var fd int
		fmt.Sscan(number, &fd)
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); fd < lowest || flags != 0 || err != nil {
			t.Errorf("descriptor %s has the flags %d, %v", number, flags, err)
		}
	}
	release()
	if _, _, err := passOn(null, 1<<20); err != unix.EBADF {
		t.Errorf("no descriptor: %v", err)
	}
	if after := openFDs(t); after != before {
		t.Errorf("%d descriptors open, then %d", before, after)
	}
}

// An order comes out as it went in; arguments are bytes.
func TestOrder(t *testing.T) {
	want := Order{
		Command: []string{"a", "", "\xff\xfe", "two words\n"},
		Filter:  []unix.SockFilter{{Code: 1, Jt: 2, Jf: 3, K: 1<<32 - 1}, {Code: 6}},
		Details: []byte(`{"a":1}`),
	}
	f, err := want.store()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for range 2 { // always from its beginning
		got, err := load(int(f.Fd()))
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%v\n%s", err, diff)
		}
	}
}

func TestNoOrder(t *testing.T) {
	empty, err := Order{}.store()
	if err != nil {
		t.Fatal(err)
	}
	defer empty.Close()
	for fd, want := range map[int]string{
		int(empty.Fd()): "this command is started by run only", openNull(t): "this command is started by run only: ",
		1 << 20: "this command is started by run only: open /proc/self/fd/1048576: no such file or directory",
	} {
		if _, err := load(fd); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	for _, args := range [][]string{nil, {"1"}, {"one", "2"}, {"1", "two"}} {
		if _, err := Attach(args); err == nil || !strings.HasPrefix(err.Error(), "this command is started by run only") {
			t.Errorf("attach %q: %v", args, err)
		}
	}
}

func TestCheckInherited(t *testing.T) {
	const free = 200 // a family that nobody has
	if err := CheckInherited(free); err != nil {
		t.Errorf("nothing was passed in: %v", err)
	}
	socket, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(socket)
	want := fmt.Sprintf("descriptor %d, passed in from outside, is an AF_ALG socket, which no filter restricts: start the command without it", socket)
	if got := fmt.Sprint(CheckInherited(unix.AF_NETLINK)); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	want = fmt.Sprintf("descriptor %d, passed in from outside, is an io_uring, by which the command could make sockets: start it without", kerneltest.NeedRing(t))
	if got := fmt.Sprint(CheckInherited(free)); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestExitStatus(t *testing.T) {
	for script, want := range map[string]int{"exit 0": 0, "exit 255": 255, "kill -TERM $$": 143, "kill -KILL $$": 137, "kill -40 $$": 168} {
		sh := exec.Command("sh", "-c", script)
		sh.Run()
		if got := exitStatus(sh.ProcessState.Sys().(syscall.WaitStatus)); got != want {
			t.Errorf("%s: %d, want %d", script, got, want)
		}
	}
}

// TestEndTree ends, in a process of its own, everything below that process.
func TestEndTree(t *testing.T) {
	tree := exec.Command("/proc/self/exe", "-test.run=^TestEndTreeHere$")
	tree.Env = append(os.Environ(), "LAUNCH_TEST_TREE=1")
	out, err := tree.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestEndTreeHere(t *testing.T) {
	if os.Getenv("LAUNCH_TEST_TREE") == "" {
		return // TestEndTree starts it
	}
	if err := adopt(); err != nil {
		t.Fatal(err)
	}
	const script = `trap '' TERM HUP; for i in 1 2 3; do sleep 100 & setsid sh -c 'sleep 100 & setsid sleep 100 & (setsid sleep 100 &); echo; wait' & done; wait`
	sh := exec.Command("sh", "-c", script)
	out, err := sh.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := sh.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 3)); err != nil { // all have begun
		t.Fatal(err)
	}
	start := time.Now()
	endTree()
	if took := time.Since(start); took >= treeTime {
		t.Errorf("it took %v", took)
	}
	if left := children(); left != nil {
		t.Errorf("%v are left", left)
	}
	// All of them hold the pipe: it ends with the last one.
	if n, err := out.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("somebody has the pipe: %d, %v", n, err)
	}
}
