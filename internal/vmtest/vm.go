// Package vmtest boots a Debian kernel, which has AF_ALG and all the routes to
// it, and runs commands in it.
//
// The machine is QEMU without hardware acceleration, so that it behaves the
// same everywhere. It has the host's root file system under a layer in memory:
// whatever is installed or built on the host runs in it unchanged, by the same
// path, and nothing it writes survives. Files that the host makes after the
// boot may not be seen; send those with WriteFile.
package vmtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/vmtest/wire"
)

// Options change the machine. The zero value is what most tests want.
type Options struct {
	Memory  int    // MiB; 2048 if 0
	Append  string // added to the kernel's command line
	Systemd bool   // systemd is process 1, and nothing but the agent is started
}

// Command and Result are what the machine runs and what came of it.
type (
	Command = wire.Command
	Result  = wire.Result
)

const (
	// The time-outs suit a host whose processors are busy with other things.
	bootTimeout    = 5 * time.Minute // 4 to 8 s when the host is idle
	defaultTimeout = 2 * time.Minute
	// grace is what the agent gets to report a command that timed out.
	grace = 20 * time.Second
)

// VM is a running machine. Its methods may not be called at the same time.
type VM struct {
	Release string        // uname -r
	Booted  time.Duration // from the start of QEMU to the agent's first word

	qemu    *exec.Cmd
	exited  chan struct{} // closed when QEMU ended
	port    *os.File
	replies *json.Decoder
	console string // path of the file
	broken  error  // why no further command can be run
	made    int    // containers and root file systems so far
}

// Boot starts a machine with a kernel such as "6.12" and ends it with the
// test. When the test fails, it logs the end of the console; the whole of it
// is among the test's artifacts.
func Boot(t testing.TB, version string, o Options) *VM {
	t.Helper()
	vm, err := boot(t.ArtifactDir(), version, o)
	if vm != nil {
		t.Cleanup(func() {
			vm.stop()
			if t.Failed() {
				t.Logf("the console of %s ended with:\n%s", version, vm.consoleTail())
			}
		})
	}
	if err != nil {
		t.Fatalf("boot kernel %s: %v", version, err)
	}
	return vm
}

func boot(dir, version string, o Options) (*VM, error) {
	k, err := findKernel(version)
	if err != nil {
		return nil, err
	}
	initramfs, err := k.initramfs(o.Systemd)
	if err != nil {
		return nil, err
	}
	name := "vm-" + version
	initrd := filepath.Join(dir, name+".cpio")
	if err := os.WriteFile(initrd, initramfs, 0o600); err != nil {
		return nil, err
	}
	defer os.Remove(initrd)
	vm := &VM{console: filepath.Join(dir, name+".console"), exited: make(chan struct{})}
	start := time.Now()
	if err := vm.start(qemuArgs(k, initrd, vm.console, o)); err != nil {
		return nil, err
	}
	var hello wire.Hello
	if err := vm.receive(&hello, bootTimeout); err != nil {
		return vm, err
	}
	vm.Release, vm.Booted = hello.Release, time.Since(start)
	return vm, nil
}

// portFD is the descriptor that QEMU inherits: the first of ExtraFiles.
const portFD = "3"

// qemuArgs give the machine one processor: an emulated one sees late what
// another patched in the kernel's code, and now and then the kernel dies of it.
func qemuArgs(k kernel, initrd, console string, o Options) []string {
	memory := o.Memory
	if memory == 0 {
		memory = 2048
	}
	return []string{
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-M", "q35", "-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", strconv.Itoa(memory),
		"-kernel", k.image, "-initrd", initrd,
		"-append", strings.TrimSpace("console=ttyS0 quiet panic=-1 oops=panic syscall.x32=y " + o.Append),
		"-serial", "file:" + console,
		"-virtfs", "local,path=/,mount_tag=host0,security_model=none,readonly=on,multidevs=remap",
		"-device", "virtio-serial",
		"-chardev", "socket,id=agent,fd=" + portFD,
		"-device", "virtserialport,chardev=agent,name=" + wire.Port,
	}
}

// start runs QEMU with one end of a socket pair as its virtio port. The
// socket closes with the process, whichever way that ends.
func (vm *VM) start(args []string) error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	vm.port = os.NewFile(uintptr(pair[0]), "agent")
	theirs := os.NewFile(uintptr(pair[1]), "agent")
	defer theirs.Close()
	log, err := os.OpenFile(vm.console, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	vm.qemu = exec.Command("qemu-system-x86_64", args...)
	vm.qemu.Stdout, vm.qemu.Stderr = log, log
	vm.qemu.ExtraFiles = []*os.File{theirs}
	vm.replies = json.NewDecoder(vm.port)
	started := make(chan error)
	go vm.supervise(started)
	if err := <-started; err != nil {
		return fmt.Errorf("%w: run scripts/install test", err)
	}
	return nil
}

