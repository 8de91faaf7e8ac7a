package cbpf

import "golang.org/x/sys/unix"

// An explorer runs programs on all inputs of a region at once. Registers are
// vectors, and each instruction has the set of inputs that reach it. Jumps go
// forward only, so one pass in the order of the program sees every path, and
// paths that meet are joined without loss.
//
// An operation whose result is too large for the budget is replaced by free
// variables, as if it could return anything. So for every input there are
// values of the free variables under which the exploration is right about the
// program: a statement true for all of them is proved, and one true for some
// has to be replayed.
type explorer struct {
	*bdd
	endian  Endian
	vectors []vector
	fixed   []fixedValue // of vectors, where constant
	index   map[vector]vecID
	numbers map[uint32]vecID
	results map[computation]vecID
	fields  [NumFields]vecID
	layout  layout
	free    int32 // the number of free values so far
	domain  node  // the inputs in question
}

// computation is an ALU operation. Its result is remembered, so that equal
// computations agree even where the result is free variables.
type computation struct {
	op   uint16
	a, b vecID
}

// vecID is an index into explorer.vectors; 0 is the constant zero.
type vecID int32

type fixedValue struct {
	value uint32
	ok    bool
}

// layout decides which variable stands for a bit of a field.
type layout int

const (
	// fieldByField suits programs that compare fields with constants.
	fieldByField layout = iota
	// bitByBit suits programs that compare fields with each other.
	bitByBit
)

const inputVariables = NumFields * 32

func (l layout) variable(f Field, bit int) int32 {
	if l == bitByBit {
		return int32(31-bit)*int32(NumFields) + int32(f)
	}
	return int32(f)*32 + int32(31-bit)
}

func (l layout) field(variable int32) (f Field, bit int) {
	if l == bitByBit {
		return Field(variable % int32(NumFields)), 31 - int(variable/int32(NumFields))
	}
	return Field(variable / 32), 31 - int(variable%32)
}

func newExplorer(l layout, e Endian, within Region, limit int) *explorer {
	x := &explorer{
		bdd: newBDD(), endian: e, layout: l,
		index: map[vector]vecID{}, numbers: map[uint32]vecID{}, results: map[computation]vecID{},
	}
	x.limit = limit
	x.internConstant(0)
	x.domain = yes
	for f, c := range within {
		v := x.word(Field(f), c)
		x.domain = x.and(x.domain, c.set(x.bdd, &v))
		x.fields[f] = x.intern(v)
	}
	return x
}

// word returns a field's value. Bits that the constraint fixes are no
// variables.
func (x *explorer) word(f Field, c Constraint) vector {
	known, value := c.known()
	v := constant(value)
	for bit := range v {
		if known>>bit&1 == 0 {
			v[bit] = x.variable(x.layout.variable(f, bit))
		}
	}
	return v
}

// set returns the inputs of a region, as far as they lie in the domain.
func (x *explorer) set(r Region) node {
	n := x.domain
	for f, c := range r {
		n = x.and(n, c.set(x.bdd, &x.vectors[x.fields[f]]))
	}
	return n
}

func (x *explorer) intern(v vector) vecID {
	if id, ok := x.index[v]; ok {
		return id
	}
	id := vecID(len(x.vectors))
	x.vectors = append(x.vectors, v)
	value, ok := v.constantValue()
	x.fixed = append(x.fixed, fixedValue{value, ok})
	x.index[v] = id
	return id
}

func (x *explorer) internConstant(v uint32) vecID {
	id, ok := x.numbers[v]
	if !ok {
		id = x.intern(constant(v))
		x.numbers[v] = id
	}
	return id
}

// registers of a program: A, X and the scratch memory.
const (
	regA = iota
	regX
	regMem
	numRegisters = regMem + unix.BPF_MEMWORDS
)

// state holds the knowledge at one instruction.
type state struct {
	reach node // the inputs that get there
	regs  [numRegisters]vecID
}

// outcome is a value that a program returns and the inputs for which it does.
// The outcomes of a program share no input.
type outcome struct {
	reach node
	value vecID
}

