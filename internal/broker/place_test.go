package broker_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/broker"
)

// The caller's filter applies to its socket: a program that drops what a cgroup
// sends drops it also on a socket that the helper made for a process there, and
// drops nothing of processes outside.
func TestMadeInCgroup(t *testing.T) {
	m, dir, c := startMaker(t), makeCgroup(t), start(t)
	denyEgress(t, dir)
	checkMade(t, m, c, nil)
	join(t, dir, c)
	if err := c.send(); err == nil {
		t.Fatal("the cgroup lets through what its process sends by itself")
	}
	checkMade(t, m, c, unix.EPERM)
	if left := read(t, dir+"/cgroup.procs"); left != fmt.Sprintln(c.Process.Pid) {
		t.Errorf("in the cgroup are %q", left)
	}
	if os.Geteuid() == 0 { // the identity is no obstacle
		pair, err := m.sockets.MakeFor(uint32(c.Process.Pid), unix.AF_UNIX, unix.SOCK_STREAM, true)
		if err != nil || len(pair) != 2 {
			t.Fatalf("a pair: %v, %v", pair, err)
		}
		defer unix.Close(pair[0])
		defer unix.Close(pair[1])
		owner, err := unix.GetsockoptUcred(pair[0], unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil || owner.Uid != ordinary || owner.Gid != ordinary {
			t.Errorf("made by %+v, %v", owner, err)
		}
		if _, err := m.sockets.MakeFor(uint32(c.Process.Pid), unix.AF_INET, unix.SOCK_RAW, false); err != unix.EPROTONOSUPPORT && err != unix.EPERM {
			t.Errorf("a raw socket without CAP_NET_RAW: %v", err)
		}
	}
	if _, err := m.sockets.MakeFor(uint32(c.Process.Pid), unix.AF_INET, 14, false); err != unix.EINVAL {
		t.Errorf("a socket of no type: %v", err)
	}
}

// A thread may be in a cgroup that a process is not usually in.
func TestMadeInThreadedCgroup(t *testing.T) {
	m, dir, c := startMaker(t), makeCgroup(t), start(t)
	denyEgress(t, dir)
	inner := filepath.Join(dir, "inner")
	if err := os.Mkdir(inner, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { eventually(func() bool { return unix.Rmdir(inner) == nil }) })
	join(t, dir, c)
	write(t, inner+"/cgroup.type", "threaded")
	write(t, inner+"/cgroup.threads", fmt.Sprint(c.Process.Pid))
	checkMade(t, m, c, unix.EPERM)
}

// Where the cgroup gives no socket, there is none, and the error says why.
// Sockets of another cgroup are made meanwhile.
func TestFrozenCgroup(t *testing.T) {
	m, dir, other, c, outside := startMaker(t), makeCgroup(t), makeCgroup(t), start(t), start(t)
	join(t, dir, c)
	join(t, other, outside)
	write(t, dir+"/cgroup.freeze", "1")
	refused := make(chan error)
	go func() {
		fds, err := m.sockets.MakeFor(uint32(c.Process.Pid), unix.AF_INET, unix.SOCK_DGRAM, false)
		if len(fds) > 0 {
			err = errors.New("a socket was made")
		}
		refused <- err
	}()
	for waiting := true; waiting; {
		select {
		case err := <-refused:
			var errno unix.Errno
			if err == nil || errors.As(err, &errno) || !strings.Contains(err.Error(), "made no socket in 2000 ms") {
				t.Error(err)
			}
			waiting = false
		default:
			checkMade(t, m, outside, nil)
		}
	}
	if left := read(t, dir+"/cgroup.procs"); left != fmt.Sprintln(c.Process.Pid) {
		t.Errorf("in the cgroup are %q", left)
	}
}

// checkMade has the helper make a socket as for a process, and sends over it.
func checkMade(t *testing.T, m *maker, c *sender, want error) {
	t.Helper()
	fds, err := m.sockets.MakeFor(uint32(c.Process.Pid), unix.AF_INET, unix.SOCK_DGRAM, false)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[0])
	if err := unix.Sendto(fds[0], []byte("x"), 0, &unix.SockaddrInet4{Port: 9, Addr: [4]byte{127, 0, 0, 1}}); err != want {
		t.Errorf("sent over a socket that was made: %v, want %v", err, want)
	}
}

// ordinary is a user without processes.
const ordinary = 12345

// sender is a process that sends something when it is told to.
type sender struct {
	*exec.Cmd
	in, out *os.File
}

func start(t *testing.T) *sender {
	t.Helper()
	in, ours := pipe(t)
	theirs, out := pipe(t)
	s := &sender{in: ours, out: theirs}
	s.Cmd = exec.Command("bash", "-c", `while read -r line; do if echo x >/dev/udp/127.0.0.1/9; then echo sent; else echo failed; fi; done 2>/dev/null`)
	if os.Geteuid() == 0 {
		s.Cmd = exec.Command("setpriv", append([]string{"--reuid", fmt.Sprint(ordinary), "--regid", fmt.Sprint(ordinary), "--clear-groups"}, s.Args...)...)
	}
	s.Stdin, s.Stdout, s.Stderr = in, out, os.Stderr
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	in.Close()
	out.Close()
	t.Cleanup(func() {
		ours.Close()
		theirs.Close()
		s.Process.Kill()
		s.Wait()
	})
	if err := s.send(); err != nil { // it has changed its user
		t.Fatal(err)
	}
	return s
}

