package report

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/filter/verify"
	"github.com/afalg-policy/afalg-policy/internal/kube"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/printable"
	"github.com/afalg-policy/afalg-policy/internal/report/source"
	"github.com/afalg-policy/afalg-policy/internal/term"
)

// Container is a container of a manifest, and whether AF_ALG is closed to it.
type Container struct {
	File       string `json:"file"`
	Line       int    `json:"line"` // of what decides
	Column     int    `json:"column"`
	Kind       string `json:"kind"` // of the object
	Namespace  string `json:"namespace,omitempty"`
	Object     string `json:"object"` // its name
	Name       string `json:"name"`
	Role       string `json:"role"`
	Privileged bool   `json:"privileged"`
	Profile    string `json:"profile"`          // the type: Undefined, Unconfined, RuntimeDefault, Localhost or OCI
	Filter     string `json:"filter,omitempty"` // the name of the filters that it has
	Verdict    string `json:"verdict"`          // closed, open, undecided or expected
	Rule       string `json:"rule,omitempty"`   // of what is not closed
	Reason     string `json:"reason"`
	Fix        string `json:"fix,omitempty"`
	Ignored    string `json:"ignored,omitempty"` // the reason, of the ignore file
}

// The IDs of what leaves AF_ALG open to a container.
const (
	ruleUndefined      = "container-undefined"
	ruleUnconfined     = "container-unconfined"
	rulePrivileged     = "container-privileged"
	ruleRuntimeDefault = "container-runtime-default"
	ruleLocalhost      = "container-localhost"
	ruleArtifact       = "container-artifact"
	ruleFilter         = "container-filter"
	ruleNotGranted     = "container-not-granted"
)

// containerChecks describes them, by ID.
func containerChecks() []verify.Check {
	return []verify.Check{
		{ID: ruleArtifact, Level: verify.Warning, Title: "A container has a profile of a registry, which is not here",
			Why: "Nothing is known of what the artifact says. A kubelet that does not know the type, up to 1.37, takes it for Unconfined."},
		{ID: ruleFilter, Level: verify.Error, Title: "The profile of a container is not closed",
			Why: "The filter that the container gets lets a call through, or leaves it to a listener; the report has the call."},
		{ID: ruleLocalhost, Level: verify.Warning, Title: "A container has a profile of the node, which is not here",
			Why: "What a Localhost profile says is in a file of each node. The name alone proves nothing."},
		{ID: ruleNotGranted, Level: verify.Error, Title: "A container names a profile with rules that the policy does not grant to it",
			Why: "Any pod may name any file below the kubelet’s directory, also under Pod Security restricted. The policy grants rules by namespace, pod and name."},
		{ID: rulePrivileged, Level: verify.Error, Title: "A container is privileged",
			Why: "Runtimes load no filter for a privileged container, whatever profile it names."},
		{ID: ruleRuntimeDefault, Level: verify.Warning, Title: "A container has RuntimeDefault, which nobody described",
			Why: "The profile is that of the node’s runtime and of its version: some leave AF_ALG open, most leave socketcall open."},
		{ID: ruleUnconfined, Level: verify.Error, Title: "A container is Unconfined",
			Why: "No filter is loaded: every route is open."},
		{ID: ruleUndefined, Level: verify.Error, Title: "A container names no profile",
			Why: "The kubelet takes that for Unconfined, unless it has seccompDefault."},
	}
}

// manifestChecks are all checks of manifests.
func manifestChecks() []verify.Check { return append(containerChecks(), source.Checks()...) }

const fixProfile = "set securityContext.seccompProfile to type Localhost, localhostProfile " + kube.DefaultProfile

// judgeContainers answers for each container of the manifests.
func (r *Filters) judgeContainers(pods []source.Pod, q Questions) {
	for _, p := range pods {
		for _, c := range p.Containers {
			one := Container{
				File: p.File, Line: c.Line, Column: c.Column, Kind: p.Kind, Namespace: p.Namespace, Object: p.Name, Name: c.Name, Role: string(c.Role),
				Privileged: c.Privileged, Profile: cmp.Or(string(c.Type), "Undefined"), Filter: c.Filter,
			}
			one.judge(p, c, r.Filters, q)
			r.Containers = append(r.Containers, one)
		}
	}
}

