package live

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
	"github.com/afalg-policy/afalg-policy/internal/testing/child"
)

// The test binary is also the process that is asked, and one that asks. A role
// prints "ready" when it is set up, and ends with its standard input.
var roles = map[string]func(args []string) error{
	"plain":   func([]string) error { return nil },
	"stack":   func([]string) error { return installAll(twoFilters...) },
	"threads": func([]string) error { return threeThreads() },
	"strict":  func([]string) error { return strictThread() },
	"vfork":   func([]string) error { return vforkThread() },
	"signals": func([]string) error { return installAll(twoFilters...) },
	"hold":    func(args []string) error { return holdStopped(args[0]) },
	"read":    func(args []string) error { return readAndPrint(args[0]) },
	"visible": func([]string) error {
		_, err := All()
		h, visibleErr := Visible()
		read, unread := map[int]bool{}, map[int]bool{}
		for _, p := range h.Processes {
			read[p.PID] = true
		}
		for _, u := range h.Unread {
			unread[u.PID] = true
		}
		fmt.Println(kindOf(err), kindOf(visibleErr), read, unread)
		return nil
	},
	"read under a filter": func(args []string) error {
		if err := installAll(denyMount); err != nil {
			return err
		}
		return readAndPrint(args[0])
	},
}

func TestMain(m *testing.M) {
	played := map[string]func([]string) error{}
	for name, become := range roles {
		played[name] = func(args []string) error {
			if err := become(args); err != nil {
				return err
			}
			fmt.Println("ready")
			ticks(name == "signals")
			_, err := io.Copy(io.Discard, os.Stdin)
			return err
		}
	}
	child.Main(m.Run, played)
}

// ticks counts the signals that arrive, one a line.
func ticks(wanted bool) {
	if !wanted {
		return
	}
	signals := make(chan os.Signal, 1000)
	notify(signals)
	fmt.Println("listening")
	go func() {
		for range signals {
			fmt.Println("signal")
		}
	}()
}

func start(t *testing.T, role string, change func(*exec.Cmd), args ...string) *child.Proc {
	t.Helper()
	cmd := child.Command(role, args...)
	if change != nil {
		change(cmd)
	}
	c := child.Start(t, cmd)
	c.Expect("ready")
	return c
}

// answer runs a role to its end and returns what it printed.
func answer(t *testing.T, role string, change func(*exec.Cmd), args ...string) string {
	t.Helper()
	cmd := child.Command(role, args...)
	var out bytes.Buffer
	cmd.Stdout = &out
	if change != nil {
		change(cmd)
	}
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(out.String(), "ready\n")
}

func readAndPrint(arg string) error {
	pid, err := strconv.Atoi(arg)
	if err != nil {
		return err
	}
	p, err := Read(pid)
	fmt.Println(len(p.Threads), kindOf(err), err)
	return nil
}

// denyNr returns an errno for one number, whatever the architecture.
func denyNr(nr uint32, errno unix.Errno) cbpf.Program {
	return cbpf.Program{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: nr, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
}

var (
	denyMount  = denyNr(unix.SYS_MOUNT, unix.EPERM)
	denyReboot = denyNr(unix.SYS_REBOOT, unix.ENOSYS)
	twoFilters = cbpf.Filter{denyMount, denyReboot}
)

// installAll puts filters on every thread, one after the other.
func installAll(filters ...cbpf.Program) error {
	for _, p := range filters {
		if err := install(p, unix.SECCOMP_FILTER_FLAG_TSYNC); err != nil {
			return err
		}
	}
	return nil
}

func install(p cbpf.Program, flags uintptr) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	prog := unix.SockFprog{Len: uint16(len(p)), Filter: unsafe.SliceData(p)}
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&prog))); errno != 0 {
		return fmt.Errorf("install a filter: %w", errno)
	}
	return nil
}

// onKeptThread runs f on a thread of its own that stays; f may block.
func onKeptThread(f func(done func(error))) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		f(func(err error) { result <- err })
		select {}
	}()
	return <-result
}

// threeThreads puts one filter on one thread and two on another. The rest of
// the process has none.
func threeThreads() error {
	for _, f := range []cbpf.Filter{{denyMount}, twoFilters} {
		err := onKeptThread(func(done func(error)) {
			for _, p := range f {
				if err := install(p, 0); err != nil {
					done(err)
				}
			}
			done(nil)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// strictThread leaves a thread in strict mode, in a read that never ends.
func strictThread() error {
	var pipe [2]int
	if err := unix.Pipe(pipe[:]); err != nil {
		return err
	}
	var entered [2]int
	if err := unix.Pipe(entered[:]); err != nil {
		return err
	}
	go func() {
		runtime.LockOSThread()
		var b [1]byte
		unix.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_STRICT, 0, 0, 0, 0)
		unix.RawSyscall(unix.SYS_WRITE, uintptr(entered[1]), uintptr(unsafe.Pointer(&b)), 1)
		unix.RawSyscall(unix.SYS_READ, uintptr(pipe[0]), uintptr(unsafe.Pointer(&b)), 1)
	}()
	_, err := unix.Read(entered[0], make([]byte, 1))
	return err
}

// vforkThread leaves a filtered thread waiting for a child by vfork; only the
// end of that child interrupts it.
func vforkThread() error {
	var pipe [2]int
	if err := unix.Pipe(pipe[:]); err != nil {
		return err
	}
	if err := installAll(denyMount); err != nil {
		return err
	}
	go func() {
		runtime.LockOSThread()
		var b [1]byte
		pid, _, _ := unix.RawSyscall6(unix.SYS_CLONE, unix.CLONE_VFORK|uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
		if pid == 0 {
			unix.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0)
			unix.RawSyscall(unix.SYS_WRITE, uintptr(pipe[1]), uintptr(unsafe.Pointer(&b)), 1)
			for {
				unix.RawSyscall6(unix.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
			}
		}
	}()
	_, err := unix.Read(pipe[0], make([]byte, 1))
	return err
}

// holdStopped stops a thread, says so, and never releases it.
func holdStopped(arg string) error {
	tid, err := strconv.Atoi(arg)
	if err != nil {
		return err
	}
	onThread(func() {
		err = newReader().whileStopped(tid, func() error {
			fmt.Println("ready")
			_, err := io.Copy(io.Discard, os.Stdin)
			return err
		})
	})
	return err
}

// inUserNamespace makes the child root in a user namespace of its own.
func inUserNamespace(cmd *exec.Cmd) {
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids}
}

func asNobody(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
}
