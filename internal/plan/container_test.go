package plan

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// aGrant is of rule "a", which containerPlan has.
func aGrant(change func(*policy.Grant)) policy.Grant {
	g := policy.Grant{Pos: policy.Pos{File: "p", Line: 7, Col: 5}, Rules: granted("a")}
	change(&g)
	return g
}

func granted(names ...string) []policy.GrantedRule {
	var list []policy.GrantedRule
	for _, name := range names {
		list = append(list, policy.GrantedRule{Name: name})
	}
	return list
}

func containerPlan(grants ...policy.Grant) *Plan {
	some := policy.Algorithms{{Algorithm: afalg.Algorithm{Type: "hash", Name: "sha1"}}}
	return &Plan{Rules: []policy.Rule{{Name: "a", Algorithms: some}, {Name: "b", Algorithms: some}, {Name: "c", Algorithms: some}}, Grants: grants}
}

func TestGrantsOf(t *testing.T) {
	type pairs = map[string]string
	grant := aGrant
	names := grant(func(g *policy.Grant) { g.Names = []string{"web", "db"} })
	images := grant(func(g *policy.Grant) { g.Images = []string{"sha256:" + hexA} })
	namespaces := grant(func(g *policy.Grant) { g.Namespaces = []string{"prod"} })
	pods := grant(func(g *policy.Grant) { g.Pods = []string{"web-0"} })
	labels := grant(func(g *policy.Grant) { g.Labels = pairs{"app": "web", "crypto": ""} })
	annotations := grant(func(g *policy.Grant) { g.Annotations = pairs{"role": "crypto"} })
	docker := grant(func(g *policy.Grant) { g.Platforms, g.Names = []string{"podman", "docker"}, []string{"web"} })
	all := policy.Grant{
		Rules: granted("a"), Platforms: []string{"docker"}, Names: []string{"web"}, Images: []string{"sha256:" + hexA},
		Namespaces: []string{"prod"}, Pods: []string{"web-0"}, Labels: pairs{"app": "web"}, Annotations: pairs{"role": "crypto"},
	}
	whole := Identity{"web", []string{"sha256:" + hexB, "sha256:" + hexA}, "prod", "web-0", pairs{"app": "web", "x": "y"}, pairs{"role": "crypto"}, false}
	but := func(change func(*Identity)) Identity { id := whole; change(&id); return id }

	for name, tt := range map[string]struct {
		grant    policy.Grant
		platform string
		vouched  Identity
		want     bool
	}{
		"a name":                {names, "docker", Identity{Name: "db"}, true},
		"another name":          {names, "docker", Identity{Name: "web2"}, false},
		"a prefix":              {names, "docker", Identity{Name: "we"}, false},
		"another case":          {names, "docker", Identity{Name: "Web"}, false},
		"a slash":               {names, "docker", Identity{Name: "/web"}, false},
		"no name":               {names, "docker", Identity{}, false},
		"the name of its pod":   {names, "docker", Identity{Pod: "web", Namespace: "web"}, false},
		"an empty name in both": {grant(func(g *policy.Grant) { g.Names = []string{""} }), "docker", Identity{}, false},

		"an image":                            {images, "docker", Identity{Images: []string{"sha256:" + hexB, "sha256:" + hexA}}, true},
		"another image":                       {images, "docker", Identity{Images: []string{"sha256:" + hexB}}, false},
		"no image":                            {images, "docker", Identity{}, false},
		"a digest alone":                      {images, "docker", Identity{Images: []string{hexA}}, false},
		"an empty image":                      {grant(func(g *policy.Grant) { g.Images = []string{""} }), "docker", Identity{Images: []string{""}}, false},
		"a namespace":                         {namespaces, "containerd", Identity{Namespace: "prod"}, true},
		"another namespace":                   {namespaces, "containerd", Identity{Namespace: "test"}, false},
		"an empty namespace":                  {grant(func(g *policy.Grant) { g.Namespaces = []string{""} }), "containerd", Identity{}, false},
		"a pod":                               {pods, "crio", Identity{Pod: "web-0"}, true},
		"another pod":                         {pods, "crio", Identity{Pod: "web-1"}, false},
		"an empty pod":                        {grant(func(g *policy.Grant) { g.Pods = []string{""} }), "crio", Identity{}, false},
		"labels":                              {labels, "docker", Identity{Labels: pairs{"app": "web", "crypto": "", "x": "y"}}, true},
		"one label of two":                    {labels, "docker", Identity{Labels: pairs{"app": "web"}}, false},
		"another value":                       {labels, "docker", Identity{Labels: pairs{"app": "db", "crypto": ""}}, false},
		"an empty value":                      {labels, "docker", Identity{Labels: pairs{"app": "", "crypto": ""}}, false},
		"a label as annotation":               {labels, "docker", Identity{Annotations: pairs{"app": "web", "crypto": ""}}, false},
		"an annotation":                       {annotations, "crio", Identity{Annotations: pairs{"role": "crypto"}}, true},
		"another annotation":                  {annotations, "crio", Identity{Annotations: pairs{"role": "web"}}, false},
		"an annotation's key in another case": {annotations, "crio", Identity{Annotations: pairs{"Role": "crypto"}}, false},

		"a build":           {grant(func(g *policy.Grant) { g.Builds = true }), "docker", Identity{Build: true}, true},
		"no build":          {grant(func(g *policy.Grant) { g.Builds = true }), "docker", whole, false},
		"a build by a name": {names, "docker", Identity{Build: true}, false},

		"a platform":               {docker, "docker", Identity{Name: "web"}, true},
		"another platform":         {docker, "containerd", Identity{Name: "web"}, false},
		"no platform":              {docker, "", Identity{Name: "web"}, false},
		"an empty platform":        {grant(func(g *policy.Grant) { g.Platforms, g.Names = []string{""}, []string{"web"} }), "", Identity{Name: "web"}, false},
		"a platform and no more":   {grant(func(g *policy.Grant) { g.Platforms = []string{"docker"} }), "docker", whole, false},
		"no condition":             {grant(func(*policy.Grant) {}), "docker", whole, false},
		"conditions that are none": {grant(func(g *policy.Grant) { g.Names, g.Labels = []string{}, pairs{} }), "docker", whole, false},
		"a rule that is not there": {policy.Grant{Rules: granted("z", ""), Names: []string{"web"}}, "docker", whole, false},

		"everything":                       {all, "docker", whole, true},
		"everything but the platform":      {all, "podman", whole, false},
		"everything but the name":          {all, "docker", but(func(i *Identity) { i.Name = "db" }), false},
		"everything but the image":         {all, "docker", but(func(i *Identity) { i.Images = nil }), false},
		"everything but the namespace":     {all, "docker", but(func(i *Identity) { i.Namespace = "" }), false},
		"everything but the pod":           {all, "docker", but(func(i *Identity) { i.Pod = "web" }), false},
		"everything but a label":           {all, "docker", but(func(i *Identity) { i.Labels = nil }), false},
		"everything but an annotation":     {all, "docker", but(func(i *Identity) { i.Annotations = pairs{"role": ""} }), false},
		"everything, for the zero grant":   {policy.Grant{}, "docker", whole, false},
		"the zero container, for the zero": {policy.Grant{}, "", Identity{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			p := containerPlan(tt.grant)
			rules, refused := p.GrantsOf(Container{Platform: tt.platform, Vouched: tt.vouched})
			if slices.Equal(rules, []string{"a"}) != tt.want || len(rules) > 1 || len(refused) > 0 {
				t.Errorf("rules %q, refused %v; want %v", rules, refused, tt.want)
			}
			// A claim instead is worth nothing, and is reported where it would
			// fit.
			rules, refused = p.GrantsOf(Container{Platform: tt.platform, Claimed: tt.vouched})
			if len(rules) > 0 || (len(refused) == 1) != tt.want {
				t.Errorf("claimed: rules %q, refused %v", rules, refused)
			}
		})
	}
}

