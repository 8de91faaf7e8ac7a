package plan

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/policy"
	"github.com/afalg-policy/afalg-policy/internal/printable"
)

// Container holds the known facts of a container that is about to start. The
// zero value holds no rule.
type Container struct {
	Platform string   // "docker", "podman", "containerd", "crio"; "oci" for a runtime that is called by hand
	ID       string   // as the runtime gets it
	Vouched  Identity // the platform's word
	Claimed  Identity // the container's or its image's own word; it grants nothing
	Asks     []string // rules that the container asks for by name; they grant nothing
}

// Identity distinguishes a container from others. An unknown fact keeps its
// zero value, and satisfies no condition.
type Identity struct {
	Name        string
	Images      []string // digests of its image, "sha256:…": of the configuration and of manifests
	Namespace   string   // of Kubernetes, or of containerd
	Pod         string
	Labels      map[string]string
	Annotations map[string]string
	Build       bool // a step of an image build
}

// Refusal is a rule that a container does not get although its own word, or its
// image's, would fit.
type Refusal struct {
	Rule string // printable; empty if it is about no rule, or counts further ones
	Text string // the container's word, and why it does not count; one printable line
}

// GrantsOf is the reference semantics of grants: the rules that a container
// holds, sorted, each once. A grant gives its rules if the platform of the
// container and its vouched facts meet every condition of the grant. Claims and
// requests give nothing; where they would have, they are refused with the
// reason, for the log. GrantsOf does no I/O. A nil plan and a zero container
// get nothing.
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

// BrokersSocketcall reports whether a grant leaves socketcall, by which 32-bit
// programs make their sockets, to the agent for a container. It depends on the
// same facts as GrantsOf.
func (p *Plan) BrokersSocketcall(c Container) bool {
	return p != nil && slices.ContainsFunc(p.Grants, func(g policy.Grant) bool {
		return g.Socketcall == policy.SocketcallBroker && c.meets(&g, &c.Vouched)
	})
}

// LeftToKernel reports whether the kernel half decides about the rules of a
// container, in the agent's place: every grant that gives it rules says so. A
// container whose socketcall is left to the agent has all decided by that.
func (p *Plan) LeftToKernel(c Container) bool {
	if p == nil || p.BrokersSocketcall(c) {
		return false
	}
	left := false
	for i := range p.Grants {
		g := &p.Grants[i]
		if !p.givesAlgorithms(g) || !c.meets(g, &c.Vouched) {
			continue
		}
		if g.DecidedBy != policy.DecidedByLSM {
			return false
		}
		left = true
	}
	return left
}

// KernelGaps is the gap of a host whose containers start under the policy, if a
// grant leaves some of them to the kernel half.
func (p *Plan) KernelGaps() []Gap {
	i := slices.IndexFunc(p.Grants, func(g policy.Grant) bool { return g.DecidedBy == policy.DecidedByLSM && p.givesAlgorithms(&g) })
	if i < 0 {
		return nil
	}
	return []Gap{Wider.Gap(policy.GapDecidedByLSM, nil, fmt.Sprintf(
		"the profiles of containers that a grant leaves to the kernel half (%s) keep AF_ALG open: they have every algorithm if that is unloaded while they run", p.Grants[i].Pos))}
}

// GivesContainers reports what grants give to any container that needs an agent:
// algorithms, and the sockets of 32-bit programs.
func (p *Plan) GivesContainers() (rules, sockets bool) {
	for _, g := range p.Grants {
		rules = rules || p.givesAlgorithms(&g) && g.DecidedBy == ""
		sockets = sockets || g.Socketcall != ""
	}
	return rules, sockets
}

// givesAlgorithms reports whether a grant gives a rule that somebody has to decide
// by. One that allows denied classes alone is a matter of the filter.
func (p *Plan) givesAlgorithms(g *policy.Grant) bool {
	return slices.ContainsFunc(g.Rules, func(r policy.GrantedRule) bool { return len(p.WithAlgorithms([]string{r.Name})) > 0 })
}

// WithAlgorithms are those of the named rules that allow an algorithm.
func (p *Plan) WithAlgorithms(names []string) []string {
	return p.named(names, policy.Rule.OpensAlgorithms)
}

// WithClasses are those of the named rules that allow a denied class.
func (p *Plan) WithClasses(names []string) []string { return p.named(names, policy.Rule.OpensClasses) }

func (p *Plan) named(names []string, is func(policy.Rule) bool) (found []string) {
	for _, r := range p.Rules {
		if slices.Contains(names, r.Name) && is(r) {
			found = append(found, r.Name)
		}
	}
	return found
}

// meets reports whether every condition of a grant holds, and there is one
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

// grantCondition is one thing that a grant may ask of a container: all that this
// package does about it. Several identities may meet it together.
type grantCondition struct {
	name    string // its key in a policy file
	applies func(*policy.Grant) bool
	holds   func(*policy.Grant, []*Identity) bool
	ways    func(*policy.Grant) []containerWay // to meet it; none if nothing need be done
}

// containerWay is the least that a container must have to meet a condition.
type containerWay struct {
	text string // "named web"
	take func(*Container)
}

