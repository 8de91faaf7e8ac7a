package notify_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/notify"
	"github.com/afalg-policy/afalg-policy/internal/testing/child"
)

// The test binary is also the process whose calls are trapped. It reads
// commands, a line each, and answers each with a line.
const roleFile = 3 // the socket over which the listener is sent

// trapped is a call that nobody else makes, and that takes any arguments.
const trapped = unix.SYS_GETPPID

func TestMain(m *testing.M) {
	child.Main(m.Run, map[string]func([]string) error{"trapped": serve, "privileged": serve})
}

// trapOne is a filter that traps one call, whatever the architecture.
func trapOne(nr uint32) []unix.SockFilter {
	return []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: nr, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
}

func serve([]string) error {
	signal.Ignore(unix.SIGTERM)
	signal.Notify(make(chan os.Signal, 1), unix.SIGUSR1)
	if child.Role() != "privileged" {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return err
		}
	}
	listener, err := notify.Install(trapOne(trapped))
	if err != nil {
		return err
	}
	if err := notify.SendFDs(roleFile, []byte("listener"), listener); err != nil {
		return err
	}
	unix.Close(listener)
	fmt.Println("ready")
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		fmt.Println(perform(strings.Fields(in.Text())))
	}
	return in.Err()
}

func perform(words []string) string {
	switch words[0] {
	case "call":
		var args [6]uintptr
		for i, w := range words[1:] {
			n, err := strconv.ParseUint(w, 0, 64)
			if err != nil {
				return err.Error()
			}
			args[i] = uintptr(n)
		}
		r, _, errno := unix.Syscall6(trapped, args[0], args[1], args[2], args[3], args[4], args[5])
		return fmt.Sprintf("%d %d", int(r), int(errno))
	case "ppid": // not by the trapped call
		link, _, _ := strings.Cut(status("PPid"), " ")
		return link
	case "cloexec":
		fd, _ := strconv.Atoi(words[1])
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		return fmt.Sprint(flags, err)
	case "nofile":
		n, _ := strconv.ParseUint(words[1], 10, 64)
		return fmt.Sprint(unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: n}))
	case "install":
		_, err := notify.Install(trapOne(unix.SYS_MOUNT))
		return fmt.Sprint(err)
	case "garbage":
		_, err := notify.Install([]unix.SockFilter{{Code: 0xffff}})
		return fmt.Sprint(err)
	}
	return "what is " + words[0]
}

func status(key string) string {
	text, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, key+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// trappedChild is a process under a filter, with its listener.
type trappedChild struct {
	*testing.T
	*child.Proc
	*notify.Listener
}

func command(t *testing.T, role string) (cmd *exec.Cmd, socket int) {
	t.Helper()
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs := os.NewFile(uintptr(ends[1]), "theirs")
	t.Cleanup(func() {
		theirs.Close()
		unix.Close(ends[0])
	})
	cmd = child.Command(role)
	cmd.ExtraFiles = []*os.File{theirs}
	return cmd, ends[0]
}

func start(t *testing.T) *trappedChild {
	t.Helper()
	cmd, socket := command(t, "trapped")
	c := &trappedChild{T: t, Proc: child.Start(t, cmd)}
	c.Expect("ready")
	_, fds, err := notify.ReceiveFDs(socket, make([]byte, 10), 1)
	if err != nil || len(fds) != 1 {
		t.Fatal(fds, err)
	}
	if c.Listener, err = notify.NewListener(fds[0]); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if c.Listener != nil {
			c.Listener.Close()
		}
	})
	return c
}

// trap has the child make the call, and receives it.
func (c *trappedChild) trap(args ...string) notify.Notification {
	c.Helper()
	c.Say("call %s", strings.Join(args, " "))
	c.await(unix.POLLIN)
	n, err := c.Receive(c.Buffer())
	if err != nil {
		c.Fatal(err)
	}
	return n
}

// await polls the listener: a receive without a call would block.
func (c *trappedChild) await(event int16) {
	c.Helper()
	fds := []unix.PollFd{{Fd: int32(c.FD()), Events: unix.POLLIN}}
	for end := time.Now().Add(3 * time.Minute); time.Now().Before(end); {
		if n, err := unix.Poll(fds, 1000); n > 0 && fds[0].Revents&event != 0 {
			return
		} else if err != nil && err != unix.EINTR {
			c.Fatal(err)
		}
	}
	c.Fatalf("the listener never became %#x; it is %#x", event, fds[0].Revents)
}
