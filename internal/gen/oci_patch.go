package gen

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tailscale/hujson"
)

// patch puts a profile into the config, laid out as its surroundings are.
func (c *ociConfig) patch(profile *specs.LinuxSeccomp) ([]byte, error) {
	linux := c.linux.Value.Value.(*hujson.Object)
	if c.seccomp != nil {
		value, err := c.layoutOf(c.seccomp).encode(profile)
		if err != nil {
			return nil, err
		}
		return c.replace(c.seccomp.Value.StartOffset, c.seccomp.Value.EndOffset, value), nil
	}
	if len(linux.Members) > 0 {
		last := &linux.Members[len(linux.Members)-1]
		l := c.layoutOf(last)
		value, err := l.encode(profile)
		if err != nil {
			return nil, err
		}
		return c.insert(last.Value.EndOffset, ","+l.lead+`"seccomp"`+l.colon+value), nil
	}
	return c.fill(profile)
}

// fill puts the profile into an empty linux section.
func (c *ociConfig) fill(profile *specs.LinuxSeccomp) ([]byte, error) {
	outer := c.layoutOf(c.linux)
	inner := outer
	tail := ""
	if outer.multiline {
		inner.indent += outer.unit
		inner.lead = outer.newline + inner.indent
		tail = outer.newline + outer.indent
	}
	value, err := inner.encode(profile)
	if err != nil {
		return nil, err
	}
	inside := c.src[c.linux.Value.StartOffset+1 : c.linux.Value.EndOffset-1]
	if bytes.ContainsRune(inside, '\n') {
		tail = ""
	}
	return c.insert(c.linux.Value.StartOffset+1, inner.lead+`"seccomp"`+inner.colon+value+tail), nil
}

func (c *ociConfig) insert(at int, text string) []byte { return c.replace(at, at, text) }

func (c *ociConfig) replace(start, end int, text string) []byte {
	return bytes.Join([][]byte{c.src[:start], []byte(text), c.src[end:]}, nil)
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

func (c *ociConfig) layoutOf(m *hujson.ObjectMember) layout {
	lead := c.spaceBefore(m.Name.StartOffset)
	l := layout{lead: lead, colon: string(c.src[m.Name.EndOffset:m.Value.StartOffset])}
	i := strings.LastIndexByte(lead, '\n')
	if i < 0 {
		return l
	}
	l.multiline, l.newline, l.indent = true, "\n", lead[i+1:]
	if strings.Contains(lead, "\r\n") {
		l.newline = "\r\n"
	}
	l.lead = l.newline + l.indent
	l.unit = c.unit()
	return l
}

// unit is the indentation of the outermost keys, or a tab where they have none.
func (c *ociConfig) unit() string {
	lead := c.spaceBefore(c.root.Members[0].Name.StartOffset)
	if i := strings.LastIndexByte(lead, '\n'); i >= 0 && lead[i+1:] != "" {
		return lead[i+1:]
	}
	return "\t"
}

func (c *ociConfig) spaceBefore(offset int) string {
	before := c.src[:offset]
	return string(before[len(bytes.TrimRight(before, " \t\r\n")):])
}

func (l layout) encode(profile *specs.LinuxSeccomp) (string, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if l.multiline {
		e.SetIndent(l.indent, l.unit)
	}
	if err := e.Encode(profile); err != nil {
		return "", fmt.Errorf("writing linux.seccomp: %w", err)
	}
	text := strings.TrimSuffix(b.String(), "\n")
	if l.newline == "\r\n" {
		text = strings.ReplaceAll(text, "\n", l.newline)
	}
	return text, nil
}
