package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/bpf"
	"github.com/afalg-policy/afalg-policy/internal/seccomp"
	"github.com/afalg-policy/afalg-policy/internal/verify"
)

// equality is the question of --equal.
type equality struct {
	wanted bool
	except []string
}

func equalFlags(cmd *cobra.Command) *equality {
	e := &equality{}
	cmd.Flags().BoolVar(&e.wanted, "equal", false, "ask whether two filters do the same, and nothing else")
	cmd.Flags().StringArrayVar(&e.except, "except", nil, "with --equal: leave out the routes to a socket `FAMILY`, or the calls of a query; may be repeated")
	cmd.MarkFlagsMutuallyExclusive("equal", "ask")
	cmd.MarkFlagsMutuallyExclusive("equal", "policy")
	cmd.MarkFlagsMutuallyExclusive("equal", "sarif")
	return e
}

// equalReport is the result of verify --equal; its JSON form is a contract.
type equalReport struct {
	Equal      bool         `json:"equal"`
	Libseccomp string       `json:"libseccomp"`
	Except     []string     `json:"except"`
	Pairs      []pairReport `json:"pairs"`
}

type pairReport struct {
	A       string   `json:"a"`
	B       string   `json:"b"`
	Machine string   `json:"machine"`
	Runtime string   `json:"runtime,omitempty"`
	Answer  string   `json:"answer"` // "equal", "different", "undecided"
	Witness *witness `json:"witness,omitempty"`
	ActionA string   `json:"actionA,omitempty"`
	ActionB string   `json:"actionB,omitempty"`
}

func (e *equality) show(t *tui, in input, format *reportFormat) error {
	except, err := e.exceptions()
	if err != nil {
		return err
	}
	if format.value() == "sarif" {
		return usagef("--equal has no SARIF form: use text or json")
	}
	pairs, err := pairUp(in)
	if err != nil {
		return err
	}
	report := equalReport{Equal: true, Libseccomp: seccomp.Version(), Except: append([]string{}, e.except...)}
	report.Pairs = make([]pairReport, len(pairs))
	err = parallel(len(pairs), func(i int) (err error) {
		report.Pairs[i], err = pairs[i].compare(except)
		return err
	})
	if err != nil {
		return &unusableError{err}
	}
	for _, p := range report.Pairs {
		report.Equal = report.Equal && p.Answer == "equal"
	}
	return report.show(t, format)
}

// exceptions is what the two filters may differ in.
type exceptions struct {
	families []uint32
	queries  []*verify.Query
}

func (e *equality) exceptions() (x exceptions, err error) {
	for _, text := range e.except {
		if n, ok := afalg.FamilyByName(text); ok {
			x.families = append(x.families, n)
			continue
		}
		if strings.HasPrefix(text, "AF_") {
			return x, usagef("--except %s: no such socket family", text)
		}
		q, err := verify.ParseQuery(text)
		if err != nil {
			return x, usagef("--except: %w", err)
		}
		x.queries = append(x.queries, q)
	}
	return x, nil
}

// regions are the inputs of the exceptions. A query that no ABI has a call for
// excepts nothing, and is a mistake.
func (x exceptions) regions(abis []afalg.ABI) ([]bpf.Region, error) {
	regions := verify.Exceptions(abis, x.families...)
	for _, q := range x.queries {
		questions, err := q.Questions(abis)
		if err != nil {
			return nil, usagef("--except: %w", err)
		}
		for _, question := range questions {
			regions = append(regions, question.Region)
		}
	}
	return regions, nil
}

type sourcePair struct{ a, b source }

// pairUp matches the filters of two inputs by machine and runtime. A program
// that was not compiled here is compared with that of every runtime.
func pairUp(in input) ([]sourcePair, error) {
	if len(in.names) != 2 {
		return nil, usagef("--equal compares two inputs, not %d", len(in.names))
	}
	as, bs := in.sources[:in.ends[0]], in.sources[in.ends[0]:]
	var pairs []sourcePair
	for _, a := range as {
		for _, b := range bs {
			if a.Machine == b.Machine && (a.Via == b.Via || a.Via == "" || b.Via == "") {
				pairs = append(pairs, sourcePair{a, b})
			}
		}
	}
	for _, s := range in.sources {
		paired := func(p sourcePair) bool { return p.a.Machine == s.Machine }
		if !slices.ContainsFunc(pairs, paired) {
			return nil, usagef("only %s is for %s: name the machine to compare for with --arch", s.Name, s.Machine)
		}
	}
	return pairs, nil
}

func (p sourcePair) compare(except exceptions) (pairReport, error) {
	r := pairReport{A: p.a.Name, B: p.b.Name, Machine: p.a.Machine, Runtime: p.a.Via}
	if r.Runtime == "" {
		r.Runtime = p.b.Via
	}
	regions, err := except.regions(slices.Concat(p.a.ABIs, p.b.ABIs))
	if err != nil {
		return r, err
	}
	d, err := verify.Compare(p.a.Filter, p.b.Filter, p.a.endian(), regions...)
	if err != nil {
		return r, fmt.Errorf("%s and %s: %w", p.a.Name, p.b.Name, err)
	}
	switch d.Equal {
	case bpf.Yes:
		r.Answer = "equal"
	case bpf.No:
		r.Answer, r.Witness = "different", newWitness(&d.Witness)
		r.ActionA, r.ActionB = d.A.String(), d.B.String()
	default:
		r.Answer = "undecided"
	}
	return r, nil
}

func (r equalReport) show(t *tui, format *reportFormat) error {
	if format.value() == "json" {
		if err := t.json(r); err != nil {
			return err
		}
	} else {
		r.text(t)
	}
	if !r.Equal {
		return errNo
	}
	return nil
}

func (r equalReport) text(t *tui) {
	var rows [][]string
	for _, p := range r.Pairs {
		detail := ""
		if p.Witness != nil {
			detail = fmt.Sprintf("%s and %s for %s", p.ActionA, p.ActionB, p.Witness.text)
		}
		rows = append(rows, []string{p.A, p.B, p.Machine, dash(p.Runtime), t.verdict(p.Answer == "equal", p.Answer), detail})
	}
	t.table([]string{"A", "B", "machine", "runtime", "verdict", "actions, witness"}, rows)
}
