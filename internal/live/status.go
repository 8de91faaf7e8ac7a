package live

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func procPath(pid int) string      { return fmt.Sprintf("/proc/%d", pid) }
func taskPath(pid, tid int) string { return fmt.Sprintf("/proc/%d/task/%d", pid, tid) }

// status is what /proc tells of a thread.
type status struct {
	name    string
	state   string // its first letter
	group   int    // the process that it belongs to
	tracer  int    // the thread that traces it; 0 if nobody does
	mode    Mode
	filters int    // -1 if not told (before Linux 5.9)
	caps    uint64 // effective capabilities
	kernel  bool   // a kernel thread
}

// readStatus reads a thread's directory in /proc. It returns errGone where
// there is none.
func readStatus(dir string) (status, error) {
	s := status{filters: -1}
	data, err := os.ReadFile(dir + "/status")
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return s, errGone
	}
	if err != nil {
		return s, err
	}
	for line := range strings.Lines(string(data)) {
		key, value, _ := strings.Cut(line, ":")
		if err := s.set(key, strings.TrimSpace(value)); err != nil {
			return s, fmt.Errorf("%s/status: %s: %w", dir, key, err)
		}
	}
	s.kernel, err = isKernelThread(dir)
	return s, err
}

func (s *status) set(key, value string) (err error) {
	switch key {
	case "Name":
		s.name = value
	case "State":
		s.state, _, _ = strings.Cut(value, " ")
	case "Tgid":
		s.group, err = strconv.Atoi(value)
	case "TracerPid":
		s.tracer, err = strconv.Atoi(value)
	case "CapEff":
		s.caps, err = strconv.ParseUint(value, 16, 64)
	case "Seccomp":
		var mode int
		mode, err = strconv.Atoi(value)
		s.mode = Mode(mode)
	case "Seccomp_filters":
		s.filters, err = strconv.Atoi(value)
	}
	return err
}

// ended tells of a zombie.
func (s status) ended() bool { return s.state == "Z" || s.state == "X" }

// usable says why a process cannot be asked about at all.
func (s status) usable(pid int) error {
	switch {
	case s.group != pid:
		return fmt.Errorf("it is a thread of process %d: ask about that", s.group)
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
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return false, errGone
	}
	if err != nil {
		return false, err
	}
	// The name, in brackets, may hold anything.
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	const flags = 9 - 3
	if len(fields) <= flags {
		return false, fmt.Errorf("%s/stat has %d fields after the name", dir, len(fields))
	}
	value, err := strconv.ParseUint(fields[flags], 10, 64)
	return value&kernelThread != 0, err
}

// mayAsk says why the kernel would not tell this process about any filter, so
// that no thread is stopped in vain.
func mayAsk() error {
	self, err := readStatus("/proc/thread-self")
	switch {
	case err != nil:
		return generalErrorf("look at this program's own privileges: %w", err)
	case self.mode != Disabled:
		return generalErrorf("this program is itself under seccomp (%s): the kernel shows filters only to a process without; run it outside of the container or unit", self.mode)
	case self.caps&(1<<unix.CAP_SYS_ADMIN) == 0:
		return generalErrorf("the kernel shows filters only to a process with CAP_SYS_ADMIN: run this as root")
	case contained():
		return generalErrorf("%w", errContained)
	}
	return nil
}

var errContained = errors.New("the kernel shows filters only to a process with CAP_SYS_ADMIN in the initial user namespace: run this as root outside of every container")

// explain turns an error of ptrace into what is the matter with the thread.
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
		return hostErrorf("a process cannot trace itself")
	case s.tracer != 0:
		return hostErrorf("process %d traces it already, and there can be only one tracer: end that first (a debugger, strace)", processOf(s.tracer))
	}
	return hostErrorf("this program may not trace it: that takes CAP_SYS_PTRACE and CAP_SYS_ADMIN, and an LSM or kernel.yama.ptrace_scope that allows it")
}

// processOf returns the process that a thread belongs to.
func processOf(tid int) int {
	if s, err := readStatus(procPath(tid)); err == nil {
		return s.group
	}
	return tid
}

// initialNamespace is what /proc/PID/ns/user links to in the first user
// namespace (PROC_USER_INIT_INO).
const initialNamespace = "user:[4026531837]"

// contained tells whether this process is in a user namespace of its own.
func contained() bool {
	mine, err := os.Readlink("/proc/self/ns/user")
	return err == nil && mine != initialNamespace
}
