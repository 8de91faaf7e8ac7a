package edit

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// maxTOML bounds a configuration; the largest in the wild are below 100 KiB.
const maxTOML = 1 << 20

// TOML sets the value (string, bool, int, []string) at a path of table names
// and a key, and keeps every other byte. A missing key comes behind the last
// one of its table; a missing table comes last in the file. An equal value
// stays as it is written. src may be empty.
//
// It refuses arrays of tables and values other than tables on the way; a table
// in the place of the value; and a key that differs from a wanted one only by
// case.
func TOML(src []byte, path []string, value any) ([]byte, error) {
	if err := checkPath(path); err != nil {
		return nil, err
	}
	wanted, err := tomlValue(value)
	if err != nil {
		return nil, fmt.Errorf("the value of %s: %w", dotted(path, '"'), err)
	}
	if err := checkText(src, maxTOML); err != nil {
		return nil, err
	}
	tree, err := decodeTOML(src)
	if err != nil {
		return nil, err
	}
	changed, err := setTOML(src, path, value)
	if err != nil {
		return nil, err
	}
	if old, ok := lookup(tree, path); ok && same(old, wanted) {
		return src, nil
	}
	got, err := decodeTOML(changed)
	if err != nil || !set(tree, path, wanted) || !same(got, tree) {
		return nil, fmt.Errorf("with %s set, the file would not read as it should: %s", dotted(path, '"'), byHand(path, value))
	}
	return changed, nil
}

// tomlValue returns a value as it comes back from a file.
func tomlValue(value any) (any, error) {
	switch v := value.(type) {
	case bool:
		return v, nil
	case int:
		return int64(v), nil
	case string:
		return v, checkUTF8(v)
	case []string:
		list := make([]any, len(v))
		for i := range v {
			list[i] = v[i]
		}
		return list, checkUTF8(v...)
	default:
		return nil, fmt.Errorf("a %T has no place in a TOML file here", value)
	}
}

func decodeTOML(src []byte) (map[string]any, error) {
	tree := map[string]any{}
	err := toml.Unmarshal(src, &tree)
	var at *toml.DecodeError
	if errors.As(err, &at) {
		line, column := at.Position()
		return nil, fmt.Errorf("%d:%d: %s", line, column, strings.TrimPrefix(at.Error(), "toml: "))
	}
	if err != nil {
		return nil, fmt.Errorf("reading TOML: %w", err)
	}
	return tree, nil
}

func byHand(path []string, value any) string {
	parent, key := path[:len(path)-1], path[len(path)-1:]
	where := "above all tables"
	if len(parent) > 0 {
		where = "in [" + dotted(parent, '"') + "]"
	}
	return fmt.Sprintf("set %s = %s %s by hand", dotted(key, '"'), valueText(value, '"'), where)
}

func setTOML(src []byte, path []string, value any) ([]byte, error) {
	f, err := readTOML(src)
	if err != nil {
		return nil, err
	}
	s, err := f.find(path)
	if err != nil {
		return nil, fmt.Errorf("%w; %s", err, byHand(path, value))
	}
	switch {
	case s.value != nil:
		text := valueText(value, f.quoteBefore(s.value.end))
		return replace(src, s.value.start, s.value.end, text), nil
	case s.inline != nil:
		return f.intoInline(s.inline, path, value), nil
	case s.sibling != nil:
		return f.behind(s.sibling, path[len(s.sibling.table):], value), nil
	case s.header != nil:
		return f.under(s.header, path[len(path)-1:], value), nil
	case len(path) == 1:
		return f.atTop(path, value), nil
	default:
		return f.appendTable(path, value), nil
	}
}

// spot is where a value goes: the first of these that exists, or a new table at
// the end.
type spot struct {
	value   *item // the old value
	inline  *item // the inline table that is to hold the key
	sibling *item // the last key of the table; the new one comes beside it
	header  *item // of the table, which has no key
}

