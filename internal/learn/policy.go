package learn

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// Policy allows exactly what was recorded: one rule for each executable of a
// path and a digest. It is the same for the same uses, whatever their order.
// The name is made one that a policy can have.
func (r *Recorder) Policy(name string) *policy.Policy {
	p := &policy.Policy{Name: policyName(name)}
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

// unexpressible tells why no rule can stand for a use, or nothing.
func unexpressible(u Use) string {
	if u.Binary == "" {
		return "the executable is not known"
	}
	if u.SHA256 == "" {
		return "the digest of the executable is not known"
	}
	if err := checkAlgorithm(u.Algorithm); err != nil {
		return err.Error()
	}
	if err := checkBinary(policy.Binary{Path: u.Binary, SHA256: u.SHA256}); err != nil {
		return err.Error()
	}
	return ""
}

// checkAlgorithm takes exact names only: "*" is legal in a policy, and was not
// used by anybody.
func checkAlgorithm(a afalg.Algorithm) error {
	_, err := afalg.ParseAlgorithm(a.String())
	return err
}

// checkBinary asks the policy itself: what it prints for the binary must be
// read, and as the same binary. Of bytes that are not UTF-8, for one, it would
// read another path.
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

// maxName is the longest name of a policy or a rule.
const maxName = 64

func policyName(s string) string { return slug(s, ".-", maxName, "learned") }

// namer gives each rule a name of its own.
type namer struct {
	used map[string]bool
	last map[string]int // the number given last, by name
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
	const number = len("-99999") // far above MaxUses
	base := strings.TrimRight(slug(path.Base(binary), "-", maxName-number, "binary"), "-")
	name := base
	for i := max(n.last[base], 1) + 1; n.used[name]; i++ {
		name = fmt.Sprintf("%s-%d", base, i)
		n.last[base] = i
	}
	n.used[name] = true
	return name
}

// slug makes a name of lower-case letters, digits and the marks that are
// named; it begins with a letter or a digit. A text that is one is unchanged.
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
