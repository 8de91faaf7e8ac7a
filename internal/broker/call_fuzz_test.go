package broker

import (
	"encoding/binary"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/notify"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/subject"
)

// fuzzServer decides a call that nobody made: without a listener, nothing is
// valid, and nothing is answered.
func fuzzServer(t testing.TB) *server {
	t.Helper()
	subjects, err := subject.NewReader(subject.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(subjects.Close)
	b, err := New(Options{Subjects: subjects, Pairs: NewPairs(-1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return &server{
		Broker: b, subjects: subjects.Share(nil), listener: &notify.Listener{}, sessions: newTable(1, nobody{}),
		workload: NewWorkload("fuzz", &plan.Plan{SocketErrno: errnoOf(unix.EAFNOSUPPORT), BindErrno: errnoOf(unix.ENOENT)}),
	}
}

// meaning reads a call independently: it searches the kernel's tables one by
// one.
func meaning(d notify.Data) (name string, compat bool) {
	for _, a := range afalg.ABIs() {
		if a.Audit != d.Arch {
			continue
		}
		for name, nr := range map[string]uint32{
			"socket": a.Socket, "bind": a.Bind, "setsockopt": a.Setsockopt,
			"accept": a.Accept, "accept4": a.Accept4, "socketcall": a.Socketcall,
		} {
			if nr != 0 && a.Bit|nr == uint32(d.Nr) {
				return name, a.Kind == afalg.Compat
			}
		}
	}
	return "unknown", false
}

var indirect = map[uint64]string{1: "socket", 2: "bind", 5: "accept", 8: "socketpair", 14: "setsockopt", 18: "accept4"}

// FuzzPerform performs any call with any arguments, including the memory behind
// socketcall. A socket of AF_ALG never goes on, nor does a call that was read
// from memory and makes a socket, nor an unknown call.
func FuzzPerform(f *testing.F) {
	s := fuzzServer(f)
	for _, a := range afalg.ABIs() {
		for _, nr := range []uint32{a.Socket, a.Bind, a.Setsockopt, a.Accept, a.Accept4, a.Socketcall, 0xffff} {
			for call := range uint64(20) {
				f.Add(a.Audit, a.Bit|nr, uint64(afalg.Family), call, uint64(0), uint64(0), make([]byte, 48))
				f.Add(a.Audit, a.Bit|nr, call, uint64(1), uint64(88), call, []byte{unix.AF_INET, 0, 0, 0, 1, 0, 0, 0, 38})
				f.Add(a.Audit, a.Bit|nr, call|1<<32, uint64(0), uint64(1)<<40, call, []byte{38})
			}
		}
	}
	f.Fuzz(func(t *testing.T, arch, nr uint32, a0, a1, a2, a3 uint64, memory []byte) {
		n := notify.Notification{ID: 1, TID: uint32(unix.Getpid())}
		n.Data = notify.Data{Arch: arch, Nr: int32(nr), Args: [6]uint64{a0, a1, a2, a3}}
		name, compat := meaning(n.Data)
		if name == "socketcall" && !compat { // a pointer that this process has
			b := make([]byte, 48)
			copy(b, memory)
			n.Data.Args[1] = uint64(uintptr(unsafe.Pointer(&b[0])))
			defer runtime.KeepAlive(b)
		}
		c := call{n: &n, handOver: func() {}}
		r := s.perform(&c)
		checkReply(t, &c, r, name, compat)
	})
}

func checkReply(t *testing.T, c *call, r reply, name string, compat bool) {
	t.Helper()
	first := c.n.Data.Args[0]
	if compat {
		first = uint64(uint32(first))
	}
	inner := name
	if name == "socketcall" {
		inner = indirect[first]
	}
	switch {
	case r.kind == replyFail && r.errno == 0:
		t.Errorf("%s fails with 0, which is a success: %+v", name, c)
	case r.kind == replyValue:
		t.Errorf("%s returns %d, and no session is open: %+v", name, r.value, c)
	case r.kind != replyContinue:
		return
	case name == "unknown":
		t.Errorf("an unknown call goes on: %+v", c.n.Data)
	case name == "socketcall" && (inner == "socket" || inner == "socketpair" || inner == ""):
		t.Errorf("socketcall %d goes on, and what it says may have changed: %+v", first, c)
	case name == "socket" && int32(first) == afalg.Family:
		t.Errorf("a socket of AF_ALG goes on: %+v", c.n.Data)
	}
	if c.op == opNone {
		t.Errorf("what is no call goes on: %+v", c.n.Data)
	}
}

// FuzzUnwrap reads the arguments of socketcall from memory: those and no
// others.
func FuzzUnwrap(f *testing.F) {
	s := fuzzServer(f)
	s390 := abiOf(f, "SCMP_ARCH_S390X")
	f.Add(uint64(1), make([]byte, 48), false)
	f.Add(uint64(18), []byte("012345678901234567890123456789012345678901234567"), true)
	f.Fuzz(func(t *testing.T, number uint64, memory []byte, unmapped bool) {
		b := make([]byte, 48)
		copy(b, memory)
		at := uint64(uintptr(unsafe.Pointer(&b[0])))
		if unmapped {
			at = 8
		}
		n := notify.Notification{ID: 1, TID: uint32(unix.Getpid())}
		c := call{n: &n, op: opSocketcall, abi: s390, args: [6]uint64{number, at}}
		r, done := s.unwrap(&c)
		runtime.KeepAlive(b)
		want, known := indirect[number]
		switch {
		case done && r.kind != replyFail:
			t.Errorf("socketcall %d is answered by %+v", number, r)
		case done != (!known || unmapped):
			t.Errorf("socketcall %d, unmapped %v: done %v", number, unmapped, done)
		case done:
			return
		case !c.indirect || c.op.String() != want:
			t.Errorf("socketcall %d is %s, indirect %v; want %s", number, c.op, c.indirect, want)
		}
		for i := range socketcalls[number].args {
			if got, want := c.args[i], binary.NativeEndian.Uint64(b[8*i:]); got != want {
				t.Errorf("argument %d is %#x, want %#x", i, got, want)
			}
		}
		for i := socketcalls[number].args; i < len(c.args); i++ {
			if c.args[i] != 0 {
				t.Errorf("argument %d of %s is %#x", i, want, c.args[i])
			}
		}
	})
}

func abiOf(t testing.TB, arch string) *afalg.ABI {
	t.Helper()
	a, ok := afalg.ABIOf(arch)
	if !ok {
		t.Fatalf("no ABI %s", arch)
	}
	return &a
}

// A process that this PID namespace does not see gets nothing.
func TestForeignProcess(t *testing.T) {
	s := fuzzServer(t)
	a := abiOf(t, "SCMP_ARCH_X86_64")
	for nr, want := range map[uint32]unix.Errno{
		a.Socket: unix.EAFNOSUPPORT, a.Bind: unix.EINVAL, a.Setsockopt: unix.EINVAL, a.Accept: unix.EINVAL, a.Accept4: unix.EINVAL,
	} {
		n := notify.Notification{ID: 1}
		n.Data = notify.Data{Arch: a.Audit, Nr: int32(nr), Args: [6]uint64{uint64(unix.AF_ALG)}}
		if r := s.perform(&call{n: &n, handOver: func() {}}); r != fail(want) {
			t.Errorf("call %d: %+v, want %v", nr, r, want)
		}
	}
}

// A forgotten reply is a denial.
func TestZeroReply(t *testing.T) {
	if (reply{}).kind != replyFail || fail(0).errno == 0 {
		t.Error("the zero reply opens something")
	}
}