func TestGrantsOfUnitesGrants(t *testing.T) {
	named := func(name string, rules ...string) policy.Grant {
		return policy.Grant{Rules: granted(rules...), Names: []string{name}}
	}
	p := containerPlan(named("web", "c", "a"), named("db", "b"), named("web", "a"))
	rules, refused := p.GrantsOf(Container{Vouched: Identity{Name: "web"}})
	if !slices.Equal(rules, []string{"a", "c"}) || refused != nil {
		t.Errorf("rules %q, refused %v", rules, refused)
	}
}

func TestGrantsOfNothing(t *testing.T) {
	asking := Container{Platform: "docker", Claimed: Identity{Name: "web"}, Asks: []string{"a"}}
	web := aGrant(func(g *policy.Grant) { g.Names = []string{"web"} })
	for name, tt := range map[string]struct {
		p       *Plan
		c       Container
		refused int
	}{
		"nil plan":              {nil, asking, 1},
		"zero plan":             {&Plan{}, asking, 1},
		"plan without grants":   {containerPlan(), asking, 1},
		"zero container":        {containerPlan(web), Container{}, 0},
		"container that claims": {containerPlan(web), asking, 2},
	} {
		if rules, refused := tt.p.GrantsOf(tt.c); len(rules) > 0 || len(refused) != tt.refused {
			t.Errorf("%s: rules %q, refused %v", name, rules, refused)
		}
	}
}

