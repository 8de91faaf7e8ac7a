package report

import (
	"fmt"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
	"github.com/afalg-policy/afalg-policy/internal/term"
)

// Explanation is the result of explain: whether a request is allowed, and why.
type Explanation struct {
	Header
	Algorithm string      `json:"algorithm"`
	Rule      *Rule       `json:"rule,omitempty"`
	Nearest   *Rule       `json:"nearest,omitempty"`
	Misses    []plan.Miss `json:"misses,omitempty"` // of the nearest rule

	text string
}

// Rule is one of a policy, with its place.
type Rule struct {
	Name     string `json:"name"`
	Position string `json:"position"`
}

// NewExplanation is the report of what the policy says of a request.
func NewExplanation(e plan.Explanation) *Explanation {
	word := Denied
	if e.Allowed {
		word = Allowed
	}
	return &Explanation{NewHeader("explain", word), e.Request.Algorithm.String(), ruleOf(e.Rule), ruleOf(e.Nearest), e.Misses, e.String()}
}

func ruleOf(r *policy.Rule) *Rule {
	if r == nil {
		return nil
	}
	return &Rule{r.Name, r.Pos.String()}
}

// Text writes the answer and why.
func (e *Explanation) Text(t *term.Printer) {
	rest := strings.TrimPrefix(t.Printable(e.text), e.Verdict)
	fmt.Fprintln(t.Out, t.Answer(e.Verdict)+rest)
}

// Held is the result of explain for a container without a request: what it is
// granted.
type Held struct {
	Header
	Rules      []string `json:"rules"`
	Socketcall string   `json:"socketcall"`           // "deny" or "broker"
	DecidedBy  string   `json:"decided-by,omitempty"` // "lsm"; empty for the agent
}

// NewHeld is what a plan grants to a container.
func NewHeld(p *plan.Plan, c plan.Container) *Held {
	rules, _ := p.GrantsOf(c)
	held := &Held{Header: NewHeader("explain grants", Allowed), Rules: append([]string{}, rules...), Socketcall: "deny"}
	if p.BrokersSocketcall(c) {
		held.Socketcall = policy.SocketcallBroker
	}
	if p.LeftToKernel(c) {
		held.DecidedBy = policy.DecidedByLSM
	}
	if len(rules) == 0 && held.Socketcall != policy.SocketcallBroker {
		held.Verdict = Denied
	}
	return held
}

// Text writes it in two lines.
func (h *Held) Text(t *term.Printer) {
	if len(h.Rules) == 0 {
		t.Printf("rules: none")
	} else {
		text := strings.Join(h.Rules, ", ")
		if h.DecidedBy == policy.DecidedByLSM {
			text += " (decided by the kernel half)"
		}
		t.Printf("rules: %s", text)
	}
	text := "none by socketcall"
	if h.Socketcall == policy.SocketcallBroker {
		text = "made by the agent"
	}
	t.Printf("sockets of 32-bit programs: %s", text)
}
