// Package learn collects which executable bound and used which algorithm, and
// writes the least policy that allows the uses.
//
// Programs bind names that they never use, to see what the kernel has: iwd
// binds 21 at its start, and uses 3 in a network with a passphrase. A bind
// becomes a use once an operation socket is accepted.
package learn

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// Limits of a Recorder. A workload chooses its uses, so it must not be able to
// fill the memory, or a policy beyond what a parser reads.
const (
	maxUses        = policy.MaxRules // different uses that go into the policy
	maxUnexpressed = 1_000           // different uses that cannot
	maxBound       = 1_000           // different binds whose use is not recorded
	maxComment     = 128 << 10       // bytes of the comment that heads the file
	maxRules       = policy.MaxSize - maxComment - 1<<10
)

// Use is one algorithm that one executable asked for.
type Use struct {
	Binary    string // absolute path, as the kernel shows it
	SHA256    string // of that executable, lower-case hex
	Algorithm afalg.Algorithm
}

// Unexpressed is a use that no rule can express.
type Unexpressed struct {
	Use    Use // over-long strings cut
	Reason string
	Count  int // how often it was recorded
}

// Recorder collects binds and uses. The zero Recorder is empty and ready. Its
// methods may be called concurrently.
type Recorder struct {
	// Paths has rules name executables by their paths alone, so that an upgrade
	// is no change of the policy. It is set before anything is recorded.
	Paths bool

	mu          sync.Mutex
	uses        map[Use]bool
	binaries    map[binary]bool
	unexpressed map[Use]*Unexpressed
	bound       map[Use]bool
	size        int // bytes that the rules need at most
	lost        int
	lostBound   int
}

// binary is the executable of a rule.
type binary struct{ path, sha256 string }

// Bound adds a bind. It appears in the comment unless it is used.
func (r *Recorder) Bound(u Use) {
	u = r.kept(u)
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.bound[u] || r.uses[u] || r.unexpressed[u] != nil:
	case len(r.bound) == maxBound:
		r.lostBound++
	default:
		if r.bound == nil {
			r.bound = map[Use]bool{}
		}
		r.bound[u] = true
	}
}

// Used adds a use. If the recorder is full, a new use is counted, and not kept.
func (r *Recorder) Used(u Use) {
	u = r.kept(u)
	if r.again(u) {
		return
	}
	reason := r.unexpressible(u) // slow, and others may record meanwhile
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.bound, u)
	if !r.seen(u) && !r.add(u, reason) {
		r.lost++
	}
}

// kept is a use as it is kept.
func (r *Recorder) kept(u Use) Use {
	if r.Paths {
		u.SHA256 = ""
	}
	return u.cut()
}

func (r *Recorder) again(u Use) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seen(u)
}

// seen reports whether the use is kept already, and counts it.
func (r *Recorder) seen(u Use) bool {
	if e, ok := r.unexpressed[u]; ok {
		e.Count++
		return true
	}
	return r.uses[u]
}

// add keeps a new use, unless there is no room.
func (r *Recorder) add(u Use, reason string) bool {
	if r.uses == nil {
		r.uses, r.binaries, r.unexpressed = map[Use]bool{}, map[binary]bool{}, map[Use]*Unexpressed{}
	}
	if reason != "" {
		if len(r.unexpressed) == maxUnexpressed {
			return false
		}
		r.unexpressed[u] = &Unexpressed{u, reason, 1}
		return true
	}
	b := binary{u.Binary, u.SHA256}
	size := r.size + algorithmSize(u.Algorithm)
	if !r.binaries[b] {
		size += ruleSize(b)
	}
	if len(r.uses) == maxUses || size > maxRules {
		return false
	}
	r.size, r.binaries[b], r.uses[u] = size, true, true
	return true
}

// ruleSize bounds the bytes that policy.Format needs for a rule, apart from its
// algorithms: its keys, with all types, a rule name and a digest.
func ruleSize(b binary) int { return 320 + len(strconv.Quote(b.path)) }

func algorithmSize(a afalg.Algorithm) int { return len(a.Name) + len(`"", `) }

// cut shortens strings that are too long for a policy, and leaves them too
// long.
func (u Use) cut() Use {
	const maxPath, hexDigits, maxType = 4095, 64, 64
	u.Binary = shorten(u.Binary, maxPath)
	u.SHA256 = shorten(u.SHA256, hexDigits)
	u.Algorithm.Type = afalg.Type(shorten(string(u.Algorithm.Type), maxType))
	u.Algorithm.Name = shorten(u.Algorithm.Name, afalg.MaxLongName)
	return u
}

func shorten(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.Clone(s[:most+1]) // so that the rest is freed
}

// Unexpressed lists the uses that are not in the policy, sorted.
func (r *Recorder) Unexpressed() []Unexpressed {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []Unexpressed
	for _, e := range r.unexpressed {
		all = append(all, *e)
	}
	slices.SortFunc(all, func(a, b Unexpressed) int { return compareUses(a.Use, b.Use) })
	return all
}

// Lost counts the recordings of new uses for which there was no room.
func (r *Recorder) Lost() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lost
}

// Unused lists the binds that were never used, sorted. more counts those for
// which there was no room.
func (r *Recorder) Unused() (list []Use, more int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.SortedFunc(maps.Keys(r.bound), compareUses), r.lostBound
}

// sorted lists the uses in the policy, those of a binary together.
func (r *Recorder) sorted() []Use {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.SortedFunc(maps.Keys(r.uses), compareUses)
}

func compareUses(a, b Use) int {
	return cmp.Or(
		cmp.Compare(a.Binary, b.Binary),
		cmp.Compare(a.SHA256, b.SHA256),
		cmp.Compare(a.Algorithm.Type, b.Algorithm.Type),
		cmp.Compare(a.Algorithm.Name, b.Algorithm.Name),
	)
}
