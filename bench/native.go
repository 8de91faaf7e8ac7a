package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"
	"unsafe"

	"github.com/jedib0t/go-pretty/v6/table"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
)

// childVariable makes the program load the filter on its standard input and
// time the calls under it: a filter cannot be removed.
const childVariable = "AFALG_POLICY_BENCH_CHILD"

// perCall is how often a child makes each call.
const perCall = 100_000

// timed calls can be made over and over, with or without the filter.
var timed = []struct {
	name string
	call func()
}{
	{"socket(AF_UNIX) and close", func() { openClose(unix.AF_UNIX, unix.SOCK_STREAM) }},
	{"socket(AF_NETLINK) and close", func() { openClose(unix.AF_NETLINK, unix.SOCK_RAW) }},
	{"read of nothing", func() { raw(unix.SYS_READ, ^uintptr(0), 0, 0) }},
	{"openat of nothing", func() { raw(unix.SYS_OPENAT, ^uintptr(0), 0, 0) }},
	{"bind of nothing", func() { raw(unix.SYS_BIND, ^uintptr(0), 0, 0) }},
}

func raw(nr, a, b, c uintptr) uintptr {
	r, _, _ := unix.RawSyscall(nr, a, b, c)
	return r
}

func openClose(family, kind uintptr) {
	raw(unix.SYS_CLOSE, raw(unix.SYS_SOCKET, family, kind, 0), 0, 0)
}

// child prints one line for each timed call: nanoseconds for all of them.
func child() int {
	runtime.LockOSThread()
	var program []unix.SockFilter
	if info, err := os.Stdin.Stat(); err == nil {
		program = make([]unix.SockFilter, info.Size()/unix.SizeofSockFilter)
		if err := binary.Read(os.Stdin, binary.NativeEndian, program); err != nil {
			return fail("reading the filter", err)
		}
	}
	if len(program) > 0 {
		prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fail("giving up privileges", err)
		}
		if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog)), 0, 0); err != nil {
			return fail("loading the filter", err)
		}
	}
	for _, c := range timed {
		start := time.Now()
		for range perCall {
			c.call()
		}
		fmt.Println(time.Since(start).Nanoseconds())
	}
	return 0
}

func fail(doing string, err error) int {
	fmt.Fprintf(os.Stderr, "bench: %s: %v\n", doing, err)
	return 1
}

// timing holds, for each timed call, the ratios hardened/base of the rounds.
type timing [][]float64

// measure times each pair in turn, base beside hardened, so that the machine's
// drift falls on both.
func measure(pairs []pair, rounds int) ([]timing, error) {
	all := make([]timing, len(pairs))
	for i := range all {
		all[i] = make(timing, len(timed))
	}
	for range rounds {
		for i, p := range pairs {
			base, err := timeUnder(p.base)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", p.name, err)
			}
			hardened, err := timeUnder(p.hardened)
			if err != nil {
				return nil, fmt.Errorf("%s, hardened: %w", p.name, err)
			}
			for c := range timed {
				all[i][c] = append(all[i][c], hardened[c]/base[c])
			}
		}
	}
	return all, nil
}

func timeUnder(p cbpf.Program) ([]float64, error) {
	filter, err := os.CreateTemp("", "bench")
	if err != nil {
		return nil, err
	}
	defer filter.Close()
	defer os.Remove(filter.Name())
	if err := binary.Write(filter, binary.NativeEndian, []unix.SockFilter(p)); err != nil {
		return nil, err
	}
	if _, err := filter.Seek(0, 0); err != nil {
		return nil, err
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childVariable+"=1")
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = filter, &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("timing under the filter: %w: %s", err, stderr.String())
	}
	var times []float64
	for line := range strings.Lines(string(out)) {
		var ns float64
		if _, err := fmt.Sscan(line, &ns); err != nil {
			return nil, err
		}
		times = append(times, ns/perCall)
	}
	if len(times) != len(timed) {
		return nil, errors.New("the timing child stopped early")
	}
	return times, nil
}

func printTimes(pairs []pair, all []timing) {
	t := newTable()
	header := table.Row{"call"}
	for _, p := range pairs {
		header = append(header, p.name)
	}
	t.AppendHeader(header)
	for c, timedCall := range timed {
		row := table.Row{timedCall.name}
		for i := range pairs {
			ratios := slices.Sorted(slices.Values(all[i][c]))
			row = append(row, fmt.Sprintf("%.2f (%.2f–%.2f)", ratios[len(ratios)/2], ratios[0], ratios[len(ratios)-1]))
		}
		t.AppendRow(row)
	}
	t.Render()
}