func TestRefusals(t *testing.T) {
	type pairs = map[string]string
	both := aGrant(func(g *policy.Grant) {
		g.Rules, g.Names, g.Labels = granted("a", "b", "z"), []string{"web"}, pairs{"app": "web", "tier": "1"}
	})
	pod := aGrant(func(g *policy.Grant) { g.Pods = []string{"web-0"} })
	const claimed = "the grant at p:7:5 is met only by claims of the container or its image, for which the platform does not vouch: "
	for name, tt := range map[string]struct {
		c    Container
		want []Refusal
	}{
		"a rule that is asked for": {
			Container{Asks: []string{"b", "a", "b", ""}},
			[]Refusal{
				{"a", `the container asks for rule "a"; asking grants nothing`},
				{"b", `the container asks for rule "b"; asking grants nothing`},
			},
		},
		"a rule that is asked for and held": {Container{Vouched: Identity{Pod: "web-0"}, Asks: []string{"a"}}, nil},
		"a rule that does not exist": {
			Container{Asks: []string{"*"}},
			[]Refusal{{"*", `the container asks for rule "*", which the policy does not have; asking grants nothing`}},
		},
		"a rule that would end the line": {
			Container{Asks: []string{"x\n\"; \x1b[2J\xff"}},
			[]Refusal{{`x\n"; \x1b[2J�`, `the container asks for rule "x\n\"; \x1b[2J\xff", which the policy does not have; asking grants nothing`}},
		},
		"a rule without end": {
			Container{Asks: []string{strings.Repeat("x", 1<<20)}},
			[]Refusal{{strings.Repeat("x", 64) + "…", `the container asks for rule "` + strings.Repeat("x", 64) + `", which the policy does not have; asking grants nothing`}},
		},
		"labels that are claimed": {
			Container{Vouched: Identity{Name: "web"}, Claimed: Identity{Labels: pairs{"app": "web", "tier": "1"}}},
			[]Refusal{{"a", claimed + "labels"}, {"b", claimed + "labels"}},
		},
		"one label that is claimed beside another": {
			Container{Vouched: Identity{Name: "web", Labels: pairs{"app": "web", "tier": "0"}}, Claimed: Identity{Labels: pairs{"tier": "1"}}},
			[]Refusal{{"a", claimed + "labels"}, {"b", claimed + "labels"}},
		},
		"all that is claimed": {
			Container{Claimed: Identity{Name: "web", Labels: pairs{"app": "web", "tier": "1"}}},
			[]Refusal{{"a", claimed + "names, labels"}, {"b", claimed + "names, labels"}},
		},
		"what is claimed and not enough": {Container{Claimed: Identity{Name: "web", Labels: pairs{"app": "web"}}}, nil},
		"what is claimed and held otherwise": {
			Container{Vouched: Identity{Pod: "web-0"}, Claimed: Identity{Name: "web", Labels: pairs{"app": "web", "tier": "1"}}},
			[]Refusal{{"b", claimed + "names, labels"}},
		},
		"what is asked for and claimed": {
			Container{Claimed: Identity{Pod: "web-0"}, Asks: []string{"a"}},
			[]Refusal{{"a", `the container asks for rule "a"; asking grants nothing`}, {"a", claimed + "pods"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, refused := containerPlan(both, pod).GrantsOf(tt.c)
			if diff := cmp.Diff(tt.want, refused); diff != "" {
				t.Errorf("refused (-want +got):\n%s", diff)
			}
		})
	}
}

// A container fills no log, and no nonsense hides its real request.
func TestRefusalsAreBounded(t *testing.T) {
	c := Container{Claimed: Identity{Name: "web"}}
	for i := range 100_000 {
		c.Asks = append(c.Asks, fmt.Sprintf("%d", i))
	}
	c.Asks = append(c.Asks, "b")
	var grants []policy.Grant
	for range 20 {
		grants = append(grants, aGrant(func(g *policy.Grant) { g.Names = []string{"web"} }))
	}
	_, refused := containerPlan(grants...).GrantsOf(c)
	if len(refused) != 2*(maxRefusals+1) {
		t.Fatalf("%d refusals", len(refused))
	}
	if refused[0].Rule != "b" {
		t.Errorf("the first is %+v", refused[0])
	}
	if want := (Refusal{"", "the container asks for 99985 more rules that it does not get"}); refused[maxRefusals] != want {
		t.Errorf("the last is %+v", refused[maxRefusals])
	}
	if want := (Refusal{"", "the container claims what 4 more grants of rules ask for"}); refused[2*maxRefusals+1] != want {
		t.Errorf("the last is %+v", refused[2*maxRefusals+1])
	}
}

// grantsOracle finds again which rules a container holds, sharing nothing with
// GrantsOf: it strikes out grants, one reason after the other.
func grantsOracle(p *Plan, c Container) []string {
	rules := map[string]bool{}
	for _, g := range p.Grants {
		struck := len(g.Names)+len(g.Images)+len(g.Namespaces)+len(g.Pods)+len(g.Labels)+len(g.Annotations) == 0 && !g.Builds
		struck = struck || g.Builds && !c.Vouched.Build
		for _, single := range []struct {
			wanted []string
			got    string
		}{{g.Platforms, c.Platform}, {g.Names, c.Vouched.Name}, {g.Namespaces, c.Vouched.Namespace}, {g.Pods, c.Vouched.Pod}} {
			found := len(single.wanted) == 0
			for _, s := range single.wanted {
				found = found || s != "" && s == single.got
			}
			struck = struck || !found
		}
		shared := map[string]int{}
		for _, s := range c.Vouched.Images {
			shared[s] = 1
		}
		images := len(g.Images) == 0
		for _, s := range g.Images {
			images = images || s != "" && shared[s] == 1
		}
		text := func(m map[string]string) map[string]bool {
			lines := map[string]bool{}
			for k, v := range m {
				lines[fmt.Sprintf("%q=%q", k, v)] = true
			}
			return lines
		}
		for line := range text(g.Labels) {
			struck = struck || !text(c.Vouched.Labels)[line]
		}
		for line := range text(g.Annotations) {
			struck = struck || !text(c.Vouched.Annotations)[line]
		}
		if struck || !images {
			continue
		}
		for _, r := range g.Rules {
			rules[r.Name] = true
		}
	}
	var held []string
	for _, r := range p.Rules {
		if rules[r.Name] && !slices.Contains(held, r.Name) {
			held = append(held, r.Name)
		}
	}
	slices.Sort(held)
	return held
}

// TestLeftToKernel: a container is left to the kernel half if every grant that
// gives it rules says so, and nothing of it needs the agent.
func TestLeftToKernel(t *testing.T) {
	left := aGrant(func(g *policy.Grant) { g.Names, g.DecidedBy = []string{"web"}, policy.DecidedByLSM })
	also := aGrant(func(g *policy.Grant) { g.Pods, g.DecidedBy = []string{"p"}, policy.DecidedByLSM })
	brokered := aGrant(func(g *policy.Grant) { g.Namespaces = []string{"n"} })
	sockets := policy.Grant{Socketcall: policy.SocketcallBroker, Labels: map[string]string{"s": ""}}
	p := containerPlan(left, also, brokered, sockets)
	for _, tt := range []struct {
		name string
		p    *Plan
		i    Identity
		want bool
	}{
		{"one grant", p, Identity{Name: "web"}, true},
		{"two grants", p, Identity{Name: "web", Pod: "p"}, true},
		{"another grant by the agent", p, Identity{Name: "web", Namespace: "n"}, false},
		{"sockets by the agent", p, Identity{Name: "web", Labels: map[string]string{"s": ""}}, false},
		{"by the agent alone", p, Identity{Namespace: "n"}, false},
		{"nothing", p, Identity{Name: "other"}, false},
		{"another word", containerPlan(aGrant(func(g *policy.Grant) { g.Names, g.DecidedBy = []string{"web"}, "kernel" })), Identity{Name: "web"}, false},
		{"no plan", nil, Identity{Name: "web"}, false},
	} {
		if got := tt.p.LeftToKernel(Container{Vouched: tt.i}); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
		if tt.p.LeftToKernel(Container{Claimed: tt.i}) {
			t.Errorf("%s: a claim counts", tt.name)
		}
	}
}

// TestKernelGaps: what is left to the kernel half is open without it, and needs no
// agent.
func TestKernelGaps(t *testing.T) {
	left := aGrant(func(g *policy.Grant) { g.DecidedBy = policy.DecidedByLSM })
	p := containerPlan(left)
	gaps := p.KernelGaps()
	const want = "wider: decided-by-lsm: the profiles of containers that a grant leaves to the kernel half (p:7:5) keep AF_ALG open: they have every algorithm if that is unloaded while they run"
	if len(gaps) != 1 || gaps[0].String() != want {
		t.Errorf("%v", gaps)
	}
	if rules, _ := p.GivesContainers(); rules {
		t.Error("an agent is needed")
	}
	by := containerPlan(aGrant(func(*policy.Grant) {}))
	if rules, _ := by.GivesContainers(); len(by.KernelGaps()) > 0 || !rules {
		t.Errorf("by the agent: %v, %v", by.KernelGaps(), rules)
	}
}

// TestBrokersSocketcall shows that a grant of sockets counts by vouched facts,
// gives no rule, and is given by no other grant.
func TestBrokersSocketcall(t *testing.T) {
	sockets := policy.Grant{Socketcall: policy.SocketcallBroker, Platforms: []string{"docker"}, Names: []string{"steam"}}
	rules := aGrant(func(g *policy.Grant) { g.Names = []string{"web"} })
	both := aGrant(func(g *policy.Grant) { g.Names, g.Socketcall = []string{"wine"}, policy.SocketcallBroker })
	named := func(name string) Container { return Container{Platform: "docker", Vouched: Identity{Name: name}} }
	for _, tt := range []struct {
		name    string
		p       *Plan
		c       Container
		sockets bool
		rules   []string
		refused int
	}{
		{"sockets alone", containerPlan(sockets, rules), named("steam"), true, nil, 0},
		{"rules alone", containerPlan(sockets, rules), named("web"), false, []string{"a"}, 0},
		{"both", containerPlan(sockets, both), named("wine"), true, []string{"a"}, 0},
		{"neither", containerPlan(sockets, rules), named("other"), false, nil, 0},
		{"another platform", containerPlan(sockets), Container{Platform: "podman", Vouched: Identity{Name: "steam"}}, false, nil, 0},
		{"claimed", containerPlan(sockets), Container{Platform: "docker", Claimed: Identity{Name: "steam"}}, false, nil, 1},
		{"claimed and vouched by another", containerPlan(sockets, aGrant(func(g *policy.Grant) { g.Pods, g.Socketcall = []string{"p"}, policy.SocketcallBroker })),
			Container{Platform: "docker", Vouched: Identity{Pod: "p"}, Claimed: Identity{Name: "steam"}}, true, []string{"a"}, 0},
		{"no condition", containerPlan(policy.Grant{Socketcall: policy.SocketcallBroker}), named("steam"), false, nil, 0},
		{"another word", containerPlan(policy.Grant{Socketcall: "keep", Names: []string{"steam"}}), named("steam"), false, nil, 0},
		{"no plan", nil, named("steam"), false, nil, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			held, refused := tt.p.GrantsOf(tt.c)
			if got := tt.p.BrokersSocketcall(tt.c); got != tt.sockets || !slices.Equal(held, tt.rules) || len(refused) != tt.refused {
				t.Errorf("sockets %v, rules %q, refused %v", got, held, refused)
			}
			for _, r := range refused {
				if !strings.HasPrefix(r.Text, "socketcall: the grant at ") {
					t.Errorf("refused: %s", r.Text)
				}
			}
		})
	}
}

