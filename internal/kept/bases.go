package kept

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/oci"
)

// A set keeps texts by their digest. A nil set keeps nothing.
type set struct{ memo *oci.Memo }

// openSet opens the set of that name and form; nil if there is no place.
func openSet(name, form string) *set {
	for _, dir := range keptDirs(name) {
		if m, err := oci.OpenMemo(dir, form); err == nil {
			return &set{m}
		}
	}
	return nil
}

func (s *set) close() {
	if s != nil {
		s.memo.Close()
	}
}

func (s *set) has(text []byte) bool {
	if s == nil {
		return false
	}
	_, ok := s.memo.Get(digest(text))
	return ok
}

// add reports whether the text is a new one.
func (s *set) add(text []byte) bool {
	if s == nil || s.has(text) {
		return false
	}
	s.memo.Put(digest(text), text)
	return true
}

func digest(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// Directories of sets, beside the proofs.
const (
	basesName = "bases"
	givenName = "given"
)

// Bases are the profiles under which containers came. A runtime has its default
// profile compiled in, and gives it by the capabilities of a container; so they are
// proved again, with what each grant gives, before containers start under another
// policy or another build of this program.
type Bases struct{ set *set }

// OpenBases opens them.
func OpenBases() Bases { return Bases{openSet(basesName, "seccomp profiles of containers, 1")} }

// Close lets go of the directory.
func (b Bases) Close() { b.set.close() }

// Add keeps a profile, and reports whether it is a new one.
func (b Bases) Add(p *specs.LinuxSeccomp) bool {
	text, err := json.Marshal(p)
	return err == nil && b.set.add(text)
}

// all reads them. One that does not read as such was never kept.
func (b Bases) all() (profiles []*profile.Profile) {
	if b.set == nil {
		return nil
	}
	for _, text := range b.set.memo.All() {
		if p, err := profile.Parse(text); err == nil {
			profiles = append(profiles, p)
		}
	}
	return profiles
}

// Given are the profiles that containers were given, after they were proved.
type Given struct{ set *set }

// OpenGiven opens them.
func OpenGiven() Given { return Given{openSet(givenName, "seccomp profiles that were proved, 1")} }

// Close lets go of the directory.
func (g Given) Close() { g.set.close() }

// Add keeps a profile's text.
func (g Given) Add(text []byte) { g.set.add(text) }

// Has reports whether it is kept.
func (g Given) Has(text []byte) bool { return g.set.has(text) }
