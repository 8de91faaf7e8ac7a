package report

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
	"github.com/afalg-policy/afalg-policy/internal/term"
)

// Check is the result of check: whether a policy is valid.
type Check struct {
	Header
	Plan   *plan.Plan   `json:"plan,omitempty"`   // of a valid policy
	Breaks []plan.Break `json:"breaks,omitempty"` // whom it is known to break
	Errors []Fault      `json:"errors,omitempty"`
}

// Fault is an error of a policy, with its place.
type Fault struct {
	File    string `json:"file"`
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	Message string `json:"message"`
}

// NewCheck is the report of a policy that was read: its plan, or the errors.
func NewCheck(p *plan.Plan, invalid policy.ErrorList) *Check {
	c := &Check{Header: NewHeader("check", Valid), Plan: p, Errors: Faults(invalid)}
	if invalid != nil {
		c.Verdict = Invalid
	}
	if p != nil {
		c.Breaks = p.Breaks()
	}
	return c
}

// Faults lists what is wrong with an invalid policy.
func Faults(invalid policy.ErrorList) (faults []Fault) {
	for _, e := range invalid {
		faults = append(faults, Fault{e.Pos.File, e.Pos.Line, e.Pos.Col, e.Text})
	}
	return faults
}

// Text writes a summary of a valid policy, that a reviewer can read in one look.
func (c *Check) Text(t *term.Printer) {
	p := c.Plan
	t.Printf("policy %s is valid: %s", p.Name, term.Count(len(p.Rules), "rule"))
	t.Printf("digest %s", p.Digest)
	t.Printf("denied sockets get %s, denied binds %s", p.SocketErrno.Name, p.BindErrno.Name)
	if closed := p.ClosedNames(); closed != nil {
		t.Printf("closed besides AF_ALG: %s", strings.Join(closed, ", "))
	}
	for _, b := range p.Breaks() {
		t.Printf("%s", b)
	}
	switch p.ZeroCopy {
	case policy.Yes:
		t.Printf("zero-copy into AF_ALG is denied, by the kernel half alone")
	case policy.No:
		t.Printf("zero-copy into AF_ALG is not denied")
	}
	for _, r := range p.Rules {
		if r.StrictExec {
			t.Printf("rule %s holds under the kernel half alone: strict-exec (%s)", r.Name, r.Pos)
		}
		for _, a := range r.Algorithms {
			if a.Name == "*" {
				t.Printf("rule %s opens every %s algorithm (%s)", r.Name, a.Type, a.Pos)
			}
		}
	}
	showContainers(t, p)
	for _, e := range p.ExpectOpen {
		t.Printf("expected to be open by verify --all: %s (%s)", e.Reason, e.Pos)
	}
}

// showContainers says nothing for a policy that says nothing of containers.
func showContainers(t *term.Printer, p *plan.Plan) {
	switch {
	case p.Unconfined == plan.Harden:
		t.Printf("containers without a seccomp profile get one that closes AF_ALG")
	case p.Unconfined == plan.LSM:
		t.Printf("containers without a seccomp profile are left to the kernel half, and refused where it is not in force")
	case p.Unconfined == plan.Allow:
		t.Printf("containers without a seccomp profile may use every algorithm")
	case len(p.Grants) > 0:
		t.Printf("containers without a seccomp profile are refused")
	}
	for _, g := range p.Grants {
		t.Printf("granted to containers: %s (%s)", grantText(g), g.Pos)
	}
}

// grantText says it in the words of the policy file.
func grantText(g policy.Grant) string {
	var rules, conditions []string
	for _, r := range g.Rules {
		rules = append(rules, r.Name)
	}
	for _, c := range []struct {
		key    string
		values []string
	}{
		{"platforms", g.Platforms},
		{"steps of", builds(g)},
		{"names", g.Names},
		{"images", g.Images},
		{"namespaces", g.Namespaces},
		{"pods", g.Pods},
		{"labels", pairTexts(g.Labels)},
		{"annotations", pairTexts(g.Annotations)},
	} {
		if len(c.values) > 0 {
			conditions = append(conditions, c.key+" "+strings.Join(c.values, ", "))
		}
	}
	if g.Socketcall != "" {
		rules = append(rules, "the sockets of 32-bit programs")
	}
	text := strings.Join(rules, ", ") + " for " + strings.Join(conditions, "; ")
	if g.DecidedBy == policy.DecidedByLSM {
		text += ", decided by the kernel half"
	}
	return text
}

func builds(g policy.Grant) []string {
	if g.Builds {
		return []string{"image builds"}
	}
	return nil
}

func pairTexts(m map[string]string) []string {
	var list []string
	for _, key := range slices.Sorted(maps.Keys(m)) {
		list = append(list, fmt.Sprintf("%s=%q", key, m[key]))
	}
	return list
}
