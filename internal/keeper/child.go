package keeper

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// child is an agent that this process has started.
type child struct {
	pid    int
	ended  chan struct{} // closed when it has ended; it is not reaped before end
	ready  bool
	heard  time.Time // of its last sign of life
	begun  time.Time
	killed bool
	status unix.WaitStatus
}

// startedBy has the process id of the keeper, for the agent that it starts. A
// variable that is left over from elsewhere names no parent.
const startedBy = "AFALG_POLICY_KEEPER"

// Child reports whether this process is the agent of a keeper. It completes the
// variables of its environment: who starts a process cannot know its id before.
func Child() bool {
	id, ok := os.LookupEnv(startedBy)
	os.Unsetenv(startedBy)
	if !ok || id != strconv.Itoa(os.Getppid()) {
		return false
	}
	os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	return true
}

const firstFD = 3 // that is passed in (SD_LISTEN_FDS_START)

// foreign are the variables of a service manager above this process.
var foreign = []string{"NOTIFY_SOCKET", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID", "WATCHDOG_USEC", startedBy}

// start starts an agent with the socket, and with everything in the store. It ends
// with the thread that calls this.
func start(o Options, socket int, s *store, address string) (*child, error) {
	names, files := []string{listenName}, []uintptr{0, 1, 2, uintptr(socket)}
	for _, e := range s.entries {
		names, files = append(names, e.name), append(files, uintptr(e.fd))
	}
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		key, _, _ := strings.Cut(v, "=")
		return slices.Contains(foreign, key)
	})
	env = append(env,
		"NOTIFY_SOCKET="+address,
		"LISTEN_FDS="+strconv.Itoa(len(files)-firstFD),
		"LISTEN_FDNAMES="+strings.Join(names, ":"),
		"WATCHDOG_USEC="+strconv.FormatInt(o.Watchdog.Microseconds(), 10),
		startedBy+"="+strconv.Itoa(os.Getpid()),
	)
	pid, err := syscall.ForkExec("/proc/self/exe", append([]string{os.Args[0]}, o.Args...), &syscall.ProcAttr{
		Env: env, Files: files, Sys: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
	})
	if err != nil {
		return nil, fmt.Errorf("start the agent: %w", err)
	}
	c := &child{pid: pid, ended: make(chan struct{}), begun: time.Now(), heard: time.Now()}
	go func() {
		defer close(c.ended)
		for unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
		}
	}()
	return c, nil
}

// signal cannot hit another process: until reap, the id is the child's.
func (c *child) signal(s syscall.Signal) { _ = unix.Kill(c.pid, s) }

func (c *child) reap() {
	for {
		if _, err := unix.Wait4(c.pid, &c.status, 0, nil); err != unix.EINTR {
			return
		}
	}
}

func (c *child) outcome() string {
	if c.status.Signaled() {
		return fmt.Sprintf("was ended by %v", c.status.Signal())
	}
	return fmt.Sprintf("ended with status %d", c.status.ExitStatus())
}
