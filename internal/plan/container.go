package plan

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// Container is what is known of a container that is about to start. The zero
// value holds no rule.
type Container struct {
	Platform string   // "docker", "podman", "containerd", "crio"; "oci" for a runtime that is called by hand
	ID       string   // as the runtime is given it
	Vouched  Identity // what the platform says of it
	Claimed  Identity // what the container, or its image, says of itself; it grants nothing
	Asks     []string // rules that the container asks for by name; they grant nothing
}

// Identity is how a container can be told from others. What is not known is
// left at its zero value, and satisfies no condition.
type Identity struct {
	Name        string
	Images      []string // digests of its image, "sha256:…": of the configuration and of manifests
	Namespace   string   // of Kubernetes, or of containerd
	Pod         string
	Labels      map[string]string
	Annotations map[string]string
}

// Refusal is a rule that a container does not get although it, or its image,
// says what would fit.
type Refusal struct {
	Rule string // printable; empty where Text tells how many more there are
	Text string // what was said, and why it does not count; one printable line
}

// GrantsOf is the reference semantics of grants: the rules that a container
// holds, sorted, each once. A grant gives its rules if the platform of the
// container and what is vouched for meet every condition that it has. Claims
// and asking give nothing; where they would have, they are refused with the
// reason, for the log. It does no I/O, and a nil plan and a zero container get
// nothing.
func (p *Plan) GrantsOf(c Container) (rules []string, refused []Refusal) {
	if p == nil {
		p = &Plan{}
	}
	exists := map[string]bool{}
	for _, name := range ruleNames(p.Rules) {
		exists[name] = true
	}
	held := map[string]bool{}
	for i := range p.Grants {
		if !c.meets(&p.Grants[i], &c.Vouched) {
			continue
		}
		for _, r := range p.Grants[i].Rules {
			if exists[r.Name] {
				held[r.Name] = true
			}
		}
	}
	refused = append(refuseAsked(&c, exists, held), refuseClaimed(p, &c, exists, held)...)
	return slices.Sorted(maps.Keys(held)), refused
}

// meets tells whether each condition of a grant holds, and that it has one
// besides the platform.
func (c *Container) meets(g *policy.Grant, from ...*Identity) bool {
	if len(g.Platforms) > 0 && !(known(c.Platform) && slices.Contains(g.Platforms, c.Platform)) {
		return false
	}
	forSomebody := false
	for _, condition := range grantConditions {
		if !condition.applies(g) {
			continue
		}
		if !condition.holds(g, from) {
			return false
		}
		forSomebody = true
	}
	return forSomebody
}

// grantCondition is one thing that a grant may ask of a container. Several
// identities may meet it together.
type grantCondition struct {
	name    string // its key in a policy file
	applies func(*policy.Grant) bool
	holds   func(*policy.Grant, []*Identity) bool
}

var grantConditions = []grantCondition{
	anyOf("names", func(g *policy.Grant) []string { return g.Names }, func(i *Identity) []string { return []string{i.Name} }),
	anyOf("images", func(g *policy.Grant) []string { return g.Images }, func(i *Identity) []string { return i.Images }),
	anyOf("namespaces", func(g *policy.Grant) []string { return g.Namespaces }, func(i *Identity) []string { return []string{i.Namespace} }),
	anyOf("pods", func(g *policy.Grant) []string { return g.Pods }, func(i *Identity) []string { return []string{i.Pod} }),
	allOf("labels", func(g *policy.Grant) map[string]string { return g.Labels }, func(i *Identity) map[string]string { return i.Labels }),
	allOf("annotations", func(g *policy.Grant) map[string]string { return g.Annotations }, func(i *Identity) map[string]string { return i.Annotations }),
}

// anyOf holds if one value that a grant wants is there.
func anyOf(name string, want func(*policy.Grant) []string, have func(*Identity) []string) grantCondition {
	return grantCondition{
		name:    name,
		applies: func(g *policy.Grant) bool { return len(want(g)) > 0 },
		holds: func(g *policy.Grant, from []*Identity) bool {
			return slices.ContainsFunc(from, func(i *Identity) bool {
				return slices.ContainsFunc(have(i), func(s string) bool { return known(s) && slices.Contains(want(g), s) })
			})
		},
	}
}

// allOf holds if every key that a grant wants is there, with its value.
func allOf(name string, want func(*policy.Grant) map[string]string, have func(*Identity) map[string]string) grantCondition {
	return grantCondition{
		name:    name,
		applies: func(g *policy.Grant) bool { return len(want(g)) > 0 },
		holds: func(g *policy.Grant, from []*Identity) bool {
			for key, value := range want(g) {
				said := func(i *Identity) bool { got, ok := have(i)[key]; return ok && got == value }
				if !slices.ContainsFunc(from, said) {
					return false
				}
			}
			return true
		},
	}
}

// maxRefusals bounds what one container can write into a log, for what it asks
// and for what it claims.
const maxRefusals = 16

// refuseAsked tells of rules that the container asks for and does not hold;
// those that exist come first, so that no nonsense crowds them out.
func refuseAsked(c *Container, exists, held map[string]bool) []Refusal {
	var named, unknown []Refusal
	for _, name := range sortedBy(slices.Values(c.Asks), strings.Compare) {
		switch {
		case name == "" || held[name]:
		case exists[name]:
			named = append(named, Refusal{name, fmt.Sprintf("the container asks for rule %q; asking grants nothing", name)})
		default:
			text := fmt.Sprintf("the container asks for rule %.*q, which the policy does not have; asking grants nothing", maxRuleName, name)
			unknown = append(unknown, Refusal{oneLine(name, maxRuleName), text})
		}
	}
	return atMost(append(named, unknown...), "the container asks for %d more rules that it does not get")
}

// refuseClaimed tells of rules that the container does not hold, and would if
// its claims were true.
func refuseClaimed(p *Plan, c *Container, exists, held map[string]bool) []Refusal {
	var all []Refusal
	for i := range p.Grants {
		g := &p.Grants[i]
		if c.meets(g, &c.Vouched) || !c.meets(g, &c.Vouched, &c.Claimed) {
			continue
		}
		text := fmt.Sprintf("the grant at %s is met only by what the container or its image claims, and the platform does not vouch for: %s", g.Pos,
			strings.Join(missed(g, &c.Vouched), ", "))
		for _, r := range g.Rules {
			if exists[r.Name] && !held[r.Name] {
				all = append(all, Refusal{r.Name, oneLine(text, maxReason)})
			}
		}
	}
	return atMost(all, "the container claims what %d more grants of rules ask for")
}

// missed lists the conditions of a grant that an identity does not meet.
func missed(g *policy.Grant, by *Identity) []string {
	var names []string
	for _, condition := range grantConditions {
		if condition.applies(g) && !condition.holds(g, []*Identity{by}) {
			names = append(names, condition.name)
		}
	}
	return names
}

// atMost cuts a list to maxRefusals and a last one that counts the others.
func atMost(all []Refusal, more string) []Refusal {
	if len(all) <= maxRefusals {
		return all
	}
	return append(all[:maxRefusals:maxRefusals], Refusal{Text: fmt.Sprintf(more, len(all)-maxRefusals)})
}
