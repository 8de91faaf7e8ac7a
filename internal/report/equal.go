package report

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
	"github.com/afalg-policy/afalg-policy/internal/filter/seccomp"
	"github.com/afalg-policy/afalg-policy/internal/filter/verify"
	"github.com/afalg-policy/afalg-policy/internal/parallel"
	"github.com/afalg-policy/afalg-policy/internal/report/source"
	"github.com/afalg-policy/afalg-policy/internal/term"
)

// Comparison is the result of verify --equal.
type Comparison struct {
	Header
	Libseccomp string   `json:"libseccomp"`
	Except     []string `json:"except"`
	Pairs      []Pair   `json:"pairs"`
}

// Pair is two filters for the same machine.
type Pair struct {
	A       string   `json:"a"`
	B       string   `json:"b"`
	Machine string   `json:"machine"`
	Runtime string   `json:"runtime,omitempty"`
	Verdict string   `json:"verdict"` // equal, different or undecided
	Witness *Witness `json:"witness,omitempty"`
	ActionA string   `json:"actionA,omitempty"`
	ActionB string   `json:"actionB,omitempty"`
}

// Compare compares the filters of two inputs, machine by machine. An error is an
// *UnpairedError, or a *verify.QueryError for an exception.
func Compare(a, b []source.Source, except Exceptions) (*Comparison, error) {
	pairs, err := pairUp(a, b)
	if err != nil {
		return nil, err
	}
	report := &Comparison{Header: NewHeader("verify --equal", Equal), Libseccomp: seccomp.Version(), Except: append([]string{}, except.Texts...)}
	report.Pairs = make([]Pair, len(pairs))
	err = parallel.Each(len(pairs), func(i int) (err error) {
		report.Pairs[i], err = pairs[i].compare(except)
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, p := range report.Pairs {
		if p.Verdict != Equal {
			report.Verdict = Different
		}
	}
	if len(pairs) == 0 {
		report.Verdict = Undecided
	}
	return report, nil
}

// Exceptions are what the two filters may differ in.
type Exceptions struct {
	Texts    []string // as the report shows them
	Families []uint32 // the routes to sockets of these
	Queries  []*verify.Query
}

// regions are the inputs of the exceptions. A query that no ABI has a call for
// excepts nothing, and is a mistake.
func (x Exceptions) regions(abis []afalg.ABI) ([]cbpf.Region, error) {
	regions := verify.Exceptions(abis, x.Families...)
	for _, q := range x.Queries {
		questions, err := q.Questions(abis)
		if err != nil {
			return nil, err
		}
		for _, question := range questions {
			regions = append(regions, question.Region)
		}
	}
	return regions, nil
}

type sourcePair struct{ a, b source.Source }

// pairUp matches the filters of two inputs by machine and runtime. A program
// that was not compiled here is compared with that of every runtime.
func pairUp(as, bs []source.Source) ([]sourcePair, error) {
	var pairs []sourcePair
	for _, a := range as {
		for _, b := range bs {
			if a.Machine == b.Machine && (a.Runtime == b.Runtime || a.Runtime == "" || b.Runtime == "") {
				pairs = append(pairs, sourcePair{a, b})
			}
		}
	}
	for _, s := range slices.Concat(as, bs) {
		paired := func(p sourcePair) bool { return p.a.Machine == s.Machine }
		if !slices.ContainsFunc(pairs, paired) {
			return nil, &UnpairedError{s.Name, s.Machine}
		}
	}
	return pairs, nil
}

// UnpairedError is a machine that the filter of one input alone is for.
type UnpairedError struct{ Name, Machine string }

func (e *UnpairedError) Error() string { return fmt.Sprintf("only %s is for %s", e.Name, e.Machine) }

func (p sourcePair) compare(except Exceptions) (Pair, error) {
	r := Pair{A: p.a.Name, B: p.b.Name, Machine: p.a.Machine, Runtime: cmp.Or(p.a.Runtime, p.b.Runtime)}
	regions, err := except.regions(slices.Concat(p.a.ABIs, p.b.ABIs))
	if err != nil {
		return r, err
	}
	d, err := verify.Compare(p.a.Filter, p.b.Filter, p.a.Endian(), regions...)
	if err != nil {
		return r, fmt.Errorf("%s and %s: %w", p.a.Name, p.b.Name, err)
	}
	switch d.Equal {
	case cbpf.Yes:
		r.Verdict = Equal
	case cbpf.No:
		r.Verdict, r.Witness = Different, newWitness(&d.Witness)
		r.ActionA, r.ActionB = d.A.String(), d.B.String()
	default:
		r.Verdict = Undecided
	}
	return r, nil
}

// Text writes a table of the pairs.
func (r *Comparison) Text(t *term.Printer) {
	var rows [][]string
	for _, p := range r.Pairs {
		detail := ""
		if p.Witness != nil {
			detail = fmt.Sprintf("%s and %s for %s", p.ActionA, p.ActionB, p.Witness)
		}
		row := []string{p.A, p.B, p.Machine, term.Dash(p.Runtime), p.Verdict, detail}
		if t.Tables {
			row = row[2:]
		}
		rows = append(rows, row)
	}
	if t.Tables && len(r.Pairs) > 0 {
		t.Printf("%s and %s", r.Pairs[0].A, r.Pairs[0].B)
	}
	t.Table([]string{"machine", "runtime", "verdict", "actions, witness"}, rows)
	conclude(t, r.Verdict, "%s", term.Count(len(rows), "comparison"))
}