func (w world) word() string { return pick(w, "x", "y", "z", "") }

func (w world) pairs() map[string]string {
	m := map[string]string{}
	for range w.IntN(3) {
		m[w.word()] = w.word()
	}
	return m
}

func (w world) identity() Identity {
	return Identity{w.word(), some1(w, 2, w.word), w.word(), w.word(), w.pairs(), w.pairs(), w.IntN(2) == 0}
}

// maybe leaves out most conditions, so that a grant can be met.
func maybe[T any](w world, draw func() T) (v T) {
	if w.IntN(3) == 0 {
		v = draw()
	}
	return v
}

func (w world) grant() policy.Grant {
	words := func() []string { return some1(w, 2, w.word) }
	return policy.Grant{
		Rules:     some1(w, 2, func() policy.GrantedRule { return policy.GrantedRule{Name: pick(w, "a", "b", "c", "d")} }),
		Platforms: maybe(w, words), Names: maybe(w, words), Images: maybe(w, words), Namespaces: maybe(w, words), Pods: maybe(w, words),
		Labels: maybe(w, w.pairs), Annotations: maybe(w, w.pairs), Builds: w.IntN(4) == 0,
	}
}

func (w world) container() Container {
	return Container{Platform: w.word(), Vouched: w.identity(), Claimed: w.identity(), Asks: some1(w, 3, w.word)}
}

