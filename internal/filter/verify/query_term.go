package verify

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
)

// term is what a query says of one register, or of half of it.
type term struct {
	operand
	lower, upper cbpf.Constraint
	lowerOn      func(afalg.ABI) cbpf.Constraint // instead of lower, where numbers differ; or nil
}

// operand is the meaning of a key: one register, or half of it.
type operand struct {
	arg        int
	low, high  bool
	cloneFlags bool // which are another argument on some machines
}

func (o operand) argOn(abi afalg.ABI) int {
	if o.cloneFlags {
		return abi.CloneFlags()
	}
	return o.arg
}

// fields lists the halves of registers that an operand may be, on any ABI.
func (o operand) fields() (all []cbpf.Field) {
	args := []int{o.arg}
	if o.cloneFlags {
		args = append(args, 1)
	}
	for _, arg := range args {
		if o.low {
			all = append(all, cbpf.ArgLow(arg))
		}
		if o.high {
			all = append(all, cbpf.ArgHigh(arg))
		}
	}
	return all
}

// constrain narrows the inputs of a call on an ABI.
func (t term) constrain(region *cbpf.Region, abi afalg.ABI) {
	arg := t.argOn(abi)
	switch {
	case t.lowerOn != nil:
		region[cbpf.ArgLow(arg)] = t.lowerOn(abi)
	case t.low:
		region[cbpf.ArgLow(arg)] = t.lower
	}
	if t.high {
		region[cbpf.ArgHigh(arg)] = t.upper
	}
}

// understand turns a term as it stands there into constraints.
func (p *queryParser) understand(w written) error {
	if w.value == "any" {
		switch w.operator {
		case "!=":
			return p.fail(w.valueAt, "nothing is unequal to any")
		case "&":
			return p.fail(w.valueAt, "& takes bits, and any is none")
		}
		return nil
	}
	switch {
	case w.operator == "!=" && w.low && w.high:
		return p.fail(w.at, "!= takes 32 bits: write arg%d.low or arg%d.high", w.arg, w.arg)
	case w.operator == "&" && w.low:
		w.high = false // of a whole register, the lower half is meant
	}
	t, err := p.values(w)
	if err != nil {
		return err
	}
	for _, f := range w.fields() {
		if p.given[f] {
			return p.fail(w.at, "%v is given twice", f)
		}
		p.given[f] = true
	}
	p.query.terms = append(p.query.terms, t)
	return nil
}

func (p *queryParser) values(w written) (term, error) {
	t := term{operand: w.operand}
	first, last, isRange := strings.Cut(w.value, "..")
	for _, name := range []string{first, last} {
		typ, ok := p.socketType(w, name)
		switch {
		case ok && (isRange || w.operator != "="):
			return t, p.fail(w.valueAt, "%s stands for a type with its flags, and for nothing but = alone: write a number", name)
		case ok:
			t.lowerOn = func(abi afalg.ABI) cbpf.Constraint { return typeOn(abi, typ) }
			return t, nil
		}
	}
	a, err := p.number(w, w.valueAt, first)
	if err != nil {
		return t, err
	}
	_, isLevel := afalg.OptionLevelByName(first)
	isLevel = isLevel && p.query.name == "setsockopt" && w.parameter == "level"
	switch {
	case isRange:
		return p.between(w, a, last)
	case w.operator == "&":
		return p.masked(w, uint32(a))
	case w.operator == "!=":
		return t.both(cbpf.Not(uint32(a)), cbpf.Not(uint32(a))), nil
	case w.low && w.high:
		return t.both(cbpf.Exactly(uint32(a)), cbpf.Exactly(uint32(a>>32))), nil
	case isLevel && w.low:
		t.lowerOn = func(abi afalg.ABI) cbpf.Constraint { return cbpf.Exactly(abi.SocketLevelOn(uint32(a))) }
		return t, nil
	}
	return t.both(cbpf.Exactly(uint32(a)), cbpf.Exactly(uint32(a))), nil
}

// both sets the constraints of the halves; one of those may not be meant.
func (t term) both(lower, upper cbpf.Constraint) term {
	t.lower, t.upper = lower, upper
	return t
}

func (p *queryParser) between(w written, first uint64, last string) (term, error) {
	t := term{operand: w.operand}
	at := w.valueAt + strings.Index(w.value, "..") + len("..")
	switch {
	case w.operator != "=":
		return t, p.fail(w.valueAt, "a range takes = only")
	case w.low && w.high:
		return t, p.fail(w.at, "a range takes 32 bits: write arg%d.low or arg%d.high", w.arg, w.arg)
	}
	n, err := p.number(w, at, last)
	if err != nil {
		return t, err
	}
	if n < first {
		return t, p.fail(at, "the range ends before it begins: %d is less than %d", n, first)
	}
	c := cbpf.Between(uint32(first), uint32(n))
	return t.both(c, c), nil
}

func (p *queryParser) masked(w written, mask uint32) (term, error) {
	t := term{operand: w.operand}
	if mask == 0 {
		return t, p.fail(w.valueAt, "no bits to compare")
	}
	value := mask
	if w.equals != "" {
		n, err := p.number(w, w.equalsAt, w.equals)
		if err != nil {
			return t, err
		}
		if value = uint32(n); value&^mask != 0 {
			return t, p.fail(w.equalsAt, "%s has bits that %s has not: no value meets that", w.equals, w.value)
		}
	}
	c := cbpf.Masked(mask, value)
	return t.both(c, c), nil
}

