package edit

import (
	"bytes"
	"encoding/json"
	"strings"

	"github.com/tailscale/hujson"
)

// jsonText is a JSON text and where its members are.
type jsonText struct {
	src  []byte
	root *hujson.Object
}

// place is an object in a text.
type place struct {
	*hujson.Object
	holder     *hujson.ObjectMember // whose value it is; nil for the outermost
	start, end int
}

// put replaces the value of a member.
func (t jsonText) put(m *hujson.ObjectMember, value any) ([]byte, error) {
	text, err := t.layoutOf(m).encode(value)
	if err != nil {
		return nil, err
	}
	return replace(t.src, m.Value.StartOffset, m.Value.EndOffset, text), nil
}

// add puts a member into an object, behind its last one and laid out as that.
func (t jsonText) add(o place, key string, value any) ([]byte, error) {
	if len(o.Members) == 0 {
		return t.fill(o, key, value)
	}
	last := &o.Members[len(o.Members)-1]
	text, err := t.layoutOf(last).member(key, value)
	if err != nil {
		return nil, err
	}
	return replace(t.src, last.Value.EndOffset, last.Value.EndOffset, ","+text), nil
}

// fill puts the first member into an object.
func (t jsonText) fill(o place, key string, value any) ([]byte, error) {
	outer := t.layoutAround(o)
	inner := outer
	tail := ""
	if outer.multiline {
		inner.indent += outer.unit
		inner.lead = outer.newline + inner.indent
		tail = outer.newline + outer.indent
	}
	text, err := inner.member(key, value)
	if err != nil {
		return nil, err
	}
	if bytes.ContainsRune(t.src[o.start+1:o.end-1], '\n') {
		tail = ""
	}
	return replace(t.src, o.start+1, o.start+1, text+tail), nil
}

// layout is the white space around a member of an object.
type layout struct {
	multiline bool   // each member on a line of its own
	newline   string // "\n" or "\r\n"
	indent    string // of the member's line
	unit      string // by which one more level is indented
	lead      string // what stands before the member
	colon     string // what stands between its key and its value
}

func (t jsonText) layoutOf(m *hujson.ObjectMember) layout {
	lead := t.spaceBefore(m.Name.StartOffset)
	l := layout{lead: lead, colon: string(t.src[m.Name.EndOffset:m.Value.StartOffset])}
	i := strings.LastIndexByte(lead, '\n')
	if i < 0 {
		return l
	}
	l.multiline, l.newline, l.indent = true, newlineOf([]byte(lead)), lead[i+1:]
	l.lead = l.newline + l.indent
	l.unit = t.unit()
	return l
}

// layoutAround is the layout of the member that holds an object. A file that is
// empty becomes one for people.
func (t jsonText) layoutAround(o place) layout {
	if o.holder != nil {
		return t.layoutOf(o.holder)
	}
	return layout{multiline: true, newline: newlineOf(t.src), unit: "  ", colon: ": "}
}

// unit is the indentation of the outermost keys, or a tab where they have none.
func (t jsonText) unit() string {
	lead := t.spaceBefore(t.root.Members[0].Name.StartOffset)
	if i := strings.LastIndexByte(lead, '\n'); i >= 0 && lead[i+1:] != "" {
		return lead[i+1:]
	}
	return "\t"
}

func (t jsonText) spaceBefore(offset int) string {
	before := t.src[:offset]
	return string(before[len(bytes.TrimRight(before, jsonSpace)):])
}

func (l layout) member(key string, value any) (string, error) {
	name, err := encode(key, "", "")
	if err != nil {
		return "", err
	}
	text, err := l.encode(value)
	return l.lead + name + l.colon + text, err
}

func (l layout) encode(value any) (string, error) {
	if !l.multiline {
		return encode(value, "", "")
	}
	text, err := encode(value, l.indent, l.unit)
	return strings.ReplaceAll(text, "\n", l.newline), err
}

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