// checkGrantsOf checks the properties of every plan and container.
func checkGrantsOf(t *testing.T, w world, p *Plan, c Container) (held, refused int) {
	rules, refusals := p.GrantsOf(c)
	if want := grantsOracle(p, c); !slices.Equal(rules, want) {
		t.Fatalf("GrantsOf = %q, the oracle says %q\nplan %+v\ncontainer %+v", rules, want, p, c)
	}
	for name, other := range map[string]Container{
		"nothing claimed": {Platform: c.Platform, ID: c.ID, Vouched: c.Vouched},
		"other claims":    {Platform: c.Platform, ID: "b", Vouched: c.Vouched, Claimed: w.identity(), Asks: []string{"a", "b", "c", "d"}},
	} {
		if got, _ := p.GrantsOf(other); !slices.Equal(rules, got) {
			t.Fatalf("%s: %q instead of %q\nplan %+v\ncontainer %+v", name, got, rules, p, c)
		}
	}
	if zero, _ := p.GrantsOf(Container{Platform: c.Platform, Claimed: c.Claimed, Asks: c.Asks}); len(zero) > 0 {
		t.Fatalf("%q without anything vouched for\nplan %+v\ncontainer %+v", zero, p, c)
	}
	for _, r := range refusals {
		if slices.Contains(rules, r.Rule) || len(r.Rule)+len(r.Text) > 2*maxReason || r.Text == "" {
			t.Fatalf("refusal %+v of %q", r, rules)
		}
		if i := strings.IndexFunc(r.Rule+r.Text, func(c rune) bool { return !unicode.IsPrint(c) }); i >= 0 {
			t.Fatalf("refusal %q cannot be printed", r)
		}
	}
	more, _ := (&Plan{Rules: p.Rules, Grants: append(slices.Clone(p.Grants), w.grant())}).GrantsOf(c)
	for _, r := range rules {
		if !slices.Contains(more, r) {
			t.Fatalf("a further grant takes %q away\nplan %+v\ncontainer %+v", r, p, c)
		}
	}
	return len(rules), len(refusals)
}

