package policy

import (
	"strings"

	"go.yaml.in/yaml/v4"
)

func (d *decoder) containers(n *yaml.Node) Containers {
	var c Containers
	d.mapping(n, "containers", []field{
		{"unconfined", false, func(n *yaml.Node) { c.Unconfined = d.unconfined(n) }},
		{"grants", false, func(n *yaml.Node) { c.Grants = d.grants(n) }},
	})
	return c
}

func (d *decoder) unconfined(n *yaml.Node) string {
	word, _ := d.constant(n, "value of unconfined", Unconfineds())
	if word == "allow" {
		d.warnf(n, `"allow" opens every algorithm to containers without a seccomp profile`)
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
	conditions := 0
	condition := func(read func(*yaml.Node)) func(*yaml.Node) {
		return func(n *yaml.Node) { conditions++; read(n) }
	}
	known := d.mapping(n, "a grant", []field{
		{"rules", true, func(n *yaml.Node) { g.Rules = d.grantedRules(n) }},
		{"platforms", false, func(n *yaml.Node) { g.Platforms = d.strings(n, "platforms", d.platform) }},
		{"names", false, condition(func(n *yaml.Node) { g.Names = d.strings(n, "names", d.container) })},
		{"images", false, condition(func(n *yaml.Node) { g.Images = d.strings(n, "images", d.image) })},
		{"namespaces", false, condition(func(n *yaml.Node) { g.Namespaces = d.strings(n, "namespaces", d.namespace) })},
		{"pods", false, condition(func(n *yaml.Node) { g.Pods = d.strings(n, "pods", d.pod) })},
		{"labels", false, condition(func(n *yaml.Node) { g.Labels = d.pairs(n, "labels", checkLabelKey, checkLabelValue) })},
		{"annotations", false, condition(func(n *yaml.Node) { g.Annotations = d.pairs(n, "annotations", checkLabelKey, checkLabelValue) })},
	})
	if known && conditions == 0 {
		d.errorf(n, "the grant is for no container: give names, images, namespaces, pods, labels or annotations")
	}
	return g
}

func (d *decoder) grantedRules(n *yaml.Node) []GrantedRule {
	var all []GrantedRule
	read := func(n *yaml.Node) (string, bool) { return d.text(n, "rule", checkRuleName) }
	d.distinct(n, "rules", read, func(name string, n *yaml.Node) { all = append(all, GrantedRule{name, d.pos(n)}) })
	return all
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
