package harden

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"

	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/filter/seccomp"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// Memo keeps what was hardened and proved, for programs that run once for each
// container. A key stands for everything that the result depends on, except for
// this program itself: another build needs another memo. Whoever can write to
// a memo decides what counts as proved.
type Memo interface {
	Get(key string) (value []byte, ok bool)
	Put(key string, value []byte)
}

// remembered is a result of Harden. The gaps are those that do not depend on
// the rules of the policy.
type remembered struct {
	Profile *profile.Profile `json:"profile"`
	Gaps    []plan.Gap       `json:"gaps,omitempty"`
}

// withoutRules is the policy as far as a workload that is granted nothing
// depends on it: so that what was proved for one holds after a rule or a grant
// was changed.
func withoutRules(p *plan.Plan, o Options) plan.Plan {
	q := *p
	q.UnconfinedSaid = false // by whom changes nothing
	if o.Broker == "" && len(o.Grants) == 0 {
		q.Name, q.Digest, q.Rules, q.Grants = "", "", nil, nil
		q.Families = slices.Clone(q.Families)
		for i := range q.Families {
			q.Families[i].Pos = policy.Pos{} // where it stands changes nothing
		}
	}
	return q
}

// key names a question about a profile; "" where nothing is kept.
func (o Options) key(question string, p *plan.Plan, base *profile.Profile) string {
	if o.Memo == nil {
		return ""
	}
	text, err := json.Marshal(struct {
		Question, Libseccomp, Tool string
		Policy                     plan.Plan
		Base                       *profile.Profile
		Grants, Accept, Standing   []string
		Socketcall                 Socketcall
		Broker                     string
		Host                       profile.Host
	}{question, seccomp.Version(), o.Tool, withoutRules(p, o), base, o.Grants, o.Accept, o.Standing, o.Socketcall, o.Broker, o.Host})
	if err != nil { // strings and lists of them always encode
		return ""
	}
	sum := sha256.Sum256(text)
	return question + "-" + hex.EncodeToString(sum[:])
}

// recall finds a result; one that does not read as such was never kept.
func (o Options) recall(key string) (r remembered, ok bool) {
	if key == "" {
		return r, false
	}
	data, ok := o.Memo.Get(key)
	if !ok || json.Unmarshal(data, &r) != nil || r.Profile == nil {
		return remembered{}, false
	}
	return r, true
}

func (o Options) keep(key string, r remembered) {
	if key == "" {
		return
	}
	if data, err := json.Marshal(r); err == nil {
		o.Memo.Put(key, data)
	}
}
