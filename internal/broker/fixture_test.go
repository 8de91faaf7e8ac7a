package broker_test

import (
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/broker"
	"github.com/afalg-policy/afalg-policy/internal/filter/harden"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/notify"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
	"github.com/afalg-policy/afalg-policy/internal/subject"
)

// standIn does with ordinary sockets what the kernel does with those of AF_ALG.
// A nil hook succeeds.
type standIn struct {
	onSocket func() error
	onBind   func(*unix.SockaddrALG) error
	onOption func(name int, value []byte, length uint32) error
	onAccept func() error

	mu         sync.Mutex
	operations []uint64 // inodes
	privileged bool     // the last bind
}

func (s *standIn) Socket() (int, error) {
	if s.onSocket != nil {
		if err := s.onSocket(); err != nil {
			return -1, err
		}
	}
	return unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
}

func (s *standIn) Bind(_ int, a *unix.SockaddrALG, privileged bool) error {
	s.mu.Lock()
	s.privileged = privileged
	s.mu.Unlock()
	if s.onBind == nil {
		return nil
	}
	return s.onBind(a)
}

func (s *standIn) SetOption(_, name int, value []byte, length uint32) error {
	if s.onOption == nil {
		return nil
	}
	return s.onOption(name, slices.Clone(value), length)
}

func (s *standIn) Accept(_, flags int) (int, error) {
	if s.onAccept != nil {
		if err := s.onAccept(); err != nil {
			return -1, err
		}
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|flags, 0)
	if err != nil {
		return -1, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return -1, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.operations = append(s.operations, st.Ino)
	return fd, nil
}

func (s *standIn) last() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.operations) == 0 {
		return 0
	}
	return s.operations[len(s.operations)-1]
}

// shared is a variable of a test and the broker. It has a lock, since only the
// workload makes one wait for the other.
type shared[T any] struct {
	mu sync.Mutex
	v  T
}

func (s *shared[T]) set(v T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.v = v
}

func (s *shared[T]) get() T {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.v
}

// seen is an observer that keeps everything.
type seen struct {
	mu       sync.Mutex
	records  []plan.Record
	answered []string
	failed   []string
	used     []string
	sessions int
	quiet    bool // keep no records: there will be many
}

func (s *seen) hush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.quiet = true
}

func (s *seen) Decided(r plan.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.quiet {
		s.records = append(s.records, r)
	}
}

func (s *seen) Answered(call string, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if took <= 0 || took > time.Minute {
		call += " took " + took.String()
	}
	if !s.quiet {
		s.answered = append(s.answered, call)
	}
}

func (s *seen) use(callers []broker.Caller, a afalg.Algorithm) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range callers {
		s.used = append(s.used, a.String()+" by "+filepath.Base(c.Binary)+" "+c.SHA256)
	}
}

// takeUsed returns the uses since the last time.
func (f *fixture) takeUsed() (used []string) {
	f.Helper()
	f.takeReported()
	f.mu.Lock()
	defer f.mu.Unlock()
	used, f.seen.used = f.seen.used, nil
	return used
}

func (s *seen) Sessions(change int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sessions += change
}

func (s *seen) Failed(what string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = append(s.failed, what+": "+err.Error())
}

func (s *seen) open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sessions
}

// take returns what was recorded since the last time.
func (s *seen) take() (records []plan.Record, answered, failed []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	records, answered, failed = s.records, s.answered, s.failed
	s.records, s.answered, s.failed = nil, nil, nil
	return records, answered, failed
}

// takeReported is take, once the report of every answer is in: it comes after the
// answer, and before the next one. accept(2) is for this alone.
func (f *fixture) takeReported() (records []plan.Record, answered, failed []string) {
	f.Helper()
	f.call(unix.SYS_ACCEPT, 1000, 0, 0)
	records, answered, failed = f.take()
	answered = slices.DeleteFunc(answered, func(call string) bool { return call == "accept" })
	if len(answered) == 0 {
		answered = nil
	}
	return records, answered, failed
}

