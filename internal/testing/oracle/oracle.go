// Package oracle has the references that tests compare verdicts with: the
// running kernel, which is asked through a small C program, and profiles that
// are damaged on purpose. It is for tests only.
package oracle

import (
	"bytes"
	_ "embed"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
)

//go:embed testdata/oracle.c
var source string

// Build compiles the program that makes the calls, statically, so that it runs
// in any root file system.
func Build(path string) error {
	cmd := exec.Command("gcc", "-x", "c", "-static", "-O1", "-Wall", "-Wextra", "-Werror", "-o", path, "-")
	cmd.Stdin = strings.NewReader(source)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("compile the oracle: %w\n%s", err, out)
	}
	return nil
}

// How says how a call is made.
type How uint64

const (
	BySyscall       How = iota // the instruction of x86-64, and of x32
	ByInt80                    // the i386 call; a filter sees the upper halves of the registers too
	IOUringSocket              // a ring is made and asked for a socket
	IOUringSocket32            // the same by i386 calls
)

// Call is one call. For the rings the number is that of io_uring_setup,
// and the first argument the family.
type Call struct {
	How  How
	Nr   uint64
	Args [6]uint64
}

// Addresses that 32-bit calls can point to: the arguments of socketcall for an
// AF_ALG socket or a pair of them, and room for a pair.
const (
	SocketArguments = 0x10000
	Pair            = SocketArguments + 0x800
)

// Case is a stack of filters and calls to make under it.
type Case struct {
	Filter cbpf.Filter
	Calls  []Call
}

// Outcomes of a call.
type What int64

const (
	Returned     What = iota
	Killed            // by the signal Value
	NotInstalled      // the kernel refused a filter with the errno Value
)

// Answer is the kernel's treatment of a call.
type Answer struct {
	What  What
	Value int64 // the return value of the call, an errno negated
}

func (a Answer) String() string {
	switch {
	case a.What == Killed:
		return unix.SignalName(unix.Signal(a.Value))
	case a.What == NotInstalled:
		return "the filter was refused: " + unix.ErrnoName(unix.Errno(a.Value))
	case a.Value < 0 && a.Value > -4096:
		if name := unix.ErrnoName(unix.Errno(-a.Value)); name != "" {
			return name
		}
	}
	return fmt.Sprint(a.Value)
}

// Errno is the error that the call returned, 0 for none.
func (a Answer) Errno() unix.Errno {
	if a.What == Returned && a.Value < 0 && a.Value > -4096 {
		return unix.Errno(-a.Value)
	}
	return 0
}

// Encode writes cases for the program to read on its standard input.
func Encode(cases []Case) []byte {
	var b bytes.Buffer
	put := func(v any) {
		// Of fixed size, into memory: there is no error.
		_ = binary.Write(&b, binary.NativeEndian, v)
	}
	for _, c := range cases {
		putFilter(&b, c.Filter)
		put(uint32(len(c.Calls)))
		put(c.Calls)
	}
	return b.Bytes()
}

func putFilter(b *bytes.Buffer, f cbpf.Filter) {
	_ = binary.Write(b, binary.NativeEndian, uint32(len(f)))
	for _, p := range f {
		_ = binary.Write(b, binary.NativeEndian, uint32(len(p)))
		_ = binary.Write(b, binary.NativeEndian, []unix.SockFilter(p))
	}
}

// Decode reads the program's standard output.
func Decode(cases []Case, out []byte) ([][]Answer, error) {
	r := bytes.NewReader(out)
	answers := make([][]Answer, len(cases))
	for i, c := range cases {
		answers[i] = make([]Answer, len(c.Calls))
		if err := binary.Read(r, binary.NativeEndian, answers[i]); err != nil {
			return nil, fmt.Errorf("read the answers to case %d of %d: %w", i+1, len(cases), err)
		}
	}
	if r.Len() > 0 {
		return nil, fmt.Errorf("%d bytes follow the answers", r.Len())
	}
	return answers, nil
}

// Ask puts cases to the kernel that this process runs on.
func Ask(program string, cases []Case) ([][]Answer, error) {
	cmd := exec.Command(program)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(Encode(cases)), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("ask the kernel: %w", err)
	}
	return Decode(cases, out)
}

// Sleepers starts a number of processes that sleep under the filters, and
// returns when they do. Closing the standard input of the command, which the
// returned function does, ends them.
func Sleepers(program string, f cbpf.Filter, number int) (pids []int, stop func() error, err error) {
	cmd := exec.Command(program, "sleep", fmt.Sprint(number))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	stop = func() error { in.Close(); return cmd.Wait() }
	var b bytes.Buffer
	putFilter(&b, f)
	if _, err := in.Write(b.Bytes()); err != nil {
		return nil, nil, fmt.Errorf("send the filters: %w", err)
	}
	for range number {
		var pid int
		if _, err := fmt.Fscanln(out, &pid); err != nil {
			return nil, nil, fmt.Errorf("wait for the sleepers: %w", err)
		}
		pids = append(pids, pid)
	}
	return pids, stop, nil
}

// Gated is the return value of a call that Gate stopped.
const Gated = unix.Errno(4001)

// Gate is a program that replaces the kernel behind other filters: below them,
// it answers the calls that they permit, so that these are not made. Of the
// filters' actions the most severe wins, and among equals the newest. An ERRNO
// of the filters above hides the gate's, and so does a death; ALLOW, LOG, TRACE
// and USER_NOTIF do not.
func Gate(calls ...cbpf.Data) cbpf.Program {
	const (
		load = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		jeq  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		ret  = unix.BPF_RET | unix.BPF_K
	)
	type key struct{ arch, nr uint32 }
	seen := map[key]bool{}
	var p cbpf.Program
	for _, c := range calls {
		k := key{c.Arch, c.Nr}
		if seen[k] {
			continue
		}
		seen[k] = true
		p = append(p,
			unix.SockFilter{Code: load, K: 4}, unix.SockFilter{Code: jeq, K: c.Arch, Jf: 3},
			unix.SockFilter{Code: load, K: 0}, unix.SockFilter{Code: jeq, K: c.Nr, Jf: 1},
			unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_ERRNO | uint32(Gated)})
	}
	return append(p, unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_ALLOW})
}

// CallOf is the call whose registers a filter sees as d.
func CallOf(d cbpf.Data) Call {
	c := Call{BySyscall, uint64(d.Nr), d.Args}
	if d.Arch == unix.AUDIT_ARCH_I386 {
		c.How = ByInt80
	}
	return c
}

// Judged makes a case of filters and calls that are not to be made: see Gate.
func Judged(f cbpf.Filter, calls []cbpf.Data) Case {
	c := Case{Filter: append(cbpf.Filter{Gate(calls...)}, f...)}
	for _, d := range calls {
		c.Calls = append(c.Calls, CallOf(d))
	}
	return c
}

// Agrees reports whether an answer to a judged call is the effect of an action.
func Agrees(a cbpf.Action, got Answer) bool {
	switch a.Kind() {
	case cbpf.KillProcess, cbpf.KillThread, cbpf.Trap:
		return got == Answer{Killed, int64(unix.SIGSYS)}
	case cbpf.Errno:
		return got == Answer{Returned, -int64(a.Effective().Data())}
	}
	return got == Answer{Returned, -int64(Gated)}
}
