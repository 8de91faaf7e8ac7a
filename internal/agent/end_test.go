package agent

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/testing/kerneltest"
)

var somebody = &syscall.Credential{Uid: nobody, Gid: nobody}

// refusedWorkload starts a workload that may be killed before it says anything.
func (w *world) refusedWorkload(o order, who *syscall.Credential) *process {
	w.t.Helper()
	o.Socket = w.socket
	text, err := json.Marshal(o)
	if err != nil {
		w.t.Fatal(err)
	}
	cmd := exec.Command(self, "test-workload", string(text))
	if who != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who}
	}
	return start(w.t, cmd)
}

// killed waits until a process was killed.
func (p *process) killed() {
	p.t.Helper()
	p.status()
	if s := p.cmd.ProcessState.Sys().(syscall.WaitStatus); s.Signal() != unix.SIGKILL {
		p.t.Errorf("the process ended with %v, want SIGKILL", p.cmd.ProcessState)
	}
}

// open lets everybody connect.
func (w *world) open() {
	w.t.Helper()
	if err := os.Chmod(w.socket, 0o666); err != nil {
		w.t.Fatal(err)
	}
}

// A container whose greeting is refused does not go on, whoever brought it.
func TestRefusedEnds(t *testing.T) {
	kerneltest.NeedRing(t)
	w := newWorld(t).agent()
	w.open()
	for name, who := range map[string]*syscall.Credential{"root's": nil, "somebody's": somebody} {
		t.Run(name, func(t *testing.T) {
			p := w.refusedWorkload(order{State: stateOf(name, "one"), Ring: true}, who)
			w.expect("failed: peer: ", "is refused, and its process was killed: ", "holds an io_uring")
			p.killed()
		})
	}
	w.container("after", "one").ask("socket", "ok")
}

// Nobody can use the agent to kill another's process.
func TestRefusedIsAnothers(t *testing.T) {
	kerneltest.NeedRing(t)
	w := newWorld(t).agent()
	w.open()
	victim := w.join(order{State: stateOf("victim"), Ring: true, Silent: true}, nil)
	o := order{State: stateOf("evil", "one")}
	o.State.Pid = victim.cmd.Process.Pid
	p := w.join(o, somebody)
	w.expect("failed: peer: ", fmt.Sprintf("is refused, and goes on (process %d is not user %d's)", o.State.Pid, nobody), "holds an io_uring")
	p.ask("socket", "ENOSYS")
	victim.ask("socket", "ENOSYS")
}

// A peer with too many connections is not heard, and its container ends.
func TestTurnedAway(t *testing.T) {
	w := newWorld(t).agent()
	w.open()
	var busy []*process
	for range maxGreetingsEach { // crun connects first, and works then
		p := w.join(order{State: stateOf("early"), Half: true}, somebody)
		busy = append(busy, p)
	}
	for range 3 {
		p := w.refusedWorkload(order{State: stateOf("late", "one")}, somebody)
		p.status() // killed, or its message failed
		if p.saw("ready") > 0 && p.cmd.ProcessState.Success() {
			t.Error("the workload goes on")
		}
	}
	w.expect("failed: peer: ", "it has too many connections")
	for _, p := range busy {
		p.in.Close()
	}
	w.container("after", "one").ask("socket", "ok")
}