// testPlan allows everybody two algorithms.
func testPlan() *plan.Plan {
	rule := policy.Rule{Name: "two", Anyone: true}
	for _, a := range []afalg.Algorithm{{Type: afalg.Hash, Name: "sha256"}, {Type: afalg.Skcipher, Name: "cbc(aes)"}} {
		rule.Algorithms = append(rule.Algorithms, policy.Algorithm{Algorithm: a})
	}
	return &plan.Plan{
		Name: "test", Rules: []policy.Rule{rule},
		SocketErrno: plan.Errno{Name: "EAFNOSUPPORT", Number: uint32(unix.EAFNOSUPPORT)},
		BindErrno:   plan.Errno{Name: "ENOENT", Number: uint32(unix.ENOENT)},
	}
}

func nothing() *plan.Plan {
	p := testPlan()
	p.Rules = nil
	return p
}

// runFilter is the filter of run.
var runFilter = map[harden.Socketcall]func() []unix.SockFilter{
	harden.SocketcallDeny:   sync.OnceValue(func() []unix.SockFilter { return makeFilter(harden.SocketcallDeny) }),
	harden.SocketcallBroker: sync.OnceValue(func() []unix.SockFilter { return makeFilter(harden.SocketcallBroker) }),
}

func makeFilter(s harden.Socketcall) []unix.SockFilter {
	arch, err := profile.ArchByName(runtime.GOARCH)
	if err != nil {
		panic(err)
	}
	filter, _, err := harden.RunFilter(nothing(), harden.RunOptions{Arch: arch, Socketcall: s})
	if err != nil {
		panic(err)
	}
	return filter
}

func writeFilter(t *testing.T, filter []unix.SockFilter) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "filter")
	size := len(filter) * int(unsafe.Sizeof(filter[0]))
	if err := os.WriteFile(path, unsafe.Slice((*byte)(unsafe.Pointer(&filter[0])), size), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// setup is the part of a fixture that a test may change.
type setup struct {
	role     string
	filter   []unix.SockFilter
	plan     *plan.Plan
	sessions int
	digests  int
	// everyDigest is for the records.
	everyDigest bool
	wrapper     []string // starts a 32-bit process
	second      bool     // the first fixture of the test checks for leaks
	deaf        bool     // the helper that makes pairs is dead
	sockets     *broker.Sockets
	crypto      standIn
}

// fixture is a workload that is served.
type fixture struct {
	*first
	*seen
	crypto   *standIn
	broker   *broker.Broker
	workload *broker.Workload
	listener *notify.Listener
	cancel   context.CancelFunc
	served   chan error
	ended    bool // served was read
	wrapper  []string
}

// serve starts a child and serves it. Nothing of it may be left at the end of
// the test.
func serve(t *testing.T, change ...func(*setup)) *fixture {
	t.Helper()
	s := setup{role: "main", filter: runFilter[harden.SocketcallDeny](), plan: testPlan()}
	for _, c := range change {
		c(&s)
	}
	if !s.second {
		checkLeaks(t)
	}
	f := &fixture{seen: &seen{}, crypto: &s.crypto, wrapper: s.wrapper}
	subjects, err := subject.NewReader(subject.Options{Digests: s.digests, Recent: broker.Recent})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(subjects.Close)
	pairs := broker.NewPairs(startHelper(t, broker.MakePairs, s.deaf))
	t.Cleanup(pairs.Close)
	f.broker, err = broker.New(broker.Options{
		Subjects: subjects, Pairs: pairs, Sockets: s.sockets, Observer: f.seen, Used: f.use,
		EveryDigest: s.everyDigest,
		UserName:    func(uint32) string { return "tester" }, Sessions: s.sessions, Crypto: f.crypto,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.broker.Close)
	f.first, f.listener = startChild(t, s.role, writeFilter(t, s.filter))
	t.Cleanup(func() { f.listener.Close() })
	f.workload = broker.NewWorkload("work", s.plan)
	f.serve()
	t.Cleanup(f.finish)
	return f
}

// startHelper runs a helper in this process; a dead one has ended.
func startHelper(t *testing.T, help func(int) error, dead bool) (socket int) {
	t.Helper()
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if dead {
		unix.Close(ends[1])
		return ends[0]
	}
	go func() {
		defer unix.Close(ends[1])
		help(ends[1])
	}()
	return ends[0]
}

func (f *fixture) serve() {
	ctx, cancel := context.WithCancel(context.Background())
	f.cancel, f.served, f.ended = cancel, make(chan error, 1), false
	go func() { f.served <- f.broker.Serve(ctx, f.listener, f.workload) }()
}

// finish ends the child; Serve must then end by itself.
func (f *fixture) finish() {
	f.Helper()
	f.end()
	if err := f.wait(); err != nil && !f.ended {
		f.Errorf("served: %v", err)
	}
	f.cancel()
	if n := f.open(); n != 0 {
		f.Errorf("%d sessions are left", n)
	}
}

// wait returns the error of Serve.
func (f *fixture) wait() error {
	f.Helper()
	if f.ended {
		return nil
	}
	select {
	case err := <-f.served:
		f.ended = err != nil
		return err
	case <-time.After(patience):
		f.Fatal("still served")
		return nil
	}
}

// await waits for an event of the listener: POLLIN for a waiting call, POLLHUP
// when no process is under the filter any more.
func (f *fixture) await(events int16) {
	f.Helper()
	ok := eventually(func() bool {
		fds := []unix.PollFd{{Fd: int32(f.listener.FD()), Events: events}}
		_, err := unix.Poll(fds, 0)
		return err == nil && fds[0].Revents&events != 0
	})
	if !ok {
		f.Fatalf("the listener never had events %#x", events)
	}
}

// checkLeaks compares the end of the test with its beginning.
func checkLeaks(t *testing.T) {
	t.Helper()
	runFilter[harden.SocketcallDeny]()
	descriptors, goroutines := openFDs(t), runtime.NumGoroutine()
	t.Cleanup(func() {
		ok := eventually(func() bool { return openFDs(t) <= descriptors && runtime.NumGoroutine() <= goroutines })
		if !ok {
			stack := make([]byte, 1<<16)
			t.Errorf("%d descriptors and %d goroutines, then %d and %d:\n%s", descriptors, goroutines, openFDs(t), runtime.NumGoroutine(), stack[:runtime.Stack(stack, true)])
		}
	})
}

func openFDs(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Error(err)
	}
	return len(entries)
}

// patience bounds a wait for something that hangs. It measures nothing.
const patience = 3 * time.Minute

func eventually(holds func() bool) bool {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if holds() {
			return true
		}
	}
	return holds()
}

