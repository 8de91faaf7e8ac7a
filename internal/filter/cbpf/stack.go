package cbpf

import "golang.org/x/sys/unix"

// stack explores every program of a filter and joins their results as
// seccomp_run_filters does.
func (x *explorer) stack(f Filter) []outcome {
	all := outcomes{{x.domain, x.internConstant(uint32(Allow.value()))}}
	for i := len(f) - 1; i >= 0; i-- {
		all = x.combine(all, x.explore(f[i]))
	}
	return all
}

func (x *explorer) combine(newer, older []outcome) (both outcomes) {
	for _, n := range newer {
		for _, o := range older {
			x.steps++
			reach := x.and(n.reach, o.reach)
			if reach == no {
				continue
			}
			beats := x.beats(o.value, n.value)
			both.add(x, x.and(reach, beats), o.value)
			both.add(x, x.andNot(reach, beats), n.value)
		}
	}
	return both
}

// beats is Action.beats for vectors.
func (x *explorer) beats(a, b vecID) node {
	va, vb := x.signed(a), x.signed(b)
	return x.vless(&va, &vb)
}

// signed keeps the action, drops the data, and flips the sign bit so that an
// unsigned comparison orders as a signed one.
func (x *explorer) signed(id vecID) vector {
	v := x.vectors[id]
	clear(v[:16])
	v[31] = x.not(v[31])
	return v
}

// piece is an outcome of one kind, its value in the effective form.
type piece struct {
	outcome
	kind Kind
}

// split sorts outcomes by kind.
func (x *explorer) split(all []outcome) (pieces []piece) {
	add := func(k Kind, reach node, value vecID) {
		if reach != no {
			pieces = append(pieces, piece{outcome{reach, value}, k})
		}
	}
	for _, o := range all {
		if fixed := x.fixed[o.value]; fixed.ok {
			a := Action(fixed.value).Effective()
			add(a.Kind(), o.reach, x.internConstant(uint32(a)))
			continue
		}
		rest := o.reach
		full := x.vectors[o.value]
		clear(full[:16])
		for k := range Kind(NumKinds) {
			value := constant(uint32(k.value()))
			is := x.vequal(&full, &value)
			add(k, x.and(o.reach, is), x.effective(k, o.value))
			rest = x.andNot(rest, is)
		}
		add(KillProcess, rest, x.internConstant(uint32(KillProcess.value())))
	}
	return pieces
}

// effective is Action.Effective for a value that is of kind k.
func (x *explorer) effective(k Kind, id vecID) vecID {
	value, most := constant(uint32(k.value())), constant(kinds[k].maxData)
	data := x.vectors[id]
	clear(data[16:])
	data = x.vchoose(x.vless(&most, &data), &most, &data)
	return x.intern(x.vbitwise(unix.BPF_OR, &value, &data))
}
