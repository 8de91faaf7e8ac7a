package seccomp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Limits of one compilation. The largest profiles in use take some 30 ms; an
// emulated machine is 50 times as slow. Processor time counts, so that nothing
// fails because a machine is busy; the wall time is for a compiler that waits
// for something else.
var (
	maxTime = 5 * time.Second
	maxWall = 60 * time.Second
)

const (
	maxMemory = 256 << 20
	// lifetime is the processor time of a compiler, for several compilations.
	lifetime = 11 * time.Second
)

// glance is the interval of the looks at a working compiler.
const glance = 50 * time.Millisecond

// A compiler is a child process that compiles: libseccomp may never finish its
// input, may take all memory, or crash.
type compiler struct {
	process           *os.Process
	requests, replies *os.File
	// Limits of the present request.
	time time.Duration
	wall time.Time
}

func startCompiler() (*compiler, error) {
	theirRequests, requests, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer theirRequests.Close()
	replies, theirReplies, err := os.Pipe()
	if err != nil {
		requests.Close()
		return nil, err
	}
	defer theirReplies.Close()
	process, err := os.StartProcess("/proc/self/exe", []string{workerName}, &os.ProcAttr{
		Env: []string{"GOMAXPROCS=2", "GOTRACEBACK=none"},
		// A dying compiler's last words arrive in the place of its answer.
		Files: []*os.File{theirRequests, theirReplies, theirReplies},
	})
	if err != nil {
		requests.Close()
		replies.Close()
		return nil, err
	}
	return &compiler{process: process, requests: requests, replies: replies}, nil
}

// ask hands over a request and waits for the answer. After an error the
// compiler is of no further use.
func (c *compiler) ask(message []byte) (a reply, err error) {
	c.time, c.wall = c.used()+maxTime, time.Now().Add(maxWall)
	if err := c.requests.SetWriteDeadline(c.wall); err != nil {
		return a, err
	}
	if _, err := c.requests.Write(message); err != nil && !errors.Is(err, syscall.EPIPE) {
		return a, c.late(err)
	}
	return a, decode(c, &a, maxReply)
}

// Read waits for the compiler's answer, as long as the compiler has time.
func (c *compiler) Read(p []byte) (int, error) {
	for {
		if err := c.replies.SetReadDeadline(time.Now().Add(glance)); err != nil {
			return 0, err
		}
		n, err := c.replies.Read(p)
		switch {
		case n > 0 || !errors.Is(err, os.ErrDeadlineExceeded):
			return n, err
		case c.used() > c.time:
			return 0, &LimitError{fmt.Sprintf("%v of processor time", maxTime)}
		case time.Now().After(c.wall):
			return 0, c.late(err)
		}
	}
}

func (c *compiler) late(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return &LimitError{maxWall.String()}
	}
	return err
}

// worn reports whether the compiler may have too little time left for another
// request.
func (c *compiler) worn() bool { return c.used() > lifetime-maxTime-time.Second }

// used returns the processor time of the compiler so far. If the kernel does
// not show it, the child's own limit holds.
func (c *compiler) used() time.Duration {
	const scheduled = 2 // CPUCLOCK_SCHED: the time of all threads
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^c.process.Pid<<3|scheduled), &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// end leaves nothing behind, not even a zombie, for a caller that becomes
// another program.
func (c *compiler) end() *os.ProcessState {
	c.requests.Close()
	c.replies.Close()
	_ = c.process.Kill() // fails if it has ended already
	state, _ := c.process.Wait()
	return state
}

// LimitError means that a compilation exceeded a limit.
type LimitError struct{ Most string }

func (e *LimitError) Error() string {
	return "it took more than " + e.Most + ", the most that one profile gets"
}

// diedError means that a compiler died, and has its last words.
type diedError struct{ said string }

func (e *diedError) Error() string { return e.said }

// lastWords bounds them.
const lastWords = 4 << 10

// garbled makes an error of text that is no message: the Go runtime or the C
// library prints it as the process dies.
func garbled(head []byte, r io.Reader, err error) error {
	var limit *LimitError
	if errors.As(err, &limit) {
		return err
	}
	rest, _ := io.ReadAll(io.LimitReader(r, lastWords))
	text := bytes.ToValidUTF8(append(head, rest...), []byte("?"))
	line, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	return &diedError{line}
}
