package cbpf

import (
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"
)

// smallDomain is a region that can be enumerated: three fields of three bits.
var smallDomain = func() (r Region) {
	for f := range r {
		r[f] = Exactly(0)
	}
	for _, f := range smallFields {
		r[f] = Masked(^uint32(7), 0)
	}
	return r
}()

var smallFields = []Field{Nr, ArgLow(0), ArgHigh(0)}

func eachSmall(do func(Data)) {
	for i := range uint32(512) {
		var d Data
		for j, f := range smallFields {
			d.Set(f, i>>(3*j)&7)
		}
		do(d)
	}
}

var smallShape = shape{
	offsets:   []uint32{offNr, offArgs, offArgs + 4},
	constants: []uint32{0, 1, 2, 3, 4, 5, 6, 7, 8, 0x80000000, 0xffffffff},
	actions:   allActions,
	length:    24,
}

// TestActionsAgainstBruteForce enumerates a small domain and compares every
// answer. It tolerates Unknown for a few programs only: those that shift by
// more than 31.
func TestActionsAgainstBruteForce(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	unknown := 0
	const programs = 3000
	for i := range programs {
		f := Filter{randomProgram(random, smallShape)}
		if i%4 == 0 {
			f = append(f, randomProgram(random, smallShape))
		}
		e := Endian(i % 2)
		o, err := f.Actions(smallDomain, e, 0)
		if err != nil {
			t.Fatalf("program %d: %v\n%s", i, err, f[0].Listing(e))
		}
		var seen [NumKinds]bool
		eachSmall(func(d Data) {
			a, _, err := f.Run(d, e)
			if err != nil {
				t.Fatalf("program %d: run: %v", i, err)
			}
			seen[a.Kind()] = true
		})
		for k, answer := range o.Possible {
			switch {
			case answer == Unknown:
				unknown++
			case (answer == Yes) != seen[k]:
				t.Fatalf("program %d: %v is %v, but brute force says %v\n%s", i, Kind(k), answer, seen[k], f[0].Listing(e))
			}
		}
		replayAll(t, f, smallDomain, e, o)
	}
	if unknown > programs/20 {
		t.Errorf("%d answers of %d programs are unknown", unknown, programs)
	}
	t.Logf("%d programs, %d unknown answers", programs, unknown)
}

func replayAll(t *testing.T, f Filter, r Region, e Endian, o Outcome) {
	t.Helper()
	for _, found := range o.Found {
		a, _, err := f.Run(found.Witness, e)
		if err != nil || a.Effective() != found.Action || !r.Contains(found.Witness) {
			t.Fatalf("witness %v of %v gives %v, %v", found.Witness, found.Action, a, err)
		}
	}
}

// TestCompareAgainstBruteForce compares programs with damaged copies.
func TestCompareAgainstBruteForce(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	count := map[Answer]int{}
	except := smallDomain
	except[Nr] = Exactly(3)
	except[ArgLow(0)] = Between(2, 5)
	for i := range 3000 {
		a := Filter{randomProgram(random, smallShape)}
		b := Filter{damage(random, a[0])}
		if b.Check() != nil {
			continue
		}
		c := Comparison{Within: smallDomain, Except: []Region{except}}
		d, err := c.Compare(a, b)
		if err != nil {
			t.Fatal(err)
		}
		count[d.Equal]++
		equal := Yes
		eachSmall(func(d Data) {
			actionA, _, _ := a.Run(d, Little)
			actionB, _, _ := b.Run(d, Little)
			if actionA.Effective() != actionB.Effective() && !except.Contains(d) {
				equal = No
			}
		})
		if d.Equal != Unknown && d.Equal != equal {
			t.Fatalf("program %d: equal is %v, brute force says %v\n%s\n%s", i, d.Equal, equal, a[0].Listing(Little), b[0].Listing(Little))
		}
	}
	if count[Yes] < 200 || count[No] < 200 || count[Unknown] > 50 {
		t.Errorf("the damage is no test: %v", count)
	}
	t.Log(count)
}

// damage changes a few instructions.
func damage(r *rand.Rand, p Program) Program {
	p = append(Program(nil), p...)
	for range 4 {
		damageOne(r, &p[r.IntN(len(p))])
	}
	return p
}

func damageOne(r *rand.Rand, in *unix.SockFilter) {
	switch r.IntN(4) {
	case 0:
		in.K ^= 1 << r.IntN(4)
	case 1:
		in.Jt, in.Jf = in.Jf, in.Jt
	case 2:
		in.Jt++
	case 3:
		in.K = pickFrom(r, allActions)
	}
}
