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
//	term  = "any" | "abi" "=" ABI | key ( "=" | "!=" ) value | key "&" value [ "=" value ]
//	key   = parameter [ ".low" | ".high" ]
//	parameter = NAME | "arg0" … "arg5"
//	value = "any" | one [ ".." one ]
//	one   = NUMBER | CONSTANT
//
// A parameter by its name is what the kernel takes: of an int the lower half
// of the register, while the upper half may be anything. arg0 to arg5 are
// whole registers. A socket type by its name is that type with SOCK_CLOEXEC,
// SOCK_NONBLOCK, both or none; with any other bit the kernel answers EINVAL.
// "flags&X" holds the values with every bit of X, "flags&X=Y" those whose bits
// of X are Y. Anything that no term mentions is free.
type Query struct {
	Text   string
	name   string // of the call; empty if given by number
	number uint32
	terms  []term
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
		region := cbpf.Region{cbpf.Arch: cbpf.Exactly(abi.Audit), cbpf.Nr: cbpf.Exactly(nr)}
		for _, t := range q.terms {
			t.constrain(&region, abi)
		}
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
	text    string
	at      int
	query   Query
	written []written
	given   [cbpf.NumFields]bool
}

// written is a term as it stands there. Its names may need another term to be
// understood: that of a protocol the family.
type written struct {
	operand
	at        int
	key       string
	operator  string // "=", "!=" or "&"
	valueAt   int
	value     string
	equalsAt  int
	equals    string // after "&": what the bits are; empty for all of them
	parameter string // if the key is one by its name
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
	for _, w := range p.written {
		if err := p.understand(w); err != nil {
			return err
		}
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

func (p *queryParser) term() (err error) {
	w := written{}
	w.at, w.key = p.word()
	if w.key == "any" {
		return nil
	}
	if w.key == "" {
		return p.fail(w.at, "expected a parameter, abi or any")
	}
	for _, operator := range []string{"!=", "=", "&"} {
		if p.accept(operator) {
			w.operator = operator
			break
		}
	}
	if w.operator == "" {
		return p.fail(p.at, `expected "=", "!=" or "&" after %s`, w.key)
	}
	if w.valueAt, w.value = p.word(); w.value == "" {
		return p.fail(w.valueAt, "expected a value for %s", w.key)
	}
	if w.operator == "&" && p.accept("=") {
		if w.equalsAt, w.equals = p.word(); w.equals == "" {
			return p.fail(w.equalsAt, "expected what %s & %s is", w.key, w.value)
		}
	}
	if w.key == "abi" {
		return p.setABI(w)
	}
	if w.operand, w.parameter, err = p.operand(w.at, w.key); err != nil {
		return err
	}
	p.written = append(p.written, w)
	return nil
}

func (p *queryParser) setABI(w written) error {
	switch {
	case w.operator != "=":
		return p.fail(w.at, "abi takes = only")
	case p.query.abi != "":
		return p.fail(w.at, "abi is given twice")
	case w.value == "any":
		return nil
	}
	var names []string
	for _, a := range afalg.ABIs() {
		names = append(names, a.Name)
	}
	if !slices.Contains(names, w.value) {
		return p.fail(w.valueAt, "no ABI %q: there are %s", w.value, strings.Join(names, ", "))
	}
	p.query.abi = w.value
	return nil
}

func (p *queryParser) operand(at int, key string) (o operand, parameter string, err error) {
	name, half, hasHalf := strings.Cut(key, ".")
	if hasHalf && half != "low" && half != "high" {
		return o, "", p.fail(at+len(name)+1, "no half %q of a register: write low or high", half)
	}
	arg, whole := registerOf(name)
	if !whole {
		if arg = p.parameter(name); arg >= 0 {
			parameter = signatures[p.query.name][arg].name
		}
	}
	if arg < 0 {
		return o, "", p.fail(at, "%s", p.noParameter(name))
	}
	isInt := !whole && isNarrow(p.query.name, arg)
	isFlags := !whole && p.query.name == "clone" && arg == 0
	return operand{arg, half != "high", half == "high" || !hasHalf && !isInt, isFlags}, parameter, nil
}

func registerOf(name string) (int, bool) {
	digit, ok := strings.CutPrefix(name, "arg")
	if !ok || len(digit) != 1 || digit[0] < '0' || digit[0] > '5' {
		return -1, false
	}
	return int(digit[0] - '0'), true
}

func (p *queryParser) parameter(name string) int {
	switch {
	case name == "domain":
		name = "family" // as the manual page calls it
	case name == "option" && p.query.name == "setsockopt":
		name = "optname"
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

// word takes letters, digits and the marks within names, numbers and ranges.
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