var grantConditions = []grantCondition{
	anyOf("names", "named ", func(g *policy.Grant) []string { return g.Names },
		func(i *Identity) []string { return []string{i.Name} }, func(i *Identity, s string) { i.Name = s }),
	anyOf("images", "with image ", func(g *policy.Grant) []string { return g.Images },
		func(i *Identity) []string { return i.Images }, func(i *Identity, s string) { i.Images = []string{s} }),
	anyOf("namespaces", "in namespace ", func(g *policy.Grant) []string { return g.Namespaces },
		func(i *Identity) []string { return []string{i.Namespace} }, func(i *Identity, s string) { i.Namespace = s }),
	anyOf("pods", "in pod ", func(g *policy.Grant) []string { return g.Pods },
		func(i *Identity) []string { return []string{i.Pod} }, func(i *Identity, s string) { i.Pod = s }),
	{"builds", forBuilds, isBuild, buildWays},
	allOf("labels", func(g *policy.Grant) map[string]string { return g.Labels }, func(i *Identity) *map[string]string { return &i.Labels }),
	allOf("annotations", func(g *policy.Grant) map[string]string { return g.Annotations }, func(i *Identity) *map[string]string { return &i.Annotations }),
}

// platformCondition is apart, since it is for nobody by itself, and about the
// container whoever vouches for it.
var platformCondition = grantCondition{name: "platforms", ways: func(g *policy.Grant) (all []containerWay) {
	for _, platform := range g.Platforms {
		all = append(all, containerWay{"of " + platform, func(c *Container) { c.Platform = platform }})
	}
	return all
}}

func forBuilds(g *policy.Grant) bool { return g.Builds }

func isBuild(_ *policy.Grant, from []*Identity) bool {
	return slices.ContainsFunc(from, func(i *Identity) bool { return i.Build })
}

func buildWays(g *policy.Grant) []containerWay {
	if !g.Builds {
		return nil
	}
	return []containerWay{{"of a build", func(c *Container) { c.Vouched.Build = true }}}
}

// anyOf holds if one value that a grant wants is there.
func anyOf(name, words string, want func(*policy.Grant) []string, have func(*Identity) []string, take func(*Identity, string)) grantCondition {
	return grantCondition{
		name:    name,
		applies: func(g *policy.Grant) bool { return len(want(g)) > 0 },
		holds: func(g *policy.Grant, from []*Identity) bool {
			return slices.ContainsFunc(from, func(i *Identity) bool {
				return slices.ContainsFunc(have(i), func(s string) bool { return known(s) && slices.Contains(want(g), s) })
			})
		},
		ways: func(g *policy.Grant) (all []containerWay) {
			for _, s := range want(g) {
				all = append(all, containerWay{words + s, func(c *Container) { take(&c.Vouched, s) }})
			}
			return all
		},
	}
}

// allOf holds if every key that a grant wants is there, with its value.
func allOf(name string, want func(*policy.Grant) map[string]string, have func(*Identity) *map[string]string) grantCondition {
	return grantCondition{
		name:    name,
		applies: func(g *policy.Grant) bool { return len(want(g)) > 0 },
		holds: func(g *policy.Grant, from []*Identity) bool {
			for key, value := range want(g) {
				said := func(i *Identity) bool { got, ok := (*have(i))[key]; return ok && got == value }
				if !slices.ContainsFunc(from, said) {
					return false
				}
			}
			return true
		},
		ways: func(g *policy.Grant) []containerWay {
			var words []string
			for _, key := range slices.Sorted(maps.Keys(want(g))) {
				words = append(words, fmt.Sprintf("with %s=%q", key, want(g)[key]))
			}
			if words == nil {
				return nil
			}
			return []containerWay{{strings.Join(words, ", "), func(c *Container) { *have(&c.Vouched) = want(g) }}}
		},
	}
}

// maxRefusals bounds the lines that one container can write into a log, for its
// requests and for its claims.
const maxRefusals = 16

// refuseAsked returns the rules that the container asks for and does not hold,
// those that exist first, so that no nonsense crowds them out.
func refuseAsked(c *Container, exists, held map[string]bool) []Refusal {
	var named, unknown []Refusal
	for _, name := range sortedBy(slices.Values(c.Asks), strings.Compare) {
		switch {
		case name == "" || held[name]:
		case exists[name]:
			named = append(named, Refusal{name, fmt.Sprintf("the container asks for rule %q; asking grants nothing", name)})
		default:
			text := fmt.Sprintf("the container asks for rule %.*q, which the policy does not have; asking grants nothing", policy.MaxName, name)
			unknown = append(unknown, Refusal{printable.Cut(name, policy.MaxName), text})
		}
	}
	return atMost(append(named, unknown...), "the container asks for %d more rules that it does not get")
}

// refuseClaimed returns the rules that the container does not hold, and would
// hold if its claims were true.
func refuseClaimed(p *Plan, c *Container, exists, held map[string]bool) []Refusal {
	var all []Refusal
	for i := range p.Grants {
		g := &p.Grants[i]
		if c.meets(g, &c.Vouched) || !c.meets(g, &c.Vouched, &c.Claimed) {
			continue
		}
		text := fmt.Sprintf("the grant at %s is met only by claims of the container or its image, for which the platform does not vouch: %s", g.Pos,
			strings.Join(missed(g, &c.Vouched), ", "))
		for _, r := range g.Rules {
			if exists[r.Name] && !held[r.Name] {
				all = append(all, Refusal{r.Name, printable.Cut(text, maxReason)})
			}
		}
		if g.Socketcall != "" && !p.BrokersSocketcall(*c) {
			all = append(all, Refusal{Text: printable.Cut("socketcall: "+text, maxReason)})
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
