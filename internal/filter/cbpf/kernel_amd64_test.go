package cbpf

import (
	"encoding/gob"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"runtime"
	"runtime/debug"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/testing/child"
	"github.com/afalg-policy/afalg-policy/internal/testing/kerneltest"
)

// The kernel is the last oracle: a child process, this test binary again, hands
// it filters and reports the results.

func TestMain(m *testing.M) {
	child.Main(m.Run, map[string]func([]string) error{
		"check": func([]string) error { childCheck(); return nil },
		"run":   func([]string) error { childRun(); return nil },
	})
}

// inChild sends a job to a child and returns its answer, or that SIGSYS killed
// the child.
func inChild[Job, Result any](t *testing.T, role string, job Job) (result Result, killed bool) {
	t.Helper()
	cmd := child.Command(role)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := gob.NewEncoder(in).Encode(job); err != nil {
		t.Fatal(err)
	}
	in.Close()
	readErr := gob.NewDecoder(out).Decode(&result)
	waitErr := cmd.Wait()
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() && status.Signal() == unix.SIGSYS {
		return result, true
	}
	if waitErr != nil || readErr != nil {
		t.Fatalf("child %q: %v, answer: %v", role, waitErr, readErr)
	}
	return result, false
}

func childJob[Job any]() (job Job) {
	if err := gob.NewDecoder(os.Stdin).Decode(&job); err != nil {
		childFail(err)
	}
	return job
}

func childAnswer[Result any](r Result) {
	if err := gob.NewEncoder(os.Stdout).Encode(r); err != nil {
		childFail(err)
	}
}

func childFail(err error) {
	fmt.Fprintln(os.Stderr, "child:", err)
	os.Exit(1)
}

// install asks the kernel to add a filter to the calling thread.
func install(p Program, flags uintptr) syscall.Errno {
	if len(p) > 0xffff {
		return unix.EINVAL
	}
	prog := unix.SockFprog{Len: uint16(len(p)), Filter: unsafe.SliceData(p)}
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(p)
	return errno
}

func noNewPrivs() {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		childFail(err)
	}
}

// childCheck finds out which programs the kernel accepts without installing
// any: it asks for a listener where no descriptor may be opened. That fails
// with EMFILE after the program was checked and before it is installed.
func childCheck() {
	programs := childJob[[]Program]()
	runtime.LockOSThread()
	noNewPrivs()
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{}); err != nil {
		childFail(err)
	}
	accepted := make([]bool, len(programs))
	for i, p := range programs {
		switch errno := install(p, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER); errno {
		case unix.EMFILE:
			accepted[i] = true
		case unix.EINVAL:
		default:
			childFail(fmt.Errorf("program %d: %w", i, errno))
		}
	}
	childAnswer(accepted)
}

// TestCheckAgainstKernel compares Check with the kernel on programs that are
// damaged in every way, and on every operation code.
func TestCheckAgainstKernel(t *testing.T) {
	programs := []Program{{}, make(Program, MaxInstructions+1)}
	for code := range 0x200 {
		programs = append(programs, Program{stmt(opStore, 0), stmt(opStore, 4), stmt(code, 4), ret(allow)})
		programs = append(programs, Program{stmt(opStore, 0), stmt(code, 0), ret(allow)})
	}
	random := rand.New(rand.NewPCG(7, 8))
	s := smallShape
	for i := range 20000 {
		s.length = 6 + i%20
		p := randomProgram(random, s)
		breakOne(random, p)
		programs = append(programs, p)
	}
	accepted, killed := inChild[[]Program, []bool](t, "check", programs)
	if killed {
		t.Fatal("the child was killed")
	}
	count := 0
	for i, p := range programs {
		if err := p.Check(); (err == nil) != accepted[i] {
			t.Errorf("the kernel accepts: %v; Check: %v\n%s", accepted[i], err, p.Listing(Little))
		}
		if accepted[i] {
			count++
		}
	}
	if count < len(programs)/10 || count > len(programs)*9/10 {
		t.Errorf("%d of %d programs accepted: no test of both answers", count, len(programs))
	}
	t.Logf("%d of %d programs accepted", count, len(programs))
}

// breakOne damages an instruction in a way that may make the program illegal.
func breakOne(r *rand.Rand, p Program) {
	in := &p[r.IntN(len(p))]
	switch r.IntN(6) {
	case 0:
		in.Code = uint16(r.IntN(256))
	case 1:
		in.K = pickFrom(r, []uint32{0, 1, 2, 15, 16, 31, 32, 60, 63, 64, 0xffffffff})
	case 2:
		in.Jt = uint8(r.IntN(len(p) + 2))
	case 3:
		in.Code = pickFrom(r, []uint16{opLoadMem, opLoadXMem, opStore, opStoreX})
		in.K = uint32(r.IntN(18))
	case 4:
		in.Code, in.K = opJump, uint32(r.IntN(len(p)+2))
	case 5:
		p[0], *in = *in, p[0]
	}
}

