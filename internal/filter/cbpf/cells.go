package cbpf

import (
	"cmp"
	"math"
	"math/bits"
	"slices"

	"golang.org/x/sys/unix"
)

// A cell is a rectangle of architectures and call numbers. Compiled profiles
// ask for these two first, and then for the arguments of few calls. In most
// cells a program returns one value, or two programs go on with the same
// instructions; a walk finds that a hundred times faster than an exploration.
type cell struct{ arch, nr interval }

// interval holds low, high and the values between.
type interval struct{ low, high uint32 }

const (
	maxCells   = 1 << 14
	maxOpen    = 1 << 9  // cells to explore
	maxWalking = 1 << 22 // instructions
)

func (c cell) region(within Region) Region {
	return within.With(Arch, c.arch.constraint()).With(Nr, c.nr.constraint())
}

func (i interval) constraint() Constraint {
	if i.low == i.high {
		return Exactly(i.low)
	}
	return Between(i.low, i.high)
}

// touches reports whether a constraint may hold in the interval.
func (i interval) touches(c Constraint) bool {
	return c.kind != exactly || i.low <= c.a && c.a <= i.high
}

// covers reports whether a region holds the whole cell.
func (r Region) covers(c cell) bool {
	for f, constraint := range r {
		switch one := (interval{constraint.a, constraint.a}); {
		case constraint.kind == anyValue:
		case Field(f) == Arch && constraint.kind == exactly && c.arch == one:
		case Field(f) == Nr && constraint.kind == exactly && c.nr == one:
		case Field(f) == Nr && constraint.kind == between && constraint.a <= c.nr.low && c.nr.high <= constraint.b:
		default:
			return false
		}
	}
	return true
}

// reached is a cell with the program's behaviour there from the end of its
// walk; fixed means that it returns one value.
type reached struct {
	cell
	fixed bool
	rest  tail
}

// walker divides cells until a program does one thing in each.
type walker struct {
	program Program
	known   tails
	tails   []tail // from each instruction on
	endian  Endian
	found   []reached
	steps   int
}

// walk divides a cell. It gives up if there are very many parts.
func (w *walker) walk(c cell) (parts []reached, ok bool) {
	w.found, w.steps = w.found[:0], 0
	w.from(0, c, noField)
	return w.found, w.steps <= maxWalking && len(w.found) <= maxCells
}

// noField means that the accumulator holds neither architecture nor number.
const noField = Field(-1)

// from walks from an instruction with a field in the accumulator.
func (w *walker) from(pc int, c cell, acc Field) {
	for {
		if w.steps++; w.steps > maxWalking || len(w.found) > maxCells {
			return
		}
		in := w.program[pc]
		switch {
		case in.Code == opRet:
			w.found = append(w.found, reached{c, true, w.tails[pc]})
			return
		case in.Code == opJump:
			pc += 1 + int(in.K)
			continue
		case in.Code == opLoad:
			if f := fieldAt(in.K/4, w.endian); f == Arch || f == Nr {
				acc = f
				pc++
				continue
			}
			acc = noField // this instruction overwrites it
		case acc != noField && isBranch(in.Code) && !usesX(in.Code):
			i := c.of(acc)
			if taken, ok := i.decides(in); ok {
				pc = branched{taken: taken}.next(pc, in)
				continue
			}
			if parts, ok := i.split(in); ok {
				for _, p := range parts.all[1:parts.n] {
					w.from(p.next(pc, in), c.with(acc, p.interval), acc)
				}
				first := parts.all[0]
				c, pc = c.with(acc, first.interval), first.next(pc, in)
				continue
			}
		}
		w.found = append(w.found, reached{c, false, w.known.after(w.tails[pc], acc)})
		return
	}
}

func (c cell) of(f Field) interval {
	if f == Arch {
		return c.arch
	}
	return c.nr
}

func (c cell) with(f Field, i interval) cell {
	if f == Arch {
		c.arch = i
	} else {
		c.nr = i
	}
	return c
}

// branched is a part of an interval in which a branch goes one way.
type branched struct {
	interval
	taken bool
}

func (b branched) next(pc int, in unix.SockFilter) int {
	if b.taken {
		return pc + 1 + int(in.Jt)
	}
	return pc + 1 + int(in.Jf)
}

// parts of an interval, in order; there are at most eight and one.
type parts struct {
	all [9]branched
	n   int
}

// decides returns the one way that a branch takes in the whole interval, where
// that is plain. Most branches of a list are of this kind.
func (i interval) decides(in unix.SockFilter) (taken, ok bool) {
	switch operation(in.Code) {
	case unix.BPF_JEQ, unix.BPF_JGT, unix.BPF_JGE:
		ok = i.low == i.high || in.K < i.low || in.K > i.high
	}
	return branches(in.Code, i.low, in.K), ok
}

