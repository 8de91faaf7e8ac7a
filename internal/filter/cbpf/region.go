package cbpf

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"golang.org/x/sys/unix"
)

// Region is a set of inputs: those in which every field meets its constraint.
// The zero Region holds every input.
type Region [NumFields]Constraint

// Everything is the region of all inputs.
var Everything Region

// With returns the region with another constraint on f.
func (r Region) With(f Field, c Constraint) Region {
	r[f] = c
	return r
}

// Constraint is a set of values of one field. The zero Constraint holds every
// value.
type Constraint struct {
	kind constraintKind
	a, b uint32
}

type constraintKind int

const (
	anyValue constraintKind = iota
	exactly                 // a
	except                  // a
	between                 // a to b
	masked                  // value & a == b
)

// Exactly holds v alone.
func Exactly(v uint32) Constraint { return Constraint{exactly, v, 0} }

// Not holds every value but v.
func Not(v uint32) Constraint { return Constraint{except, v, 0} }

// Between holds low, high and the values between.
func Between(low, high uint32) Constraint { return Constraint{between, low, high} }

// Masked holds the values v with v & mask == value.
func Masked(mask, value uint32) Constraint { return Constraint{masked, mask, value} }

// Contains reports whether v meets the constraint.
func (c Constraint) Contains(v uint32) bool {
	switch c.kind {
	case exactly:
		return v == c.a
	case except:
		return v != c.a
	case between:
		return c.a <= v && v <= c.b
	case masked:
		return v&c.a == c.b
	}
	return true
}

func (c Constraint) String() string {
	switch c.kind {
	case exactly:
		return fmt.Sprintf("= %#x", c.a)
	case except:
		return fmt.Sprintf("≠ %#x", c.a)
	case between:
		return fmt.Sprintf("in %#x–%#x", c.a, c.b)
	case masked:
		return fmt.Sprintf("& %#x = %#x", c.a, c.b)
	}
	return "any"
}

// set returns the inputs for which the value x meets the constraint.
func (c Constraint) set(b *bdd, x *vector) node {
	low, high := constant(c.a), constant(c.b)
	switch c.kind {
	case exactly:
		return b.vequal(x, &low)
	case except:
		return b.not(b.vequal(x, &low))
	case between:
		return b.andNot(b.not(b.vless(x, &low)), b.vless(&high, x))
	case masked:
		part := b.vbitwise(unix.BPF_AND, x, &low)
		return b.vequal(&part, &high)
	}
	return yes
}

// known returns the bits that have the same value wherever the constraint is
// met, and that value.
func (c Constraint) known() (mask, value uint32) {
	switch c.kind {
	case exactly:
		return ^uint32(0), c.a
	case masked:
		return c.a, c.a & c.b
	}
	return 0, 0
}

// sample bends v into the constraint where it can.
func (c Constraint) sample(v uint32) uint32 {
	switch {
	case c.Contains(v):
		return v
	case c.kind == except:
		return v + 1
	case c.kind == between && c.a <= c.b:
		return c.a + v%(c.b-c.a+1) // the span is below 2^32: v is outside it
	case c.kind == masked:
		return v&^c.a | c.b
	}
	return c.a
}

// Contains reports whether d lies in the region.
func (r Region) Contains(d Data) bool {
	for f, c := range r {
		if !c.Contains(d.Get(Field(f))) {
			return false
		}
	}
	return true
}

func (r Region) String() string {
	var parts []string
	for f, c := range r {
		if c.kind != anyValue {
			parts = append(parts, fmt.Sprintf("%v %v", Field(f), c))
		}
	}
	if parts == nil {
		return "every input"
	}
	return strings.Join(parts, ", ")
}

// sample makes an input that lies in the region unless the region is empty.
// Values are taken from interesting, or are small, or are anything.
func (r Region) sample(random *rand.Rand, interesting []uint32) (d Data) {
	for f, c := range r {
		d.Set(Field(f), c.sample(sampleWord(random, interesting)))
	}
	return d
}

func sampleWord(random *rand.Rand, interesting []uint32) uint32 {
	switch n := random.IntN(8); {
	case n < 4 && len(interesting) > 0:
		return interesting[random.IntN(len(interesting))] + uint32(random.IntN(3)) - 1
	case n < 6:
		return uint32(random.IntN(3))
	}
	return random.Uint32()
}
