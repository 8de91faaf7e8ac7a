package live

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/proc"
)

func procPath(pid int) string      { return fmt.Sprintf("/proc/%d", pid) }
func taskPath(pid, tid int) string { return fmt.Sprintf("/proc/%d/task/%d", pid, tid) }

// status holds the facts of /proc about a thread.
type status struct {
	proc.Status
	kernel bool // a kernel thread
}

// readStatus reads a thread's directory in /proc. It returns errGone if there
// is none.
func readStatus(dir string) (status, error) {
	s, err := proc.ReadStatus(dir)
	if isGone(err) {
		return status{}, errGone
	}
	if err != nil {
		return status{}, err
	}
	kernel, err := isKernelThread(dir)
	return status{s, kernel}, err
}

func isGone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) }

// mode is Disabled in a kernel without seccomp, which tells none.
func (s status) mode() Mode { return Mode(max(s.Seccomp, 0)) }

// ended tells of a zombie.
func (s status) ended() bool { return s.State == 'Z' || s.State == 'X' }

// usable says why a process cannot be asked about at all.
func (s status) usable(pid int) error {
	switch {
	case s.TGID != pid:
		return fmt.Errorf("it is a thread of process %d: ask about that", s.TGID)
	case s.kernel:
		return errors.New("it is a kernel thread, which makes no system calls")
	}
	if tids, err := threads(pid); s.ended() && err == nil && len(tids) == 1 {
		return fmt.Errorf("it is a zombie, which has no filter: %w", errGone)
	}
	return nil
}

// kernelThread is PF_KTHREAD, a flag in the ninth field of /proc/PID/stat.
const kernelThread = 0x00200000

func isKernelThread(dir string) (bool, error) {
	data, err := os.ReadFile(dir + "/stat")
	if isGone(err) {
		return false, errGone
	}
	if err != nil {
		return false, err
	}
	// The name, in parentheses, may hold anything.
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	const flags = 9 - 3
	if len(fields) <= flags {
		return false, fmt.Errorf("%s/stat has %d fields after the name", dir, len(fields))
	}
	value, err := strconv.ParseUint(fields[flags], 10, 64)
	return value&kernelThread != 0, err
}

// mayAsk says why the kernel would refuse to show this process any filter, so
// that no thread is stopped in vain.
func mayAsk() error {
	self, err := readStatus("/proc/thread-self")
	switch {
	case err != nil:
		return generalErrorf("look at this program's own privileges: %w", err)
	case self.mode() != Disabled:
		return generalErrorf("this program is itself under seccomp (%s): the kernel shows filters only to a process without; run it outside of the container or unit", self.mode())
	case self.Effective&(1<<unix.CAP_SYS_ADMIN) == 0:
		return generalErrorf("the kernel shows filters only to a process with CAP_SYS_ADMIN: run this as root")
	case contained():
		return generalErrorf("%w", errContained)
	}
	return nil
}

var errContained = errors.New("the kernel shows filters only to a process with CAP_SYS_ADMIN in the initial user namespace: run this as root outside of every container")

// explain turns an error of ptrace into the trouble with the thread.
func explain(pid, tid int, err error) error {
	if !errors.Is(err, errRefused) {
		return err
	}
	s, statusErr := readStatus(taskPath(pid, tid))
	switch {
	case statusErr != nil:
		return statusErr
	case s.ended():
		return errGone
	case pid == os.Getpid():
		return hosterr.Errorf("a process cannot trace itself")
	case s.Tracer != 0:
		return hosterr.Errorf("process %d traces it already, and there can be only one tracer: end that first (a debugger, strace)", processOf(s.Tracer))
	}
	return hosterr.Errorf("this program may not trace it: that takes CAP_SYS_PTRACE and CAP_SYS_ADMIN, and an LSM or kernel.yama.ptrace_scope that allows it")
}

// processOf returns the process that a thread belongs to.
func processOf(tid int) int {
	if s, err := readStatus(procPath(tid)); err == nil {
		return s.TGID
	}
	return tid
}

// initialNamespace is what /proc/PID/ns/user links to in the first user
// namespace (PROC_USER_INIT_INO).
const initialNamespace = "user:[4026531837]"

// contained reports whether this process is in a user namespace of its own.
func contained() bool {
	mine, err := os.Readlink("/proc/self/ns/user")
	return err == nil && mine != initialNamespace
}
