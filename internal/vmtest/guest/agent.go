package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/vmtest/wire"
)

const path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// agent runs the host's commands, one after the other, until the port closes.
func agent() error {
	if err := os.Setenv("PATH", path); err != nil { // where programs are looked for
		return err
	}
	port, err := openPort()
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
		if err := replies.Encode(run(c)); err != nil {
			return fmt.Errorf("send a result: %w", err)
		}
	}
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

// run runs a command in a process group of its own.
func run(c wire.Command) wire.Result {
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
	var r wire.Result
	expired := make(chan struct{})
	timer := time.AfterFunc(c.Timeout, func() {
		close(expired)
		unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
	})
	err := cmd.Wait()
	if !timer.Stop() {
		<-expired
		r.TimedOut = true
	}
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
