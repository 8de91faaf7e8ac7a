package seccomp

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/testing/kerneltest"
)

// helpers are the roles of this test binary as another process.
var helpers = map[string]func(){
	"endless":  helpEndless,
	"rootless": helpRootless,
}

const helperEnv = "SECCOMP_TEST_HELPER"

func TestMain(m *testing.M) {
	if help, ok := helpers[os.Getenv(helperEnv)]; ok {
		help()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func helper(t *testing.T, name string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), helperEnv+"="+name)
	cmd.Stderr = os.Stderr
	return cmd
}

// endless is a profile that libseccomp never finishes: hardening once made it
// from two permissions that compare different arguments.
func endless() *specs.LinuxSeccomp {
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno}
	add := func(action specs.LinuxSeccompAction, args ...specs.LinuxSeccompArg) {
		p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{Names: []string{"socket"}, Action: action, ErrnoRet: number(97), Args: args})
	}
	for _, other := range []specs.LinuxSeccompArg{arg(1, specs.OpEqualTo, 1), arg(2, specs.OpEqualTo, 0)} {
		add(specs.ActAllow, arg(0, specs.OpLessThan, 38), other)
		for family := range uint64(7) {
			add(specs.ActAllow, arg(0, specs.OpEqualTo, 39+family), other)
		}
		add(specs.ActErrno, arg(0, specs.OpGreaterEqual, 46), other)
	}
	add(specs.ActErrno, arg(0, specs.OpEqualTo, 38))
	return p
}

var onX86 = Options{Runtime: Crun, Native: specs.ArchX86_64}

// hurry sets a time limit that a test can wait for.
func hurry(t *testing.T, most time.Duration) {
	before := maxTime
	maxTime = most
	t.Cleanup(func() { maxTime = before })
}

func TestEndless(t *testing.T) {
	hurry(t, 300*time.Millisecond)
	_, err := Compile(endless(), onX86)
	var limit *LimitError
	if !errors.As(err, &limit) {
		t.Fatalf("error %v, want a limit", err)
	}
	want := fmt.Sprintf(`compiling a profile of 19 rules with libseccomp %s: it took more than 300ms of processor time, the most that one profile gets: `+
		`rules for one call that compare different arguments multiply, and "socket" has 19 with conditions; give it fewer`, Version())
	if err.Error() != want {
		t.Errorf("error\n%v\nwant\n%s", err, want)
	}
	mustCompile(t)
	nothingLeft(t)
}

func mustCompile(t *testing.T) {
	t.Helper()
	p, err := Compile(&specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: rules(allow("read"))}, onX86)
	if err != nil || len(p.Insns) == 0 {
		t.Errorf("after that: %v", err)
	}
}

// nothingLeft looks for processes and descriptors: a wrapper becomes another
// program, which would inherit them.
func nothingLeft(t *testing.T) {
	t.Helper()
	if left := children(t); left != nil {
		t.Errorf("child processes %v are left", left)
	}
	for _, name := range mustGlob(t, "/proc/self/fd/*") {
		if to, err := os.Readlink(name); err == nil && strings.HasPrefix(to, "pipe:") && !slices.Contains(pipesBefore, to) {
			t.Errorf("%s is left: %s", name, to)
		}
	}
}

var pipesBefore = func() (pipes []string) {
	names, _ := filepath.Glob("/proc/self/fd/*")
	for _, name := range names {
		to, _ := os.Readlink(name)
		pipes = append(pipes, to)
	}
	return pipes
}()

func mustGlob(t *testing.T, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil || names == nil {
		t.Fatalf("%s: no such file: %v", pattern, err)
	}
	return names
}

func children(t *testing.T) (pids []string) {
	t.Helper()
	for _, name := range mustGlob(t, "/proc/self/task/*/children") {
		text, err := os.ReadFile(name)
		if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ESRCH) {
			t.Fatal(err)
		}
		pids = append(pids, strings.Fields(string(text))...)
	}
	return pids
}

// TestDeath has compilers die at work: of a fault, as libseccomp may cause one,
// and by the kernel, as when memory is short.
func TestDeath(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGSEGV, syscall.SIGABRT, syscall.SIGKILL} {
		done := make(chan error)
		go func() {
			_, err := Compile(endless(), onX86)
			done <- err
		}()
		var pid int
		for !confined(pid) {
			for _, child := range children(t) {
				fmt.Sscan(child, &pid)
			}
			time.Sleep(time.Millisecond)
		}
		if err := syscall.Kill(pid, signal); err != nil {
			t.Fatal(err)
		}
		err := <-done
		if err == nil || !strings.HasPrefix(err.Error(), "libseccomp "+Version()+" died (") {
			t.Errorf("%v: error %v", signal, err)
		}
		mustCompile(t)
		nothingLeft(t)
	}
}

