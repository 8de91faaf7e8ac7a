package policy

import (
	"cmp"
	"errors"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
)

// algorithms reads lists of names by type, and returns them by type, whatever
// the order in the file is.
func (d *decoder) algorithms(n *yaml.Node) []Algorithm {
	var all []Algorithm
	var fields []field
	for _, t := range afalg.Types() {
		fields = append(fields, field{string(t), optional, func(n *yaml.Node) { all = append(all, d.names(n, t)...) }})
	}
	d.mapping(n, "algorithms", fields)
	if n.Kind == yaml.MappingNode && len(n.Content) == 0 {
		d.errorf(n, "the rule allows no algorithm; name one or remove the rule")
	}
	slices.SortStableFunc(all, func(a, b Algorithm) int { return cmp.Compare(a.Type, b.Type) })
	return all
}

// names reads the algorithms of one type.
func (d *decoder) names(n *yaml.Node, t afalg.Type) []Algorithm {
	var all []Algorithm
	read := func(n *yaml.Node) (string, bool) { return d.algorithmName(n, t) }
	d.distinct(n, string(t), read, func(name string, n *yaml.Node) {
		all = append(all, Algorithm{afalg.Algorithm{Type: t, Name: name}, d.pos(n)})
	})
	i := slices.IndexFunc(all, func(a Algorithm) bool { return a.Name == afalg.AnyName })
	if i >= 0 && len(all) > 1 {
		d.errorAt(all[i].Pos.Line, all[i].Pos.Col, `"*" opens every %s; remove the other names, or this one`, t)
	}
	return all
}

func (d *decoder) algorithmName(n *yaml.Node, t afalg.Type) (string, bool) {
	name, ok := d.text(n, "an algorithm name", anything)
	if !ok {
		return "", false
	}
	if name == afalg.AnyName {
		d.warnf(n, `"*" opens every %s that a kernel has or will have`, t)
		return name, true
	}
	if _, err := afalg.ParseName(name); err != nil {
		d.errorf(n, "%v%s", err, d.nameHint(n, t, err))
		return "", false
	}
	d.warnName(n, t, name)
	return name, true
}

// nameHint ends a message about a name that no kernel would parse.
func (d *decoder) nameHint(n *yaml.Node, t afalg.Type, err error) string {
	if d.spendHint() {
		if guess, found := near(n.Value, afalg.WellKnown(t)); found {
			return "; did you mean " + quote(guess) + "?"
		}
	}
	var e *afalg.NameError
	if errors.As(err, &e) && e.Offset == len(n.Value) && isPlain(n) && strings.Contains(n.Value, "(") {
		return "; a name with a comma needs quotes"
	}
	return ""
}

// warnName reports names that are legal, and perhaps not meant.
func (d *decoder) warnName(n *yaml.Node, t afalg.Type, name string) {
	if len(name) > afalg.MaxName {
		d.warnf(n, "the name has %d characters: above %d it can be bound since Linux 4.12 only, and by few programs", len(name), afalg.MaxName)
	}
	if d.spendHint() {
		guess, found := Suggest(t, name)
		if found && guess.Type != t {
			d.warnf(n, "%s is no known %s, but a known %s", quote(name), t, guess.Type)
			return
		}
		if found {
			d.warnf(n, "%s is no known %s; did you mean %q?", quote(name), t, guess.Name)
			return
		}
	}
	if part, found := afalg.DriverName(name); found {
		d.warnf(n, "%s names one implementation, which other kernels and machines may lack; programs bind the algorithm's own name", quote(part))
	}
}