// socketType reads the name of a type, where a type is meant.
func (p *queryParser) socketType(w written, text string) (uint32, bool) {
	if !familyArgument(p.query.name) || w.parameter != "type" {
		return 0, false
	}
	return afalg.SocketTypeByName(text)
}

// number reads a constant, or a number of as many bits as the operand has. A
// negative one is sign-extended.
func (p *queryParser) number(w written, at int, text string) (uint64, error) {
	if family, ok := afalg.FamilyByName(text); ok {
		return uint64(family), nil
	}
	bits := 32
	if w.low && w.high {
		bits = 64
	}
	if n, err := strconv.ParseInt(text, 0, bits); err == nil {
		if bits == 32 {
			return uint64(uint32(n)), nil
		}
		return uint64(n), nil
	}
	if n, err := strconv.ParseUint(text, 0, bits); err == nil {
		return n, nil
	}
	c, err := p.constantsOf(w, at)
	if err != nil {
		return 0, err
	}
	if n, ok := c.number(text); ok {
		return uint64(n), nil
	}
	return 0, p.fail(at, "%q is neither a number of %d bits nor %s%s", text, bits, c.what, c.suggest(text))
}

// constantsOf finds the names that the values of a parameter have. Those of a
// protocol are its family's, and those of an option its level's.
func (p *queryParser) constantsOf(w written, at int) (constants, error) {
	switch call, parameter := p.query.name, w.parameter; {
	case familyArgument(call) && parameter == "type":
		return typeConstants, nil
	case familyArgument(call) && parameter == "protocol":
		family, ok, err := p.other("family")
		if err != nil || !ok {
			return constants{what: "a protocol whose family is given"}, err
		}
		return protocolConstants(family), nil
	case call == "setsockopt" && parameter == "level":
		return levelConstants, nil
	case call == "setsockopt" && parameter == "optname":
		level, ok, err := p.other("level")
		if err != nil || !ok {
			return constants{what: "an option whose level is given"}, err
		}
		return optionConstants(level), nil
	case (call == "clone" || call == "unshare") && parameter == "flags", call == "setns" && parameter == "nstype":
		return cloneConstants, nil
	}
	return familyConstants, nil
}

// other reads the one value of another parameter, if there is one.
func (p *queryParser) other(parameter string) (value uint32, ok bool, err error) {
	for _, w := range p.written {
		if w.parameter != parameter || !w.low || w.operator != "=" || w.value == "any" || strings.Contains(w.value, "..") {
			continue
		}
		n, err := p.number(w, w.valueAt, w.value)
		return uint32(n), err == nil, err
	}
	return 0, false, nil
}

// constants are names that a value may have besides numbers.
type constants struct {
	what  string
	names []string
	of    func(name string) (uint32, bool)
}

func (c constants) number(name string) (uint32, bool) {
	if c.of == nil {
		return 0, false
	}
	return c.of(name)
}

// suggest ends a message about an unknown name.
func (c constants) suggest(name string) string {
	if len(c.names) == 0 {
		return ""
	}
	candidates := map[string]bool{}
	for _, n := range c.names {
		candidates[n] = true
	}
	return profile.Suggest("", name, candidates)
}

var (
	familyConstants = constants{"a socket family", afalg.Families(), afalg.FamilyByName}
	typeConstants   = constants{"a socket type", afalg.SocketTypes(), nil} // they are not numbers: flags may go with them
	levelConstants  = constants{"a level of options", afalg.OptionLevels(), afalg.OptionLevelByName}
	cloneConstants  = constants{"a flag that makes a namespace", slices.Sorted(maps.Keys(cloneFlags)), cloneFlag}
)

func protocolConstants(family uint32) constants {
	return constants{"a protocol of " + cmp.Or(afalg.FamilyName(family), "that family"), afalg.Protocols(family),
		func(name string) (uint32, bool) { return afalg.ProtocolByName(family, name) }}
}

func optionConstants(level uint32) constants {
	name, _ := afalg.SocketOption{Level: level}.Names()
	return constants{"an option of level " + name, afalg.SocketOptions(level),
		func(name string) (uint32, bool) { return afalg.SocketOptionByName(level, name) }}
}

// cloneFlags are those of clone and unshare that make namespaces
// (include/uapi/linux/sched.h).
var cloneFlags = map[string]uint32{
	"CLONE_NEWTIME": unix.CLONE_NEWTIME, "CLONE_NEWNS": unix.CLONE_NEWNS, "CLONE_NEWCGROUP": unix.CLONE_NEWCGROUP,
	"CLONE_NEWUTS": unix.CLONE_NEWUTS, "CLONE_NEWIPC": unix.CLONE_NEWIPC, "CLONE_NEWUSER": unix.CLONE_NEWUSER,
	"CLONE_NEWPID": unix.CLONE_NEWPID, "CLONE_NEWNET": unix.CLONE_NEWNET,
}

func cloneFlag(name string) (uint32, bool) {
	n, ok := cloneFlags[name]
	return n, ok
}
