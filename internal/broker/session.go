package broker

import (
	"maps"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/notify"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// session is a placeholder in a workload and its parent here.
type session struct {
	identity // of the placeholder
	since    int64
	tag      uint64 // of the kept end, in the hub
	kept     end

	// mu is held while the parent is in use, and until this process has closed
	// its copy of an operation socket: while one is open, the kernel answers
	// EBUSY.
	mu     sync.Mutex
	parent int             // -1 once closed
	bound  afalg.Algorithm // zero until a bind succeeded
	// callers bound and keyed it.
	callers []Caller
}

// Caller is an executable that took part in a session.
type Caller struct{ Binary, SHA256 string }

// maxCallers is more than a session has: one binds, one sets the key.
const maxCallers = 8

// note adds a caller, once. The session is locked.
func (ses *session) note(c Caller) {
	if len(ses.callers) < maxCallers && !slices.Contains(ses.callers, c) {
		ses.callers = append(ses.callers, c)
	}
}

// end is the kept end of a pair. Its lock, unlike the session's, is never held
// for long.
type end struct {
	mu   sync.Mutex
	fd   int  // -1 once closed
	shut bool // the placeholder was shut down
}

// open reports whether the placeholder has copies. The kept end hangs up when
// the last copy is closed, and when a placeholder is shut down, which a socket
// of AF_ALG refuses; the unread message in a placeholder (makePairs) tells the
// two apart. A close hangs up first and empties the placeholder afterwards. So
// from the first shutdown on, the hub waits for the end to become emptier.
func (e *end) open(h *hub, tag uint64) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.fd < 0 {
		return false
	}
	unread, err := unix.IoctlGetInt(e.fd, unix.SIOCOUTQ)
	if err != nil || unread <= beingFreed {
		return false
	}
	if e.shut {
		return true
	}
	e.shut = true
	return h.control(unix.EPOLL_CTL_MOD, e.fd, unix.EPOLLET|unix.EPOLLOUT, tag) == nil
}

// beingFreed is the count of SIOCOUTQ that may remain when the kernel reports
// that a message is gone: it subtracts the last byte afterwards (sock_wfree in
// net/core/sock.c). A message of no bytes counts for hundreds.
const beingFreed = 1

// take passes the descriptor to the caller; -1 if it is closed.
func (e *end) take() (fd int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	fd, e.fd = e.fd, -1
	return fd
}

// close does not wait: the parent may be busy for as long as a module takes to
// load, and others have to be closed meanwhile.
func (ses *session) close() {
	if ses.mu.TryLock() {
		ses.closeLocked()
		return
	}
	go func() {
		ses.mu.Lock()
		ses.closeLocked()
	}()
}

func (ses *session) closeLocked() {
	defer ses.mu.Unlock()
	if kept := ses.kept.take(); kept >= 0 {
		notify.CloseAll([]int{kept, ses.parent})
		ses.parent = -1
	}
}

// table holds the sessions of a workload by the inode of their placeholder.
type table struct {
	mu       sync.Mutex
	byInode  map[uint64]*session
	used     int // those in the table, and those about to be
	limit    int
	observer plan.Observer
}

func newTable(limit int, o plan.Observer) *table {
	return &table{byInode: map[uint64]*session{}, limit: limit, observer: o}
}

// reserve makes room for a session; false if the table is full.
func (t *table) reserve() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.used >= t.limit {
		return false
	}
	t.used++
	return true
}

// release frees room that no session took.
func (t *table) release() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.used--
}

func (t *table) add(ses *session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.byInode[ses.inode] = ses
	t.observer.Sessions(1)
}

func (t *table) get(inode uint64) *session {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.byInode[inode]
}

// remove closes a session and frees its room, once.
func (t *table) remove(h *hub, ses *session) {
	t.mu.Lock()
	there := t.byInode[ses.inode] == ses
	if there {
		delete(t.byInode, ses.inode)
		t.used--
		t.observer.Sessions(-1)
	}
	t.mu.Unlock()
	if there {
		h.forget(ses.tag)
		ses.close()
	}
}

// closed removes the session whose placeholder has no copy left.
func (t *table) closed(h *hub, inode uint64) {
	if ses := t.get(inode); ses != nil && !ses.kept.open(h, ses.tag) {
		t.remove(h, ses)
	}
}

// clear closes the sessions left when a workload has ended.
func (t *table) clear(h *hub) {
	t.mu.Lock()
	left := slices.Collect(maps.Values(t.byInode))
	t.mu.Unlock()
	for _, ses := range left {
		t.remove(h, ses)
	}
}