func (c *Container) judge(p source.Pod, from source.Container, filters []Filter, q Questions) {
	answer := func(verdict, rule, reason, fix string) {
		c.Verdict, c.Rule, c.Reason, c.Fix = verdict, rule, reason, fix
	}
	switch typ := q.Nodes.Effective(&from.Container); {
	case p.Windows:
		answer(Closed, "", "the pod is for Windows: no kubelet on Linux runs it", "")
	case from.Privileged:
		answer(Open, rulePrivileged, "privileged: no filter is loaded, whatever the profile", "name the capabilities and devices that it needs instead")
		c.unfiltered(q.Policy)
	case typ == kube.Unconfined:
		answer(Open, ruleUnconfined, "Unconfined: no filter is loaded", fixProfile)
		c.unfiltered(q.Policy)
	case typ == kube.Undefined:
		answer(Open, ruleUndefined, "no profile: the kubelet takes that for Unconfined, unless it has seccompDefault", fixProfile)
		c.unfiltered(q.Policy)
	case from.Filter != "":
		listener := c.filtered(filters)
		if typ == kube.Localhost && q.Policy != nil {
			c.granted(q.Policy, p, from.Container, listener)
		}
	case typ == kube.RuntimeDefault:
		answer(Undecided, ruleRuntimeDefault, from.Unknown, "say with --runtime-default which it is, or name a Localhost profile")
	case typ == kube.Localhost:
		answer(Undecided, ruleLocalhost, from.Unknown, "give the directory that has it with --profiles")
	default:
		answer(Undecided, ruleArtifact, cmp.Or(from.Unknown, "the profile is not known"), "name a profile of the node, with type Localhost")
	}
}

// unfiltered is what a policy says of a container without a filter. It may leave it to
// the nodes, where no manifest shows it.
func (c *Container) unfiltered(p *plan.Plan) {
	if p == nil {
		return
	}
	switch p.Unconfined {
	case plan.Allow:
		c.Verdict, c.Reason = Expected, c.Reason+"; the policy allows that (unconfined: allow)"
	case plan.Harden, plan.LSM:
		c.Verdict, c.Reason = Expected, fmt.Sprintf("%s; the policy has the node close it (unconfined: %s), which probe shows there", c.Reason, p.Unconfined)
	default:
		c.Reason += "; the policy refuses that (unconfined: refuse)"
	}
}

// notClosed are the verdicts about a filter that is not closed, the least first.
var notClosed = []string{Undecided, Listener, Open}

// filtered takes the worst answer of all programs that the filter is compiled to, and
// reports whether a listener is all that is not closed.
func (c *Container) filtered(filters []Filter) (listener bool) {
	worst := -1
	var machines []string
	for _, f := range filters {
		if f.Name != c.Filter {
			continue
		}
		machines = append(machines, f.Machine)
		for _, a := range f.Answers {
			if at := slices.Index(notClosed, a.Verdict); at > worst {
				worst, c.Reason = at, fmt.Sprintf("%s leaves %s by %s on %s %s (%s)", c.Filter, a.About, a.title(), a.ABI, a.Verdict, f.Machine)
			}
		}
	}
	slices.Sort(machines)
	switch {
	case machines == nil:
		c.Verdict, c.Rule, c.Reason = Undecided, ruleFilter, c.Filter+" was not asked"
	case worst < 0:
		c.Verdict, c.Reason = Closed, fmt.Sprintf("%s is closed on %s", c.Filter, strings.Join(slices.Compact(machines), ", "))
	default:
		c.Verdict, c.Rule, c.Fix = Open, ruleFilter, "harden the profile with generate seccomp --base"
		if notClosed[worst] == Undecided {
			c.Verdict = Undecided
		}
	}
	return worst >= 0 && notClosed[worst] == Listener
}

// granted judges a profile of ours with rules in it: whether the policy grants them
// to this container. A listener is then what the policy asks for.
func (c *Container) granted(p *plan.Plan, pod source.Pod, from kube.Container, listener bool) {
	rules, is := kube.GrantedRules(from.Localhost)
	if !is {
		return
	}
	held := heldBy(p, pod, from.Name)
	if path.Clean(from.Localhost) != kube.GrantedProfile(held) && (rules == nil || slices.ContainsFunc(rules, func(r string) bool { return !slices.Contains(held, r) })) {
		namespace := "a namespace that the manifest does not name"
		if pod.Namespace != "" {
			namespace = "namespace " + pod.Namespace
		}
		c.Verdict, c.Rule = Open, ruleNotGranted
		c.Reason = fmt.Sprintf("%s holds rules that the policy does not grant to container %s in %s: it grants %s", from.Localhost, from.Name, namespace, cmp.Or(strings.Join(held, ", "), "none"))
		c.Fix = "name " + kube.GrantedProfile(held) + ", grant the rules in the policy, or write metadata.namespace"
		return
	}
	if listener {
		c.Verdict, c.Rule, c.Fix = Expected, "", ""
		c.Reason = fmt.Sprintf("%s leaves it to the agent, as the policy grants: %s", c.Filter, strings.Join(held, ", "))
	}
}

