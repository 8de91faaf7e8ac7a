package lsm

import (
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"
)

func sleeper(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd
}

// Those that hold an operation socket, and still do, are ended; nobody else.
func TestEndHolders(t *testing.T) {
	holder, parent, let := sleeper(t), sleeper(t), sleeper(t)
	lists := [][]Socket{
		{{PID: holder.Process.Pid, FD: 3, Operation: true}, {PID: holder.Process.Pid, FD: 4, Operation: true},
			{PID: parent.Process.Pid, FD: 3}, {PID: let.Process.Pid, FD: 3, Operation: true}},
		{{PID: holder.Process.Pid, FD: 3, Operation: true}, {PID: holder.Process.Pid, FD: 4, Operation: true},
			{PID: parent.Process.Pid, FD: 3}, {PID: parent.Process.Pid, FD: 5, Operation: true}},
	}
	want := slices.Clone(lists[1][:2])
	ended, err := endHolders(func() ([]Socket, error) {
		next := lists[0]
		lists = lists[1:]
		return next, nil
	})
	if err != nil || !slices.Equal(ended, want) {
		t.Errorf("ended %v, %v, want %v", ended, err, want)
	}
	if state, err := holder.Process.Wait(); err != nil || state.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("the holder: %v, %v", state, err)
	}
	for _, other := range []*exec.Cmd{parent, let} {
		if err := other.Process.Signal(syscall.Signal(0)); err != nil {
			t.Errorf("%d: %v", other.Process.Pid, err)
		}
	}
}

// Neither this process nor the first one is ended, and the answer says so.
func TestEndHoldersSpares(t *testing.T) {
	for _, pid := range []int{1, os.Getpid()} {
		ended, err := endHolders(func() ([]Socket, error) { return []Socket{{PID: pid, FD: 3, Operation: true}}, nil })
		if len(ended) > 0 || err == nil {
			t.Errorf("%d: ended %v, %v", pid, ended, err)
		}
	}
}
