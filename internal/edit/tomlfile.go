package edit

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"

	"github.com/afalg-policy/afalg-policy/internal/jsontext"
)

// tomlFile is a TOML text with the places of its tables and keys.
type tomlFile struct {
	src     []byte
	newline string
	items   []item
}

// item is a table's header, or a key with its value; items of inline tables
// follow the key that holds them.
type item struct {
	kind       unstable.Kind // of the value; Table or ArrayTable for a header
	table      []string      // the table whose section or braces hold it
	path       []string      // from the root
	keys       []unstable.Range
	nested     bool // in an inline table
	start, end int  // of the value; of a header: of its name
}

func (it *item) isHeader() bool {
	return it.kind == unstable.Table || it.kind == unstable.ArrayTable
}

// keyStart is the offset of the part of the path at a depth.
func (it *item) keyStart(depth int) int {
	return int(it.keys[depth-len(it.path)+len(it.keys)].Offset)
}

func readTOML(src []byte) (*tomlFile, error) {
	f := &tomlFile{src: src, newline: jsontext.Newline(src)}
	p := &unstable.Parser{}
	p.Reset(src)
	var table []string
	for p.NextExpression() {
		e := p.Expression()
		if e.Kind == unstable.KeyValue {
			f.keyValue(e, table, false)
			continue
		}
		names, ranges := keysOf(e)
		table = names
		last := ranges[len(ranges)-1]
		f.items = append(f.items, item{
			kind: e.Kind, path: names, keys: ranges, start: int(ranges[0].Offset), end: int(last.Offset + last.Length),
		})
	}
	if err := p.Error(); err != nil {
		return nil, fmt.Errorf("reading TOML: %w", err)
	}
	return f, nil
}

func (f *tomlFile) keyValue(e *unstable.Node, table []string, nested bool) {
	names, ranges := keysOf(e)
	last := ranges[len(ranges)-1]
	it := item{
		kind: e.Value().Kind, table: table, path: slices.Concat(table, names), keys: ranges, nested: nested,
		start: f.valueStart(int(last.Offset + last.Length)), end: int(e.Raw.Offset + e.Raw.Length),
	}
	f.items = append(f.items, it)
	if it.kind != unstable.InlineTable {
		return
	}
	for children := e.Value().Children(); children.Next(); {
		if child := children.Node(); child.Kind == unstable.KeyValue {
			f.keyValue(child, it.path, true)
		}
	}
}

func keysOf(e *unstable.Node) (names []string, ranges []unstable.Range) {
	for keys := e.Key(); keys.Next(); {
		names = append(names, string(keys.Node().Data))
		ranges = append(ranges, keys.Node().Raw)
	}
	return names, ranges
}

// valueStart skips the "=" between a key and its value.
func (f *tomlFile) valueStart(offset int) int {
	return len(f.src) - len(bytes.TrimLeft(f.src[offset:], " \t="))
}

// lastIn finds the last key in the braces of an inline table.
func (f *tomlFile) lastIn(table *item) (last *item) {
	for i := range f.items {
		if it := &f.items[i]; it.nested && slices.Equal(it.table, table.path) {
			last = it
		}
	}
	return last
}

// indentOf returns the white space at the start of the line of an offset.
func (f *tomlFile) indentOf(offset int) string {
	line := f.src[bytes.LastIndexByte(f.src[:offset], '\n')+1:]
	return string(line[:len(line)-len(bytes.TrimLeft(line, " \t"))])
}

// unit is the additional indentation of the first key in a table, compared with
// the table's header.
func (f *tomlFile) unit() string {
	var header *item
	for i := range f.items {
		it := &f.items[i]
		if it.isHeader() {
			header = it
		} else if header != nil {
			unit, _ := strings.CutPrefix(f.indentOf(it.start), f.indentOf(header.start))
			return unit
		}
	}
	return ""
}

// equals is the text between key and value; alignment with other lines is not
// copied.
func (f *tomlFile) equals(it *item) string {
	last := it.keys[len(it.keys)-1]
	if string(f.src[last.Offset+last.Length:it.start]) == "=" {
		return "="
	}
	return " = "
}

// header writes the name of a table, with the tables above it written as
// elsewhere.
func (f *tomlFile) header(path []string) string {
	var known []string
	for i := range f.items {
		it := &f.items[i]
		if n := commonPrefix(it.path, path); it.isHeader() && n > len(known) {
			known = nil
			for _, key := range it.keys[:n] {
				known = append(known, f.text(key))
			}
		}
	}
	for _, key := range path[len(known):] {
		known = append(known, keyText(key, f.keyQuote()))
	}
	return strings.Join(known, ".")
}

func (f *tomlFile) text(r unstable.Range) string { return string(f.src[r.Offset : r.Offset+r.Length]) }

// keyQuote is the quotation mark of the file's first quoted key.
func (f *tomlFile) keyQuote() byte {
	for i := range f.items {
		for _, key := range f.items[i].keys {
			if mark := f.src[key.Offset]; mark == '\'' || mark == '"' {
				return mark
			}
		}
	}
	return '"'
}

// quoteBefore is the quotation mark of the last string that starts before an
// offset.
func (f *tomlFile) quoteBefore(offset int) byte {
	mark := byte('"')
	for i := range f.items {
		if it := &f.items[i]; it.kind == unstable.String && it.start < offset {
			mark = f.src[it.start]
		}
	}
	return mark
}
