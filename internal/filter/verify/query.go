package verify

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
	"github.com/afalg-policy/afalg-policy/internal/filter/seccomp"
)

// Query is a question in the form that people write, for every ABI at once:
//
//	query = call [ "(" [ term { "," term } ] ")" ]
//	call  = NAME | NUMBER
//	term  = "any" | key ( "=" | "!=" ) value
//	key   = parameter [ ".low" | ".high" ] | "abi"
//	parameter = NAME | "arg0" … "arg5"
//	value = "any" | NUMBER | "AF_…" | the name of an ABI
//
// A parameter by its name is what the kernel takes: of an int the lower half
// of the register, while the upper half may be anything. arg0 to arg5 are
// whole registers. Anything that no term mentions is free.
type Query struct {
	Text   string
	name   string // of the call; empty if given by number
	number uint32
	region cbpf.Region
	abi    string // empty: every ABI that has the call
}

// QueryError says where a query cannot be understood.
type QueryError struct {
	Text   string
	Column int // from 1, in bytes
	Reason string
}

// Error puts a caret below the place.
func (e *QueryError) Error() string {
	before := e.Text[:min(e.Column-1, len(e.Text))]
	blank := strings.Map(func(rune) rune { return ' ' }, before)
	return fmt.Sprintf("%s\n  %s\n  %s^", e.Reason, e.Text, blank)
}

// maxQuery bounds the text of a query.
const maxQuery = 1 << 10

// ParseQuery reads a query. The error is a *QueryError.
func ParseQuery(text string) (*Query, error) {
	p := &queryParser{text: text, query: Query{Text: text}}
	if err := p.parse(); err != nil {
		return nil, err
	}
	return &p.query, nil
}

// Questions puts the query to ABIs. It returns none if the query names none of
// them, and fails if no ABI has the call.
func (q *Query) Questions(abis []afalg.ABI) ([]Question, error) {
	var questions []Question
	var missing error
	for _, abi := range abis {
		if q.abi != "" && q.abi != abi.Name {
			continue
		}
		nr, err := q.numberOn(abi)
		if err != nil {
			missing = err
			continue
		}
		name := q.name
		if name == "" {
			name = seccomp.Name(nr, specs.Arch(abi.Arch))
		}
		region := q.region.With(cbpf.Arch, cbpf.Exactly(abi.Audit)).With(cbpf.Nr, cbpf.Exactly(nr))
		questions = append(questions, Question{afalg.Call{ABI: abi, Name: name, Nr: nr}, region})
	}
	if len(questions) == 0 && missing != nil {
		return nil, &QueryError{q.Text, 1, missing.Error()}
	}
	return questions, nil
}

func (q *Query) numberOn(abi afalg.ABI) (uint32, error) {
	if q.name == "" {
		return q.number, nil
	}
	return seccomp.Number(q.name, specs.Arch(abi.Arch))
}

type queryParser struct {
	text  string
	at    int
	query Query
	given [cbpf.NumFields]bool
}

func (p *queryParser) fail(at int, format string, args ...any) error {
	return &QueryError{p.text, at + 1, fmt.Sprintf(format, args...)}
}

func (p *queryParser) parse() error {
	if len(p.text) > maxQuery {
		return &QueryError{p.text[:40] + "…", 1, fmt.Sprintf("a query of %d bytes: the limit is %d", len(p.text), maxQuery)}
	}
	if err := p.call(); err != nil {
		return err
	}
	if p.accept("(") && !p.accept(")") {
		for {
			if err := p.term(); err != nil {
				return err
			}
			if p.accept(")") {
				break
			}
			if !p.accept(",") {
				return p.fail(p.at, `expected "," or ")"`)
			}
		}
	}
	if p.space(); p.at < len(p.text) {
		return p.fail(p.at, "nothing may follow the call")
	}
	return nil
}

func (p *queryParser) call() error {
	at, word := p.word()
	switch n, err := strconv.ParseUint(word, 0, 32); {
	case word == "":
		return p.fail(at, `expected a system call: its name or number, as in "socket(family=AF_ALG)"`)
	case err == nil:
		p.query.number = uint32(n)
	case word[0] >= '0' && word[0] <= '9':
		return p.fail(at, "%q is no system call number", word)
	default:
		p.query.name = word
	}
	return nil
}

func (p *queryParser) term() error {
	at, key := p.word()
	if key == "any" {
		return nil
	}
	if key == "" {
		return p.fail(at, "expected a parameter, abi or any")
	}
	unequal := p.accept("!=")
	if !unequal && !p.accept("=") {
		return p.fail(p.at, `expected "=" or "!=" after %s`, key)
	}
	valueAt, value := p.word()
	if value == "" {
		return p.fail(valueAt, "expected a value for %s", key)
	}
	if key == "abi" {
		return p.setABI(at, unequal, valueAt, value)
	}
	o, err := p.operand(at, key)
	if err != nil {
		return err
	}
	return p.constrain(o, at, unequal, valueAt, value)
}

