package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// The tags that YAML gives to plain values.
const (
	strTag   = "!!str"
	intTag   = "!!int"
	floatTag = "!!float"
	boolTag  = "!!bool"
	nullTag  = "!!null"
	mergeTag = "!!merge"
)

// decoder walks the tree of a file and collects its faults. Its methods go on
// after a fault, so that all are reported at once.
type decoder struct {
	file     string
	errs     ErrorList
	warnings []Warning
	hints    int // suggestions looked for so far
}

func (d *decoder) pos(n *yaml.Node) Pos { return Pos{d.file, n.Line, n.Column} }

func (d *decoder) errorf(n *yaml.Node, format string, args ...any) {
	d.errorAt(n.Line, n.Column, format, args...)
}

func (d *decoder) errorAt(line, col int, format string, args ...any) {
	d.errs = append(d.errs, &Error{Pos{d.file, line, col}, fmt.Sprintf(format, args...)})
}

func (d *decoder) warnf(n *yaml.Node, format string, args ...any) {
	d.warnAt(d.pos(n), format, args...)
}

func (d *decoder) warnAt(pos Pos, format string, args ...any) {
	d.warnings = append(d.warnings, Warning{pos, fmt.Sprintf(format, args...)})
}

// field is a key that a mapping may have, and the reader of its value.
type field struct {
	key  string
	need need
	read func(*yaml.Node)
}

// need says whether a field must be there.
type need int

const (
	optional need = iota
	required
	condition // one of several, of which there must be one
)

// mapping reads the fields of a mapping in the order of the file. It reports
// whether it knew every key, and how many conditions it read; what names the
// mapping in messages ("a rule").
func (d *decoder) mapping(n *yaml.Node, what string, fields []field) (known bool, conditions int) {
	if n.Kind != yaml.MappingNode {
		d.wrongKind(n, what, "a mapping with "+oneOf(keysOf(fields)))
		return false, 0
	}
	known = true
	merged := false
	first := map[string]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Tag == mergeTag || key.Kind == yaml.AliasNode {
			known, merged = false, true // reported by refuse
			continue
		}
		if key.Kind != yaml.ScalarNode {
			d.errorf(key, "a key of %s must be a word", what)
			continue
		}
		if f, again := first[key.Value]; again {
			d.errorf(key, "the key %s stands twice in %s, first at line %d", quote(key.Value), what, f.Line)
			continue
		}
		first[key.Value] = key
		at := slices.IndexFunc(fields, func(f field) bool { return f.key == key.Value })
		if at < 0 {
			d.errorf(key, "unknown key %s in %s%s", quote(key.Value), what, d.didYouMean(key.Value, keysOf(fields)))
			known = false
			continue
		}
		fields[at].read(value)
		if fields[at].need == condition {
			conditions++
		}
	}
	for _, f := range fields {
		if f.need == required && first[f.key] == nil && !merged {
			d.errorf(n, "%s lacks the key %q", what, f.key)
		}
	}
	return known, conditions
}

// keysOf lists the keys of fields: of all, or of those with one of the needs.
func keysOf(fields []field, needs ...need) []string {
	var keys []string
	for _, f := range fields {
		if len(needs) == 0 || slices.Contains(needs, f.need) {
			keys = append(keys, f.key)
		}
	}
	return keys
}

// list calls each for the items of a list that has at least one. An empty list
// is an error: as a condition, a reader takes it for "nobody" and a program for
// "no condition".
func (d *decoder) list(n *yaml.Node, what string, each func(*yaml.Node)) {
	if n.Kind != yaml.SequenceNode {
		d.wrongKind(n, what, "a list")
		return
	}
	if len(n.Content) == 0 {
		d.errorf(n, "%s is an empty list; fill it or remove the key", what)
	}
	for _, item := range n.Content {
		each(item)
	}
}

// entries returns the items of a list that may be empty, and that is bounded.
func (d *decoder) entries(n *yaml.Node, what, entry string, most int) []*yaml.Node {
	if n.Kind != yaml.SequenceNode {
		d.wrongKind(n, what, "a list of "+entry+"s")
		return nil
	}
	if len(n.Content) > most {
		d.errorf(n.Content[most], "%s %d; a policy has %d at most", entry, most+1, most)
		return nil
	}
	return n.Content
}

// distinct reads a list of different values. read returns the identity of a
// value, and add gets each one that appears for the first time.
func (d *decoder) distinct(n *yaml.Node, what string, read func(*yaml.Node) (string, bool), add func(string, *yaml.Node)) {
	seen := seenAt{}
	d.list(n, what, func(item *yaml.Node) {
		if s, ok := read(item); ok && d.unique(seen, s, item, quote(s)) {
			add(s, item)
		}
	})
}

// strings reads a list of different strings.
func (d *decoder) strings(n *yaml.Node, what string, read func(*yaml.Node) (string, bool)) []string {
	var all []string
	d.distinct(n, what, read, func(s string, _ *yaml.Node) { all = append(all, s) })
	return all
}

