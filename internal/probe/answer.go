package probe

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
)

// ask is one question to the kernel.
type ask struct {
	ABI    string
	Op     op
	Family uint64 // with its high half
	Type   int
	Bind   afalg.Algorithm // on the socket, unless zero

	// Of a denied class; each with its high half.
	Protocol      uint64 `json:",omitempty"`
	Level, Option uint64 `json:",omitempty"`
	There         bool   `json:",omitempty"` // the socket of the option
	Flags         uint64 `json:",omitempty"` // of clone and the like
	Gated         bool   `json:",omitempty"` // ask the filters alone, by one of our own
}

// answer is the result of a question.
type answer struct {
	OK     bool       `json:",omitempty"`
	Errno  unix.Errno `json:",omitempty"`
	Signal string     `json:",omitempty"` // the child died of it
	Hung   bool       `json:",omitempty"` // no answer in time
	Stage  stage      `json:",omitempty"` // where io_uring failed, before it made the call
	Domain int        `json:",omitempty"` // of the socket; 0 if it could not be read
	Bind   string     `json:",omitempty"` // "ok" or an errno
}

type stage string

const (
	stageSetup stage = "io_uring_setup"
	stageMap   stage = "mmap"
	stageEnter stage = "io_uring_enter"
)

func (a answer) String() string {
	switch {
	case a.OK:
		return "ok"
	case a.Hung:
		return "timeout"
	case a.Signal != "":
		return a.Signal
	}
	return errnoName(a.Errno)
}

func (a answer) is(e unix.Errno) bool { return !a.OK && a.Signal == "" && !a.Hung && a.Errno == e }

// denied reports whether the answer is a refusal: not a socket, not a shortage
// that says nothing about policy, and no signal but the filter's.
func (a answer) denied() bool {
	if a.OK || a.Hung || a.Stage == stageMap || a.Signal != "" && a.Signal != "SIGSYS" {
		return false
	}
	switch a.Errno {
	case noGate, unix.ENOMEM, unix.ENOBUFS, unix.EMFILE, unix.ENFILE, unix.EAGAIN, unix.EINTR, unix.EFAULT:
		return false
	}
	return true
}

// errnoName returns the symbolic name; of two names, the socket layer's.
func errnoName(e unix.Errno) string {
	if e == unix.EOPNOTSUPP {
		return "EOPNOTSUPP"
	}
	if name := unix.ErrnoName(e); name != "" {
		return name
	}
	return fmt.Sprintf("errno %d", int(e))
}

// Answer is the child's side: it puts the questions in args, which Run made, to
// the kernel, and writes one line of JSON for each. A question may kill the
// process, which must end when Answer returns.
func Answer(args []string, out io.Writer) error {
	questions, err := decodeAsks(args)
	if err != nil {
		return err
	}
	prepare()
	answers, written, thread := make(chan answer), make(chan struct{}), make(chan int, 1)
	go onOwnThread(func() {
		thread <- unix.Gettid()
		for _, q := range questions {
			answers <- q.put()
			<-written // the next question may kill the process
		}
	})
	return relay(<-thread, len(questions), answers, written, out)
}

// relay writes n answers of the asking thread, and signals each one written. A
// filter may kill that thread alone and leave the process, which then answers
// for it and ends.
func relay(thread, n int, answers <-chan answer, written chan<- struct{}, out io.Writer) error {
	enc := json.NewEncoder(out)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for n > 0 {
		select {
		case a := <-answers:
			n--
			if err := enc.Encode(a); err != nil {
				return fmt.Errorf("writing an answer: %w", err)
			}
			written <- struct{}{}
		case <-tick.C:
			if unix.Tgkill(unix.Getpid(), thread, 0) == unix.ESRCH {
				return enc.Encode(answer{Signal: "SIGSYS"})
			}
		}
	}
	return nil
}