func (p *queryParser) setABI(at int, unequal bool, valueAt int, value string) error {
	switch {
	case unequal:
		return p.fail(at, "abi takes = only")
	case p.query.abi != "":
		return p.fail(at, "abi is given twice")
	case value == "any":
		return nil
	}
	var names []string
	for _, a := range afalg.ABIs() {
		names = append(names, a.Name)
	}
	if !slices.Contains(names, value) {
		return p.fail(valueAt, "no ABI %q: there are %s", value, strings.Join(names, ", "))
	}
	p.query.abi = value
	return nil
}

// operand is the meaning of a key: one register, or half of it.
type operand struct {
	arg       int
	low, high bool
}

func (p *queryParser) operand(at int, key string) (operand, error) {
	name, half, hasHalf := strings.Cut(key, ".")
	if hasHalf && half != "low" && half != "high" {
		return operand{}, p.fail(at+len(name)+1, "no half %q of a register: write low or high", half)
	}
	arg, whole := registerOf(name)
	if !whole {
		arg = p.parameter(name)
	}
	if arg < 0 {
		return operand{}, p.fail(at, "%s", p.noParameter(name))
	}
	isInt := !whole && isNarrow(p.query.name, arg)
	return operand{arg, half != "high", half == "high" || !hasHalf && !isInt}, nil
}

func registerOf(name string) (int, bool) {
	digit, ok := strings.CutPrefix(name, "arg")
	if !ok || len(digit) != 1 || digit[0] < '0' || digit[0] > '5' {
		return -1, false
	}
	return int(digit[0] - '0'), true
}

func (p *queryParser) parameter(name string) int {
	if name == "domain" {
		name = "family" // as the manual page calls it
	}
	return slices.IndexFunc(signatures[p.query.name], func(s param) bool { return s.name == name })
}

func (p *queryParser) noParameter(name string) string {
	known := signatures[p.query.name]
	if known == nil {
		return fmt.Sprintf("%q: the parameters of this call are not known by name; write arg0 to arg5", name)
	}
	var names []string
	for _, k := range known {
		names = append(names, k.name)
	}
	return fmt.Sprintf("no parameter %q: %s has %s; registers are arg0 to arg5", name, p.query.name, strings.Join(names, ", "))
}

func (p *queryParser) constrain(o operand, at int, unequal bool, valueAt int, text string) error {
	if text == "any" {
		if unequal {
			return p.fail(valueAt, "nothing is unequal to any")
		}
		return nil
	}
	value, err := p.value(o, valueAt, text)
	if err != nil {
		return err
	}
	if unequal && o.low && o.high {
		return p.fail(at, "!= takes 32 bits: write arg%d.low or arg%d.high", o.arg, o.arg)
	}
	if o.low {
		if err := p.set(cbpf.ArgLow(o.arg), at, unequal, uint32(value)); err != nil {
			return err
		}
		value >>= 32
	}
	if o.high {
		return p.set(cbpf.ArgHigh(o.arg), at, unequal, uint32(value))
	}
	return nil
}

// value reads a number of as many bits as the operand has. A negative one is
// sign-extended.
func (p *queryParser) value(o operand, at int, text string) (uint64, error) {
	if family, ok := afalg.FamilyByName(text); ok {
		return uint64(family), nil
	}
	bits := 32
	if o.low && o.high {
		bits = 64
	}
	if n, err := strconv.ParseInt(text, 0, bits); err == nil {
		if bits == 32 {
			return uint64(uint32(n)), nil
		}
		return uint64(n), nil
	}
	n, err := strconv.ParseUint(text, 0, bits)
	if err != nil {
		return 0, p.fail(at, "%q is neither a number of %d bits nor a socket family", text, bits)
	}
	return n, nil
}

func (p *queryParser) set(f cbpf.Field, at int, unequal bool, v uint32) error {
	if p.given[f] {
		return p.fail(at, "%v is given twice", f)
	}
	p.given[f] = true
	c := cbpf.Exactly(v)
	if unequal {
		c = cbpf.Not(v)
	}
	p.query.region[f] = c
	return nil
}

func (p *queryParser) space() {
	for p.at < len(p.text) && (p.text[p.at] == ' ' || p.text[p.at] == '\t') {
		p.at++
	}
}

func (p *queryParser) accept(token string) bool {
	p.space()
	if !strings.HasPrefix(p.text[p.at:], token) {
		return false
	}
	p.at += len(token)
	return true
}

// word takes letters, digits and the marks within names and numbers.
func (p *queryParser) word() (at int, word string) {
	p.space()
	at = p.at
	for p.at < len(p.text) && isWord(p.text[p.at]) {
		p.at++
	}
	return at, p.text[at:p.at]
}

func isWord(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("_.-", c) >= 0
}
