package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/bpf"
	"github.com/afalg-policy/afalg-policy/internal/seccomp"
	"github.com/afalg-policy/afalg-policy/internal/verify"
)

// verifyReport is the result of verify; its JSON form is a contract.
type verifyReport struct {
	Closed     bool           `json:"closed"`
	Libseccomp string         `json:"libseccomp"` // the version that compiled
	Filters    []filterReport `json:"filters"`
	Findings   []located      `json:"findings"`
}

type filterReport struct {
	Name         string         `json:"name"`
	Kind         string         `json:"kind"`
	Machine      string         `json:"machine"`
	Runtime      string         `json:"runtime,omitempty"`
	Level        int            `json:"level,omitempty"`
	Programs     int            `json:"programs"`
	Instructions int            `json:"instructions"`
	Closed       bool           `json:"closed"`
	Answers      []answerReport `json:"answers"`
}

type answerReport struct {
	About   string   `json:"about"` // a socket family, or the text of a query
	ABI     string   `json:"abi"`
	Route   string   `json:"route,omitempty"`
	Call    string   `json:"call"`
	Nr      uint32   `json:"nr"`
	State   string   `json:"state"`
	Actions []string `json:"actions"`
	Witness *witness `json:"witness,omitempty"`
	Reason  string   `json:"reason,omitempty"`
}

// witness holds the registers of a call as a filter sees them, in hexadecimal:
// JSON numbers lose the lower bits of large ones.
type witness struct {
	Arch string    `json:"arch"`
	Nr   uint32    `json:"nr"`
	IP   string    `json:"ip"`
	Args [6]string `json:"args"`
	text string
}

func newWitness(d *bpf.Data) *witness {
	if d == nil {
		return nil
	}
	w := &witness{Arch: fmt.Sprintf("%#x", d.Arch), Nr: d.Nr, IP: fmt.Sprintf("%#x", d.IP), text: d.String()}
	for i, a := range d.Args {
		w.Args[i] = fmt.Sprintf("%#x", a)
	}
	return w
}

// stateWords are the states in the JSON form.
var stateWords = map[verify.State]string{
	verify.Undecided: "undecided",
	verify.Open:      "open",
	verify.Listener:  "listener",
	verify.Closed:    "closed",
}

// about is one thing to ask of one source.
type about struct {
	what     string
	question verify.Question
}

// list returns everything to ask of a source, families first.
func (q questions) list(s source) ([]about, error) {
	var all []about
	for _, family := range q.families {
		name := afalg.FamilyName(family)
		for _, question := range verify.RouteQuestions(s.ABIs, family) {
			// io_uring reaches every family: one answer is enough.
			if question.Call.Route != afalg.RouteIOUring || family == afalg.Family {
				all = append(all, about{name, question})
			}
		}
	}
	for _, query := range q.queries {
		questions, err := query.Questions(s.ABIs)
		if err != nil {
			return nil, usagef("--ask: %w", err)
		}
		for _, question := range questions {
			all = append(all, about{query.Text, question})
		}
	}
	return all, nil
}

