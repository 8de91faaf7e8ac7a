package broker_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// socketOf names the socket behind a descriptor of the process.
func (p *proc) socketOf(fd int) string {
	p.Helper()
	link, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", p.tid, fd))
	if err != nil {
		p.Error(err)
	}
	return link
}

// checkOperation asks for an operation socket, and checks that the kernel's
// side made it.
func (f *fixture) checkOperation(p *proc, placeholder int) (operation int) {
	f.Helper()
	operation, errno := p.accept(placeholder, 0)
	if errno != 0 {
		f.Fatalf("accept: %v", errno)
	}
	if got, want := p.socketOf(operation), fmt.Sprintf("socket:[%d]", f.crypto.last()); got != want {
		f.Errorf("the operation socket is %s, want %s", got, want)
	}
	return operation
}

func (f *fixture) checkSessions(want int) {
	f.Helper()
	if !eventually(func() bool { return f.open() == want }) {
		f.Errorf("%d sessions are open, want %d", f.open(), want)
	}
}

func TestSession(t *testing.T) {
	for _, role := range []string{"main", "thread"} {
		t.Run(role, func(t *testing.T) {
			var bound shared[unix.SockaddrALG]
			var key shared[string]
			f := serve(t, func(s *setup) {
				s.role = role
				s.crypto.onBind = func(a *unix.SockaddrALG) error { bound.set(*a); return nil }
				s.crypto.onOption = func(_ int, value []byte, _ uint32) error { key.set(string(value)); return nil }
			})
			fd := f.placeholder()
			f.checkSessions(1)
			errno := f.bind(fd, "skcipher", "cbc(aes)")
			if a := bound.get(); errno != 0 || a.Type != "skcipher" || a.Name != "cbc(aes)" || a.Feature != 0 || a.Mask != 0 {
				t.Errorf("bind: %v, and the parent is %+v", errno, a)
			}
			if errno := f.setKey(fd, []byte("a key of 16 byte")); errno != 0 || key.get() != "a key of 16 byte" {
				t.Errorf("setsockopt: %v, and the key is %q", errno, key.get())
			}
			for range 3 {
				f.checkOperation(&f.proc, fd)
			}
			if got := f.socketOf(fd); got == fmt.Sprintf("socket:[%d]", f.crypto.last()) {
				t.Error("the placeholder is the operation socket")
			}
			f.close(fd)
			f.checkSessions(0)
			_, answered, failed := f.takeReported()
			slices.Sort(answered) // the caller goes on before its call is reported
			if want := []string{"accept4", "accept4", "accept4", "bind", "setsockopt", "socket"}; !cmp.Equal(answered, want) || failed != nil {
				t.Errorf("answered %v and failed %v, want %v", answered, failed, want)
			}
		})
	}
}

// accept(2) is another call than accept4(2).
func TestAccept(t *testing.T) {
	f := serve(t)
	fd := f.bound()
	operation, errno := f.call(unix.SYS_ACCEPT, uint64(fd), 0, 0)
	if errno != 0 || f.socketOf(operation) != fmt.Sprintf("socket:[%d]", f.crypto.last()) {
		t.Errorf("accept: %d, %v", operation, errno)
	}
	// Beyond the arguments, registers hold leftovers.
	if _, errno := f.call(unix.SYS_ACCEPT, uint64(fd), 0, 12345, 0xffff); errno != 0 {
		t.Errorf("accept with a length and leftovers: %v", errno)
	}
}

// A caller with neither CAP_NET_ADMIN nor CAP_SYS_ADMIN is bound for without
// privilege.
func TestBindPrivileged(t *testing.T) {
	f := serve(t)
	f.bound()
	f.crypto.mu.Lock()
	defer f.crypto.mu.Unlock()
	if want := os.Geteuid() == 0; f.crypto.privileged != want {
		t.Errorf("bound with privilege: %v, want %v", f.crypto.privileged, want)
	}
}

