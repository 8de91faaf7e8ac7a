package harden

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/filter/seccomp"
	"github.com/afalg-policy/afalg-policy/internal/filter/verify"
)

// unequalError says that a hardened profile would change more than the gaps
// name. Nothing is written then.
type unequalError struct {
	Runtime    seccomp.Runtime
	Level      int
	Difference cbpf.Difference
	more       bool // the result permits more, inside what the gaps name
}

func (e *unequalError) Error() string {
	d := e.Difference
	where := fmt.Sprintf("with %s (libseccomp %s, level %d)", e.Runtime, seccomp.Version(), e.Level)
	switch {
	case d.Equal == cbpf.Unknown:
		return fmt.Sprintf("the base cannot be hardened: %s it cannot be decided whether other calls are answered as before", where)
	case e.more:
		return fmt.Sprintf("the base cannot be hardened: %s a call would be permitted that the base refuses; witness: %v", where, d.Witness)
	}
	return fmt.Sprintf("the base cannot be hardened: %s another call would be answered otherwise, %v where the base says %v; witness: %v; rewrite the rules for that call, or for socket, with fewer conditions",
		where, d.B, d.A, d.Witness)
}

// pair is a base and a result for one machine and one set of capabilities.
type pair struct {
	host          profile.Host
	before, after *specs.LinuxSeccomp
}

// proveEqual: result and base answer every call alike, except where hardening
// declared a departure; and there the result permits no more than the base,
// except where it opens something.
func (p pair) proveEqual(c closing, ch change, after *seccomp.Program, r seccomp.Runtime) error {
	before, departures, err := p.reference(ch, r)
	if err != nil {
		return fmt.Errorf("compiling the base as %s does on %s: %w", r, p.host.Arch, err)
	}
	moved, err := p.stubRegions(r)
	if err != nil {
		return err
	}
	abis := verify.Admitted(after)
	e := cbpf.EndianOf(abis[0].BigEndian())
	a, b := cbpf.Program(before.Insns), cbpf.Program(after.Insns)
	refused := func(d cbpf.Difference, more bool) error { return &unequalError{r, after.Level, d, more} }
	d, err := verify.Compare(cbpf.Filter{a}, cbpf.Filter{b}, e, append(regionsOf(departures, abis), moved...)...)
	if err != nil {
		return fmt.Errorf("comparing with the base: %w", err)
	}
	if d.Equal != cbpf.Yes {
		return refused(d, false)
	}
	if err := shrinks(a, b, e, regionsOf(opening(departures), abis), refused); err != nil {
		return err
	}
	if c.broker {
		return c.proveBrokered(before, after, ch)
	}
	return nil
}

// shrinks proves that b permits nothing that a refuses, except what is opened.
func shrinks(a, b cbpf.Program, e cbpf.Endian, opened []cbpf.Region, refused func(cbpf.Difference, bool) error) error {
	a, b = returning(a, permits), returning(b, permits)
	// Of two filters the one that refuses wins.
	d, err := verify.Compare(cbpf.Filter{a, b}, cbpf.Filter{b}, e, opened...)
	if err != nil {
		return fmt.Errorf("comparing with the base: %w", err)
	}
	if d.Equal != cbpf.Yes {
		return refused(d, true)
	}
	return nil
}

// reference compiles the base. libseccomp refuses one whose denials on socket
// disagree, as their companions for socketcall contradict each other. No runtime
// loads it then; what it says of all calls except socketcall is clear.
func (p pair) reference(ch change, r seccomp.Runtime) (*seccomp.Program, []departure, error) {
	o := seccomp.Options{Runtime: r, Native: p.host.Arch}
	program, refused := seccomp.Compile(p.before, o)
	if refused == nil {
		return program, ch.departures, nil
	}
	if limit := new(seccomp.LimitError); errors.As(refused, &limit) {
		return nil, nil, refused
	}
	errno := uint(unix.ENOSYS)
	if d := p.before.DefaultErrnoRet; d != nil && *d == errno {
		errno = uint(unix.EPERM)
	}
	swallow := specs.LinuxSyscall{Names: []string{"socketcall"}, Action: specs.ActErrno, ErrnoRet: &errno}
	if isPermissive(p.before.DefaultAction) {
		// Without a call that every ABI has, libseccomp compiles no filter.
		swallow.Names = append(swallow.Names, ioUringCalls[0])
	}
	without := *p.before
	without.Syscalls = append([]specs.LinuxSyscall{swallow}, p.before.Syscalls...)
	program, err := seccomp.Compile(&without, o)
	if err != nil {
		return nil, nil, refused
	}
	ch.departures = slices.Clone(ch.departures)
	ch.open(GapSocketcall, "socketcall")
	return program, ch.departures, nil
}

// stubRegions are the calls that runc's ENOSYS stub answers on one side only:
// those between the largest numbers that base and result name.
func (p pair) stubRegions(r seccomp.Runtime) ([]cbpf.Region, error) {
	if r != seccomp.Runc || isPermissive(p.before.DefaultAction) || sameNames(p.before, p.after) {
		return nil, nil
	}
	var regions []cbpf.Region
	arches := append([]specs.Arch{p.host.Arch}, p.before.Architectures...)
	slices.Sort(arches)
	for _, arch := range slices.Compact(arches) {
		was, err := seccomp.LastCall(p.before, arch)
		if err != nil {
			return nil, err
		}
		is, err := seccomp.LastCall(p.after, arch)
		if err != nil {
			return nil, err
		}
		abi, known := afalg.ABIOf(string(arch))
		switch {
		case was == is || !known:
			continue
		case min(was, is) == 0: // no stub at all on one side
			was, is = 0, math.MaxUint32
		}
		regions = append(regions, cbpf.Everything.With(cbpf.Arch, cbpf.Exactly(abi.Audit)).
			With(cbpf.Nr, cbpf.Between(min(was, is)+1, max(was, is))))
	}
	return regions, nil
}

// movesStub reports whether runc's stub answers other calls than before.
func movesStub(pairs []pair) (bool, error) {
	for _, p := range pairs {
		regions, err := p.stubRegions(seccomp.Runc)
		if err != nil || len(regions) > 0 {
			return len(regions) > 0, err
		}
	}
	return false, nil
}

// sameNames reports whether two profiles have rules for the same calls.
func sameNames(a, b *specs.LinuxSeccomp) bool {
	names := func(p *specs.LinuxSeccomp) []string {
		var all []string
		for _, r := range p.Syscalls {
			all = append(all, r.Names...)
		}
		slices.Sort(all)
		return slices.Compact(all)
	}
	return slices.Equal(names(a), names(b))
}

// permits tells calls that may run from those that may not. The broker lets
// the kernel do what is none of its business, so that a notification is a
// permission.
func permits(a cbpf.Action) cbpf.Action {
	switch a.Kind() {
	case cbpf.Allow, cbpf.Log, cbpf.Trace, cbpf.UserNotif:
		return cbpf.Action(unix.SECCOMP_RET_ALLOW)
	}
	return cbpf.Action(unix.SECCOMP_RET_KILL_PROCESS)
}