// prepare makes the process die quietly of the signals that answer a question,
// where the Go runtime would print a traceback. It also keeps the runtime going
// if a thread is killed inside a system call that the runtime does not know of.
func prepare() {
	debug.SetGCPercent(-1)
	runtime.GOMAXPROCS(4)
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	// SIG_DFL is all zeros, whatever the layout of the kernel's struct sigaction.
	var zero [64]byte
	setSize := uintptr(8)
	if runtime.GOARCH == "mips" || runtime.GOARCH == "mipsle" || runtime.GOARCH == "mips64" || runtime.GOARCH == "mips64le" {
		setSize = 16
	}
	for _, sig := range []uintptr{uintptr(unix.SIGSYS), uintptr(unix.SIGSEGV)} {
		unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&zero)), 0, setSize, 0, 0)
	}
}

// onOwnThread runs f on a thread other than the process's first: a first thread
// that was killed stays as a zombie and looks alive.
func onOwnThread(f func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		f()
		return
	}
	done := make(chan struct{})
	go func() { defer close(done); onOwnThread(f) }()
	<-done
}

// put puts the question to the kernel.
func (q ask) put() answer {
	abi, known := afalg.ABINamed(q.ABI)
	call := reach[q.ABI]
	if !known || call == nil {
		return answer{Errno: unix.ENOTSUP, Stage: stageMap}
	}
	mem, err := lowPage()
	if err != nil {
		return answer{Errno: err.(unix.Errno), Stage: stageMap}
	}
	defer unix.Munmap(mem)
	e := entry{abi, call, mem}
	switch q.Op {
	case opGetpid:
		_, errno := call(uintptr(e.Bit|getpid[e.Name]), [6]uintptr{})
		return answer{OK: errno == 0, Errno: errno}
	case opSocket:
		if q.Gated {
			return e.gated(e.raw(e.Socket, uintptr(q.Family), uintptr(q.Type), uintptr(q.Protocol)))
		}
		return q.made(e.syscall(e.Socket, uintptr(q.Family), uintptr(q.Type), uintptr(q.Protocol)))
	case opSocketpair:
		if q.Gated {
			return e.gated(e.raw(e.Socketpair, uintptr(q.Family), uintptr(q.Type), uintptr(q.Protocol), e.address(0)))
		}
		return q.paired(e.syscall(e.Socketpair, uintptr(q.Family), uintptr(q.Type), uintptr(q.Protocol), e.address(0)))
	case opSocketcallSocket:
		e.words(pageArgs, uint32(q.Family), uint32(q.Type), uint32(q.Protocol))
		return q.made(e.syscall(e.Socketcall, 1, e.address(pageArgs)))
	case opSocketcallPair:
		e.words(pageArgs, uint32(q.Family), uint32(q.Type), uint32(q.Protocol), uint32(e.address(0)))
		return q.paired(e.syscall(e.Socketcall, 8, e.address(pageArgs)))
	case opIOUring, opIOUringPoll:
		fd, st, errno := e.ringSocket(q)
		a := q.made(uintptr(fd), errno)
		a.Stage = st
		return a
	case opSetsockopt, opSocketcallSetsockopt:
		return q.setOption(e)
	case opClone, opUnshare, opClone3:
		return q.namespace(e)
	}
	return answer{Errno: unix.ENOTSUP, Stage: stageMap}
}

// getpid has the numbers for ABIs other than the prober's own.
var getpid = map[string]uint32{"i386": 20, "x32": 39}

// paired answers for a socketpair call. Nobody needs its descriptors, which end
// with the child.
func (q ask) paired(_ uintptr, errno unix.Errno) answer {
	return answer{OK: errno == 0, Errno: errno}
}

// made answers for a call that returns a socket.
func (q ask) made(r uintptr, errno unix.Errno) answer {
	if errno != 0 {
		return answer{Errno: errno}
	}
	fd := int(int32(r))
	defer unix.Close(fd)
	a := answer{OK: true}
	a.Domain, _ = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if q.Bind != (afalg.Algorithm{}) {
		a.Bind = bind(fd, q.Bind)
	}
	return a
}

// bind returns "ok" or an errno.
func bind(fd int, alg afalg.Algorithm) string {
	switch err := unix.Bind(fd, &unix.SockaddrALG{Type: string(alg.Type), Name: alg.Name}).(type) {
	case nil:
		return "ok"
	case unix.Errno:
		return errnoName(err)
	default:
		return "EINVAL"
	}
}