// pairs reads a mapping with at least one key, where the user chooses the keys.
func (d *decoder) pairs(n *yaml.Node, what string, checkKey, checkValue func(string) error) map[string]string {
	if n.Kind != yaml.MappingNode {
		d.wrongKind(n, what, "a mapping")
		return nil
	}
	if len(n.Content) == 0 {
		d.errorf(n, "%s is an empty mapping; fill it or remove the key", what)
	}
	all := map[string]string{}
	seen := seenAt{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Tag == mergeTag {
			continue // reported by refuse
		}
		key, keyOK := d.text(n.Content[i], "a key of "+what, checkKey)
		value, valueOK := d.text(n.Content[i+1], "a value of "+what, checkValue)
		if keyOK && d.unique(seen, key, n.Content[i], "the key "+quote(key)) && valueOK {
			all[key] = value
		}
	}
	return all
}

// seenAt has the first place of each value.
type seenAt map[string]*yaml.Node

// unique reports a repeated value; shown names it in the message.
func (d *decoder) unique(seen seenAt, value string, n *yaml.Node, shown string) bool {
	if first, again := seen[value]; again {
		d.errorf(n, "%s stands twice, first at line %d", shown, first.Line)
		return false
	}
	seen[value] = n
	return true
}

// text reads a string and checks it.
func (d *decoder) text(n *yaml.Node, what string, check func(string) error) (string, bool) {
	return d.scalar(n, what, check, strTag)
}

// scalar reads a value that YAML takes for one of the types, by its own
// characters.
func (d *decoder) scalar(n *yaml.Node, what string, check func(string) error, tags ...string) (string, bool) {
	switch {
	case isTagged(n): // reported by refuse
		return "", false
	case n.Kind != yaml.ScalarNode || n.Tag == nullTag:
		d.wrongKind(n, what, "text")
		return "", false
	case !slices.Contains(tags, n.Tag):
		d.errorf(n, "%s must be text, and YAML reads %s as %s; put it in quotes", what, quote(n.Value), describeTag(n.Tag))
		return "", false
	}
	if err := check(n.Value); err != nil {
		d.errorf(n, "%s %s: %v", what, quote(n.Value), err)
		return "", false
	}
	return n.Value, true
}

// constant reads one of the kernel's names.
func (d *decoder) constant(n *yaml.Node, what string, all []string) (string, bool) {
	name, ok := d.scalar(n, what, anything, strTag, intTag, floatTag)
	if !ok {
		return "", false
	}
	if slices.Contains(all, name) {
		return name, true
	}
	hint := d.didYouMean(name, all)
	if n.Tag != strTag {
		hint = "; write its name, such as " + all[0]
	}
	d.errorf(n, "unknown %s %s%s", what, quote(name), hint)
	return "", false
}

// anything is the check that every string passes.
func anything(string) error { return nil }

// boolean reads true or false.
func (d *decoder) boolean(n *yaml.Node, what string) (value, ok bool) {
	value, err := strconv.ParseBool(strings.ToLower(n.Value))
	if n.Kind != yaml.ScalarNode || n.Tag != boolTag || err != nil {
		d.wrongKind(n, what, "true or false")
		return false, false
	}
	return value, true
}

// choice reads what may be said either way.
func (d *decoder) choice(n *yaml.Node, key string) Choice {
	yes, ok := d.boolean(n, key)
	switch {
	case !ok:
		return ""
	case yes:
		return Yes
	}
	return No
}

// onlyTrue reads a condition, which there is no use in denying.
func (d *decoder) onlyTrue(n *yaml.Node, key string) bool {
	yes, ok := d.boolean(n, key)
	if ok && !yes {
		d.errorf(n, "%s is true, or left out", key)
	}
	return yes
}

// wrongKind reports a node that is something else than it should be.
func (d *decoder) wrongKind(n *yaml.Node, what, want string) {
	if n.Kind == yaml.AliasNode || isTagged(n) {
		return // reported by refuse
	}
	d.errorf(n, "%s must be %s, not %s", what, want, describe(n))
}

func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.Tag {
	case strTag:
		return quote(n.Value)
	case intTag, floatTag:
		return "the number " + quote(n.Value)
	}
	return describeTag(n.Tag)
}

// isTagged reports whether the file gives the node a tag of its own.
func isTagged(n *yaml.Node) bool { return n.Style&yaml.TaggedStyle != 0 || n.Tag == "!" }

// isPlain reports whether a scalar has no quotes.
func isPlain(n *yaml.Node) bool {
	return n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) == 0
}

func describeTag(tag string) string {
	switch tag {
	case nullTag:
		return "empty"
	case intTag, floatTag:
		return "a number"
	case boolTag:
		return "a boolean"
	case "!!timestamp":
		return "a date"
	}
	return "a value of type " + tag
}
