// Package vmtest boots a Debian kernel, which has AF_ALG and all the routes to
// it, and runs commands in it.
//
// The machine is QEMU without hardware acceleration, so that it behaves the
// same everywhere. It may not see files that the host makes after the boot;
// send those with WriteFile.
package vmtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/testing/machine"
	"github.com/afalg-policy/afalg-policy/internal/testing/machine/wire"
)

// Options change the machine. The zero value is what most tests want.
type Options struct {
	Memory  int    // MiB; 2048 if 0
	Append  string // added to the kernel's command line
	Systemd bool   // systemd is process 1, and nothing but the agent is started
	// Before is a shell script that changes the root before systemd starts.
	Before string
	// Counted makes the machine's clock go by its instructions, so that timers
	// of protocols do not expire because the host is busy.
	Counted bool
	// ARM64 makes a machine of that architecture. Its root is empty, and AF_ALG is
	// loaded: send it static programs with WriteFile (machine.Program).
	ARM64 bool
}

// countedShift says how long an instruction takes by the clock of a machine that
// counts: 2^countedShift ns.
const countedShift = 3

// Types that the tests use all the time.
type (
	VM        = machine.Machine
	Command   = machine.Command
	Result    = machine.Result
	Container = machine.Container
)

// Runtimes lists the container runtimes that the machine has.
func Runtimes() []string { return machine.Runtimes() }

// Boot starts a machine with a kernel such as "6.12" and ends it with the
// test. When the test fails, it logs the end of the console; the whole of it
// is among the test's artifacts.
func Boot(t testing.TB, version string, o Options) *VM {
	t.Helper()
	vm, err := boot(t.ArtifactDir(), version, o)
	if vm != nil {
		vm.StopWith(t)
	}
	if err != nil {
		t.Fatalf("boot kernel %s: %v", version, err)
	}
	return vm
}

func boot(dir, version string, o Options) (*VM, error) {
	console := filepath.Join(dir, "vm-"+version+".console")
	ours, theirs, err := ports()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	qemu, err := prepare(dir, version, wire.Config{Systemd: o.Systemd, Before: o.Before}, o)
	if err != nil {
		ours.Close()
		return nil, err
	}
	defer os.Remove(initrdPath(dir, version))
	qemu.Args = append(qemu.Args, "-display", "none", "-serial", "file:"+console,
		"-device", "virtio-serial",
		"-chardev", "socket,id=agent,fd="+portFD,
		"-device", "virtserialport,chardev=agent,name="+wire.Port)
	qemu.ExtraFiles = []*os.File{theirs}
	return machine.Start(qemu, console, func(<-chan struct{}) (machine.Port, error) {
		theirs.Close() // QEMU alone has it now, so that the port ends when QEMU does
		return ours, nil
	})
}

// Shell boots a machine that has a shell on this terminal.
func Shell(version string, o Options) error {
	dir, err := os.MkdirTemp("", "vm")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	qemu, err := prepare(dir, version, wire.Config{Shell: true}, o)
	if err != nil {
		return err
	}
	qemu.Args = append(qemu.Args, "-nographic", "-serial", "mon:stdio")
	qemu.Stdin, qemu.Stdout, qemu.Stderr = os.Stdin, os.Stdout, os.Stderr
	return qemu.Run()
}

func initrdPath(dir, version string) string { return filepath.Join(dir, "vm-"+version+".cpio") }

// portFD is the descriptor that QEMU inherits: the first of ExtraFiles.
const portFD = "3"

// ports returns the ends of the machine's virtio port. It closes with the
// process, however that ends.
func ports() (ours, theirs *os.File, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	return os.NewFile(uintptr(pair[0]), "agent"), os.NewFile(uintptr(pair[1]), "agent"), nil
}

// prepare writes the initramfs, and returns the command that boots it.
func prepare(dir, version string, config wire.Config, o Options) (*exec.Cmd, error) {
	b := o.board()
	k, err := findKernel(version, b)
	if err != nil {
		return nil, err
	}
	if b.alone && (config.Systemd || config.Shell) {
		return nil, fmt.Errorf("a machine of %s has neither systemd nor a shell", b.arch)
	}
	if config.Alone = b.alone; !b.alone {
		config.ModuleTree = k.modules
	}
	initramfs, err := k.initramfs(b, config)
	if err != nil {
		return nil, err
	}
	initrd := initrdPath(dir, version)
	if err := os.WriteFile(initrd, initramfs, 0o600); err != nil {
		return nil, err
	}
	if _, err := exec.LookPath(b.qemu[0]); err != nil {
		return nil, fmt.Errorf("%w: run scripts/install %s", err, b.group)
	}
	memory := o.Memory
	if memory == 0 {
		memory = 2048
	}
	args := slices.Concat(b.qemu[1:], []string{
		"-nodefaults", "-no-user-config", "-no-reboot",
		"-accel", "tcg", "-smp", "1", "-m", strconv.Itoa(memory),
		"-kernel", k.image, "-initrd", initrd,
		"-append", strings.TrimSpace(b.append + " quiet panic=-1 oops=panic " + o.Append),
	})
	if o.Counted {
		args = append(args, "-icount", "shift="+strconv.Itoa(countedShift))
	}
	return exec.Command(b.qemu[0], args...), nil
}
