// Package agent serves many containers under one policy: it is the listener
// that linux.seccomp.listenerPath of an OCI spec names.
//
// A runtime connects once for each container, and for each process that it puts
// into one, and sends the state of the container with the listener of its
// filter. From then on the broker answers, and the runtime is not needed any
// more. The state names the rules that the container is granted. The names
// count only if root, or the user of this process, sent them.
//
// If a service manager has a file descriptor store, it keeps each listener,
// with the record of its container. A new agent takes them back; trapped calls
// wait meanwhile. Without a store the listeners close with the process, and the
// kernel answers ENOSYS.
package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/broker"
	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/manager"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/printable"
)

// Options configure an agent.
type Options struct {
	Socket string // where to listen; "" for the socket that the service manager made
	Helper *Helper
	Broker *broker.Broker
	// Plan returns what a workload with these grants may do under the current
	// policy, and the grants that the policy does not have.
	Plan func(grants []string) (granted *plan.Plan, unknown []string)
	// Reload reads the policy again. On an error nothing has changed.
	Reload    func() error
	Listeners func(change int)             // told of more or fewer containers; may be nil
	Failed    func(what string, err error) // called for each failure; may be nil
	Note      func(text string)            // called for each success; may be nil
	Alive     func() error                 // asked with the agent's own parts, for the watchdog; may be nil
	Greeting  time.Duration                // the time for a peer to send its message; 0: 15 s
}

// Limits. Listeners take half of the store's descriptors.
const (
	maxContainers = 4096
	maxGreetings  = 64 // connections at a time
	// Shares of one user who is not trusted.
	maxContainersEach = 64
	maxGreetingsEach  = 4

	greetingTime = 15 * time.Second // crun connects first, and works then
	stopTime     = 5 * time.Second  // for calls under way to end
)

// Agent serves containers.
type Agent struct {
	o       Options
	manager manager.Manager
	keys    keys
	socket  *socket
	canary  *canary
	watch   time.Duration // how often the service manager wants to hear; 0: never

	greetings gate
	admitted  gate
	refusals  limiter

	mu         sync.Mutex
	containers map[*container]bool
	stopping   bool
	busy       sync.WaitGroup // greetings, and containers served
	status     atomic.Pointer[string]

	serving   context.Context // ends when the agent stops
	interrupt context.CancelFunc
}

// New takes over the contents of the service manager's store, and listens. No
// container is served before Run.
func New(o Options) (*Agent, error) {
	fill(&o)
	a := &Agent{
		o: o, containers: map[*container]bool{},
		greetings: gate{most: maxGreetings, each: maxGreetingsEach},
		admitted:  gate{most: maxContainers, each: maxContainersEach},
	}
	a.serving, a.interrupt = context.WithCancel(context.Background())
	var err error
	if a.manager, a.watch, err = manager.Find(); err != nil {
		return nil, err
	}
	inherited := takeOver()
	a.keys.follow(inherited.stored)
	if a.socket, err = openSocket(o.Socket, inherited.sockets); err != nil {
		inherited.close()
		return nil, err
	}
	if a.canary, err = newCanary(o.Broker); err != nil {
		inherited.close()
		a.socket.close()
		return nil, err
	}
	a.restore(inherited)
	return a, nil
}

// Path is that of the agent's socket, which profiles name.
func (a *Agent) Path() string { return a.socket.path }

func fill(o *Options) {
	if o.Listeners == nil {
		o.Listeners = func(int) {}
	}
	if o.Failed == nil {
		o.Failed = func(string, error) {}
	}
	if o.Note == nil {
		o.Note = func(string) {}
	}
	if o.Alive == nil {
		o.Alive = func() error { return nil }
	}
	if o.Greeting == 0 {
		o.Greeting = greetingTime
	}
}

// Run serves until a signal ends it (nil), or it cannot go on.
func (a *Agent) Run() error {
	signal.Ignore(unix.SIGPIPE) // a log without a reader must not end this
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGHUP, unix.SIGTERM, unix.SIGINT)
	defer signal.Stop(signals)
	defer a.stop()

	failed := make(chan error, 1)
	go func() { failed <- a.accept() }()
	a.setStatus("")
	a.tell("READY=1", a.statusLine())
	a.note("serving on %s", a.socket.path)
	watchdog := a.ticks()
	for {
		select {
		case s := <-signals:
			if s != unix.SIGHUP {
				a.note("%v: stopping", s)
				return nil
			}
			a.reload()
		case err := <-failed:
			return err
		case <-a.o.Helper.ended:
			return hosterr.Errorf("the helper that makes sockets has ended (%s), and nothing can be handed out any more", a.o.Helper.command.ProcessState)
		case <-watchdog:
			a.prove()
		}
	}
}

// reload applies a new policy to every container, or none of it.
func (a *Agent) reload() {
	a.tell("RELOADING=1", manager.Monotonic())
	err := a.o.Reload()
	if err != nil {
		a.setStatus("the new policy was refused, and the old one kept: " + err.Error())
		a.failed("reload", fmt.Errorf("the new policy was refused, and the old one kept: %w", err))
	} else {
		n := a.replan()
		a.setStatus("policy read at " + time.Now().Format(time.TimeOnly))
		a.note("the policy was read again, and holds for %s", containers(n))
	}
	a.tell("READY=1", a.statusLine())
}

// replan plans each container anew.
func (a *Agent) replan() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	for c := range a.containers {
		c.workload.SetPlan(a.plan(c))
	}
	return len(a.containers)
}

// stop leaves no call half answered, as far as it can. The contents of the
// store stay there.
func (a *Agent) stop() {
	a.tell("STOPPING=1", "STATUS=Stopping")
	a.socket.close()
	a.mu.Lock()
	a.stopping = true
	left := len(a.containers)
	a.mu.Unlock()
	a.interrupt()
	ended := make(chan struct{})
	go func() {
		a.busy.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(stopTime):
		a.failed("stop", errors.New("calls that are under way did not end in time"))
	}
	a.canary.close()
	switch {
	case left > 0 && a.manager.Present():
		a.note("%s left to the service manager's store", containers(left))
	case left > 0:
		a.failed("stop", fmt.Errorf("%s lost: no service manager keeps the listeners, and trapped calls fail with ENOSYS from now on", containers(left)))
	}
}

func containers(n int) string {
	if n == 1 {
		return "1 container"
	}
	return fmt.Sprintf("%d containers", n)
}

func (a *Agent) note(format string, args ...any) {
	a.o.Note(printable.Line(fmt.Sprintf(format, args...)))
}

func (a *Agent) failed(what string, err error) { a.o.Failed(what, err) }

// tell tells the service manager. An error there is no reason to end.
func (a *Agent) tell(lines ...string) {
	if err := a.manager.Tell(lines...); err != nil {
		a.failed("service manager", err)
	}
}

func (a *Agent) setStatus(text string) { a.status.Store(&text) }

func (a *Agent) statusLine() string {
	a.mu.Lock()
	text := "STATUS=Serving " + containers(len(a.containers))
	a.mu.Unlock()
	if s := *a.status.Load(); s != "" {
		text += "; " + s
	}
	return printable.Line(text)
}
