package broker

import (
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/notify"
)

// Saved is a session that outlives the broker that opened it: another broker
// with the same listener can go on with it.
type Saved struct {
	Inode, Cookie uint64          // of the placeholder
	Kept, Parent  int             // descriptors
	Bound         afalg.Algorithm // zero if it is not bound
}

// Close closes the descriptors of a session that nobody goes on with.
func (v Saved) Close() { notify.CloseAll([]int{v.Kept, v.Parent}) }

// Restore gives the sessions of an earlier broker to a workload that is not
// served yet. Serve takes them over.
func (w *Workload) Restore(sessions []Saved) { w.saved = append(w.saved, sessions...) }

// Save returns the sessions that were open when Serve was interrupted. The
// caller then owns their descriptors.
func (w *Workload) Save() []Saved {
	saved := w.saved
	w.saved = nil
	return saved
}

// restore registers saved sessions, and closes those that it cannot register.
func (s *server) restore(saved []Saved) {
	for _, v := range saved {
		// Its age is unknown: old enough to ask for its cookie.
		ses := &session{identity: identity{v.Inode, v.Cookie}, since: -int64(wrapTime), kept: end{fd: v.Kept}, parent: v.Parent, bound: v.Bound}
		if !s.sessions.reserve() {
			v.Close()
			continue
		}
		s.hub.name(&ses.tag, item{s, ses.inode})
		tag := ses.tag
		s.sessions.add(ses)
		// From here on it may be closed.
		if err := s.hub.add(v.Kept, unix.EPOLLET, tag); err != nil {
			s.o.Observer.Failed("session", err)
			s.sessions.remove(s.hub, ses)
		}
	}
}

// take empties the table and returns its sessions, except those in use: their
// calls are lost with the broker.
func (t *table) take(h *hub) (saved []Saved) {
	t.mu.Lock()
	all := slices.Collect(maps.Values(t.byInode))
	t.mu.Unlock()
	for _, ses := range all {
		if !ses.mu.TryLock() {
			continue
		}
		if kept := ses.kept.take(); kept >= 0 {
			h.control(unix.EPOLL_CTL_DEL, kept, 0, 0)
			saved = append(saved, Saved{ses.inode, ses.cookie, kept, ses.parent, ses.bound})
			ses.parent = -1
		}
		ses.mu.Unlock()
	}
	t.clear(h)
	return saved
}
