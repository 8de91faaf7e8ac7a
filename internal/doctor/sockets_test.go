package doctor

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/testing/child"
)

func TestMain(m *testing.M) {
	child.Main(m.Run, map[string]func([]string) error{"hold": hold, "look": look})
}

// rare is a protocol of which few have a socket; this kernel may have no AF_ALG.
const rare = "MPTCP"

func rareSocket() (int, error) {
	return unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_MPTCP)
}

// hold opens a socket: in the table of all threads, or in one that a single thread
// has to itself, where /proc/PID/fd does not show it.
func hold(args []string) error {
	where := args[0]
	ready := make(chan error)
	go func() {
		runtime.LockOSThread()
		if where == "thread" {
			if err := unix.Unshare(unix.CLONE_FILES); err != nil {
				ready <- err
				return
			}
		}
		_, err := rareSocket()
		ready <- err
		select {}
	}()
	if err := <-ready; err != nil {
		return err
	}
	fmt.Println("ready")
	_, err := fmt.Scanln()
	return err
}

// look says what nobody finds.
func look([]string) error {
	h := findHolders("/proc", rare, time.Now().Add(time.Minute))
	fmt.Println(h.why, h.whole(), len(h.holders))
	return nil
}

func canHold(t *testing.T) {
	t.Helper()
	fd, err := rareSocket()
	if err != nil {
		t.Fatalf("a socket of MPTCP: %v", err)
	}
	unix.Close(fd)
}

func TestFindHolders(t *testing.T) {
	canHold(t)
	for _, where := range []string{"process", "thread"} {
		t.Run(where, func(t *testing.T) {
			p := child.Start(t, child.Command("hold", where))
			if line, err := p.Out.ReadString('\n'); err != nil || line != "ready\n" {
				t.Fatal(line, err)
			}
			h := findHolders("/proc", rare, time.Now().Add(time.Minute))
			if h.why != nil || !slices.Contains(h.holders, holder{p.Process.Pid, 1}) {
				t.Errorf("%+v lacks process %d", h, p.Process.Pid)
			}
			if h := findHolders("/proc", algProtocol, time.Now().Add(time.Minute)); slices.ContainsFunc(h.holders, func(o holder) bool { return o.pid == p.Process.Pid }) {
				t.Errorf("another protocol's socket counts as one of AF_ALG")
			}
		})
	}
}

// What could not be looked at is no "nobody".
func TestNotWhole(t *testing.T) {
	if h := findHolders("/proc", rare, time.Now().Add(-time.Second)); h.whole() {
		t.Error("without time, everybody was seen")
	}
	if h := findHolders(filepath.Join(t.TempDir(), "none"), rare, time.Now().Add(time.Minute)); h.whole() {
		t.Error("without /proc, everybody was seen")
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root, to be nobody")
	}
	canHold(t)
	p := child.Start(t, child.Command("hold", "process"))
	if line, err := p.Out.ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatal(line, err)
	}
	nobody := child.Command("look")
	nobody.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := nobody.Output(); err != nil || string(out) != "<nil> false 0\n" {
		t.Errorf("nobody finds %q, %v", out, err)
	}
}

// A process that ends while it is looked at, or whose descriptors change, is no
// error.
func TestHoldersGone(t *testing.T) {
	proc := t.TempDir()
	for _, path := range []string{"7/task", "8/task/8", "9/task/9/fd"} {
		if err := os.MkdirAll(filepath.Join(proc, path), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("socket:[1]", filepath.Join(proc, "9/task/9/fd/3")); err != nil {
		t.Fatal(err)
	}
	h := findHolders(proc, rare, time.Now().Add(time.Minute))
	if h.why != nil || len(h.holders) != 0 || h.unseen != 0 {
		t.Errorf("%+v", h)
	}
}

// A process may have very many descriptors.
func TestManyDescriptors(t *testing.T) {
	const many = 15_000
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Max < many+100 {
		t.Fatalf("descriptors: %v, %+v", err, limit)
	}
	old := limit
	limit.Cur = limit.Max
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Setrlimit(unix.RLIMIT_NOFILE, &old) })
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for range many {
		fd, err := unix.Dup(int(f.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
	}
	start := time.Now()
	n, err := looker{rare, start.Add(time.Minute)}.process("/proc/" + strconv.Itoa(os.Getpid()))
	if err != nil || n != 0 {
		t.Errorf("%d, %v", n, err)
	}
	t.Logf("%d descriptors in %v", many, time.Since(start))
	if _, err := (looker{rare, start}).process("/proc/" + strconv.Itoa(os.Getpid())); err != errOutOfTime {
		t.Errorf("past its time: %v", err)
	}
}