func (w world) containerPlan() *Plan {
	return &Plan{Rules: some1(w, 4, w.rule), Grants: some1(w, 5, w.grant)}
}

func TestGrantsOfProperties(t *testing.T) {
	held, refused := 0, 0
	const runs = 20_000
	for seed := range uint64(runs) {
		w := newWorld(seed)
		h, r := checkGrantsOf(t, w, w.containerPlan(), w.container())
		held, refused = held+min(h, 1), refused+min(r, 1)
	}
	if held < runs/50 || refused < runs/50 {
		t.Errorf("%d of %d containers held a rule, %d were refused one: the properties say little", held, runs, refused)
	}
}

func FuzzGrantsOf(f *testing.F) {
	f.Add("x", "y", "sha256:a", "x", "y", "k", "v", "a", uint64(1), uint64(2))
	f.Add("", "/x", "", "\n", "", "", "", "\xff", uint64(3), uint64(4))
	f.Fuzz(func(t *testing.T, platform, name, image, namespace, pod, key, value, asks string, mask, seed uint64) {
		w := newWorld(seed)
		p := w.containerPlan()
		said := Identity{name, []string{image}, namespace, pod, map[string]string{key: value}, map[string]string{value: key}, false}
		c := Container{Platform: platform, Vouched: said, Claimed: w.identity(), Asks: []string{asks}}
		if mask&1 != 0 {
			c.Vouched, c.Claimed = c.Claimed, c.Vouched
		}
		if mask&2 != 0 { // a grant that the container meets
			p.Grants = append(p.Grants, policy.Grant{Rules: granted("a", asks), Names: []string{name}, Labels: map[string]string{key: value}})
		}
		checkGrantsOf(t, w, p, c)
	})
}
