package plan

import (
	"slices"

	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// Seen is a running process as verify --all sees it.
type Seen struct {
	Contained bool   // it is in a container, or may be
	Unit      string // "" if unknown
	Binary    string // of the host; "" if unknown, or if the path is another file there
}

// Expects returns the entry by which AF_ALG is expected to be open to a
// process; nil if there is none. A container's own word excuses nothing: its
// paths are its own, and no entry covers a process in one.
func (p *Plan) Expects(s Seen) *policy.Expected {
	if p == nil || s.Contained {
		return nil
	}
	for i := range p.ExpectOpen {
		if e := &p.ExpectOpen[i]; excuses(e, s) {
			return e
		}
	}
	return nil
}

func excuses(e *policy.Expected, s Seen) bool {
	if !e.OutsideContainers && len(e.Units) == 0 && len(e.Binaries) == 0 {
		return false
	}
	ofUnit := func(unit string) bool { return unitIs(unit, s.Unit) }
	return (len(e.Units) == 0 || slices.ContainsFunc(e.Units, ofUnit)) &&
		(len(e.Binaries) == 0 || known(s.Binary) && slices.Contains(e.Binaries, s.Binary))
}
