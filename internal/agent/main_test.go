package agent

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/broker"
	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/notify"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/printable"
	"github.com/afalg-policy/afalg-policy/internal/subject"
	"github.com/afalg-policy/afalg-policy/internal/testing/kerneltest"
)

// These tests need root, as the agent does. The test binary is also every
// program that they start: an agent, its helper, and the processes of
// containers.

// testGreeting is the time for a silent peer, of the agents that have hurried in
// their environment. The others wait as long as a busy machine may take.
const (
	testGreeting = 2 * time.Second
	hurried      = "AFALG_POLICY_TEST_HURRIED=1"
)

// A workload's filter must be that of its first thread, which has the main
// goroutine only while init runs.
func init() {
	if len(os.Args) > 1 && os.Args[1] == "test-workload" {
		runtime.LockOSThread()
		os.Exit(exit(workload(os.Args[2:])))
	}
}

func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "test-agent":
			os.Exit(exit(testAgent(os.Args[2], os.Args[3])))
		case "test-keeper":
			os.Exit(exit(testKeeper(os.Args[2], os.Args[3], os.Args[4])))
		case "test-helper":
			os.Exit(exit(Help()))
		}
	}
	os.Exit(m.Run())
}

func exit(err error) int {
	var host *hosterr.Error
	switch {
	case err == nil:
		return 0
	case errors.As(err, &host):
		fmt.Println("host error:", err)
		return 3
	}
	fmt.Println("error:", err)
	return 1
}

// testAgent is an agent with a stand-in for the kernel's crypto, which may be
// missing.
func testAgent(socket, policy string) error {
	if os.Getenv("LISTEN_FDS") != "" {
		os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	}
	if err := Prepare(); err != nil {
		return err
	}
	read := func() (*plan.Plan, error) {
		p, _, err := plan.Load(policy, os.ReadFile)
		return p, err
	}
	p, err := read()
	if err != nil {
		return err
	}
	var current atomic.Pointer[plan.Plan]
	current.Store(p)
	h, err := StartHelper("test-helper")
	if err != nil {
		return err
	}
	defer h.Close()
	defer h.Pairs.Close()
	subjects, err := subject.NewReader(subject.Options{Digests: 4, Units: true})
	if err != nil {
		return err
	}
	defer subjects.Close()
	b, err := broker.New(broker.Options{Subjects: subjects, Pairs: h.Pairs, Sockets: h.Sockets, Observer: printer{}, Crypto: pretence{}})
	if err != nil {
		return err
	}
	defer b.Close()
	greeting := patience
	if slices.Contains(os.Environ(), hurried) {
		greeting = testGreeting
	}
	a, err := New(Options{
		Greeting: greeting,
		Socket:   socket, Helper: h, Broker: b,
		Plan: func(grants []string) (*plan.Plan, []string) { return current.Load().GrantedKnown(grants) },
		Reload: func() error {
			next, err := read()
			if err == nil {
				current.Store(next)
			}
			return err
		},
		Listeners: func(n int) { fmt.Printf("listeners %+d\n", n) },
		Failed:    printer{}.Failed,
		Note:      func(s string) { fmt.Println("note:", s) },
	})
	if err != nil {
		return err
	}
	return a.Run()
}

type printer struct{}

func (printer) Decided(r plan.Record) {
	fmt.Printf("decided: %s %s allowed=%v errno=%d %s\n", r.Workload, r.Call, r.Allowed, r.Errno, r.Reason)
}
func (printer) Answered(string, time.Duration) {}
func (printer) Sessions(int)                   {}
func (printer) Failed(what string, err error) {
	fmt.Printf("failed: %s: %s\n", what, printable.Line(err.Error()))
}

// stuckVariable names a file: while it exists, sockets are not made. A second
// file, with .now behind its name, appears when one is to be made.
const stuckVariable = "AFALG_POLICY_TEST_STUCK"

// pretence accepts every algorithm.
type pretence struct{}

