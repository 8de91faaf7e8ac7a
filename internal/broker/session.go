package broker

import (
	"maps"
	"slices"
	"sync"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/notify"
)

// session is a placeholder in a workload with what is behind it here.
type session struct {
	identity // of the placeholder
	since    int64
	tag      uint64 // of the kept end, in the hub

	// mu is held for as long as the parent is worked on, and until this
	// process has closed its copy of an operation socket: while one is open,
	// the kernel answers EBUSY.
	mu     sync.Mutex
	kept   int // -1 once closed, like parent
	parent int
	bound  afalg.Algorithm // zero until a bind succeeded
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
	if ses.kept >= 0 {
		notify.CloseAll([]int{ses.kept, ses.parent})
		ses.kept, ses.parent = -1, -1
	}
}

// table holds the sessions of a workload by the inode of their placeholder.
type table struct {
	mu       sync.Mutex
	byInode  map[uint64]*session
	used     int // those in the table, and those about to be
	limit    int
	observer Observer
}

func newTable(limit int, o Observer) *table {
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

// release gives room back that no session came to take.
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

// remove closes a session and gives its room back, once.
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
	if ses := t.get(inode); ses != nil {
		t.remove(h, ses)
	}
}

// clear closes what is left when a workload has ended.
func (t *table) clear(h *hub) {
	t.mu.Lock()
	left := slices.Collect(maps.Values(t.byInode))
	t.mu.Unlock()
	for _, ses := range left {
		t.remove(h, ses)
	}
}
