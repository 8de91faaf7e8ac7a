package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/testing/machine/wire"
)

const path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// agent runs the host's commands, one after the other, until the port closes.
func agent() error {
	if err := os.Setenv("PATH", path); err != nil { // for looking up programs
		return err
	}
	port, err := connect()
	if err != nil {
		return err
	}
	defer port.Close()
	replies, commands := json.NewEncoder(port), json.NewDecoder(port)
	hello, err := greeting()
	if err != nil {
		return err
	}
	if err := replies.Encode(hello); err != nil {
		return err
	}
	for {
		var c wire.Command
		if err := commands.Decode(&c); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read a command: %w", err)
		}
		result := carryOut(c, func() { replies.Encode(wire.Reply{}) })
		if err := replies.Encode(wire.Reply{Result: &result}); err != nil {
			return fmt.Errorf("send a result: %w", err)
		}
	}
}

func carryOut(c wire.Command, alive func()) wire.Result {
	switch {
	case c.File != nil:
		return write(*c.File)
	case c.Read != "":
		return read(c.Read)
	}
	return run(c, alive)
}

// connect reaches the host: from a box by a socket, else by a port.
func connect() (io.ReadWriteCloser, error) {
	if _, err := os.Stat(wire.BoxSocket); err == nil {
		return net.Dial("unix", wire.BoxSocket)
	}
	return openPort()
}

// openPort finds the virtio port by its name; udev, which would make a link
// of that name, does not run here.
func openPort() (*os.File, error) {
	names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
	if err != nil {
		return nil, err
	}
	for _, file := range names {
		name, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		if strings.TrimSpace(string(name)) == wire.Port {
			return os.OpenFile("/dev/"+filepath.Base(filepath.Dir(file)), os.O_RDWR, 0)
		}
	}
	return nil, fmt.Errorf("no virtio port is named %s", wire.Port)
}

func greeting() (wire.Hello, error) {
	var name unix.Utsname
	var info unix.Sysinfo_t
	if err := errors.Join(unix.Uname(&name), unix.Sysinfo(&info)); err != nil {
		return wire.Hello{}, err
	}
	return wire.Hello{
		Release: unix.ByteSliceToString(name.Release[:]),
		Uptime:  time.Duration(info.Uptime) * time.Second,
	}, nil
}

// write puts a file in the place of whatever is there.
func write(f wire.File) wire.Result {
	err := os.MkdirAll(filepath.Dir(f.Path), 0o755)
	if err == nil {
		if err = os.Remove(f.Path); errors.Is(err, os.ErrNotExist) {
			err = nil
		}
	}
	if err == nil {
		err = os.WriteFile(f.Path, f.Data, f.Mode)
	}
	if err == nil {
		err = os.Chmod(f.Path, f.Mode) // whatever the umask is
	}
	if err != nil {
		return wire.Result{Error: err.Error()}
	}
	return wire.Result{}
}

func read(path string) wire.Result {
	data, err := os.ReadFile(path)
	if err != nil {
		return wire.Result{Error: err.Error()}
	}
	return wire.Result{Stdout: data}
}

// run runs a command in a process group of its own, and calls alive every now
// and then.
func run(c wire.Command, alive func()) wire.Result {
	if len(c.Args) == 0 {
		return wire.Result{Error: "empty command"}
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(c.Args[0], c.Args[1:]...)
	cmd.Env = append([]string{"PATH=" + path, "HOME=/root"}, c.Env...)
	cmd.Dir = "/"
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(c.Stdin), &stdout, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = time.Second // a daemon may keep the pipes open
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return wire.Result{Error: err.Error()}
	}
	done, watched := make(chan struct{}), make(chan bool)
	go func() { watched <- watch(cmd.Process.Pid, c.Timeout, alive, done) }()
	err := cmd.Wait()
	close(done)
	r := wire.Result{TimedOut: <-watched}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		r.Error = err.Error()
	}
	r.Stdout, r.Stderr, r.Took = stdout.Bytes(), stderr.Bytes(), time.Since(start)
	r.Exit, r.Signal = status(cmd.ProcessState.Sys().(syscall.WaitStatus))
	return r
}

func status(w syscall.WaitStatus) (exit int, signal string) {
	if w.Signaled() {
		return 128 + int(w.Signal()), unix.SignalName(w.Signal())
	}
	return w.ExitStatus(), ""
}
