package jsontext

import (
	"bytes"
	"encoding/json"
	"strings"

	"github.com/tailscale/hujson"
)

// place is an object in a text.
type place struct {
	*hujson.Object
	holder     *hujson.ObjectMember // has the object as its value; nil for the outermost
	start, end int
}

// put replaces the value of a member.
func (d *Document) put(m *hujson.ObjectMember, value any) (Change, error) {
	text, err := d.layoutOf(m).encode(value)
	if err != nil {
		return Change{}, err
	}
	return Change{m.Value.StartOffset, m.Value.EndOffset, text}, nil
}

// add puts a member into an object, behind its last one and laid out as that.
func (d *Document) add(o place, key string, value any) (Change, error) {
	if len(o.Members) == 0 {
		return d.fill(o, key, value)
	}
	last := &o.Members[len(o.Members)-1]
	text, err := d.layoutOf(last).member(key, value)
	if err != nil {
		return Change{}, err
	}
	return Change{last.Value.EndOffset, last.Value.EndOffset, "," + text}, nil
}

// fill puts the first member into an object.
func (d *Document) fill(o place, key string, value any) (Change, error) {
	outer := d.layoutAround(o)
	inner := outer
	tail := ""
	if outer.multiline {
		inner.indent += outer.unit
		inner.lead = outer.newline + inner.indent
		tail = outer.newline + outer.indent
	}
	text, err := inner.member(key, value)
	if err != nil {
		return Change{}, err
	}
	if bytes.ContainsRune(d.Src[o.start+1:o.end-1], '\n') {
		tail = ""
	}
	return Change{o.start + 1, o.start + 1, text + tail}, nil
}

// layout is the white space around a member of an object.
type layout struct {
	multiline bool   // each member on a line of its own
	newline   string // "\n" or "\r\n"
	indent    string // of the member's line
	unit      string // the indentation of one more level
	lead      string // text before the member
	colon     string // text between its key and its value
}

func (d *Document) layoutOf(m *hujson.ObjectMember) layout {
	lead := d.spaceBefore(m.Name.StartOffset)
	l := layout{lead: lead, colon: string(d.Src[m.Name.EndOffset:m.Value.StartOffset])}
	i := strings.LastIndexByte(lead, '\n')
	if i < 0 {
		return l
	}
	l.multiline, l.newline, l.indent = true, Newline([]byte(lead)), lead[i+1:]
	l.lead = l.newline + l.indent
	l.unit = d.unit()
	return l
}

// layoutAround is the layout of the member that holds an object. A file that is
// empty becomes one for people.
func (d *Document) layoutAround(o place) layout {
	if o.holder != nil {
		return d.layoutOf(o.holder)
	}
	return layout{multiline: true, newline: Newline(d.Src), unit: "  ", colon: ": "}
}

// unit is the indentation of the outermost keys, or a tab where they have none.
func (d *Document) unit() string {
	lead := d.spaceBefore(d.Root.Value.(*hujson.Object).Members[0].Name.StartOffset)
	if i := strings.LastIndexByte(lead, '\n'); i >= 0 && lead[i+1:] != "" {
		return lead[i+1:]
	}
	return "\t"
}

func (d *Document) spaceBefore(offset int) string {
	before := d.Src[:offset]
	return string(before[len(bytes.TrimRight(before, Space)):])
}

func (l layout) member(key string, value any) (string, error) {
	name, err := Compact(key)
	if err != nil {
		return "", err
	}
	text, err := l.encode(value)
	return l.lead + name + l.colon + text, err
}

func (l layout) encode(value any) (string, error) {
	if !l.multiline {
		return Compact(value)
	}
	text, err := encode(value, l.indent, l.unit)
	return strings.ReplaceAll(text, "\n", l.newline), err
}

// Space is what JSON takes for white space.
const Space = " \t\r\n"

// Newline is the line end of a text: that of its first line.
func Newline(src []byte) string {
	if i := bytes.IndexByte(src, '\n'); i > 0 && src[i-1] == '\r' {
		return "\r\n"
	}
	return "\n"
}

// Compact writes a value in one line.
func Compact(value any) (string, error) { return encode(value, "", "") }

// encode writes a value as people do, "<" and "&" as they are.
func encode(value any, indent, unit string) (string, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent(indent, unit)
	if err := e.Encode(value); err != nil {
		return "", err
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}
