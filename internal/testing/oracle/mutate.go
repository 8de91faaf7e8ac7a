package oracle

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Mutant is a profile with one fault.
type Mutant struct {
	Name    string
	Profile *specs.LinuxSeccomp
}

// guards are the calls whose rules are damaged.
var guards = []string{"socket", "socketpair", "socketcall", "io_uring_setup", "io_uring_enter", "io_uring_register"}

// Mutants damages a profile in every known way, one at a time: the rules of the
// calls that reach a socket family, the default action, the list of ABIs. Some
// mutants mean the same as the profile. Of rules that differ only in the
// compared value, it damages those near the family, and the first and last.
func Mutants(p *specs.LinuxSeccomp, family uint32) []Mutant {
	m := mutator{base: p, family: uint64(family)}
	m.wholeProfile()
	for i, r := range p.Syscalls {
		if !isGuard(r) {
			continue
		}
		for j := range r.Args {
			m.change(i, j, fmt.Sprintf("compared with %d", family), func(a *specs.LinuxSeccompArg) { a.Value = uint64(family) })
		}
		if !m.telling(i) {
			continue
		}
		for _, name := range guards {
			if slices.Contains(r.Names, name) {
				m.name(i, name)
			}
		}
		m.rule(i)
	}
	return m.mutants
}

func isGuard(r specs.LinuxSyscall) bool {
	return slices.ContainsFunc(r.Names, func(n string) bool { return slices.Contains(guards, n) })
}

// Slim leaves out most of the calls that have nothing to do with sockets. The
// rest is enough for the runtimes to choose as they do for the whole, and
// compiles ten times as fast.
func Slim(p *specs.LinuxSeccomp) *specs.LinuxSeccomp {
	needed := []string{"exit_group", "mmap", "mprotect", "munmap", "prctl", "seccomp", "read", "write", "close", "getpid", "getppid"}
	const most = 40
	s := clone(p)
	s.Syscalls = nil
	for _, r := range clone(p).Syscalls {
		if !isGuard(r) && len(r.Names) > most {
			r.Names = append(needed, r.Names[:most]...)
		}
		s.Syscalls = append(s.Syscalls, r)
	}
	return s
}

type mutator struct {
	base    *specs.LinuxSeccomp
	family  uint64
	mutants []Mutant
}

// telling reports whether a rule is to be damaged in every way.
func (m *mutator) telling(i int) bool {
	shape := func(r specs.LinuxSyscall) string {
		r.Args = slices.Clone(r.Args)
		for j := range r.Args {
			r.Args[j].Value = 0
		}
		return text(r)
	}
	r, rules := m.base.Syscalls[i], m.base.Syscalls
	alike := func(j int) bool { return j >= 0 && j < len(rules) && shape(rules[j]) == shape(r) }
	near := slices.ContainsFunc(r.Args, func(a specs.LinuxSeccompArg) bool { return a.Value+2 >= m.family && a.Value <= m.family+2 })
	return near || !alike(i-1) || !alike(i+1)
}

// add keeps a copy of the profile as change leaves it.
func (m *mutator) add(name string, change func(*specs.LinuxSeccomp)) {
	p := clone(m.base)
	change(p)
	m.mutants = append(m.mutants, Mutant{name, p})
}

func clone(p *specs.LinuxSeccomp) *specs.LinuxSeccomp {
	c := *p
	c.Architectures = slices.Clone(p.Architectures)
	c.Syscalls = make([]specs.LinuxSyscall, len(p.Syscalls))
	for i, r := range p.Syscalls {
		r.Names, r.Args = slices.Clone(r.Names), slices.Clone(r.Args)
		c.Syscalls[i] = r
	}
	return &c
}

func (m *mutator) wholeProfile() {
	for i, a := range m.base.Architectures {
		m.add(fmt.Sprintf("without ABI %s", a), func(p *specs.LinuxSeccomp) {
			p.Architectures = slices.Delete(p.Architectures, i, i+1)
		})
	}
	m.add("without ABIs", func(p *specs.LinuxSeccomp) { p.Architectures = nil })
	for _, action := range []specs.LinuxSeccompAction{specs.ActAllow, specs.ActLog, specs.ActErrno, specs.ActKillProcess} {
		if action != m.base.DefaultAction {
			m.add(fmt.Sprintf("default %s", action), func(p *specs.LinuxSeccomp) {
				p.DefaultAction, p.DefaultErrnoRet = action, nil
			})
		}
	}
	m.add("default errno of the denials", func(p *specs.LinuxSeccomp) {
		notSupported := uint(unix.EAFNOSUPPORT)
		p.DefaultErrnoRet = &notSupported
	})
	m.add("without rules", func(p *specs.LinuxSeccomp) { p.Syscalls = nil })
}