// The flags of features go to the kernel, in the caller's byte order.
func TestBindFeatures(t *testing.T) {
	var bound shared[unix.SockaddrALG]
	f := serve(t, func(s *setup) { s.crypto.onBind = func(a *unix.SockaddrALG) error { bound.set(*a); return nil } })
	fd := f.placeholder()
	b := address("hash", "sha256")
	binary.NativeEndian.PutUint32(b[16:], 0x12345678)
	binary.NativeEndian.PutUint32(b[20:], 0x9abcdef0)
	_, errno := f.call(unix.SYS_BIND, uint64(fd), f.put(b), 88)
	if a := bound.get(); errno != 0 || a.Feature != 0x12345678 || a.Mask != 0x9abcdef0 {
		t.Errorf("bind: %v, %+v", errno, a)
	}
}

// Each bind is recorded, and each denial: a placeholder alone opens nothing,
// and an accept follows a bind.
func TestRecords(t *testing.T) {
	f := serve(t, func(s *setup) { s.digests, s.everyDigest = 8, true })
	start := time.Now()
	fd := f.bound()
	f.bind(fd, "hash", "md5")
	f.checkOperation(&f.proc, fd)
	f.workload.SetPlan(nothing())
	f.accept(fd, 0)
	records, _, failed := f.take()
	if failed != nil {
		t.Error(failed)
	}
	uid := uint32(os.Geteuid())
	base := plan.Record{
		Workload: "work", PID: f.pid, TID: int(f.tid), Executable: executable(t), Binary: executable(t),
		SHA256: digest(t), UID: &uid, User: "tester",
	}
	record := func(change func(r *plan.Record)) plan.Record {
		r := base
		change(&r)
		return r
	}
	want := []plan.Record{
		record(func(r *plan.Record) { r.Call, r.Allowed, r.Algorithm, r.Rule = "bind", true, "hash:sha256", "two" }),
		record(func(r *plan.Record) { r.Call, r.Algorithm, r.Errno = "bind", "hash:md5", uint32(unix.ENOENT) }),
		record(func(r *plan.Record) {
			r.Call, r.Algorithm, r.Errno, r.Reason = "accept", "hash:sha256", uint32(unix.EINVAL), "the workload holds no grant"
		}),
	}
	for i := range records {
		if r := records[i]; r.Time.Before(start) || r.Time.After(time.Now()) || r.Allowed == (r.Reason != "") {
			t.Errorf("record %d: %+v", i, r)
		}
		if i == 1 {
			records[i].Reason = "" // its text is the plan's
		}
	}
	if diff := cmp.Diff(want, records, cmpopts.IgnoreFields(plan.Record{}, "Time")); diff != "" {
		t.Error(diff)
	}
}

func executable(t *testing.T) string {
	t.Helper()
	link, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	return link
}

