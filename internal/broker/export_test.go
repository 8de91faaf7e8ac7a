package broker

// MakeFor makes a socket, or a pair, for a thread that asked for it by
// socketcall: the tests of the maker need no 32-bit program.
func (m *Sockets) MakeFor(tid uint32, family, kind int32, pair bool) ([]int, error) {
	return m.makeFor(order{Family: family, Kind: kind, Pair: pair}, tid, func() bool { return true })
}

// ParsePlace exports parsePlace.
func ParsePlace(text string) (unified, classes string) {
	p := parsePlace(text)
	return p.Unified, p.Classes
}

// LabelAt exports labelAt: two of the three modules run on no machine of ours.
var LabelAt = labelAt

// StuckAfter exports stuckAfter.
const StuckAfter = stuckAfter