// Single steps of a session.

func (p *proc) socket(flags uint64) (int, unix.Errno) {
	p.Helper()
	return p.call(unix.SYS_SOCKET, unix.AF_ALG, unix.SOCK_SEQPACKET|flags, 0)
}

// placeholder opens a socket, which has to work.
func (p *proc) placeholder() int {
	p.Helper()
	fd, errno := p.socket(0)
	if errno != 0 {
		p.Fatalf("socket: %v", errno)
	}
	return fd
}

func address(kind, name string) []byte {
	b := make([]byte, afalg.SockaddrSize)
	binary.NativeEndian.PutUint16(b, unix.AF_ALG)
	copy(b[2:16], kind)
	copy(b[24:], name)
	return b
}

func (p *proc) bind(fd int, kind, name string) unix.Errno {
	p.Helper()
	_, errno := p.call(unix.SYS_BIND, uint64(fd), p.put(address(kind, name)), afalg.SockaddrSize)
	return errno
}

func (p *proc) setKey(fd int, key []byte) unix.Errno {
	p.Helper()
	_, errno := p.call(unix.SYS_SETSOCKOPT, uint64(fd), unix.SOL_ALG, unix.ALG_SET_KEY, p.put(key), uint64(len(key)))
	return errno
}

func (p *proc) accept(fd int, flags uint64) (int, unix.Errno) {
	p.Helper()
	return p.call(unix.SYS_ACCEPT4, uint64(fd), 0, 0, flags)
}

func (p *proc) close(fd int) {
	p.Helper()
	if _, errno := p.call(unix.SYS_CLOSE, uint64(fd)); errno != 0 {
		p.Errorf("close %d: %v", fd, errno)
	}
}

// bound opens a placeholder and binds it.
func (p *proc) bound() int {
	p.Helper()
	fd := p.placeholder()
	if errno := p.bind(fd, "hash", "sha256"); errno != 0 {
		p.Fatalf("bind: %v", errno)
	}
	return fd
}
