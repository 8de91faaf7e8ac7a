package agent

import (
	"errors"
	"fmt"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/broker"
	"github.com/afalg-policy/afalg-policy/internal/notify"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// container is the set of processes under one listener. A runtime that puts
// another process into a container sends another listener with the same id.
type container struct {
	record
	key      string // in the service manager's store
	listener *notify.Listener
	slots    *notify.Slots // of the calls under way; nil if nobody keeps them
	sessions []broker.Saved
	workload *broker.Workload
}

// close closes this process's descriptors of a container that is not served.
func (c *container) close() {
	c.listener.Close()
	c.slots.Close()
	for _, v := range c.sessions {
		v.Close()
	}
}

func (c *container) peer() peer { return peer{c.PID, c.UID} }

// admit stores a container that a peer brought, and serves it. On an error the
// caller keeps the listener.
func (a *Agent) admit(r record, l *notify.Listener) error {
	c := &container{record: r, key: a.keys.next(keyPrefix), listener: l}
	if !a.admitted.enter(c.peer()) {
		return errors.New("there are too many containers")
	}
	if err := a.keep(c); err != nil {
		a.failed("store", fmt.Errorf("container %q will not outlive this agent: %w", r.ID, err))
	}
	granted := "nothing"
	if len(r.Grants) > 0 {
		granted = strings.Join(r.Grants, ", ")
	}
	a.note("container %q, process %d: granted %s", r.ID, r.PID, granted)
	a.serve(c)
	return nil
}

// keep puts a container into the store. The record and the slots arrive with
// the listener in one message, under one name: none of them is ever there
// alone.
func (a *Agent) keep(c *container) error {
	if !a.manager.Present() {
		return nil
	}
	f, err := c.record.seal()
	if err != nil {
		return err
	}
	defer f.Close()
	if c.slots, err = notify.NewSlots(); err != nil {
		return err
	}
	return a.manager.Keep(c.key, c.listener.FD(), int(f.Fd()), c.slots.FD())
}

// serve answers the calls of a container until it ends, in a goroutine. When
// the agent stops, stored containers are left to the next one.
func (a *Agent) serve(c *container) {
	_ = c.listener.SetSyncWakeUp() // slower without it, before Linux 6.6
	a.mu.Lock()
	if a.stopping {
		a.mu.Unlock()
		a.admitted.leave(c.peer())
		c.close()
		return
	}
	c.workload = broker.NewWorkload(c.ID, a.plan(c))
	c.workload.Track(c.slots)
	c.workload.Restore(c.sessions)
	c.sessions = nil
	a.containers[c] = true
	a.busy.Add(1)
	a.mu.Unlock()
	a.o.Listeners(1)
	go a.run(c)
}

func (a *Agent) run(c *container) {
	defer a.busy.Done()
	err := a.o.Broker.Serve(a.serving, c.listener, c.workload)
	a.mu.Lock()
	delete(a.containers, c)
	a.mu.Unlock()
	if errors.Is(err, broker.ErrInterrupted) {
		a.keepSessions(c)
	} else {
		a.ended(c, err)
	}
	c.close()
	a.admitted.leave(c.peer())
	a.o.Listeners(-1)
}

// ended forgets a container that has no process left, or cannot be served.
func (a *Agent) ended(c *container, err error) {
	if err != nil {
		a.failed("container", fmt.Errorf("container %q is served no more, its trapped calls fail with ENOSYS: %w", c.ID, err))
	} else {
		a.note("container %q, process %d: ended", c.ID, c.PID)
	}
	if err := a.manager.Forget(c.key); err != nil {
		a.failed("store", err)
	}
}

// plan asks the policy what a container may do. Grants that the policy does not
// have are reported, and grant nothing.
func (a *Agent) plan(c *container) *plan.Plan {
	granted, unknown := a.o.Plan(c.Grants)
	if len(unknown) > 0 {
		a.failed("grant", fmt.Errorf("container %q: the policy has no rule %s, which is ignored", c.ID, strings.Join(unknown, ", ")))
	}
	return granted
}