// explore returns the outcomes of a checked program for the inputs in domain.
func (x *explorer) explore(p Program) []outcome {
	live := p.liveness()
	states := make([]state, len(p))
	states[0].reach = x.domain
	var outcomes outcomes
	for pc, in := range p {
		if x.spent() {
			return nil
		}
		s := &states[pc]
		switch {
		case s.reach == no:
		case in.Code == opRet:
			outcomes.add(x, s.reach, x.internConstant(in.K))
		case in.Code == opRetA:
			outcomes.add(x, s.reach, s.regs[regA])
		case isBranch(in.Code):
			x.branch(states, live, pc, in)
		case in.Code == opJump:
			x.flow(states, live, pc+1+int(in.K), s, s.reach)
		default:
			if divides(in.Code) && class(in.Code) == unix.BPF_ALU {
				outcomes.add(x, x.trapDivision(s, in), 0)
			}
			x.step(s, in)
			x.flow(states, live, pc+1, s, s.reach)
		}
	}
	return outcomes
}

type outcomes []outcome

// add joins equal values, to keep the list short.
func (o *outcomes) add(x *explorer, reach node, value vecID) {
	if reach == no {
		return
	}
	for i := range *o {
		if (*o)[i].value == value {
			(*o)[i].reach = x.or((*o)[i].reach, reach)
			return
		}
	}
	*o = append(*o, outcome{reach, value})
}

// flow joins s, for the inputs in reach, into the state at pc.
func (x *explorer) flow(states []state, live []uint32, pc int, s *state, reach node) {
	to := &states[pc]
	if reach == no {
		return
	}
	for r := range s.regs {
		switch {
		case live[pc]>>r&1 == 0 || to.reach != no && to.regs[r] == s.regs[r]:
		case to.reach == no:
			to.regs[r] = s.regs[r]
		default:
			to.regs[r] = x.merge(reach, s.regs[r], to.regs[r])
		}
	}
	to.reach = x.or(to.reach, reach)
}

func (x *explorer) merge(reach node, a, b vecID) vecID {
	return x.bounded(func() vector { return x.vchoose(reach, &x.vectors[a], &x.vectors[b]) })
}

func (x *explorer) branch(states []state, live []uint32, pc int, in unix.SockFilter) {
	s := &states[pc]
	taken := x.taken(s, in)
	x.flow(states, live, pc+1+int(in.Jt), s, x.and(s.reach, taken))
	x.flow(states, live, pc+1+int(in.Jf), s, x.andNot(s.reach, taken))
}

// taken returns the inputs for which the branch at s is taken.
func (x *explorer) taken(s *state, in unix.SockFilter) node {
	a := s.regs[regA]
	fa, fb := x.fixed[a], fixedValue{in.K, true}
	if usesX(in.Code) {
		fb = x.fixed[s.regs[regX]]
	}
	if fa.ok && fb.ok {
		if branches(in.Code, fa.value, fb.value) {
			return yes
		}
		return no
	}
	b := x.operand(s, in)
	test := x.bounded(func() vector {
		return vector{x.vtest(in.Code, &x.vectors[a], &x.vectors[b])}
	})
	return x.vectors[test][0]
}

// operand is the second operand of an ALU instruction or a branch.
func (x *explorer) operand(s *state, in unix.SockFilter) vecID {
	if usesX(in.Code) {
		return s.regs[regX]
	}
	return x.internConstant(in.K)
}

// trapDivision removes the inputs that divide by zero from s and returns them.
func (x *explorer) trapDivision(s *state, in unix.SockFilter) node {
	nonzero := x.vnonzero(&x.vectors[x.operand(s, in)])
	zero := x.andNot(s.reach, nonzero)
	s.reach = x.and(s.reach, nonzero)
	return zero
}

