// Package child starts the test binary once more, as another process: one that
// puts a filter on itself, is looked at, or is killed.
package child

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
)

const roleVar = "TEST_CHILD_ROLE"

// A role begins on the main thread, and keeps it: so that the filter of its
// first thread is the process's.
func init() {
	if Role() != "" {
		runtime.LockOSThread()
	}
}

// Role is what this process was started for; "" runs tests.
func Role() string { return os.Getenv(roleVar) }

// Main is for TestMain: it plays the role that the process was started for, or
// runs the tests, and does not return. A role that fails says why on standard
// error, and ends with status 1.
func Main(run func() int, roles map[string]func(args []string) error) {
	if Role() == "" {
		os.Exit(run())
	}
	role, known := roles[Role()]
	if !known {
		fmt.Fprintf(os.Stderr, "no role %q\n", Role())
		os.Exit(1)
	}
	if err := role(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", Role(), err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Env is what makes the test binary play a role. A program built with -race
// otherwise sleeps for a second at its end.
func Env(role string) []string { return []string{roleVar + "=" + role, "GORACE=atexit_sleep_ms=0"} }

// Become returns the environment of this process with another role, for what it
// executes.
func Become(role string) []string {
	os.Setenv(roleVar, role)
	return os.Environ()
}

// Command is the test binary in a role. Its standard error is shown.
func Command(role string, args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), Env(role)...)
	cmd.Stderr = os.Stderr
	return cmd
}

// Proc is a child that is spoken with, a line at a time.
type Proc struct {
	*exec.Cmd
	In  io.WriteCloser
	Out *bufio.Reader
	t   testing.TB
}

// Start starts a child, and kills it when the test ends.
func Start(t testing.TB, cmd *exec.Cmd) *Proc {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v: %v", cmd, err)
	}
	p := &Proc{cmd, in, bufio.NewReader(out), t}
	t.Cleanup(p.Kill)
	return p
}

// Say writes a line.
func (p *Proc) Say(format string, args ...any) {
	p.t.Helper()
	if _, err := fmt.Fprintf(p.In, format+"\n", args...); err != nil {
		p.t.Fatal(err)
	}
}

// Expect reads a line, which must be that one.
func (p *Proc) Expect(want string) {
	p.t.Helper()
	if got, err := p.Out.ReadString('\n'); strings.TrimSuffix(got, "\n") != want || err != nil {
		p.t.Fatalf("the child said %q, %v; want %q", got, err, want)
	}
}

// Kill kills the child, and waits until nothing is left of it.
func (p *Proc) Kill() {
	p.Process.Kill()
	p.Wait()
}

// End closes the standard input; the child must then end with status 0.
func (p *Proc) End() {
	p.t.Helper()
	p.In.Close()
	io.Copy(io.Discard, p.Out)
	if err := p.Wait(); err != nil {
		p.t.Errorf("the child did not survive: %v", err)
	}
}
