package learn

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// Policy allows exactly the recorded uses: it has one rule for each executable
// of a path and a digest, or of a path. The same uses in any order give the same policy. The
// name is changed to a valid one.
func (r *Recorder) Policy(name string) *policy.Policy {
	p := &policy.Policy{Name: slug(name, ".-", policy.MaxName, "learned")}
	names := newNamer()
	var last *policy.Rule
	for _, u := range r.sorted() {
		b := policy.Binary{Path: u.Binary, SHA256: u.SHA256}
		if last == nil || last.Binaries[0] != b {
			p.Rules = append(p.Rules, policy.Rule{Name: names.rule(u.Binary), Binaries: []policy.Binary{b}})
			last = &p.Rules[len(p.Rules)-1]
		}
		last.Algorithms = append(last.Algorithms, policy.Algorithm{Algorithm: u.Algorithm})
	}
	return p
}

// unexpressible says why no rule can express a use, or "".
func (r *Recorder) unexpressible(u Use) string {
	if u.Binary == "" {
		return "the executable is not known"
	}
	if u.SHA256 == "" && !r.Paths {
		return "the digest of the executable is not known"
	}
	// "*" is legal in a policy, and nobody used it.
	if _, err := afalg.ParseAlgorithm(u.Algorithm.String()); err != nil {
		return err.Error()
	}
	if err := checkBinary(policy.Binary{Path: u.Binary, SHA256: u.SHA256}); err != nil {
		return err.Error()
	}
	return ""
}

// checkBinary asks the policy itself: the printed binary must read back as the
// same one. Bytes that are not UTF-8, for example, would read back as another
// path.
func checkBinary(b policy.Binary) error {
	text := policy.Format(&policy.Policy{Name: "p", Rules: []policy.Rule{{
		Name: "r", Binaries: []policy.Binary{b}, Algorithms: []policy.Algorithm{anAlgorithm},
	}}})
	p, _, err := policy.Parse("p", text)
	var list policy.ErrorList
	if errors.As(err, &list) {
		return errors.New(list[0].Text)
	}
	if err != nil {
		return err
	}
	if got := p.Rules[0].Binaries[0]; got.Path != b.Path || got.SHA256 != b.SHA256 {
		return fmt.Errorf("in a policy it would be another binary: %.100q with the digest %q", got.Path, got.SHA256)
	}
	return nil
}

var anAlgorithm = policy.Algorithm{Algorithm: afalg.Algorithm{Type: afalg.Hash, Name: "sha256"}}

// namer gives each rule a unique name.
type namer struct {
	used map[string]bool
	last map[string]int // the last number given, by name
}

func newNamer() *namer {
	n := &namer{map[string]bool{}, map[string]int{}}
	for _, r := range afalg.Routes() {
		n.used[string(r.Route)] = true // no rule may have the name of a route
	}
	return n
}

// rule names a rule after an executable: "iwd", "iwd-2".
func (n *namer) rule(binary string) string {
	const number = len("-99999") // far above maxUses
	base := strings.TrimRight(slug(path.Base(binary), "-", policy.MaxName-number, "binary"), "-")
	name := base
	for i := max(n.last[base], 1) + 1; n.used[name]; i++ {
		name = fmt.Sprintf("%s-%d", base, i)
		n.last[base] = i
	}
	n.used[name] = true
	return name
}

// slug makes a name of lower-case letters, digits and the given marks; it
// begins with a letter or a digit. It does not change a text that is one
// already.
func slug(text, marks string, most int, fallback string) string {
	s := strings.Map(func(r rune) rune {
		switch {
		case 'A' <= r && r <= 'Z':
			return r - 'A' + 'a'
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9', strings.ContainsRune(marks, r):
			return r
		}
		return '-'
	}, text)
	s = strings.TrimLeft(s, marks)
	if s = s[:min(len(s), most)]; s == "" {
		return fallback
	}
	return s
}
