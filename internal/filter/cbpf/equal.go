package cbpf

import "cmp"

// Comparison asks whether two filters do the same.
type Comparison struct {
	Endian Endian
	Within Region   // only these inputs count
	Except []Region // and of them, those outside all of these
	Budget int      // 0 stands for compareBudget
}

// compareBudget is for two whole programs: compiled profiles of 1,300
// instructions take half a million steps.
const compareBudget = 4 * DefaultBudget

// Difference answers a Comparison. Equal is Yes if the effective actions
// agree for every input in question, No if the witness shows that they do
// not. The zero Difference claims nothing.
type Difference struct {
	Equal   Answer
	Witness Data   // if Equal is No
	A, B    Action // returned by the interpreter for it
}

// Compare decides whether a and b agree. It fails if the kernel would reject
// one of them.
func (c Comparison) Compare(a, b Filter) (Difference, error) {
	for _, f := range []Filter{a, b} {
		if err := f.Check(); err != nil {
			return Difference{}, err
		}
	}
	if d, ok := c.byCells(a, b); ok {
		return d, nil
	}
	return c.explore(a, b).Difference, nil
}

// explored is the finding of an exploration, with the steps that it took. empty
// means that no input is in question.
type explored struct {
	Difference
	steps int
	empty bool
}

// explore compares by exploration.
func (c Comparison) explore(a, b Filter) (found explored) {
	for _, l := range []layout{fieldByField, bitByBit} {
		s := newSearch(l, c.Endian, c.Within, cmp.Or(c.Budget, compareBudget))
		for _, r := range c.Except {
			s.domain = s.andNot(s.domain, s.set(r))
		}
		found.Difference = s.compare(a, b, c.inQuestion)
		found.steps += s.steps
		found.empty = s.domain == no && !s.spent()
		if found.Equal != Unknown || found.empty {
			break
		}
	}
	return found
}

func (c Comparison) inQuestion(d Data) bool {
	for _, r := range c.Except {
		if r.Contains(d) {
			return false
		}
	}
	return c.Within.Contains(d)
}

func (s *search) compare(a, b Filter, inQuestion func(Data) bool) (found Difference) {
	replay := func(d Data) bool {
		actionA, _, errA := a.Run(d, s.endian)
		actionB, _, errB := b.Run(d, s.endian)
		if errA != nil || errB != nil || !inQuestion(d) || actionA.Effective() == actionB.Effective() {
			return false
		}
		found = Difference{No, d, actionA.Effective(), actionB.Effective()}
		return true
	}
	differ := s.differ(s.split(s.stack(a)), s.split(s.stack(b)))
	switch {
	case s.spent():
		s.sample(append(a[:len(a):len(a)], b...), func(d Data, _ Action) bool { return replay(d) })
	case differ == no && s.domain != no:
		return Difference{Equal: Yes}
	default:
		s.witness(differ, replay)
	}
	return found
}

// differ returns the inputs for which the two return different values.
func (s *search) differ(as, bs []piece) (differ node) {
	for _, a := range as {
		for _, b := range bs {
			s.steps++
			if a.kind == b.kind && a.value == b.value {
				continue
			}
			unequal := s.not(s.vequal(&s.vectors[a.value], &s.vectors[b.value]))
			both := s.and(a.reach, b.reach)
			differ = s.or(differ, s.and(both, unequal))
		}
	}
	return differ
}