// split divides an interval by a branch that compares with a constant. It does
// not follow a test of several bits, or of a low bit.
func (i interval) split(in unix.SockFilter) (p parts, ok bool) {
	k, step := uint64(in.K), uint64(0)
	last := k
	switch operation(in.Code) {
	case unix.BPF_JEQ:
		step, last = 1, k+1
	case unix.BPF_JGT:
		k, last = k+1, k+1
	case unix.BPF_JGE:
	case unix.BPF_JSET:
		const lowest = 29 // eight parts
		if bits.OnesCount32(in.K) != 1 || bits.TrailingZeros32(in.K) < lowest {
			return parts{}, false
		}
		step, last = k, math.MaxUint32
	default:
		return parts{}, false
	}
	low, end := uint64(i.low), uint64(i.high)+1
	cut := func(at uint64) {
		if at > low {
			part := interval{uint32(low), uint32(at - 1)}
			p.all[p.n] = branched{part, branches(in.Code, part.low, in.K)}
			p.n, low = p.n+1, at
		}
	}
	for at := k; at <= last && at < end; at += step {
		cut(at)
		if step == 0 {
			break
		}
	}
	cut(end)
	return p, true
}

// walked is a cell with the behaviour of two filters there. fixed means that
// each returns one value.
type walked struct {
	cell
	fixed bool
	a, b  tail
}

// cells divides a cell until each program of two filters returns one value in a
// part, or reads something else than architecture and number.
func cells(e Endian, whole cell, a, b Filter) (all []walked, ok bool) {
	known := tails{}
	all = []walked{{cell: whole, fixed: true}}
	for _, side := range []struct {
		filter Filter
		does   func(*walked) *tail
	}{{a, func(w *walked) *tail { return &w.a }}, {b, func(w *walked) *tail { return &w.b }}} {
		for _, p := range side.filter {
			w := walker{program: p, known: known, tails: known.of(p), endian: e}
			var next []walked
			for _, c := range all {
				parts, ok := w.walk(c.cell)
				if !ok || len(next)+len(parts) > maxCells {
					return nil, false
				}
				for _, part := range parts {
					one := walked{part.cell, part.fixed && c.fixed, c.a, c.b}
					does := side.does(&one)
					*does = known.join(*does, part.rest)
					next = append(next, one)
				}
			}
			all = next
		}
	}
	return all, true
}

// cell returns the inputs of a region, if its architectures and its numbers are
// intervals, and there are any inputs.
func (r Region) cell() (c cell, ok bool) {
	arch, okArch := r[Arch].interval()
	nr, okNr := r[Nr].interval()
	return cell{arch, nr}, okArch && okNr && !slices.ContainsFunc(r[:], Constraint.isEmpty)
}

func (c Constraint) interval() (i interval, ok bool) {
	switch c.kind {
	case anyValue:
		return interval{0, math.MaxUint32}, true
	case exactly:
		return interval{c.a, c.a}, true
	case between:
		return interval{c.a, c.b}, true
	}
	return interval{}, false
}

func (c Constraint) isEmpty() bool {
	return c.kind == between && c.a > c.b || c.kind == masked && c.b&^c.a != 0
}

// byCells compares cell by cell, and explores the cells in which a program
// reads more. ok is false where nothing is gained.
func (c Comparison) byCells(a, b Filter) (d Difference, ok bool) {
	whole, ok := c.Within.cell()
	if !ok {
		return Difference{}, false
	}
	all, ok := cells(c.Endian, whole, a, b)
	if !ok {
		return Difference{}, false
	}
	var open []cell
	for _, one := range all {
		switch {
		case slices.ContainsFunc(c.Except, func(r Region) bool { return r.covers(one.cell) }):
		case one.a == one.b, one.fixed && one.agree(a, b, c.Endian):
			d.Equal = Yes
		default:
			open = append(open, one.cell)
		}
	}
	if len(open) > maxOpen {
		return Difference{}, false
	}
	budget := cmp.Or(c.Budget, compareBudget)
	for _, one := range open {
		found := c.inside(one, budget).explore(a, b)
		switch {
		case found.empty:
		case found.Equal != Yes:
			return found.Difference, true
		default:
			d.Equal = Yes
		}
		budget -= found.steps
	}
	return d, true
}

// agree runs the filters on one input of a cell in which they return one value.
func (c cell) agree(a, b Filter, e Endian) bool {
	d := Data{Arch: c.arch.low, Nr: c.nr.low}
	actionA, _, errA := a.Run(d, e)
	actionB, _, errB := b.Run(d, e)
	return errA == nil && errB == nil && actionA.Effective() == actionB.Effective()
}

// inside is the part of a comparison inside a cell.
func (c Comparison) inside(one cell, budget int) Comparison {
	c.Within, c.Budget = one.region(c.Within), max(budget, 1)
	c.Except = slices.DeleteFunc(slices.Clone(c.Except), func(r Region) bool {
		return !one.arch.touches(r[Arch]) || !one.nr.touches(r[Nr])
	})
	return c
}
