package agent

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// maxIdle bounds the memory of an agent with a thousand idle containers, in
// KiB.
const maxIdle = 64 << 10

// A thousand idle containers cost little memory, no thread each, and still get
// answers.
func TestThousandIdle(t *testing.T) {
	const each, processes = 50, 20
	w := newWorld(t).agent()
	before := w.resident()
	var last *process
	for i := range processes {
		last = w.join(order{State: stateOf(fmt.Sprintf("c%d", i), "one"), Number: each - 1}, nil)
	}
	eventually(t, "a thousand listeners", func() bool { return w.saw("listeners +1") == each*processes })
	idle := w.resident()
	last.ask("socket", "ok")
	// The threads that greeted stay with the runtime.
	if n := w.field("Threads:"); n > 2*maxGreetings {
		t.Errorf("%d threads", n)
	}
	t.Logf("resident: %d KiB with 1,000 idle containers, %d KiB with none; anonymous %d KiB", idle, before, w.field("RssAnon:"))
	if limit := maxIdle * memoryFactor; idle > limit {
		t.Errorf("%d KiB are resident with 1,000 idle containers, more than %d", idle, limit)
	}
}

func (p *process) resident() int { return p.field("VmRSS:") }

// field reads a number from the status of a process.
func (p *process) field(name string) (n int) {
	p.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "\n"+name)
	if _, err := fmt.Sscan(rest, &n); err != nil || !found {
		p.t.Fatalf("no %s in the status: %v", name, err)
	}
	return n
}
