package cbpf

import (
	"math/rand/v2"
	"testing"
)

// wideShape draws loads from every field and constants from the whole range.
func wideShape(r *rand.Rand, length int) shape {
	s := shape{actions: allActions, length: length}
	for word := range uint32(16) {
		s.offsets = append(s.offsets, 4*word)
	}
	s.constants = []uint32{0, 1, 31, 32, 38, 0x7fffffff, 0x80000000, 0xffffffff}
	for range 8 {
		s.constants = append(s.constants, r.Uint32(), r.Uint32()>>r.IntN(32))
	}
	return s
}

func randomRegion(r *rand.Rand, constants []uint32) (region Region) {
	for f := range region {
		v := pickFrom(r, constants)
		switch r.IntN(8) {
		case 0, 1:
			region[f] = Exactly(v)
		case 2:
			region[f] = Not(v)
		case 3:
			region[f] = Between(min(v, v+1000), max(v, v+1000))
		case 4:
			mask := pickFrom(r, constants)
			region[f] = Masked(mask, v&mask)
		}
	}
	return region
}

// FuzzDecide checks the decision procedure on random stacks of filters against
// the interpreter: an excluded action is never returned, a found one is
// returned, and filters found equal are equal.
func FuzzDecide(f *testing.F) {
	for seed := range uint64(200) {
		f.Add(seed, uint16(20+seed%60))
	}
	f.Fuzz(decideAgainstSamples)
}

func decideAgainstSamples(t *testing.T, seed uint64, length uint16) {
	random := rand.New(rand.NewPCG(seed, 0))
	s := wideShape(random, int(length%200)+10)
	filter := Filter{randomProgram(random, s)}
	for random.IntN(3) == 0 {
		filter = append(filter, randomProgram(random, s))
	}
	e := Endian(random.IntN(2))
	region := randomRegion(random, s.constants)
	o, err := filter.Actions(region, e, 1<<15)
	if err != nil {
		t.Fatal(err)
	}
	replayAll(t, filter, region, e, o)
	checkAgainstSamples(t, random, s, filter, region, e, o)

	changed := append(Filter{damage(random, filter[0])}, filter[1:]...)
	if changed.Check() == nil {
		checkComparison(t, random, s, filter, changed, e)
	}
}

func checkAgainstSamples(t *testing.T, random *rand.Rand, s shape, f Filter, r Region, e Endian, o Outcome) {
	t.Helper()
	for range 2000 {
		d := r.sample(random, s.constants)
		if !r.Contains(d) {
			t.Fatalf("%v is no sample of %v", d, r)
		}
		a, _, err := f.Run(d, e)
		if err != nil {
			t.Fatal(err)
		}
		if o.Possible[a.Kind()] == No {
			t.Fatalf("%v was excluded in %v, but %v gives %v\n%s", a.Kind(), r, d, a, f[0].Listing(e))
		}
	}
}

func checkComparison(t *testing.T, random *rand.Rand, s shape, a, b Filter, e Endian) {
	t.Helper()
	c := Comparison{Endian: e, Within: randomRegion(random, s.constants), Except: []Region{randomRegion(random, s.constants)}, Budget: 1 << 15}
	answer, err := c.Compare(a, b)
	if err != nil {
		t.Fatal(err)
	}
	differ := func(d Data) bool {
		actionA, _, _ := a.Run(d, e)
		actionB, _, _ := b.Run(d, e)
		return c.inQuestion(d) && actionA.Effective() != actionB.Effective()
	}
	switch answer.Equal {
	case No:
		if !differ(answer.Witness) {
			t.Fatalf("%v is no witness", answer.Witness)
		}
	case Yes:
		for range 1000 {
			if d := c.Within.sample(random, s.constants); differ(d) {
				t.Fatalf("said to be equal, but not for %v\n%s\n%s", d, a[0].Listing(e), b[0].Listing(e))
			}
		}
	case Unknown:
	}
}

// FuzzParse shows that each accepted program can be run, listed and written
// again.
func FuzzParse(f *testing.F) {
	p := Program{load(offNr), ret(allow)}
	f.Add(p.Bytes(Little), false)
	f.Add(p.Bytes(Big), true)
	f.Add([]byte("x"), false)
	f.Fuzz(func(t *testing.T, raw []byte, big bool) {
		e := EndianOf(big)
		p, err := Parse(raw, e)
		if err != nil {
			return
		}
		if got := p.Bytes(e); string(got) != string(raw) {
			t.Errorf("got %x, want %x", got, raw)
		}
		if _, _, err := p.Run(Data{Nr: 41}, e); err != nil {
			t.Errorf("a checked program does not run: %v\n%s", err, p.Listing(e))
		}
		if _, err := (Filter{p}).Actions(Everything, e, 1<<12); err != nil {
			t.Error(err)
		}
	})
}
