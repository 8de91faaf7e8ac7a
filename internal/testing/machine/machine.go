// Package machine runs commands in a machine that a test has to itself: an
// emulated one with another kernel (package vmtest), or a box, which is one of
// namespaces (package box). In either, an agent (guest) takes commands over a
// connection and returns their results.
//
// Both have the host's root file system under a layer in memory: programs
// installed or built on the host run in them unchanged, by the same path, and
// nothing that they write survives. A machine of another architecture cannot run
// those: its root is empty, and holds what is written there.
package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/testing/machine/wire"
)

// Command is a program to run, and Result its result.
type (
	Command = wire.Command
	Result  = wire.Result
)

// Time here follows the machine. A command's time-out counts while the machine
// is idle, and the agent gives a sign of life all the while. A machine is given
// up only after a long silence.
const (
	defaultTimeout = 2 * time.Minute
	bootTimeout    = 15 * time.Minute // 4 to 8 s in an emulator when the host is idle
	silence        = 3 * time.Minute
)

// Port is the connection to the agent.
type Port interface {
	io.ReadWriteCloser
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// Machine is a running machine. Its methods may not be called at the same time.
type Machine struct {
	Release string        // uname -r
	Booted  time.Duration // from the start to the agent's first message

	process *exec.Cmd
	exited  chan struct{} // closed when the process has ended
	port    Port
	replies *json.Decoder
	console string // path of the file
	broken  error  // why no further command can run
	made    int    // containers and root file systems so far
}

// Start starts the process of the machine, which prints to console, a file.
// connect returns the connection to the agent as soon as there is one; exited
// closes when there will be none.
func Start(process *exec.Cmd, console string, connect func(exited <-chan struct{}) (Port, error)) (*Machine, error) {
	log, err := os.OpenFile(console, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	process.Stdout, process.Stderr = log, log
	m := &Machine{process: process, console: console, exited: make(chan struct{})}
	start := time.Now()
	started := make(chan error)
	go m.supervise(started)
	if err := <-started; err != nil {
		return nil, err
	}
	if m.port, err = connect(m.exited); err != nil {
		return m, m.breakdown(err)
	}
	m.replies = json.NewDecoder(m.port)
	var hello wire.Hello
	if err := m.receive(&hello, bootTimeout); err != nil {
		return m, err
	}
	m.Release, m.Booted = hello.Release, time.Since(start)
	return m, nil
}

// supervise starts the process and waits for its end. The process is killed
// when the thread that started it ends, and so with the test, however that
// ends; the thread is held until then.
func (m *Machine) supervise(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if m.process.SysProcAttr == nil {
		m.process.SysProcAttr = &unix.SysProcAttr{}
	}
	m.process.SysProcAttr.Pdeathsig = unix.SIGKILL
	err := m.process.Start()
	started <- err
	if err == nil {
		m.process.Wait()
		close(m.exited)
	}
}

// StopWith ends the machine with the test. When the test fails, it logs the end
// of the console.
func (m *Machine) StopWith(t testing.TB) {
	t.Cleanup(func() {
		m.Stop()
		if t.Failed() {
			t.Logf("the console ended with:\n%s", m.consoleTail())
		}
	})
}

// Stop ends the machine.
func (m *Machine) Stop() {
	m.process.Process.Kill()
	<-m.exited
	if m.port != nil {
		m.port.Close()
	}
	if m.broken == nil {
		m.broken = errors.New("the machine was stopped")
	}
}

// Run runs a program and returns its result, whatever its exit status. The test
// fails if the machine breaks down or the program does not exist.
func (m *Machine) Run(t testing.TB, args ...string) Result {
	t.Helper()
	return m.Command(t, Command{Args: args})
}

// Command is Run with more options.
func (m *Machine) Command(t testing.TB, c Command) Result {
	t.Helper()
	r, err := m.Do(t.Context(), c)
	if err != nil {
		t.Fatalf("%s: %v", strings.Join(c.Args, " "), err)
	}
	if r.TimedOut {
		t.Logf("%s: killed after %v, for it did nothing", strings.Join(c.Args, " "), r.Took)
	}
	return r
}

// Output runs a program that must succeed, and returns its standard output
// without the white space at its ends.
func (m *Machine) Output(t testing.TB, args ...string) string {
	t.Helper()
	r := m.Run(t, args...)
	if r.Exit != 0 {
		t.Fatalf("%s: exit status %d\n%s%s", strings.Join(args, " "), r.Exit, r.Stdout, r.Stderr)
	}
	return strings.TrimSpace(string(r.Stdout))
}

// WriteFile writes a file and the directories above it.
func (m *Machine) WriteFile(t testing.TB, path string, data []byte, mode os.FileMode) {
	t.Helper()
	if _, err := m.Do(t.Context(), Command{File: &wire.File{Path: path, Data: data, Mode: mode}}); err != nil {
		t.Fatalf("write %s: %v", path, err)
	}
}

// ReadFile returns the content of a file.
func (m *Machine) ReadFile(t testing.TB, path string) []byte {
	t.Helper()
	r, err := m.Do(t.Context(), Command{Read: path})
	if err != nil {
		t.Fatal(err)
	}
	return r.Stdout
}

// Do runs a command, with a time-out of two minutes by default. The error is
// about the machine, such as a panic or a silence, or about a program that
// cannot be started. After a broken machine every call fails.
func (m *Machine) Do(ctx context.Context, c Command) (Result, error) {
	if m.broken != nil {
		return Result{}, m.broken
	}
	if err := ctx.Err(); err != nil {
		return Result{}, err
	}
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	if err := m.port.SetWriteDeadline(time.Now().Add(m.patience())); err != nil {
		return Result{}, m.breakdown(err)
	}
	if err := json.NewEncoder(m.port).Encode(c); err != nil {
		return Result{}, m.breakdown(err)
	}
	for {
		var reply wire.Reply
		if err := m.receive(&reply, m.patience()); err != nil {
			return Result{}, err
		}
		switch r := reply.Result; {
		case r == nil: // a sign of life
		case r.Error != "":
			return *r, errors.New(r.Error)
		default:
			return *r, nil
		}
	}
}

// patience bounds the silence of the machine. One that is slow to boot is slow
// to answer, too.
func (m *Machine) patience() time.Duration { return silence + 10*m.Booted }

func (m *Machine) receive(v any, timeout time.Duration) error {
	if err := m.port.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return m.breakdown(err)
	}
	if err := m.replies.Decode(v); err != nil {
		return m.breakdown(err)
	}
	return nil
}

// breakdown records why the machine cannot be used any more.
func (m *Machine) breakdown(err error) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = errors.New("the machine does not answer")
	case m.died():
		err = fmt.Errorf("the machine died: %s", m.lastWords())
	}
	m.broken = err
	return err
}

// died waits a little: the port closes just before the process ends.
func (m *Machine) died() bool {
	select {
	case <-m.exited:
		return true
	case <-time.After(10 * time.Second):
		return false
	}
}

// lastWords returns the line in which the kernel says why it stopped, or else
// the end of the console.
func (m *Machine) lastWords() string {
	for line := range strings.Lines(m.Console()) {
		if strings.Contains(line, "Kernel panic - not syncing") {
			return strings.TrimSpace(line)
		}
	}
	return m.consoleTail()
}

// Console returns the output of the machine so far.
func (m *Machine) Console() string {
	data, err := os.ReadFile(m.console)
	if err != nil {
		return err.Error()
	}
	return string(data)
}

func (m *Machine) consoleTail() string {
	const lines = 40
	all := strings.Split(strings.TrimSpace(m.Console()), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
