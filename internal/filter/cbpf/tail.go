package cbpf

// A tail is the behaviour of a program from an instruction on, wherever its
// parts lie. Where tails, registers and memory are equal, so are the results. 0
// is no program's tail.
type tail int32

// tails numbers the tails of several programs alike.
type tails map[tailOf]tail

type tailOf struct {
	code   uint16
	k      uint32
	jt, jf tail
}

// No instruction has these codes.
const (
	joined    = 0xffff
	withField = 0xfffe
)

func (s tails) number(one tailOf) tail {
	n, ok := s[one]
	if !ok {
		n = tail(len(s) + 1)
		s[one] = n
	}
	return n
}

// of lists the tail of each instruction. Jumps go forward, and the last
// instruction returns.
func (s tails) of(p Program) []tail {
	all := make([]tail, len(p))
	for pc := len(p) - 1; pc >= 0; pc-- {
		switch in := p[pc]; {
		case in.Code == opRet || in.Code == opRetA:
			all[pc] = s.number(tailOf{code: in.Code, k: in.K})
		case in.Code == opJump:
			all[pc] = all[pc+1+int(in.K)]
		case isBranch(in.Code):
			all[pc] = s.number(tailOf{in.Code, in.K, all[pc+1+int(in.Jt)], all[pc+1+int(in.Jf)]})
		default:
			all[pc] = s.number(tailOf{code: in.Code, k: in.K, jt: all[pc+1]})
		}
	}
	return all
}

// after is a tail where the accumulator holds a field.
func (s tails) after(rest tail, acc Field) tail {
	if acc == noField {
		return rest
	}
	return s.number(tailOf{code: withField, k: uint32(acc), jt: rest})
}

// join adds another program of a filter. One that allows changes nothing, nor
// does the same one again.
func (s tails) join(filter, rest tail) tail {
	allows := s.number(tailOf{code: opRet, k: uint32(Allow.value())})
	alone := s.number(tailOf{code: joined, jf: rest})
	switch {
	case rest == allows || filter == alone:
		return filter
	case filter == 0:
		return alone
	}
	return s.number(tailOf{code: joined, jt: filter, jf: rest})
}