// supervise starts QEMU and waits for its end. QEMU is killed when the thread
// that started it ends, and so with the test, however that ends; the thread
// is held for as long.
func (vm *VM) supervise(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	vm.qemu.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	err := vm.qemu.Start()
	started <- err
	if err == nil {
		vm.qemu.Wait()
		close(vm.exited)
	}
}

func (vm *VM) stop() {
	vm.qemu.Process.Kill()
	<-vm.exited
	vm.port.Close()
	if vm.broken == nil {
		vm.broken = errors.New("the machine was stopped")
	}
}

// Run runs a program and returns how it ended, whatever its exit status. The
// test fails if the machine breaks down or the program does not exist.
func (vm *VM) Run(t testing.TB, args ...string) Result {
	t.Helper()
	return vm.Command(t, Command{Args: args})
}

// Command is Run with more to choose.
func (vm *VM) Command(t testing.TB, c Command) Result {
	t.Helper()
	r, err := vm.Do(t.Context(), c)
	if err != nil {
		t.Fatalf("%s: %v", strings.Join(c.Args, " "), err)
	}
	return r
}

// Output runs a program that must succeed, and returns its standard output
// without the white space at its ends.
func (vm *VM) Output(t testing.TB, args ...string) string {
	t.Helper()
	r := vm.Run(t, args...)
	if r.Exit != 0 {
		t.Fatalf("%s: exit status %d\n%s%s", strings.Join(args, " "), r.Exit, r.Stdout, r.Stderr)
	}
	return strings.TrimSpace(string(r.Stdout))
}

// WriteFile writes a file and the directories above it.
func (vm *VM) WriteFile(t testing.TB, path string, data []byte, mode os.FileMode) {
	t.Helper()
	r := vm.Command(t, Command{
		Args:  []string{"install", "-D", "-m", fmt.Sprintf("%o", mode), "/dev/stdin", path},
		Stdin: data,
	})
	if r.Exit != 0 {
		t.Fatalf("write %s: %s", path, r.Stderr)
	}
}

// Do runs a command for at most its time-out, two minutes by default. The error
// is about the machine, or a program that cannot be started: a panic, a
// machine that no longer answers. After a broken machine every call fails.
func (vm *VM) Do(ctx context.Context, c Command) (Result, error) {
	var r Result
	if vm.broken != nil {
		return r, vm.broken
	}
	if err := ctx.Err(); err != nil {
		return r, err
	}
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	if err := vm.port.SetWriteDeadline(time.Now().Add(grace)); err != nil {
		return r, vm.breakdown(err)
	}
	if err := json.NewEncoder(vm.port).Encode(c); err != nil {
		return r, vm.breakdown(err)
	}
	if err := vm.receive(&r, c.Timeout+grace); err != nil {
		return r, err
	}
	if r.Error != "" {
		return r, errors.New(r.Error)
	}
	return r, nil
}

func (vm *VM) receive(v any, timeout time.Duration) error {
	if err := vm.port.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return vm.breakdown(err)
	}
	if err := vm.replies.Decode(v); err != nil {
		return vm.breakdown(err)
	}
	return nil
}

// breakdown records why the machine is of no more use.
func (vm *VM) breakdown(err error) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = errors.New("the machine does not answer")
	case vm.died():
		err = fmt.Errorf("the machine died: %s", vm.lastWords())
	}
	vm.broken = err
	return err
}

// died waits a little: the port closes just before QEMU ends.
func (vm *VM) died() bool {
	select {
	case <-vm.exited:
		return true
	case <-time.After(5 * time.Second):
		return false
	}
}

// lastWords is the line in which the kernel says why it stopped, or else the
// end of the console.
func (vm *VM) lastWords() string {
	for line := range strings.Lines(vm.Console()) {
		if strings.Contains(line, "Kernel panic - not syncing") {
			return strings.TrimSpace(line)
		}
	}
	return vm.consoleTail()
}

// Console is what the machine has printed so far.
func (vm *VM) Console() string {
	data, err := os.ReadFile(vm.console)
	if err != nil {
		return err.Error()
	}
	return string(data)
}

func (vm *VM) consoleTail() string {
	const lines = 40
	all := strings.Split(strings.TrimSpace(vm.Console()), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