// find walks the file in order, so that the opening of a table comes before its
// content. It refuses a key in another case: containerd 1.6 ignores it, and 2.2
// takes it, or the last one.
func (f *tomlFile) find(path []string) (s spot, err error) {
	parent := path[:len(path)-1]
	for i := range f.items {
		it := &f.items[i]
		common := commonPrefix(it.path, path)
		switch {
		case common < min(len(it.path), len(path)):
			if strings.EqualFold(it.path[common], path[common]) {
				return s, fail(f.src, it.keyStart(common), "key %q: some programs read it as %q and others do not", it.path[common], path[common])
			}
		case it.kind == unstable.ArrayTable && len(it.path) <= len(path):
			return s, fail(f.src, it.start, "[[%s]] is one of several tables, and it is not known which one is meant", dotted(it.path, '"'))
		case s.value != nil: // and this item stands in its braces
		case len(it.path) > len(path), len(it.path) == len(path) && it.kind == unstable.Table:
			return s, fail(f.src, it.start, "%s is a table, not a value", dotted(path, '"'))
		case len(it.path) == len(path):
			s.value = it
		case it.kind == unstable.InlineTable:
			s.inline = it
		case it.kind != unstable.Table:
			return s, fail(f.src, it.start, "%s is no table", dotted(it.path, '"'))
		case len(it.path) == len(parent):
			s.header = it
		}
		if it.isSibling(parent) {
			s.sibling = it
		}
	}
	return s, nil
}

// isSibling reports whether a new key of a table may stand on the next line:
// this key belongs to the table's section of the file, or makes the table by
// dots.
func (it *item) isSibling(parent []string) bool {
	if it.nested || it.isHeader() {
		return false
	}
	if slices.Equal(it.table, parent) {
		return true
	}
	return len(it.table) < len(parent) && commonPrefix(it.path, parent) == len(parent)
}

func commonPrefix(a, b []string) int {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}

// behind puts a key on the line after another one.
func (f *tomlFile) behind(sibling *item, key []string, value any) []byte {
	indent := f.indentOf(sibling.start)
	line := indent + dotted(key, f.keyQuote()) + f.equals(sibling) + valueText(value, f.quoteBefore(sibling.end))
	return f.insertLine(sibling.end, line)
}

// under puts the first key into a table.
func (f *tomlFile) under(header *item, key []string, value any) []byte {
	indent := f.indentOf(header.start) + f.unit()
	line := indent + dotted(key, f.keyQuote()) + " = " + valueText(value, f.quoteBefore(header.end))
	return f.insertLine(header.end, line)
}

// atTop puts the first key outside tables before all tables.
func (f *tomlFile) atTop(key []string, value any) []byte {
	line := dotted(key, f.keyQuote()) + " = " + valueText(value, f.quoteBefore(len(f.src)))
	if len(f.items) == 0 {
		return f.appendLines(line)
	}
	return replace(f.src, 0, 0, line+f.newline+f.newline)
}

// appendTable makes a table at the end of the file.
func (f *tomlFile) appendTable(path []string, value any) []byte {
	parent, key := path[:len(path)-1], path[len(path)-1:]
	lines := []string{
		"[" + f.header(parent) + "]",
		f.unit() + dotted(key, f.keyQuote()) + " = " + valueText(value, f.quoteBefore(len(f.src))),
	}
	if len(bytes.TrimSpace(f.src)) > 0 {
		lines = slices.Insert(lines, 0, "")
	}
	return f.appendLines(lines...)
}

// intoInline puts a key into an inline table, behind its last one.
func (f *tomlFile) intoInline(table *item, path []string, value any) []byte {
	text := dotted(path[len(table.path):], f.keyQuote()) + " = " + valueText(value, f.quoteBefore(table.end))
	if last := f.lastIn(table); last != nil {
		return replace(f.src, last.end, last.end, ", "+text)
	}
	inside := string(f.src[table.start+1 : table.end-1])
	if inside == "" {
		text += " "
	}
	return replace(f.src, table.start+1, table.start+1, " "+text)
}

// insertLine puts a line behind the line of an offset.
func (f *tomlFile) insertLine(offset int, line string) []byte {
	i := bytes.IndexByte(f.src[offset:], '\n')
	if i < 0 {
		return replace(f.src, len(f.src), len(f.src), f.newline+line)
	}
	return replace(f.src, offset+i+1, offset+i+1, line+f.newline)
}

// appendLines puts lines at the end, which keeps or lacks its newline.
func (f *tomlFile) appendLines(lines ...string) []byte {
	text := strings.Join(lines, f.newline)
	switch {
	case len(f.src) == 0 || bytes.HasSuffix(f.src, []byte("\n")):
		text += f.newline
	default:
		text = f.newline + text
	}
	return replace(f.src, len(f.src), len(f.src), text)
}
