package cbpf

// A bdd holds reduced ordered binary decision diagrams: sets of inputs, as
// functions of the inputs' bits. Equal sets are the same node, so a set is
// empty if and only if it is the node no. That makes the answers exact and the
// joining of many paths cheap.
//
// The work is bounded: once steps reaches limit every result is meaningless and
// spent reports so. The caller must check it before it uses a result.
type bdd struct {
	nodes  []decision
	unique []node // open addressing, 0 is free; a power of two in length
	cache  []cached
	steps  int
	limit  int
}

// node is an index into bdd.nodes.
type node int32

const (
	no  node = 0 // the empty set
	yes node = 1 // every input
)

// decision asks for one variable. Variables grow downwards in the diagram.
type decision struct {
	variable  int32
	low, high node
}

// cached is one remembered result of ite.
type cached struct{ f, g, h, result node }

const (
	terminal     = 1<<31 - 1 // variable of no and yes: below all others
	firstTable   = 1 << 10
	largestCache = 1 << 20
)

func newBDD() *bdd {
	return &bdd{
		nodes:  []decision{{terminal, no, no}, {terminal, yes, yes}},
		unique: make([]node, firstTable),
		cache:  make([]cached, firstTable),
	}
}

func (b *bdd) spent() bool { return b.steps > b.limit }

// variable returns the set of inputs in which the variable is set.
func (b *bdd) variable(v int32) node { return b.make(v, no, yes) }

func (b *bdd) and(f, g node) node    { return b.ite(f, g, no) }
func (b *bdd) or(f, g node) node     { return b.ite(f, yes, g) }
func (b *bdd) not(f node) node       { return b.ite(f, no, yes) }
func (b *bdd) andNot(f, g node) node { return b.ite(g, no, f) }
func (b *bdd) xor(f, g node) node    { return b.ite(f, b.not(g), g) }

// ite is "if f then g else h".
func (b *bdd) ite(f, g, h node) node {
	switch {
	case f == yes || g == h:
		return g
	case f == no:
		return h
	case g == yes && h == no:
		return f
	}
	if f == g {
		g = yes
	}
	if f == h {
		h = no
	}
	if b.steps++; b.spent() {
		return no
	}
	slot := hash3(uint32(f), uint32(g), uint32(h)) & uint32(len(b.cache)-1)
	if c := b.cache[slot]; c.f == f && c.g == g && c.h == h {
		return c.result
	}
	v := min(b.nodes[f].variable, b.nodes[g].variable, b.nodes[h].variable)
	low := b.ite(b.child(f, v, false), b.child(g, v, false), b.child(h, v, false))
	high := b.ite(b.child(f, v, true), b.child(g, v, true), b.child(h, v, true))
	r := b.make(v, low, high)
	if !b.spent() {
		slot = hash3(uint32(f), uint32(g), uint32(h)) & uint32(len(b.cache)-1)
		b.cache[slot] = cached{f, g, h, r}
	}
	return r
}

// child restricts f to one value of v, which is no deeper than f's variable.
func (b *bdd) child(f node, v int32, high bool) node {
	d := &b.nodes[f]
	switch {
	case d.variable != v:
		return f
	case high:
		return d.high
	}
	return d.low
}

// make returns the one node for a decision.
func (b *bdd) make(v int32, low, high node) node {
	if low == high {
		return low
	}
	mask := uint32(len(b.unique) - 1)
	slot := hash3(uint32(v), uint32(low), uint32(high)) & mask
	for b.unique[slot] != 0 {
		n := b.unique[slot]
		if b.nodes[n] == (decision{v, low, high}) {
			return n
		}
		slot = (slot + 1) & mask
	}
	n := node(len(b.nodes))
	b.nodes = append(b.nodes, decision{v, low, high})
	b.unique[slot] = n
	if 2*len(b.nodes) > len(b.unique) {
		b.grow()
	}
	return n
}

// grow doubles the tables, and forgets the content of the cache.
func (b *bdd) grow() {
	b.unique = make([]node, 2*len(b.unique))
	mask := uint32(len(b.unique) - 1)
	for n := 2; n < len(b.nodes); n++ {
		d := b.nodes[n]
		slot := hash3(uint32(d.variable), uint32(d.low), uint32(d.high)) & mask
		for b.unique[slot] != 0 {
			slot = (slot + 1) & mask
		}
		b.unique[slot] = node(n)
	}
	if len(b.cache) < largestCache {
		b.cache = make([]cached, 2*len(b.cache))
	}
}

// hash3 mixes three words; the constants are odd and otherwise arbitrary.
func hash3(a, b, c uint32) uint32 {
	h := a*0x9e3779b1 ^ b*0x85ebca77 ^ c*0xc2b2ae3d
	h ^= h >> 15
	h *= 0x2c1b3c6d
	return h ^ h>>13
}

// pick walks from f to yes and calls set for every variable on the way. choose
// decides the way where both lead to yes. f is not no.
func (b *bdd) pick(f node, choose func() bool, set func(variable int32, value bool)) {
	for f != yes {
		d := b.nodes[f]
		high := d.low == no || d.high != no && choose()
		set(d.variable, high)
		f = b.child(f, d.variable, high)
	}
}
