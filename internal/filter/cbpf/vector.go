package cbpf

import "golang.org/x/sys/unix"

// A vector is a 32-bit value as a function of the input, one set of inputs a
// bit: vector[i] holds the inputs for which bit i is set.
type vector [32]node

func constant(v uint32) (r vector) {
	for i := range r {
		r[i] = node(v >> i & 1)
	}
	return r
}

// constantValue returns the value if it is the same for every input.
func (v *vector) constantValue() (value uint32, ok bool) {
	for i, n := range v {
		if n > yes {
			return 0, false
		}
		value |= uint32(n) << i
	}
	return value, true
}

// vcompute computes a op b for an ALU operation other than a shift by X.
func (b *bdd) vcompute(code uint16, x, y *vector) vector {
	switch operation(code) {
	case unix.BPF_ADD:
		return b.vadd(x, y, no)
	case unix.BPF_SUB:
		return b.vsub(x, y)
	case unix.BPF_MUL:
		return b.vmul(x, y)
	case unix.BPF_DIV:
		return b.vdiv(x, y)
	case unix.BPF_LSH:
		return b.vshift(x, y, vshiftLeft)
	case unix.BPF_RSH:
		return b.vshift(x, y, vshiftRight)
	case unix.BPF_NEG:
		return b.vsub(&vector{}, x)
	}
	return b.vbitwise(code, x, y)
}

func (b *bdd) vbitwise(code uint16, x, y *vector) (r vector) {
	for i := range r {
		switch operation(code) {
		case unix.BPF_AND:
			r[i] = b.and(x[i], y[i])
		case unix.BPF_OR:
			r[i] = b.or(x[i], y[i])
		default:
			r[i] = b.xor(x[i], y[i])
		}
	}
	return r
}

// vadd adds with a carry in.
func (b *bdd) vadd(x, y *vector, carry node) (r vector) {
	for i := range r {
		half := b.xor(x[i], y[i])
		r[i] = b.xor(half, carry)
		carry = b.ite(half, carry, x[i])
	}
	return r
}

func (b *bdd) vsub(x, y *vector) vector {
	inverse := *y
	for i := range inverse {
		inverse[i] = b.not(y[i])
	}
	return b.vadd(x, &inverse, yes)
}

func (b *bdd) vmul(x, y *vector) (sum vector) {
	if _, ok := x.constantValue(); ok {
		x, y = y, x
	}
	for i := range y {
		part := vshiftLeft(x, i)
		for j := range part {
			part[j] = b.and(part[j], y[i])
		}
		sum = b.vadd(&sum, &part, no)
	}
	return sum
}

// vdiv is long division; where y is 0 the result is meaningless.
func (b *bdd) vdiv(x, y *vector) (quotient vector) {
	var rest vector
	for i := 31; i >= 0; i-- {
		carry := rest[31]
		rest = vshiftLeft(&rest, 1)
		rest[0] = x[i]
		quotient[i] = b.or(carry, b.not(b.vless(&rest, y)))
		less := b.vsub(&rest, y)
		rest = b.vchoose(quotient[i], &less, &rest)
	}
	return quotient
}

func vshiftLeft(x *vector, by int) (r vector) {
	copy(r[by:], x[:32-by])
	return r
}

func vshiftRight(x *vector, by int) (r vector) {
	copy(r[:32-by], x[by:])
	return r
}

// vshift shifts by the lower five bits of y.
func (b *bdd) vshift(x, y *vector, shift func(*vector, int) vector) vector {
	r := *x
	for i := range 5 {
		shifted := shift(&r, 1<<i)
		r = b.vchoose(y[i], &shifted, &r)
	}
	return r
}

// vchoose is "if f then x else y".
func (b *bdd) vchoose(f node, x, y *vector) (r vector) {
	for i := range r {
		r[i] = b.ite(f, x[i], y[i])
	}
	return r
}

// vtest returns the inputs for which the branch is taken.
func (b *bdd) vtest(code uint16, x, y *vector) node {
	switch operation(code) {
	case unix.BPF_JEQ:
		return b.vequal(x, y)
	case unix.BPF_JGT:
		return b.vless(y, x)
	case unix.BPF_JGE:
		return b.not(b.vless(x, y))
	}
	both := b.vbitwise(unix.BPF_AND, x, y)
	return b.vnonzero(&both)
}

func (b *bdd) vnonzero(x *vector) (r node) {
	for i := range x {
		r = b.or(r, x[i])
	}
	return r
}

func (b *bdd) vequal(x, y *vector) node {
	r := yes
	for i := range x {
		r = b.andNot(r, b.xor(x[i], y[i]))
	}
	return r
}

// vless compares without sign. From the lowest bit up, the highest one that
// differs decides.
func (b *bdd) vless(x, y *vector) (r node) {
	for i := range x {
		r = b.ite(b.xor(x[i], y[i]), y[i], r)
	}
	return r
}
