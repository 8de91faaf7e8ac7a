package policy

import "go.yaml.in/yaml/v4"

func (d *decoder) expected(n *yaml.Node) []Expected {
	var all []Expected
	for _, item := range d.entries(n, "expect-open", "entry", MaxExpected) {
		all = append(all, d.oneExpected(item))
	}
	return all
}

func (d *decoder) oneExpected(n *yaml.Node) Expected {
	e := Expected{Pos: d.pos(n)}
	path := func(n *yaml.Node) (string, bool) { return d.text(n, "path", checkBinary) }
	fields := []field{
		{"reason", required, func(n *yaml.Node) { e.Reason, _ = d.text(n, "reason", checkReason) }},
		{"outside-containers", condition, func(n *yaml.Node) { e.OutsideContainers = d.onlyTrue(n, "outside-containers") }},
		{"units", condition, func(n *yaml.Node) { e.Units = d.strings(n, "units", d.unit) }},
		{"binaries", condition, func(n *yaml.Node) { e.Binaries = d.strings(n, "binaries", path) }},
	}
	known, conditions := d.mapping(n, "an entry of expect-open", fields)
	if known && conditions == 0 {
		d.errorf(n, "the entry is for nobody: give %s", oneOf(keysOf(fields, condition)))
	}
	return e
}