// put asks every source, the same filter once.
func (q questions) put(in input, memo *verify.Memo) (*verifyReport, error) {
	r := &verifyReport{Closed: true, Libseccomp: seccomp.Version(), Filters: make([]filterReport, len(in.sources)), Findings: in.findings}
	err := parallel(len(in.sources), func(i int) (err error) {
		r.Filters[i], err = q.ask(memo, in.sources[i])
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, f := range r.Filters {
		r.Closed = r.Closed && f.Closed
	}
	if r.Findings == nil {
		r.Findings = []located{}
	}
	return r, q.allAsked(r)
}

func (q questions) ask(memo *verify.Memo, s source) (filterReport, error) {
	f := filterReport{Name: s.Name, Kind: s.Kind, Machine: s.Machine, Runtime: s.Via, Level: s.Level,
		Programs: len(s.Filter), Instructions: s.instructions(), Closed: true}
	all, err := q.list(s)
	if err != nil {
		return filterReport{}, err
	}
	f.Answers = make([]answerReport, len(all))
	err = parallel(len(all), func(i int) error {
		v, err := all[i].ask(memo, s)
		f.Answers[i] = answerReport{
			About: all[i].what, ABI: v.Call.ABI.Name, Route: string(v.Call.Route), Call: v.Call.Name, Nr: v.Call.Nr,
			State: stateWords[v.State], Actions: append([]string{}, v.Actions...), Witness: newWitness(v.Witness), Reason: v.Reason,
		}
		return err
	})
	if err != nil {
		return filterReport{}, err
	}
	for _, a := range f.Answers {
		f.Closed = f.Closed && a.State == stateWords[verify.Closed]
	}
	return f, nil
}

func (a about) ask(memo *verify.Memo, s source) (verify.Verdict, error) {
	v, err := memo.Ask(s.Filter, a.question, verify.Options{})
	if err != nil {
		return verify.Verdict{}, &unusableError{&inputError{s.Name, err}}
	}
	return v, nil
}

// verdicts answers without a report.
func (q questions) verdicts(memo *verify.Memo) asker {
	return func(s source) (verdicts []verify.Verdict, err error) {
		all, err := q.list(s)
		if err != nil {
			return nil, err
		}
		for _, a := range all {
			v, err := a.ask(memo, s)
			if err != nil {
				return nil, err
			}
			verdicts = append(verdicts, v)
		}
		return verdicts, nil
	}
}

// allAsked fails if a query concerns none of the filters: no answer is no yes.
func (q questions) allAsked(r *verifyReport) error {
	for _, query := range q.queries {
		asked := func(a answerReport) bool { return a.About == query.Text }
		if !slices.ContainsFunc(r.Filters, func(f filterReport) bool { return slices.ContainsFunc(f.Answers, asked) }) {
			return usagef("--ask %q: none of the filters is for that ABI", query.Text)
		}
	}
	return nil
}

func (r *verifyReport) show(t *tui, f *reportFormat) error {
	if err := r.write(t, f); err != nil {
		return err
	}
	if !r.Closed {
		return errNo
	}
	return nil
}

func (r *verifyReport) write(t *tui, f *reportFormat) error {
	if f.sarif != "" {
		text, err := encodeSARIF(r)
		if err != nil {
			return err
		}
		if err := writeFile(f.sarif, text); err != nil {
			return err
		}
	}
	switch f.value() {
	case "json":
		return t.json(r)
	case "sarif":
		text, err := encodeSARIF(r)
		if err != nil {
			return err
		}
		_, err = t.out.Write(text)
		return err
	}
	r.text(t)
	return nil
}

// text writes a table of the answers, then the findings.
func (r *verifyReport) text(t *tui) {
	for _, f := range r.Filters {
		if f.Runtime != "" {
			t.notef("%s: %s (%s format), as %s compiles it with libseccomp %s at level %d: %s",
				f.Name, f.Machine, f.Kind, f.Runtime, r.Libseccomp, f.Level, count(f.Instructions, "instruction"))
		}
	}
	var rows [][]string
	for _, row := range r.rows() {
		rows = append(rows, []string{row.name, row.machine, row.runtime, row.about, row.abi, row.call, t.verdict(row.state == "closed", row.state), row.detail})
	}
	t.table([]string{"filter", "machine", "runtime", "about", "ABI", "calls", "verdict", "actions, witness"}, rows)
	for _, f := range r.Findings {
		t.printf("%s: %s: %s; %s [%s]", f.position(), f.Level, f.Message, f.Fix, f.Rule)
	}
}

func (f located) position() string {
	if f.Line == 0 {
		return f.File
	}
	return fmt.Sprintf("%s:%d:%d", f.File, f.Line, f.Column)
}

// row is one line of the table.
type row struct{ name, kind, machine, runtime, about, abi, call, state, detail string }

// rows joins what is closed alike, and runtimes that agree. The lines of one
// ABI stand together.
func (r *verifyReport) rows() []row {
	var rows []row
	for _, f := range r.Filters {
		for _, line := range f.rows() {
			if i := slices.IndexFunc(rows, line.sameBut); i < 0 {
				rows = append(rows, line)
			} else if !slices.Contains(strings.Split(rows[i].runtime, ", "), line.runtime) {
				rows[i].runtime += ", " + line.runtime
			}
		}
	}
	first := func(l row) int { return slices.IndexFunc(rows, l.sameABI) }
	return slices.SortedStableFunc(slices.Values(rows), func(a, b row) int { return cmp.Compare(first(a), first(b)) })
}

// sameBut compares lines of the same input but for the runtime, and for what
// the filter does where that is no matter.
func (l row) sameBut(other row) bool {
	other.runtime, other.detail = l.runtime, l.detail
	return l == other
}

func (l row) sameABI(other row) bool {
	return l.name == other.name && l.machine == other.machine && l.about == other.about && l.abi == other.abi
}

func (f filterReport) rows() []row {
	var rows []row
	for _, a := range f.Answers {
		line := row{f.Name, f.Kind, f.Machine, dash(f.Runtime), a.About, a.ABI, a.title(), a.State, a.detail()}
		closed := func(other row) bool { return line.state == "closed" && other.state == "closed" && line.sameABI(other) }
		if i := slices.IndexFunc(rows, closed); i >= 0 {
			rows[i].call += ", " + line.call
			rows[i].detail = join(rows[i].detail, line.detail)
			continue
		}
		rows = append(rows, line)
	}
	return rows
}

// join adds the actions that are not there yet.
func join(actions, more string) string {
	all := strings.Split(actions, ", ")
	for _, a := range strings.Split(more, ", ") {
		if !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	return strings.Join(all, ", ")
}

// title names the call, and the route where it is not plain.
func (a answerReport) title() string {
	if a.Route == string(afalg.RouteSocketHighbits) {
		return "socket (upper bits)"
	}
	if a.Call == "" {
		return fmt.Sprint(a.Nr)
	}
	if a.Route == string(afalg.RouteSocketpair) && a.Call == "socketcall" {
		return "socketcall (socketpair)"
	}
	return a.Call
}

func (a answerReport) detail() string {
	text := strings.Join(a.Actions, ", ")
	if a.Reason != "" {
		text += ": " + a.Reason
	}
	if a.Witness != nil {
		text += ": " + a.Witness.text
	}
	return text
}