func (s *sender) send() error {
	if _, err := s.in.WriteString("\n"); err != nil {
		return err
	}
	answer := make([]byte, 16)
	n, err := s.out.Read(answer)
	if err == nil && string(answer[:n]) != "sent\n" {
		err = fmt.Errorf("the sender says %q", answer[:n])
	}
	return err
}

// makeCgroup makes a cgroup of the unified hierarchy. It needs root.
func makeCgroup(t *testing.T) string {
	t.Helper()
	for _, mount := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var fs unix.Statfs_t
		if unix.Statfs(mount, &fs) != nil || fs.Type != unix.CGROUP2_SUPER_MAGIC {
			continue
		}
		dir, err := os.MkdirTemp(mount, "afalg-policy-test-")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			os.WriteFile(dir+"/cgroup.freeze", []byte("0"), 0)
			if !eventually(func() bool { return unix.Rmdir(dir) == nil }) {
				t.Errorf("%s is not empty: %q", dir, read(t, dir+"/cgroup.procs"))
			}
		})
		return dir
	}
	t.Fatal("no unified hierarchy is mounted at /sys/fs/cgroup")
	return ""
}

func join(t *testing.T, dir string, c *sender) {
	t.Helper()
	write(t, dir+"/cgroup.procs", fmt.Sprint(c.Process.Pid))
	// This runs before the cgroup is removed.
	t.Cleanup(func() {
		os.WriteFile(dir+"/cgroup.freeze", []byte("0"), 0)
		c.Process.Kill()
		c.Wait()
	})
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
	}
	return string(text)
}

// From linux/bpf.h.
const (
	bpfProgLoad          = 5
	bpfProgAttach        = 8
	bpfProgTypeCgroupSkb = 8
	bpfCgroupInetEgress  = 1
)

// denyEgress drops what the sockets of a cgroup send.
func denyEgress(t *testing.T, dir string) {
	t.Helper()
	code := []uint64{0xb7, 0x95} // r0 = 0; exit
	license := []byte("GPL\x00")
	load := struct {
		kind, count   uint32
		code, license uint64
		rest          [120]byte
	}{kind: bpfProgTypeCgroupSkb, count: uint32(len(code)), code: uint64(uintptr(unsafe.Pointer(&code[0]))), license: uint64(uintptr(unsafe.Pointer(&license[0])))}
	program, _, errno := unix.Syscall(unix.SYS_BPF, bpfProgLoad, uintptr(unsafe.Pointer(&load)), unsafe.Sizeof(load))
	if errno != 0 {
		t.Fatalf("load a program: %v", errno)
	}
	defer unix.Close(int(program))
	cgroup, err := unix.Open(dir, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(cgroup)
	attach := struct{ target, program, kind, flags uint32 }{uint32(cgroup), uint32(program), bpfCgroupInetEgress, 0}
	if _, _, errno := unix.Syscall(unix.SYS_BPF, bpfProgAttach, uintptr(unsafe.Pointer(&attach)), unsafe.Sizeof(attach)); errno != 0 {
		t.Fatalf("attach a program: %v", errno)
	}
}

func TestParsePlace(t *testing.T) {
	for _, test := range []struct{ text, unified, classes string }{
		{"0::/a/b:c\n", "/a/b:c", ""},
		{"9:name=systemd:/x\n4:memory:/m\n0::/\n", "/", ""},
		{"5:net_cls,net_prio:/docker/1\n4:memory:/m\n0::/u\n", "/u", "/docker/1\n"},
		{"6:net_prio:/p\n5:net_cls:/c\n", "", "/p\n/c\n"},
		{"", "", ""},
	} {
		if unified, classes := broker.ParsePlace(test.text); unified != test.unified || classes != test.classes {
			t.Errorf("%q: %q, %q", test.text, unified, classes)
		}
	}
}

// TestLabel reads the labels of the three modules.
func TestLabel(t *testing.T) {
	for _, test := range []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"no module", nil, ""},
		{"AppArmor", map[string]string{"current": "docker-default (enforce)\n", "apparmor/current": "docker-default (enforce)\n"}, ""},
		{"SELinux", map[string]string{"current": "system_u:system_r:container_t:s0:c1,c2\x00"}, "system_u:system_r:container_t:s0:c1,c2"},
		{"Smack", map[string]string{"current": "User", "smack/current": "User"}, "User"},
		{"SELinux beside AppArmor", map[string]string{"current": "a:b:c:s0\x00", "apparmor/current": "unconfined\n"}, "a:b:c:s0"},
	} {
		dir := t.TempDir()
		for name, text := range test.files {
			path := filepath.Join(dir, "attr", name)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := broker.LabelAt(dir); err != nil || got != test.want {
			t.Errorf("%s: %q, %v; want %q", test.name, got, err, test.want)
		}
	}
}