// name damages one call of one rule.
func (m *mutator) name(i int, name string) {
	at := func(what string) string { return fmt.Sprintf("rule %d, %s: %s", i, name, what) }
	without := func(p *specs.LinuxSeccomp) {
		r := &p.Syscalls[i]
		r.Names = slices.DeleteFunc(r.Names, func(n string) bool { return n == name })
		if len(r.Names) == 0 {
			p.Syscalls = slices.Delete(p.Syscalls, i, i+1)
		}
	}
	m.add(at("dropped"), without)
	for _, other := range append([]string{"getppid"}, guards...) {
		if other != name {
			m.add(at("taken for "+other), func(p *specs.LinuxSeccomp) {
				names := p.Syscalls[i].Names
				names[slices.Index(names, name)] = other
			})
		}
	}
	m.add(at("allowed besides"), func(p *specs.LinuxSeccomp) {
		p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{Names: []string{name}, Action: specs.ActAllow})
	})
	m.add(at("allowed instead"), func(p *specs.LinuxSeccomp) {
		without(p)
		p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{Names: []string{name}, Action: specs.ActAllow})
	})
}

// rule damages a rule as a whole.
func (m *mutator) rule(i int) {
	at := func(what string) string {
		return fmt.Sprintf("rule %d, %s: %s", i, text(m.base.Syscalls[i]), what)
	}
	m.moves(i, at)
	actions := []specs.LinuxSeccompAction{specs.ActAllow, specs.ActLog, specs.ActTrace, specs.ActErrno, specs.ActTrap, specs.ActKillProcess}
	for _, action := range actions {
		if action != m.base.Syscalls[i].Action {
			m.add(at(string(action)), func(p *specs.LinuxSeccomp) { p.Syscalls[i].Action, p.Syscalls[i].ErrnoRet = action, nil })
		}
	}
	m.add(at("action of the default"), func(p *specs.LinuxSeccomp) {
		p.Syscalls[i].Action, p.Syscalls[i].ErrnoRet = p.DefaultAction, p.DefaultErrnoRet
	})
	m.add(at("without comparisons"), func(p *specs.LinuxSeccomp) { p.Syscalls[i].Args = nil })
	for j := range m.base.Syscalls[i].Args {
		m.comparison(i, j, at)
	}
}

func (m *mutator) moves(i int, at func(string) string) {
	last := len(m.base.Syscalls) - 1
	for _, to := range []int{0, i + 1, last} {
		if to == i || to > last {
			continue
		}
		m.add(at(fmt.Sprintf("moved to %d", to)), func(p *specs.LinuxSeccomp) {
			r := p.Syscalls[i]
			p.Syscalls = slices.Insert(slices.Delete(p.Syscalls, i, i+1), to, r)
		})
	}
	m.add(at("twice"), func(p *specs.LinuxSeccomp) { p.Syscalls = append(p.Syscalls, clone(p).Syscalls[i]) })
}

// change damages the comparisons.
func (m *mutator) change(i, j int, what string, f func(*specs.LinuxSeccompArg)) {
	name := fmt.Sprintf("rule %d, %s: comparison %d %s", i, text(m.base.Syscalls[i]), j, what)
	m.add(name, func(p *specs.LinuxSeccomp) { f(&p.Syscalls[i].Args[j]) })
}

var operators = []specs.LinuxSeccompOperator{
	specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo, specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpMaskedEqual,
}

// comparison damages one comparison of a rule.
func (m *mutator) comparison(i, j int, at func(string) string) {
	change := func(what string, f func(*specs.LinuxSeccompArg)) { m.change(i, j, what, f) }
	base := m.base.Syscalls[i].Args[j]
	m.add(at(fmt.Sprintf("comparison %d dropped", j)), func(p *specs.LinuxSeccomp) {
		p.Syscalls[i].Args = slices.Delete(p.Syscalls[i].Args, j, j+1)
	})
	for _, op := range operators {
		if op != base.Op {
			change(string(op), func(a *specs.LinuxSeccompArg) { a.Op = op })
		}
	}
	for _, add := range []int64{-1, 1, 1 << 32, -38} {
		change(fmt.Sprintf("value %+d", add), func(a *specs.LinuxSeccompArg) { a.Value += uint64(add) })
	}
	change("of the next argument", func(a *specs.LinuxSeccompArg) { a.Index++ })
	if base.Op == specs.OpMaskedEqual {
		for _, mask := range []uint64{^uint64(0), 0xffff, 0xff, 1 << 31} {
			change(fmt.Sprintf("mask %#x", mask), func(a *specs.LinuxSeccompArg) { a.Value = mask })
		}
		for _, add := range []int64{-1, 1, 1 << 32} {
			change(fmt.Sprintf("datum %+d", add), func(a *specs.LinuxSeccompArg) { a.ValueTwo += uint64(add) })
		}
		change("mask and datum exchanged", func(a *specs.LinuxSeccompArg) { a.Value, a.ValueTwo = a.ValueTwo, a.Value })
	}
	m.add(at(fmt.Sprintf("comparison %d twice", j)), func(p *specs.LinuxSeccomp) {
		p.Syscalls[i].Args = append(p.Syscalls[i].Args, base)
	})
	m.add(at(fmt.Sprintf("comparison %d or another", j)), func(p *specs.LinuxSeccomp) {
		other := specs.LinuxSeccompArg{Index: base.Index, Op: specs.OpNotEqual, Value: base.Value + 2}
		p.Syscalls[i].Args = append(p.Syscalls[i].Args, other)
	})
}

// text writes a rule on one line, without all of its names.
func text(r specs.LinuxSyscall) string {
	if len(r.Names) > 2 {
		r.Names = append(r.Names[:1:1], "…")
	}
	b, err := json.Marshal(r)
	if err != nil {
		return err.Error()
	}
	return string(b)
}
