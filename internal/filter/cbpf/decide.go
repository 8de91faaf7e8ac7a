package cbpf

import (
	"cmp"
	"math/rand/v2"
	"slices"
)

// Answer is the answer to a question. The zero Answer is Unknown.
type Answer int

const (
	Unknown Answer = iota // the budget ran out, or no witness could be replayed
	Yes                   // with a witness
	No                    // proved for every input
)

func (a Answer) String() string { return [...]string{"unknown", "yes", "no"}[a] }

// DefaultBudget bounds the work of one question to about a second. It counts
// steps on decision diagrams; a question about one call of a compiled profile
// takes some thousands.
const DefaultBudget = 3 << 20

// Outcome says which actions a filter can take.
type Outcome struct {
	Possible [NumKinds]Answer
	// Found holds one witness for every action found, in order of precedence.
	// If there are very many, actions that differ only in data may be missing.
	Found []Finding
}

// Finding is an action and an input for which the interpreter returned it.
type Finding struct {
	Action  Action // effective
	Witness Data
}

// Of returns the finding of a kind, if there is one.
func (o Outcome) Of(k Kind) (Finding, bool) {
	for _, f := range o.Found {
		if f.Action.Kind() == k {
			return f, true
		}
	}
	return Finding{}, false
}

const (
	maxFindings = 16   // of one symbolic return value
	maxReplays  = 32   // of one finding
	maxSamples  = 2048 // where the exploration had to give up
)

// Actions decides which actions the filter takes for the inputs of a region.
// A budget of 0 stands for DefaultBudget. It fails if the kernel would reject
// the filter.
func (f Filter) Actions(r Region, e Endian, budget int) (Outcome, error) {
	if err := f.Check(); err != nil {
		return Outcome{}, err
	}
	var o Outcome
	for _, l := range []layout{fieldByField, bitByBit} {
		s := newSearch(l, e, r, budget)
		o.learn(s.actions(f))
		if o.decided() {
			break
		}
	}
	slices.SortFunc(o.Found, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Action.Kind(), b.Action.Kind()), cmp.Compare(a.Action, b.Action))
	})
	return o, nil
}

func (o *Outcome) decided() bool { return !slices.Contains(o.Possible[:], Unknown) }

// learn adds the findings of another exploration of the same question.
func (o *Outcome) learn(other Outcome) {
	for k, a := range other.Possible {
		if o.Possible[k] == Unknown {
			o.Possible[k] = a
		}
	}
	for _, f := range other.Found {
		o.add(f.Action, f.Witness)
	}
}

func (o *Outcome) add(a Action, witness Data) {
	a = a.Effective()
	o.Possible[a.Kind()] = Yes
	if !slices.ContainsFunc(o.Found, func(f Finding) bool { return f.Action == a }) {
		o.Found = append(o.Found, Finding{a, witness})
	}
}

// search looks for inputs with some effect in a region.
type search struct {
	*explorer
	region Region
	random *rand.Rand
}

func newSearch(l layout, e Endian, r Region, budget int) *search {
	if budget == 0 {
		budget = DefaultBudget
	}
	return &search{
		explorer: newExplorer(l, e, r, budget/2),
		region:   r,
		random:   rand.New(rand.NewPCG(1, 2)),
	}
}

func (s *search) actions(f Filter) (o Outcome) {
	pieces := s.split(s.stack(f))
	if s.domain == no && !s.spent() {
		return Outcome{} // an empty region proves nothing
	}
	if s.spent() {
		s.sample(f, func(d Data, a Action) bool { o.add(a, d); return false })
		return o
	}
	for _, p := range pieces {
		s.find(f, p, &o)
	}
	for k := range o.Possible {
		reachable := slices.ContainsFunc(pieces, func(p piece) bool { return p.kind == Kind(k) })
		if o.Possible[k] == Unknown && !reachable && !s.spent() {
			o.Possible[k] = No
		}
	}
	return o
}

// find replays inputs of p until each of its actions is found.
func (s *search) find(f Filter, p piece, o *Outcome) {
	rest := p.reach
	for range maxFindings {
		found := s.witness(rest, func(d Data) bool {
			a, _, err := f.Run(d, s.endian)
			if err != nil || a.Kind() != p.kind {
				return false
			}
			o.add(a, d)
			same := constant(uint32(a.Effective()))
			rest = s.andNot(rest, s.vequal(&s.vectors[p.value], &same))
			return true
		})
		if !found || rest == no || s.spent() {
			return
		}
	}
}

// witness offers inputs of a set until one is accepted. The first is the
// plainest.
func (s *search) witness(set node, accept func(Data) bool) bool {
	if set == no {
		return false
	}
	var base Data
	choose := func() bool { return false }
	for range maxReplays {
		if d := s.input(set, base, choose); accept(d) {
			return true
		}
		base = Everything.sample(s.random, nil)
		choose = func() bool { return s.random.IntN(2) == 0 }
	}
	return false
}

// input makes an element of a set; base has the values that the set leaves
// open.
func (s *search) input(set node, base Data, choose func() bool) Data {
	for f, c := range s.region {
		known, value := c.known()
		base.Set(Field(f), base.Get(Field(f))&^known|value)
	}
	s.pick(set, choose, func(variable int32, value bool) {
		if variable >= int32(inputVariables) {
			return
		}
		f, bit := s.layout.field(variable)
		v := base.Get(f) &^ (1 << bit)
		if value {
			v |= 1 << bit
		}
		base.Set(f, v)
	})
	return base
}

// sample tries inputs made from the constants of the filter until stop returns
// true. It can only find, never prove.
func (s *search) sample(f Filter, stop func(Data, Action) bool) {
	var interesting []uint32
	for _, p := range f {
		for _, in := range p {
			interesting = append(interesting, in.K)
		}
	}
	for range maxSamples {
		d := s.region.sample(s.random, interesting)
		if !s.region.Contains(d) {
			continue
		}
		if a, _, err := f.Run(d, s.endian); err == nil && stop(d, a) {
			return
		}
	}
}