// kernelCase is a stack of filters and a call to make under it.
type kernelCase struct {
	Filter Filter
	I386   bool
	Args   [6]uint64
}

// Numbers of getppid: it succeeds, and reads no argument. The libc-free Go
// runtime never calls it.
const (
	getppid64 = unix.SYS_GETPPID
	getppid32 = 64
)

// data is the filters' view, without the instruction pointer.
func (c kernelCase) data() Data {
	if c.I386 {
		d := Data{Arch: unix.AUDIT_ARCH_I386, Nr: getppid32, Args: c.Args}
		d.Args[5] = 0
		return d
	}
	return Data{Arch: unix.AUDIT_ARCH_X86_64, Nr: getppid64, Args: c.Args}
}

// childRun installs each filter in a thread of its own, makes the call and
// reports the errno, 0 for success. If a filter kills, it reports nothing.
func childRun() {
	cases := childJob[[]kernelCase]()
	debug.SetGCPercent(-1)
	noNewPrivs()
	defaultSIGSYS()
	call32, err := i386Call()
	if err != nil {
		childFail(err)
	}
	results := make([]syscall.Errno, len(cases))
	for i, c := range cases {
		done := make(chan error)
		go func() {
			runtime.LockOSThread() // and never unlock: the thread ends with the filter
			var err error
			results[i], err = underFilter(c, call32)
			done <- err
		}()
		if err := <-done; err != nil {
			childFail(fmt.Errorf("case %d: %w", i, err))
		}
	}
	childAnswer(results)
}

// defaultSIGSYS makes TRAP end the process as KILL_PROCESS does; the Go
// runtime would print its goroutines.
func defaultSIGSYS() {
	var action [4]uint64 // struct sigaction, SIG_DFL
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGSYS), uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0)
	if errno != 0 {
		childFail(errno)
	}
}

func underFilter(c kernelCase, call32 func(nr, a, b, c, d, e uintptr) uintptr) (syscall.Errno, error) {
	for _, p := range c.Filter {
		if errno := install(p, 0); errno != 0 {
			return 0, errno
		}
	}
	a := c.Args
	if c.I386 {
		r := int32(call32(getppid32, uintptr(a[0]), uintptr(a[1]), uintptr(a[2]), uintptr(a[3]), uintptr(a[4])))
		if r < 0 {
			return syscall.Errno(-r), nil
		}
		return 0, nil
	}
	r, _, errno := unix.RawSyscall6(getppid64, uintptr(a[0]), uintptr(a[1]), uintptr(a[2]), uintptr(a[3]), uintptr(a[4]), uintptr(a[5]))
	if int(r) == -4095 {
		return 4095, nil // Go takes this one for a result
	}
	return errno, nil
}

// i386Call returns a function that enters the kernel by int $0x80. Go passes
// its arguments in RAX, RBX, RCX, RDI, RSI and R8, and expects the result in
// RAX; the kernel wants EAX, EBX, ECX, EDX, ESI and EDI. The upper halves stay:
// the filter sees them, the system call does not.
func i386Call() (func(nr, a, b, c, d, e uintptr) uintptr, error) {
	code, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, err
	}
	copy(code, []byte{
		0x55,             // push rbp
		0x48, 0x89, 0xfa, // mov rdx, rdi
		0x4c, 0x89, 0xc7, // mov rdi, r8
		0x31, 0xed, // xor ebp, ebp: the sixth argument
		0xcd, 0x80, // int 0x80
		0x5d, // pop rbp
		0xc3, // ret
	})
	entry := &code[0]
	function := &entry // a func value points to a word that holds the entry
	return *(*func(nr, a, b, c, d, e uintptr) uintptr)(unsafe.Pointer(&function)), nil
}

// kernelEffect returns the result of the call that the test expects under an
// action, and whether SIGSYS kills.
func kernelEffect(a Action) (syscall.Errno, bool) {
	switch a.Kind() {
	case Allow, Log:
		return 0, false
	case Errno:
		return syscall.Errno(a.Effective().Data()), false
	case Trace, UserNotif: // nobody traces or listens
		return unix.ENOSYS, false
	}
	return 0, true
}