// step executes an instruction that neither jumps nor returns.
func (x *explorer) step(s *state, in unix.SockFilter) {
	a, mem := &s.regs[regA], s.regs[regMem:]
	switch in.Code {
	case opLoad:
		*a = x.fields[fieldAt(in.K/4, x.endian)]
	case opLoadLen:
		*a = x.internConstant(dataSize)
	case opLoadXLen:
		s.regs[regX] = x.internConstant(dataSize)
	case opImm:
		*a = x.internConstant(in.K)
	case opImmX:
		s.regs[regX] = x.internConstant(in.K)
	case opLoadMem:
		*a = mem[in.K]
	case opLoadXMem:
		s.regs[regX] = mem[in.K]
	case opStore:
		mem[in.K] = *a
	case opStoreX:
		mem[in.K] = s.regs[regX]
	case opTAX:
		s.regs[regX] = *a
	case opTXA:
		*a = s.regs[regX]
	default:
		*a = x.alu(in.Code, *a, x.operand(s, in))
	}
}

func (x *explorer) alu(code uint16, a, b vecID) vecID {
	key := computation{operation(code), a, b}
	result, ok := x.results[key]
	if !ok {
		result = x.compute(key)
		x.results[key] = result
	}
	return result
}

func (x *explorer) compute(c computation) vecID {
	fa, fb := x.fixed[c.a], x.fixed[c.b]
	shift := c.op == unix.BPF_LSH || c.op == unix.BPF_RSH
	undefined := shift && fb.value >= 32 || c.op == unix.BPF_DIV && fb.value == 0
	if fa.ok && fb.ok && !undefined {
		return x.internConstant(alu(c.op, fa.value, fb.value))
	}
	result := x.bounded(func() vector { return x.vcompute(c.op, &x.vectors[c.a], &x.vectors[c.b]) })
	if shift {
		return x.bounded(func() vector { return x.undefinedShift(result, &x.vectors[c.b]) })
	}
	return result
}

// undefinedShift makes the result anything where the machine decides the result
// of a shift by 32 or more.
func (x *explorer) undefinedShift(result vecID, by *vector) vector {
	rest := vshiftRight(by, 5)
	over := x.vnonzero(&rest)
	if over == no {
		return x.vectors[result]
	}
	anything := x.anything()
	return x.vchoose(over, &anything, &x.vectors[result])
}

// bounded computes a vector within a share of the remaining budget, or returns
// free variables.
func (x *explorer) bounded(compute func() vector) vecID {
	const share = 8
	whole := x.limit
	x.limit = x.steps + (whole-x.steps)/share
	v := compute()
	stopped := x.spent()
	x.limit = whole
	if stopped {
		v = x.anything()
	}
	return x.intern(v)
}

// anything returns a new value that may be any. Its variables come after those
// of the input, the same bits of all such values side by side.
func (x *explorer) anything() (v vector) {
	for bit := range v {
		v[bit] = x.variable(int32(inputVariables) + int32(31-bit)<<16 + x.free)
	}
	x.free++
	return v
}

// liveness returns, for each instruction, the registers that are still read
// before they are written, a bit each.
func (p Program) liveness() []uint32 {
	live := make([]uint32, len(p))
	for pc := len(p) - 1; pc >= 0; pc-- {
		for _, to := range p.successors(pc) {
			live[pc] |= live[to]
		}
		reads, writes := effects(p[pc])
		live[pc] = live[pc]&^writes | reads
	}
	return live
}

// effects returns the registers that an instruction reads and writes.
func effects(in unix.SockFilter) (reads, writes uint32) {
	const a, x = 1 << regA, 1 << regX
	cell := uint32(1) << (regMem + in.K%unix.BPF_MEMWORDS)
	switch in.Code {
	case opLoad, opLoadLen, opImm:
		return 0, a
	case opLoadXLen, opImmX:
		return 0, x
	case opLoadMem:
		return cell, a
	case opLoadXMem:
		return cell, x
	case opStore:
		return a, cell
	case opStoreX:
		return x, cell
	case opTAX:
		return a, x
	case opTXA:
		return x, a
	case opRet, opJump:
		return 0, 0
	case opRetA:
		return a, 0
	}
	if usesX(in.Code) {
		reads = x
	}
	if isBranch(in.Code) {
		return reads | a, 0
	}
	return reads | a, a
}