// heldBy are the rules that the policy grants to a container, whichever runtime
// starts it. The pods of a template have names that nobody knows yet.
func heldBy(p *plan.Plan, pod source.Pod, name string) []string {
	c := plan.Container{Vouched: plan.Identity{Namespace: pod.Namespace, Name: name}}
	if pod.Kind == "Pod" {
		c.Vouched.Pod = pod.Name
	}
	c.Platform = "containerd"
	held, _ := p.GrantsOf(c)
	c.Platform = "crio"
	other, _ := p.GrantsOf(c)
	return slices.DeleteFunc(held, func(r string) bool { return !slices.Contains(other, r) })
}

// counts reports whether a container makes the report fail.
func (c *Container) counts() bool {
	return c.Verdict != Closed && c.Verdict != Expected && c.Ignored == ""
}

// ignoreContainers marks what the ignore file lists. An accepted profile is accepted
// for the containers that have it.
func (r *Filters) ignoreContainers(list IgnoreFile) {
	for i := range r.Containers {
		c := &r.Containers[i]
		if c.Verdict != Open && c.Verdict != Undecided {
			continue
		}
		c.Ignored = list.reason(c.Rule, c.File)
		if c.Ignored == "" && c.Rule == ruleFilter {
			c.Ignored = r.acceptedFilter(c.Filter)
		}
	}
}

// acceptedFilter is the reason why everything that is not closed in a filter is
// ignored; "" if something is not.
func (r *Filters) acceptedFilter(name string) (reason string) {
	for _, f := range r.Filters {
		if f.Name != name {
			continue
		}
		for _, a := range f.Answers {
			if a.Verdict == Closed {
				continue
			}
			if a.Ignored == "" {
				return ""
			}
			reason = a.Ignored
		}
	}
	return reason
}

// level is that of the finding which a container is.
func (c *Container) level() verify.Level {
	if c.Verdict == Open {
		return verify.Error
	}
	return verify.Warning
}

// Text names the container, and says the answer.
func (c *Container) Text() string {
	object := kube.Object{Kind: c.Kind, Namespace: c.Namespace, Name: c.Object}
	text := fmt.Sprintf("%s, %s %s: %s", object, c.Role, c.Name, c.Reason)
	if c.Fix != "" {
		text += "; " + c.Fix
	}
	return printable.Line(text)
}

// containersText writes a line for each container.
func (r *Filters) containersText(t *term.Printer) {
	for _, c := range r.Containers {
		end := ""
		switch {
		case c.Ignored != "":
			end = " (ignored: " + c.Ignored + ")"
		case c.Rule != "":
			end = " [" + c.Rule + "]"
		}
		fmt.Fprintf(t.Out, "%s:%d:%d: %s: %s\n", printable.Line(c.File), c.Line, c.Column, t.Answer(c.Verdict), t.Printable(c.Text()+end))
	}
}

// containersCounted is the part of the conclusion about manifests.
func (r *Filters) containersCounted() string {
	if len(r.Containers) == 0 {
		return ""
	}
	n := map[string]int{}
	for _, c := range r.Containers {
		n[c.Verdict]++
	}
	text := fmt.Sprintf("; %s, %d of them open", term.Count(len(r.Containers), "container"), n[Open])
	for _, word := range []string{Undecided, Expected} {
		if n[word] > 0 {
			text += fmt.Sprintf(", %d %s", n[word], word)
		}
	}
	return text
}

// lookedText says what was passed over.
func (r *Filters) lookedText() string {
	l := r.Looked
	if l.PassedOver+l.Excluded+l.Objects == 0 {
		return ""
	}
	text := fmt.Sprintf("; looked at %s", term.Count(l.Files, "file"))
	for _, part := range []struct {
		n    int
		text string
	}{
		{l.PassedOver, "with nothing to verify"}, {l.Excluded, "left out"}, {l.Objects, "of their objects of other kinds"},
	} {
		if part.n > 0 {
			text += fmt.Sprintf(", %d %s", part.n, part.text)
		}
	}
	return text
}
