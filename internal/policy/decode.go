package policy

import (
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
)

// document reads the whole file.
func (d *decoder) document(n *yaml.Node) *Policy {
	p := &Policy{File: d.file}
	d.mapping(n, "a policy", []field{
		{"version", required, d.version},
		{"name", required, func(n *yaml.Node) { p.Name, _ = d.text(n, "name", checkPolicyName) }},
		{"include", optional, func(n *yaml.Node) { p.Include = d.includes(n) }},
		{"deny", optional, func(n *yaml.Node) { p.Deny = d.deny(n) }},
		{"allow", optional, func(n *yaml.Node) { p.Rules = d.rules(n) }},
		{"containers", optional, func(n *yaml.Node) { p.Containers = d.containers(n) }},
		{"expect-open", optional, func(n *yaml.Node) { p.ExpectOpen = d.expected(n) }},
	})
	return p
}

func (d *decoder) version(n *yaml.Node) {
	if n.Kind != yaml.ScalarNode || n.Tag != intTag {
		d.wrongKind(n, "version", "the number 1")
	} else if n.Value != "1" {
		d.errorf(n, "version %s: this program reads version 1", quote(n.Value))
	}
}

func (d *decoder) includes(n *yaml.Node) []Include {
	var all []Include
	read := func(n *yaml.Node) (string, bool) { return d.text(n, "include", checkInclude) }
	d.distinct(n, "include", read, func(name string, n *yaml.Node) { all = append(all, Include{name, d.pos(n)}) })
	return all
}

func (d *decoder) deny(n *yaml.Node) Deny {
	var deny Deny
	d.mapping(n, "deny", []field{
		{"socket-errno", optional, func(n *yaml.Node) { deny.SocketErrno, _ = d.constant(n, "errno", afalg.Errnos()) }},
		{"bind-errno", optional, func(n *yaml.Node) { deny.BindErrno, _ = d.constant(n, "errno", afalg.Errnos()) }},
		{"presets", optional, func(n *yaml.Node) { deny.Presets = d.presets(n) }},
		{"families", optional, func(n *yaml.Node) { deny.Families = d.families(n) }},
		{"sockets", optional, func(n *yaml.Node) { deny.Sockets = d.sockets(n) }},
		{"socket-options", optional, func(n *yaml.Node) { deny.SocketOptions = d.socketOptions(n) }},
		{"user-namespaces", optional, func(n *yaml.Node) { deny.UserNamespaces = d.onlyTrue(n, "user-namespaces") }},
		{"zero-copy", optional, func(n *yaml.Node) { deny.ZeroCopy = d.choice(n, "zero-copy") }},
	})
	return deny
}

func (d *decoder) families(n *yaml.Node) []Family {
	var all []Family
	d.distinct(n, "families", d.family, func(name string, n *yaml.Node) {
		number, _ := afalg.FamilyByName(name)
		all = append(all, Family{name, number, d.pos(n)})
	})
	return all
}

// family reads the name of a family, and returns it without aliases.
func (d *decoder) family(n *yaml.Node) (string, bool) {
	name, ok := d.constant(n, "socket family", afalg.Families())
	number, _ := afalg.FamilyByName(name)
	if ok && number == afalg.Family {
		d.errorf(n, "AF_ALG is denied by every policy; remove it")
		return "", false
	}
	return afalg.FamilyName(number), ok
}

// rules reads the allow list, which may be empty: then it allows nothing.
func (d *decoder) rules(n *yaml.Node) []Rule {
	var all []Rule
	names := seenAt{}
	for _, item := range d.entries(n, "allow", "rule", MaxRules) {
		all = append(all, d.rule(item, names))
	}
	return all
}