func (pretence) Socket() (int, error) {
	for stuck := os.Getenv(stuckVariable); stuck != ""; time.Sleep(time.Millisecond) {
		if _, err := os.Lstat(stuck); err != nil {
			break
		}
		if err := os.WriteFile(stuck+".now", nil, 0o600); err != nil {
			return -1, err
		}
	}
	return unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
}
func (pretence) Bind(int, *unix.SockaddrALG, bool) error  { return nil }
func (pretence) SetOption(int, int, []byte, uint32) error { return nil }
func (pretence) Accept(int, int) (int, error)             { return pretence{}.Socket() }

// order tells a workload what to do.
type order struct {
	Socket   string
	State    specs.ContainerProcessState // with its own pid, if there is none
	NoFilter bool
	Number   int  // of listeners, each of a thread; 1 if 0
	Silent   bool // it sends nothing
	Half     bool // it sends half a state, and keeps the connection
	Ring     bool // it holds an io_uring, for which it is refused
}

// trap is a filter that hands the listener socket(AF_ALG) and any bind with the
// size of its address.
var trap = []unix.SockFilter{
	{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the number
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_SOCKET, Jf: 3},
	{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 16}, // the family
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.AF_ALG, Jt: 5},
	{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_BIND, Jf: 2},
	{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 32}, // the length
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 88, Jt: 1},
	{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF},
}

// workload is a process of a container. It loads a filter, sends the listener,
// and then makes the calls whose names it reads.
func workload(args []string) error {
	var o order
	if err := json.Unmarshal([]byte(args[0]), &o); err != nil {
		return err
	}
	if err := powerless(); err != nil {
		return err
	}
	if o.State.Pid == 0 {
		o.State.Pid = os.Getpid()
	}
	if o.Ring {
		if _, err := kerneltest.Ring(); err != nil {
			return err
		}
	}
	if err := join(o); err != nil {
		return err
	}
	for range o.Number {
		joined := make(chan error)
		go func() {
			runtime.LockOSThread()
			joined <- join(o)
			select {}
		}()
		if err := <-joined; err != nil {
			return err
		}
	}
	fmt.Println("ready")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		fmt.Println(call(in.Text()))
	}
	return nil
}

func join(o order) error {
	if o.NoFilter {
		return o.send(nil)
	}
	fd, err := notify.Install(trap)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return o.send([]int{fd})
}

func (o order) send(fds []int) error {
	if o.Silent {
		return nil
	}
	text, err := json.Marshal(o.State)
	if err != nil {
		return err
	}
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	if o.Half {
		text, fds = text[:len(text)/2], nil
	} else {
		defer unix.Close(s)
	}
	if err := unix.Connect(s, &unix.SockaddrUnix{Name: o.Socket}); err != nil {
		return err
	}
	return notify.SendFDs(s, text, fds...)
}

// powerless gives up the powers for which the broker would refuse.
func powerless() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	if unix.Geteuid() != 0 {
		return nil
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	return errors.Join(unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_SYS_PTRACE, 0, 0, 0), unix.Capset(&header, &none[0]))
}

// call makes a call and returns its result.
func call(name string) string {
	var err error
	var pid int
	if n, _ := fmt.Sscanf(name, "spy %d", &pid); n == 1 {
		err = spy(pid)
	}
	switch name {
	case "socket":
		var fd int
		if fd, err = unix.Socket(unix.AF_ALG, unix.SOCK_SEQPACKET, 0); err == nil {
			unix.Close(fd)
		}
	case "bind": // on no placeholder: the kernel says EBADF
		_, _, errno := unix.Syscall(unix.SYS_BIND, ^uintptr(0), 0, 88)
		err = errno
	}
	var errno unix.Errno
	if errors.As(err, &errno) && errno != 0 {
		return name + " " + unix.ErrnoName(errno)
	}
	return name + " ok"
}

// spy takes a descriptor of another process.
func spy(pid int) error {
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	defer unix.Close(process)
	fd, err := unix.PidfdGetfd(process, 0, 0)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// holds reports whether all the words are in a line.
func holds(line string, words ...string) bool {
	return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) })
}
