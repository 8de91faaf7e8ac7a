package policy

import (
	"strings"

	"go.yaml.in/yaml/v4"
)

func (d *decoder) containers(n *yaml.Node) Containers {
	var c Containers
	d.mapping(n, "containers", []field{
		{"unconfined", optional, func(n *yaml.Node) { c.Unconfined = d.unconfined(n) }},
		{"grants", optional, func(n *yaml.Node) { c.Grants = d.grants(n) }},
	})
	return c
}

func (d *decoder) unconfined(n *yaml.Node) string {
	word, _ := d.constant(n, "value of unconfined", Unconfineds())
	switch word {
	case "allow":
		d.warnf(n, `"allow" opens every algorithm to containers without a seccomp profile`)
	case "lsm":
		d.warnf(n, `"lsm" leaves containers without a seccomp profile to the kernel half: they start only where that is in force, and have every algorithm if it is ever unloaded`)
	}
	return word
}

func (d *decoder) grants(n *yaml.Node) []Grant {
	var all []Grant
	for _, item := range d.entries(n, "grants", "grant", MaxGrants) {
		all = append(all, d.grant(item))
	}
	return all
}

func (d *decoder) grant(n *yaml.Node) Grant {
	g := Grant{Pos: d.pos(n)}
	gives := false
	fields := []field{
		{"rules", optional, func(n *yaml.Node) { gives = true; g.Rules = d.grantedRules(n) }},
		{"socketcall", optional, func(n *yaml.Node) { gives = true; g.Socketcall = d.socketcall(n) }},
		{"decided-by", optional, func(n *yaml.Node) { g.DecidedBy = d.decidedBy(n) }},
		{"platforms", optional, func(n *yaml.Node) { g.Platforms = d.strings(n, "platforms", d.platform) }},
		{"builds", condition, func(n *yaml.Node) { g.Builds = d.onlyTrue(n, "builds") }},
		{"names", condition, func(n *yaml.Node) { g.Names = d.strings(n, "names", d.container) }},
		{"images", condition, func(n *yaml.Node) { g.Images = d.strings(n, "images", d.image) }},
		{"namespaces", condition, func(n *yaml.Node) { g.Namespaces = d.strings(n, "namespaces", d.namespace) }},
		{"pods", condition, func(n *yaml.Node) { g.Pods = d.strings(n, "pods", d.pod) }},
		{"labels", condition, func(n *yaml.Node) { g.Labels = d.pairs(n, "labels", checkLabelKey, checkLabelValue) }},
		{"annotations", condition, func(n *yaml.Node) { g.Annotations = d.pairs(n, "annotations", checkLabelKey, checkLabelValue) }},
	}
	known, conditions := d.mapping(n, "a grant", fields)
	if known && !gives {
		d.errorf(n, "the grant gives nothing: give rules, or socketcall: %s for the sockets of 32-bit programs", SocketcallBroker)
	}
	switch {
	case g.DecidedBy == "":
	case known && len(g.Rules) == 0:
		d.errorf(n, "decided-by says who decides about rules, and the grant gives none")
	case g.Socketcall != "":
		d.warnf(n, "decided-by: lsm counts for nothing beside socketcall: broker, which needs the agent: the agent decides about the rules too")
	}
	if known && conditions == 0 {
		d.errorf(n, "the grant is for no container: give %s", oneOf(keysOf(fields, condition)))
	}
	return g
}

func (d *decoder) grantedRules(n *yaml.Node) []GrantedRule {
	var all []GrantedRule
	read := func(n *yaml.Node) (string, bool) { return d.text(n, "rule", checkRuleName) }
	d.distinct(n, "rules", read, func(name string, n *yaml.Node) { all = append(all, GrantedRule{name, d.pos(n)}) })
	return all
}

func (d *decoder) socketcall(n *yaml.Node) string {
	word, _ := d.constant(n, "value of socketcall", socketcalls())
	return word
}

func (d *decoder) decidedBy(n *yaml.Node) string {
	word, _ := d.constant(n, "value of decided-by", decidedBys())
	return word
}

func (d *decoder) platform(n *yaml.Node) (string, bool) {
	return d.constant(n, "platform", Platforms())
}
func (d *decoder) container(n *yaml.Node) (string, bool) { return d.text(n, "name", checkContainer) }
func (d *decoder) pod(n *yaml.Node) (string, bool)       { return d.text(n, "pod", checkContainer) }
func (d *decoder) namespace(n *yaml.Node) (string, bool) {
	return d.text(n, "namespace", checkNamespace)
}

// image reads a digest, and returns it in lower case.
func (d *decoder) image(n *yaml.Node) (string, bool) {
	digest, ok := d.text(n, "image", checkImage)
	return strings.ToLower(digest), ok
}
