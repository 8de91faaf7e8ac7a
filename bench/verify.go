package main

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/filter/seccomp"
	"github.com/afalg-policy/afalg-policy/internal/filter/verify"
	"github.com/afalg-policy/afalg-policy/internal/jsontext"
)

// benchVerify prints the cost of a proof on this machine.
func benchVerify(rounds int) error {
	fmt.Printf("verify, all routes of the ABIs of x86-64: median of %d rounds, libseccomp %s\n\n", rounds, seccomp.Version())
	t := newTable()
	t.AppendHeader(table.Row{"what", "instructions", "ms"})
	for _, part := range []func(int, table.Writer) error{benchDocker, benchGrowth, benchMany} {
		if err := part(rounds, t); err != nil {
			return err
		}
		t.AppendSeparator()
	}
	t.Render()
	return nil
}

// median times a job, after one round of warming up.
func median(rounds int, job func() error) (float64, error) {
	var times []time.Duration
	for round := range rounds + 1 {
		start := time.Now()
		if err := job(); err != nil {
			return 0, err
		}
		if round > 0 {
			times = append(times, time.Since(start))
		}
	}
	slices.Sort(times)
	return float64(times[len(times)/2].Microseconds()) / 1000, nil
}

func row(t table.Writer, rounds int, what string, size int, job func() error) error {
	ms, err := median(rounds, job)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	t.AppendRow(table.Row{what, size, fmt.Sprintf("%.1f", ms)})
	return nil
}

func x86() []afalg.ABI { return afalg.Machine(string(specs.ArchX86_64)) }

func routes(p cbpf.Program) error {
	_, err := verify.Routes(cbpf.Filter{p}, x86(), afalg.Family, verify.Options{})
	return err
}

// benchDocker times Docker's default profile: the bar is 100 ms with the
// compilation and 20 ms without.
func benchDocker(rounds int, t table.Writer) error {
	src, err := jsontext.Encode(profile.Docker())
	if err != nil {
		return err
	}
	docs, err := verify.ReadDocuments(src)
	if err != nil {
		return err
	}
	doc := docs[0]
	host := profile.Host{Arch: specs.ArchX86_64, Caps: profile.DefaultCaps()}
	programs := map[seccomp.Runtime]cbpf.Program{}
	for _, r := range seccomp.Runtimes() {
		p, err := doc.Compile(host, r, 0)
		if err != nil {
			return err
		}
		programs[r] = p.Insns
	}
	for _, r := range seccomp.Runtimes() {
		what := fmt.Sprintf("Docker default as %s compiles it: ", r)
		size := len(programs[r])
		if err := row(t, rounds, what+"prove", size, func() error { return routes(programs[r]) }); err != nil {
			return err
		}
		if err := row(t, rounds, what+"compile and prove", size, func() error { return compileAndProve(doc, host, r) }); err != nil {
			return err
		}
	}
	return row(t, rounds, "both at once: compile and prove", len(programs[seccomp.Runc])+len(programs[seccomp.Crun]), func() error {
		var group sync.WaitGroup
		errs := make([]error, len(seccomp.Runtimes()))
		for i, r := range seccomp.Runtimes() {
			group.Go(func() { errs[i] = compileAndProve(doc, host, r) })
		}
		group.Wait()
		return errs[0]
	})
}

func compileAndProve(doc *verify.Document, host profile.Host, r seccomp.Runtime) error {
	p, err := doc.Compile(host, r, 0)
	if err != nil {
		return err
	}
	return routes(p.Insns)
}

// benchGrowth times programs of every size up to the largest that the kernel
// accepts.
func benchGrowth(rounds int, t table.Writer) error {
	shapes := []struct {
		name string
		make func(size int) cbpf.Program
	}{
		{"list of numbers", numberList},
		{"2ⁿ paths that meet", diamonds},
	}
	for _, shape := range shapes {
		for size := 64; size <= cbpf.MaxInstructions; size *= 4 {
			p := shape.make(size)
			if err := p.Check(); err != nil {
				return fmt.Errorf("%s of %d: %w", shape.name, size, err)
			}
			if err := row(t, rounds, shape.name, len(p), func() error { return routes(p) }); err != nil {
				return err
			}
		}
	}
	return nil
}

const (
	load = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	jeq  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	jset = unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K
	add  = unix.BPF_ALU | unix.BPF_ADD | unix.BPF_K
	ret  = unix.BPF_RET | unix.BPF_K

	offsetArg0 = 16
)

// numberList allows call numbers one by one, as a compiled profile does.
func numberList(size int) cbpf.Program {
	p := cbpf.Program{{Code: load, K: 0}}
	for n := uint32(1000); len(p)+3 <= size; n++ {
		p = append(p, unix.SockFilter{Code: jeq, Jf: 1, K: n}, unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_ALLOW})
	}
	return append(p, unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_ERRNO | 1})
}

// diamonds branches on a bit of an argument again and again, and computes
// something on one side: an enumeration of paths follows all of them.
func diamonds(size int) cbpf.Program {
	p := cbpf.Program{{Code: load, K: offsetArg0}}
	for i := 0; len(p)+4 <= size; i++ {
		p = append(p, unix.SockFilter{Code: jset, Jf: 1, K: 1 << (i % 32)}, unix.SockFilter{Code: add, K: uint32(i)})
	}
	return append(p, unix.SockFilter{Code: jeq, Jf: 1, K: 1 << 20},
		unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_ALLOW}, unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_ERRNO | 1})
}

// benchMany times a thousand processes under one filter.
func benchMany(rounds int, t table.Writer) error {
	const processes = 1000
	p := numberList(1024)
	return row(t, rounds, fmt.Sprintf("%d equal filters", processes), len(p), func() error {
		var memo verify.Memo
		for range processes {
			for _, q := range verify.RouteQuestions(x86(), afalg.Family) {
				if _, err := memo.Ask(cbpf.Filter{slices.Clone(p)}, q, verify.Options{}); err != nil {
					return err
				}
			}
		}
		return nil
	})
}