// confined reports whether a process is a compiler that has set its limits.
func confined(pid int) bool {
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	return err == nil && strings.Contains(string(limits), fmt.Sprintf("Max file size             %-20d", maxProgram))
}

// TestConfined looks at a compiler that waits for the next profile.
func TestConfined(t *testing.T) {
	t.Setenv("LD_PRELOAD_TEST", "1")
	defer nothingLeft(t)
	defer Keep()()
	mustCompile(t)
	c := compilers.idle[0]
	data, err := dataSize(strconv.Itoa(c.process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	var l unix.Rlimit
	for _, want := range []struct {
		name     string
		resource int
		most     uint64
	}{
		{"RLIMIT_CPU", unix.RLIMIT_CPU, 11},
		{"RLIMIT_CORE", unix.RLIMIT_CORE, 0},
		{"RLIMIT_DATA", unix.RLIMIT_DATA, data + 2*maxMemory},
		{"RLIMIT_FSIZE", unix.RLIMIT_FSIZE, maxProgram},
	} {
		if err := unix.Prlimit(c.process.Pid, want.resource, nil, &l); err != nil {
			t.Fatal(err)
		}
		if l.Max > want.most || l.Cur != l.Max {
			t.Errorf("%s %d of %d, want %d at most", want.name, l.Cur, l.Max, want.most)
		}
	}
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", c.process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if got := string(environ); got != "GOMAXPROCS=2\x00GOTRACEBACK=none\x00" {
		t.Errorf("environment %q", got)
	}
}

// TestKeep has one compiler work for several profiles, and compile none of them
// twice.
func TestKeep(t *testing.T) {
	defer nothingLeft(t)
	release := Keep()
	defer release()
	mustCompile(t)
	first := compilers.idle[0].process.Pid
	mustCompile(t)
	if n := len(compilers.made); n != 1 {
		t.Errorf("the same profile, twice: %d programs", n)
	}
	if _, err := Compile(&specs.LinuxSeccomp{DefaultAction: specs.ActKill}, onX86); err != nil {
		t.Fatal(err)
	}
	if len(compilers.idle) != 1 || compilers.idle[0].process.Pid != first {
		t.Errorf("compilers %v, want one, %d", compilers.idle, first)
	}
	release()
	release() // the second call does nothing
	if compilers.idle != nil || compilers.keepers != 0 {
		t.Errorf("compilers %v, %d keepers", compilers.idle, compilers.keepers)
	}
}

// TestWorn has compilers replaced before their own limit could end them.
func TestWorn(t *testing.T) {
	hurry(t, lifetime) // as if every compilation might take all of it
	defer nothingLeft(t)
	defer Keep()()
	mustCompile(t)
	if len(compilers.idle) != 0 {
		t.Error("a compiler is kept that has too little time left")
	}
}

func TestTooManyRules(t *testing.T) {
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno}
	for range MaxRules/2 + 1 {
		p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{Names: []string{"read"}, Action: specs.ActAllow,
			Args: []specs.LinuxSeccompArg{arg(0, specs.OpEqualTo, 0), arg(0, specs.OpEqualTo, 1)}})
	}
	_, err := Compile(p, onX86)
	want := "8194 rules: libseccomp is given 8192 at most, and a filter has 4096 instructions at most"
	if err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

func helpEndless() {
	_, err := Compile(endless(), onX86)
	fmt.Println(err)
}

// TestOrphan kills a process whose compiler is at work: the compiler ends as
// well.
func TestOrphan(t *testing.T) {
	cmd := helper(t, "endless")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	for !confined(pid) {
		for _, name := range mustGlob(t, fmt.Sprintf("/proc/%d/task/*/children", cmd.Process.Pid)) {
			text, _ := os.ReadFile(name)
			fmt.Sscan(string(text), &pid)
		}
		time.Sleep(time.Millisecond)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	// Its own limit of processor time would end it too, but not so soon.
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 60_000); n != 1 {
		t.Errorf("the compiler %d goes on: %v", pid, err)
	}
}

func helpRootless() {
	dir := os.Getenv("SECCOMP_TEST_DIR")
	if err := errors.Join(syscall.Chroot(dir), os.Chdir("/")); err != nil {
		fmt.Println(err)
		return
	}
	_, err := Compile(endless(), onX86)
	fmt.Println(err)
}

// TestNoProc runs in a root directory without /proc, where this program cannot
// be found.
func TestNoProc(t *testing.T) {
	kerneltest.NeedUserNamespaces(t)
	cmd := helper(t, "rootless")
	cmd.Env = append(cmd.Env, "SECCOMP_TEST_DIR="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
	}
	out, err := cmd.Output()
	want := "starting a process that compiles (/proc/self/exe): fork/exec /proc/self/exe: no such file or directory\n"
	if err != nil || string(out) != want {
		t.Errorf("%v, %q; want %q", err, out, want)
	}
}
