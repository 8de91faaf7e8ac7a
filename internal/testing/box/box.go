// Package box starts throw-away machines of namespaces, with systemd as process
// 1, on the host's own kernel.
//
// A box starts in a second and runs at full speed. It has a mount, process,
// network, IPC, host name and cgroup namespace of its own, and a cgroup2 tree
// whatever the host has. A test in it can distinguish a call that a filter
// closed from one that the kernel lacks. An open call takes a kernel that has
// it, and so package vmtest.
package box

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/testing/machine"
	"github.com/afalg-policy/afalg-policy/internal/testing/machine/wire"
)

// Start starts a box and ends it with the test. When the test fails, it logs
// the end of the console; the whole of it is among the test's artifacts.
func Start(t testing.TB) *machine.Machine {
	t.Helper()
	_, m := start(t)
	return m
}

// StartNode starts a box in which a node of a cluster can run: pods need
// controllers of cgroups. It also returns a directory of the host, which the box
// has at wire.BoxDir.
func StartNode(t testing.TB) (m *machine.Machine, shared string) {
	t.Helper()
	b, m := start(t, "controllers")
	// systemd-nspawn lets a box look at the controllers of older hosts, and no more.
	m.Output(t, "sh", "-ec", "for dir in $(findmnt -rno TARGET -t cgroup); do mount -o remount,bind,rw $dir; done")
	return m, b.shared
}

func start(t testing.TB, options ...string) (*box, *machine.Machine) {
	t.Helper()
	b, err := newBox()
	if err != nil {
		t.Fatalf("start a box: %v", err)
	}
	t.Cleanup(func() {
		if err := b.remove(); err != nil {
			t.Errorf("the box left something: %v", err)
		}
	})
	m, err := machine.Start(b.command(options...), filepath.Join(t.ArtifactDir(), "box.console"), b.connect)
	if m != nil {
		m.StopWith(t)
	}
	if err != nil {
		t.Fatalf("start a box: %v", err)
	}
	return b, m
}

// Shell starts a box that has a shell on this terminal.
func Shell() error {
	b, err := newBox()
	if err != nil {
		return err
	}
	command := b.command("shell")
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, os.Stdout, os.Stderr
	return errors.Join(command.Run(), b.remove())
}

// box is the host's part of a box.
type box struct {
	shared string // the directory shared with the host
	name   string // of its cgroups
	agent  *net.UnixListener
}

func newBox() (*box, error) {
	if os.Getuid() != 0 {
		return nil, errors.New("it takes root")
	}
	if _, err := exec.LookPath("systemd-nspawn"); err != nil {
		return nil, fmt.Errorf("%w: run scripts/install test", err)
	}
	agent, err := machine.Agent()
	if err != nil {
		return nil, err
	}
	shared, err := os.MkdirTemp("", "box") // short enough for the name of a socket
	if err != nil {
		return nil, err
	}
	b := &box{shared: shared, name: "afalg-policy-" + filepath.Base(shared)}
	if err := writeProgram(shared+"/agent", agent); err != nil {
		return nil, errors.Join(err, b.remove())
	}
	b.agent, err = net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: filepath.Join(shared, filepath.Base(wire.BoxSocket))})
	if err != nil {
		return nil, errors.Join(err, b.remove())
	}
	return b, nil
}

// command is the first process of a process namespace, so that the whole box
// dies with it, and its mounts end then.
func (b *box) command(options ...string) *exec.Cmd {
	c := exec.Command(b.shared+"/agent", slices.Concat([]string{"box", b.shared, b.name}, options)...)
	c.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID}
	return c
}

// writeProgram writes a file that is executed next. No child may start
// meanwhile: it would have the file open for writing until it executes
// something itself.
func writeProgram(path string, data []byte) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return os.WriteFile(path, data, 0o755)
}

// connect waits for the agent, or for the end of the box.
func (b *box) connect(exited <-chan struct{}) (machine.Port, error) {
	go func() {
		<-exited
		b.agent.Close()
	}()
	return b.agent.AcceptUnix()
}

// remove removes the box's traces on the host, once it has ended.
func (b *box) remove() error {
	if b.agent != nil {
		b.agent.Close()
	}
	return errors.Join(removeCgroups(b.name), os.RemoveAll(b.shared))
}

// removeCgroups removes the trees of that name. The kernel refuses while it
// still buries processes in them.
func removeCgroups(name string) error {
	roots, err := filepath.Glob("/sys/fs/cgroup/*/" + name)
	if err != nil {
		return err
	}
	for _, root := range append(roots, "/sys/fs/cgroup/"+name) {
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
			err := removeTree(root)
			if err == nil {
				break
			}
			if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
				return err
			}
		}
	}
	return nil
}

// removeTree removes directories, whose files are the kernel's.
func removeTree(root string) error {
	var dirs []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	for _, dir := range slices.Backward(dirs) {
		err = errors.Join(err, unix.Rmdir(dir))
	}
	return err
}