// TestRunAgainstKernel compares the interpreter with the kernel: every
// operation code, stacks of filters, two ABIs.
func TestRunAgainstKernel(t *testing.T) {
	eachABI(t, func(t *testing.T, i386 bool) {
		random := rand.New(rand.NewPCG(9, 10))
		var quiet, deadly []kernelCase
		for len(quiet) < 1500 || len(deadly) < 20 {
			c := randomKernelCase(random, i386)
			a, _, err := c.Filter.Run(c.data(), Little)
			if err != nil {
				t.Fatal(err)
			}
			if _, dies := kernelEffect(a); dies {
				deadly = append(deadly, c)
			} else {
				quiet = append(quiet, c)
			}
		}
		compareWithKernel(t, quiet)
		for _, c := range deadly[:20] {
			if results, killed := inChild[[]kernelCase, []syscall.Errno](t, "run", []kernelCase{c}); !killed {
				t.Errorf("the kernel did not kill but returned %v for %v\n%s", results, c.data(), c.Filter[0].Listing(Little))
			}
		}
	})
}

// eachABI runs a test for the ABIs that this kernel has.
func eachABI(t *testing.T, test func(t *testing.T, i386 bool)) {
	t.Run("x86-64", func(t *testing.T) { test(t, false) })
	t.Run("i386", func(t *testing.T) {
		kerneltest.NeedI386(t)
		test(t, true)
	})
}

func compareWithKernel(t *testing.T, cases []kernelCase) {
	t.Helper()
	results, killed := inChild[[]kernelCase, []syscall.Errno](t, "run", cases)
	if killed {
		t.Fatal("the kernel killed a thread that was to survive")
	}
	for i, c := range cases {
		a, _, _ := c.Filter.Run(c.data(), Little)
		if want, _ := kernelEffect(a); results[i] != want {
			t.Errorf("kernel: %v, interpreter: %v for %v\n%s", results[i], a, c.data(), c.Filter[0].Listing(Little))
		}
	}
}

// randomKernelCase makes filters that only look at the one call. They kill the
// process and not the thread, whose end nobody would notice.
func randomKernelCase(r *rand.Rand, i386 bool) kernelCase {
	c := kernelCase{I386: i386}
	for i := range c.Args {
		c.Args[i] = r.Uint64() >> r.IntN(64)
	}
	d := c.data()
	var offsets []uint32
	constants := []uint32{0, 1, 7, 0x7fffffff, 0x80000000, 0xffffffff}
	for word := range uint32(16) {
		if f := fieldAt(word, Little); f < IPHigh {
			offsets = append(offsets, 4*word)
			constants = append(constants, d.Get(f), d.Get(f)+1)
		}
	}
	s := shape{offsets, constants, allActions, 40, true}
	s.actions = nil
	for _, a := range allActions {
		if Action(a).full() != KillThread.value() {
			s.actions = append(s.actions, a)
		}
	}
	for len(c.Filter) == 0 || r.IntN(3) == 0 {
		p := randomProgram(r, s)
		if zeroDivision(p, d) {
			continue
		}
		c.Filter = append(c.Filter, onlyIf(offArch, d.Arch, onlyIf(offNr, d.Nr, p)))
	}
	return c
}

// zeroDivision reports whether the program ends in a KILL_THREAD.
func zeroDivision(p Program, d Data) bool {
	a, _, _ := p.Run(d, Little)
	return a.full() == KillThread.value()
}

// TestWitnessesAgainstKernel installs random programs and makes the very calls
// that the decision procedure found, one for each action.
func TestWitnessesAgainstKernel(t *testing.T) {
	eachABI(t, func(t *testing.T, i386 bool) {
		random := rand.New(rand.NewPCG(11, 12))
		var cases []kernelCase
		for len(cases) < 1000 {
			cases = append(cases, witnesses(t, randomKernelCase(random, i386))...)
		}
		compareWithKernel(t, cases)
	})
}

// witnesses are the calls that the decision procedure found for the filters of
// a case, except those that kill.
func witnesses(t *testing.T, c kernelCase) (cases []kernelCase) {
	t.Helper()
	d := c.data()
	r := Region{Arch: Exactly(d.Arch), Nr: Exactly(d.Nr)}
	if c.I386 {
		r[ArgHigh(5)], r[ArgLow(5)] = Exactly(0), Exactly(0)
	}
	o, err := c.Filter.Actions(r, Little, 1<<16)
	if err != nil {
		t.Fatal(err)
	}
	for _, found := range o.Found {
		if _, dies := kernelEffect(found.Action); !dies {
			cases = append(cases, kernelCase{c.Filter, c.I386, found.Witness.Args})
		}
	}
	return cases
}

// TestKernelConstants joins the table of actions with the running kernel's own
// list.
func TestKernelConstants(t *testing.T) {
	var got []Kind
	for k := range Kind(NumKinds) {
		value := uint32(k.value())
		_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&value)))
		if errno == 0 {
			got = append(got, k)
		}
	}
	want := []Kind{KillProcess, KillThread, Trap, Errno, UserNotif, Trace, Log, Allow}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the kernel knows %v, want %v", got, want)
	}
	unknown := uint32(0x12340000)
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&unknown))); errno != unix.EOPNOTSUPP {
		t.Errorf("unknown action: %v, want EOPNOTSUPP", errno)
	}
}