func digest(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// An executable is hashed only for a rule that the workload holds and that asks
// for its digest.
func TestHashedForARule(t *testing.T) {
	asks := testPlan()
	asks.Rules[0].Anyone, asks.Rules[0].Binaries = false, []policy.Binary{{Path: executable(t), SHA256: digest(t)}}
	elsewhere := testPlan()
	elsewhere.Rules = append(elsewhere.Rules, policy.Rule{
		Name: "elsewhere", Binaries: []policy.Binary{{Path: "/elsewhere", SHA256: digest(t)}}, Algorithms: elsewhere.Rules[0].Algorithms,
	})
	f := serve(t, func(s *setup) { s.digests = 8 })
	for _, test := range []struct {
		name   string
		plan   *plan.Plan
		hashed bool
		errno  unix.Errno
	}{
		{"no grant", nothing(), false, unix.EAFNOSUPPORT},
		{"a rule without a digest", testPlan(), false, 0},
		{"a digest at another path", elsewhere, false, 0},
		{"no plan", nil, false, unix.EAFNOSUPPORT},
		{"a digest", asks, true, 0},
	} {
		f.workload.SetPlan(test.plan)
		fd, errno := f.socket(0)
		if errno == 0 {
			errno = f.bind(fd, "hash", "sha256")
		}
		if errno != test.errno {
			t.Errorf("%s: %v, want %v", test.name, errno, test.errno)
		}
		records, _, _ := f.take()
		for _, r := range records {
			if (r.SHA256 == digest(t)) != test.hashed || r.SHA256 != "" && !test.hashed {
				t.Errorf("%s: recorded %+v", test.name, r)
			}
		}
	}
}

// descriptorFlags returns FD_CLOEXEC and O_NONBLOCK of a descriptor.
func (p *proc) descriptorFlags(fd int) (cloexec, nonblock bool) {
	p.Helper()
	own, errno1 := p.call(unix.SYS_FCNTL, uint64(fd), unix.F_GETFD)
	file, errno2 := p.call(unix.SYS_FCNTL, uint64(fd), unix.F_GETFL)
	if errno1 != 0 || errno2 != 0 {
		p.Errorf("flags of %d: %v, %v", fd, errno1, errno2)
	}
	return own&unix.FD_CLOEXEC != 0, file&unix.O_NONBLOCK != 0
}

func TestFlags(t *testing.T) {
	f := serve(t)
	parent := f.bound()
	for _, flags := range []uint64{0, unix.SOCK_CLOEXEC, unix.SOCK_NONBLOCK, unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK} {
		placeholder, errno1 := f.socket(flags)
		operation, errno2 := f.accept(parent, flags)
		if errno1 != 0 || errno2 != 0 {
			t.Fatal(errno1, errno2)
		}
		for _, fd := range []int{placeholder, operation} {
			cloexec, nonblock := f.descriptorFlags(fd)
			if cloexec != (flags&unix.SOCK_CLOEXEC != 0) || nonblock != (flags&unix.SOCK_NONBLOCK != 0) {
				t.Errorf("flags %#x: close on exec %v, non-blocking %v", flags, cloexec, nonblock)
			}
		}
		f.close(placeholder)
	}
}

func TestCopies(t *testing.T) {
	f := serve(t)
	fd := f.placeholder()
	dup, errno := f.call(unix.SYS_DUP, uint64(fd))
	if errno != 0 {
		t.Fatal(errno)
	}
	other := f.spawn(fd)
	other.close(fd) // it has three copies
	other.close(dup)
	if errno := f.bind(dup, "hash", "sha256"); errno != 0 {
		t.Errorf("bind by a copy: %v", errno)
	}
	f.checkOperation(&f.proc, fd)
	f.checkOperation(other, fdPassed)
	f.checkSessions(1)
	f.close(fd)
	f.checkOperation(&f.proc, dup)
	f.exec(executable(t))
	f.checkOperation(&f.proc, dup)
	f.close(dup)
	f.checkOperation(other, fdPassed)
	f.checkSessions(1)
	other.exec(executable(t))
	f.checkOperation(other, fdPassed)
	other.close(fdPassed)
	f.checkSessions(0)
	_, _, failed := f.take()
	if failed != nil {
		t.Error(failed)
	}
}

// An exec closes the descriptors marked so, and the sessions behind them.
func TestCloseOnExec(t *testing.T) {
	f := serve(t)
	for range 10 {
		if _, errno := f.socket(unix.SOCK_CLOEXEC); errno != 0 {
			t.Fatal(errno)
		}
	}
	fd := f.bound()
	f.checkSessions(11)
	f.exec(executable(t))
	f.checkSessions(1)
	f.checkOperation(&f.proc, fd)
}

// Another process may have a copy: each accept asks about its caller.
func TestPassedOn(t *testing.T) {
	p := testPlan()
	p.Rules[0].Anyone, p.Rules[0].Users = false, []string{"tester"}
	f := serve(t, func(s *setup) { s.plan = p })
	fd := f.bound()
	other := f.spawn(fd)
	f.checkOperation(other, fdPassed)
	refused := *p
	refused.Rules = append(refused.Rules[:0:0], p.Rules...)
	refused.Rules[0].Users = []string{"somebody-else"}
	f.workload.SetPlan(&refused)
	for _, q := range []struct {
		*proc
		fd int
	}{{&f.proc, fd}, {other, fdPassed}} {
		if _, errno := q.accept(q.fd, 0); errno != unix.EINVAL {
			t.Errorf("accept after the plan changed: %v", errno)
		}
	}
	if errno := f.bind(fd, "hash", "sha256"); errno != unix.ENOENT {
		t.Errorf("bind after the plan changed: %v", errno)
	}
	if _, errno := f.socket(0); errno != unix.EAFNOSUPPORT {
		t.Errorf("socket after the plan changed: %v", errno)
	}
	f.workload.SetPlan(p)
	f.checkOperation(&f.proc, fd)
}

// The executable of the moment counts: a program that becomes another one
// leaves it nothing to use.
func TestOtherBinary(t *testing.T) {
	data, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(t.TempDir(), "other")
	if err := os.WriteFile(other, data, 0o755); err != nil {
		t.Fatal(err)
	}
	p := testPlan()
	p.Rules[0].Anyone, p.Rules[0].Binaries = false, []policy.Binary{{Path: executable(t)}}
	f := serve(t, func(s *setup) { s.plan = p })
	fd := f.bound()
	for range 3 {
		f.checkOperation(&f.proc, fd)
		f.exec(other)
		_, accept := f.accept(fd, 0)
		bind := f.bind(fd, "hash", "sha256")
		_, socket := f.socket(0)
		if accept != unix.EINVAL || bind != unix.ENOENT || socket != unix.EAFNOSUPPORT {
			t.Errorf("the other binary: accept %v, bind %v, socket %v", accept, bind, socket)
		}
		records, _, _ := f.take()
		for _, r := range records[len(records)-3:] {
			if r.Allowed || r.Binary != other {
				t.Errorf("recorded %+v", r)
			}
		}
		f.exec(executable(t))
	}
}

// A message to the broker's end is not kept, and a placeholder sent over itself
// does not keep itself open.
func TestSentOverItself(t *testing.T) {
	f := serve(t)
	fd := f.placeholder()
	if _, errno := f.call(unix.SYS_SENDTO, uint64(fd), f.room, 1, unix.MSG_NOSIGNAL, 0, 0); errno != unix.EPIPE {
		t.Errorf("send: %v", errno)
	}
	if _, errno := f.call(unix.SYS_SENDMSG, uint64(fd), f.message(fd), unix.MSG_NOSIGNAL); errno != unix.EPIPE {
		t.Errorf("send itself: %v", errno)
	}
	f.close(fd)
	f.checkSessions(0)
}

// message writes a struct msghdr with one descriptor to the process's memory.
func (p *proc) message(fd int) (at uint64) {
	p.Helper()
	control := make([]byte, unix.CmsgSpace(4))
	binary.NativeEndian.PutUint64(control, uint64(unix.CmsgLen(4)))
	binary.NativeEndian.PutUint32(control[8:], unix.SOL_SOCKET)
	binary.NativeEndian.PutUint32(control[12:], unix.SCM_RIGHTS)
	binary.NativeEndian.PutUint32(control[16:], uint32(fd))
	var b bytes.Buffer
	vectorAt, dataAt, controlAt := p.room, p.room+100, p.room+200
	for _, word := range []uint64{0, 0, vectorAt, 1, controlAt, uint64(len(control)), 0} {
		binary.Write(&b, binary.NativeEndian, word)
	}
	p.putAt(vectorAt, binary.NativeEndian.AppendUint64(binary.NativeEndian.AppendUint64(nil, dataAt), 1))
	p.putAt(controlAt, control)
	return p.put(b.Bytes())
}

// An address of another length than the structure's goes to the kernel, and
// there to a Unix socket. None may succeed that would fail on a socket of
// AF_ALG, and none may change the session.
func TestBindOfOtherLengths(t *testing.T) {
	f := serve(t)
	states := map[string]int{"fresh": f.placeholder(), "bound": f.bound(), "in use": f.bound()}
	f.checkOperation(&f.proc, states["in use"])
	address := bytes.Repeat([]byte{'x'}, 130)
	at := f.room
	for state, fd := range states {
		for _, family := range []uint16{0, unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK, unix.AF_ALG, 1<<16 - 1} {
			binary.NativeEndian.PutUint16(address, family)
			for _, name := range []byte{0, 'x'} { // abstract, and a path
				address[2] = name
				f.putAt(at, address)
				for length := range uint64(129) {
					_, errno := f.call(unix.SYS_BIND, uint64(fd), at, length)
					if errno == 0 && !(family == unix.AF_UNIX && length == 2) { // see makePairs
						t.Errorf("%s: bind of %d bytes, family %d: it succeeded", state, length, family)
					}
				}
			}
		}
	}
	for state, fd := range states {
		if _, errno := f.accept(fd, 0); (errno == unix.EINVAL) != (state == "fresh") {
			t.Errorf("%s: accept: %v", state, errno)
		}
	}
	f.checkOperation(&f.proc, states["bound"])
	if errno := f.bind(states["fresh"], "hash", "sha256"); errno != 0 {
		t.Errorf("bind: %v", errno)
	}
	f.checkSessions(3)
}

// A key belongs to the caller that sets it, not to the one that bound the
// placeholder.
func TestKeyOfAnother(t *testing.T) {
	var keys shared[int]
	p := testPlan()
	p.Rules[0].Anyone, p.Rules[0].Binaries = false, []policy.Binary{{Path: executable(t)}}
	f := serve(t, func(s *setup) {
		s.plan = p
		s.crypto.onOption = func(int, []byte, uint32) error { keys.set(keys.get() + 1); return nil }
	})
	data, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	stranger := filepath.Join(t.TempDir(), "stranger")
	if err := os.WriteFile(stranger, data, 0o755); err != nil {
		t.Fatal(err)
	}
	fd := f.bound()
	other := f.spawn(fd)
	if errno := other.setKey(fdPassed, []byte("key")); errno != 0 {
		t.Errorf("a key of who may: %v", errno)
	}
	other.exec(stranger)
	f.take()
	if errno := other.setKey(fdPassed, []byte("key")); errno != unix.ENOPROTOOPT {
		t.Errorf("a key of who may not: %v", errno)
	}
	if _, errno := other.call(unix.SYS_SETSOCKOPT, fdPassed, unix.SOL_ALG, unix.ALG_SET_AEAD_AUTHSIZE, 0, 16); errno != unix.ENOPROTOOPT {
		t.Errorf("a size of who may not: %v", errno)
	}
	records, _, _ := f.take()
	for _, r := range records {
		if r.Call != "setsockopt" || r.Allowed || r.Binary != stranger || r.Algorithm != "hash:sha256" || r.Errno != uint32(unix.ENOPROTOOPT) || r.Reason == "" {
			t.Errorf("recorded %+v", r)
		}
	}
	if len(records) != 2 || keys.get() != 1 {
		t.Errorf("%d denials, %d options set", len(records), keys.get())
	}
	if errno := f.setKey(fd, []byte("key")); errno != 0 || keys.get() != 2 {
		t.Errorf("a key of who may, again: %v", errno)
	}
	if errno := f.setKey(f.placeholder(), []byte("key")); errno != unix.ENOPROTOOPT || keys.get() != 2 {
		t.Errorf("a key before bind: %v", errno)
	}
}