func (d *decoder) rule(n *yaml.Node, names seenAt) Rule {
	r := Rule{Pos: d.pos(n)}
	anyoneOK := true
	var binaries, strictExec *yaml.Node
	fields := []field{
		{"rule", required, func(n *yaml.Node) { r.Name = d.ruleName(n, names) }},
		{"anyone", optional, func(n *yaml.Node) { r.Anyone, anyoneOK = d.boolean(n, "anyone") }},
		{"binaries", condition, func(n *yaml.Node) { binaries = n; r.Binaries = d.binaries(n) }},
		{"strict-exec", optional, func(n *yaml.Node) { strictExec = n; r.StrictExec = d.onlyTrue(n, "strict-exec") }},
		{"users", condition, func(n *yaml.Node) { r.Users = d.strings(n, "users", d.user) }},
		{"capabilities", condition, func(n *yaml.Node) { r.Capabilities = d.strings(n, "capabilities", d.capability) }},
		{"units", condition, func(n *yaml.Node) { r.Units = d.strings(n, "units", d.unit) }},
	}
	opens := 0
	opened := d.opened(&r)
	for _, f := range opened {
		read := f.read
		f.read = func(n *yaml.Node) { opens++; read(n) }
		fields = append(fields, f)
	}
	known, conditions := d.mapping(n, "a rule", fields)
	if opens == 0 && known {
		d.errorf(n, "the rule allows nothing: give %s", oneOf(keysOf(opened)))
	}
	if strictExec != nil && binaries == nil {
		d.errorf(strictExec, "strict-exec is about the binaries of the rule, and it has none: give binaries, or remove strict-exec")
	}
	switch {
	case r.Anyone && conditions > 0:
		d.errorf(n, `the rule says "anyone: true" and has conditions; remove one or the other`)
	case !r.Anyone && conditions == 0 && known && anyoneOK:
		d.errorf(n, `the rule names nobody: give %s, or write "anyone: true"`, oneOf(keysOf(fields, condition)))
	}
	return r
}

// opened are the keys of what a rule allows, of which it has one at least.
func (d *decoder) opened(r *Rule) []field {
	return []field{
		{"algorithms", optional, func(n *yaml.Node) { r.Algorithms = d.algorithms(n) }},
		{"sockets", optional, func(n *yaml.Node) { r.Sockets = d.sockets(n) }},
		{"socket-options", optional, func(n *yaml.Node) { r.SocketOptions = d.socketOptions(n) }},
		{"user-namespaces", optional, func(n *yaml.Node) { r.UserNamespaces = d.onlyTrue(n, "user-namespaces") }},
	}
}

func (d *decoder) ruleName(n *yaml.Node, names seenAt) string {
	name, ok := d.text(n, "rule", checkRuleName)
	if !ok || !d.unique(names, name, n, "the rule "+quote(name)) {
		return ""
	}
	return name
}

func (d *decoder) user(n *yaml.Node) (string, bool) {
	return d.scalar(n, "user", checkUser, strTag, intTag, floatTag)
}

func (d *decoder) unit(n *yaml.Node) (string, bool) { return d.text(n, "unit", checkUnit) }

func (d *decoder) capability(n *yaml.Node) (string, bool) {
	return d.constant(n, "capability", afalg.Capabilities())
}

// binaries reads a list of paths, each alone or with a digest.
func (d *decoder) binaries(n *yaml.Node) []Binary {
	var all []Binary
	seen := seenAt{}
	d.list(n, "binaries", func(item *yaml.Node) {
		b, ok := d.binary(item)
		if ok && d.unique(seen, b.Path+"\x00"+b.SHA256, item, quote(b.Path)) {
			all = append(all, b)
		}
	})
	d.warnMootDigests(all)
	return all
}

func (d *decoder) binary(n *yaml.Node) (Binary, bool) {
	b := Binary{Pos: d.pos(n)}
	errs := len(d.errs)
	readPath := func(n *yaml.Node) {
		b.Path, _ = d.text(n, "path", checkBinary)
		if strings.ContainsAny(b.Path, "*?[") {
			d.warnf(n, "the path %s is matched character by character: there are no patterns", quote(b.Path))
		}
	}
	if n.Kind == yaml.ScalarNode {
		readPath(n)
	} else {
		d.mapping(n, "a binary", []field{
			{"path", required, readPath},
			{"sha256", optional, func(n *yaml.Node) {
				// A digest without letters, or with a single "e", looks like a number.
				digest, _ := d.scalar(n, "sha256", checkDigest, strTag, intTag, floatTag)
				b.SHA256 = strings.ToLower(digest)
			}},
		})
	}
	return b, len(d.errs) == errs
}

// warnMootDigests reports a digest whose path is listed without one as well.
func (d *decoder) warnMootDigests(all []Binary) {
	bare := map[string]Pos{}
	for _, b := range all {
		if b.SHA256 == "" {
			bare[b.Path] = b.Pos
		}
	}
	for _, b := range all {
		if any, moot := bare[b.Path]; moot && b.SHA256 != "" {
			d.warnAt(b.Pos, "the digest of %s has no effect: line %d allows the path with any content", quote(b.Path), any.Line)
		}
	}
}
