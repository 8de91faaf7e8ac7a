package agent

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/testing/kerneltest"
)

func TestMakeSocket(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	s, err := makeSocket(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if _, err := makeSocket(path); err == nil || !strings.Contains(err.Error(), "somebody listens there already") {
		t.Errorf("a second one: %v", err)
	}
	// An agent that is killed leaves its socket; the next one replaces it.
	s.made = nil
	s.close()
	again, err := makeSocket(path)
	if err != nil {
		t.Fatal(err)
	}
	if conn, err := net.Dial("unix", path); err != nil {
		t.Error(err)
	} else {
		conn.Close()
	}
	// A file that somebody else put there meanwhile stays.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	again.close()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("another's file was removed: %v", err)
	}
	entries, _ := os.ReadDir(dir)
	if len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestRefusedPlaces(t *testing.T) {
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(dir+"/file", nil, 0o600))
	must(os.Symlink(dir+"/nowhere", dir+"/link"))
	must(os.Mkdir(dir+"/dir", 0o700))
	must(os.Mkdir(dir+"/open", 0o700))
	must(os.Chmod(dir+"/open", 0o777))
	must(os.Mkdir(dir+"/sticky", 0o700))
	must(os.Chmod(dir+"/sticky", 0o777|os.ModeSticky))
	must(os.Mkdir(dir+"/theirs", 0o755))
	must(os.Chown(dir+"/theirs", nobody, nobody))
	for name, want := range map[string]string{
		"file":     "there is a file that is not a socket",
		"dir":      "there is a file that is not a socket",
		"link":     "there is a link, and it is not followed",
		"none/x/s": "no such file or directory",
		"file/s":   "not a directory",
		"open/s":   "others may write to the directory (mode 0777)",
		"theirs/s": "the directory belongs to user 65534",
	} {
		_, err := makeSocket(filepath.Join(dir, name))
		var host *hosterr.Error
		if !errors.As(err, &host) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
	s, err := makeSocket(dir + "/sticky/s")
	must(err)
	s.close()
	if _, err := openSocket("", nil); !errors.Is(err, ErrNoSocket) {
		t.Error(err)
	}
}

// The directory of the socket is made: /run is empty when a machine starts.
func TestMakeDirectory(t *testing.T) {
	defer unix.Umask(unix.Umask(0o077))
	path := filepath.Join(t.TempDir(), "afalg-policy", "s")
	s, err := makeSocket(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if info, err := os.Stat(filepath.Dir(path)); err != nil || info.Mode() != os.ModeDir|0o755 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// A path may be as long as a socket's can be.
func TestLongPath(t *testing.T) {
	t.Chdir(t.TempDir())
	path := "./" + strings.Repeat("x", len(unix.RawSockaddrUnix{}.Path)-3)
	s, err := makeSocket(path)
	if err != nil {
		t.Fatal(err)
	}
	s.close()
}

func TestPassedSockets(t *testing.T) {
	datagram, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	f, err := tcp.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	inet, err := unix.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	for want, fd := range map[string]int{
		"nobody can connect to it":                       datagram,
		"it is of network tcp, not a Unix stream socket": inet,
	} {
		if _, err := openSocket("", []int{fd}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil {
			t.Error("the descriptor is left open")
		}
	}
}

func TestCheckDescriptors(t *testing.T) {
	pid := os.Getpid()
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	// This kernel may have no AF_ALG: another protocol stands for it.
	if err := checkDescriptors(pid, "NETLINK"); err == nil || !strings.Contains(err.Error(), "holds an AF_ALG socket (descriptor ") {
		t.Errorf("a socket was not found: %v", err)
	}
	if err := checkDescriptors(pid, protocolALG); err != nil {
		t.Error(err)
	}
	unix.Close(fd)
	if err := checkDescriptors(pid, "NETLINK"); err != nil {
		t.Error(err)
	}
	if err := checkDescriptors(maxPID-1, protocolALG); err == nil {
		t.Error("a process that is not there was looked at")
	}
	if err := samePIDs(pid); err != nil {
		t.Error(err)
	}
	if err := samePIDs(maxPID - 1); err != nil {
		t.Error(err)
	}
	if err := underFilter(pid); err == nil || !strings.HasSuffix(err.Error(), "is under no filter") {
		t.Error(err)
	}
}

// A ring of io_uring is as bad as a socket.
func TestRing(t *testing.T) {
	kerneltest.NeedRing(t)
	if err := checkDescriptors(os.Getpid(), protocolALG); err == nil || !strings.Contains(err.Error(), "holds an io_uring") {
		t.Error(err)
	}
}
