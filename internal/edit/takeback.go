package edit

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/jsontext"
)

// Format is a kind of file.
type Format string

const (
	FormatJSON Format = "json"
	FormatTOML Format = "toml"
)

// TakeBack undoes the edit from before to after, key by key, in a file that
// somebody has changed since, and keeps every other byte. A key with another
// value than it was given stays as it is, and its name is returned. The rest
// may be a file without any key.
func TakeBack(f Format, before, after, now []byte) (rest []byte, stays []string, err error) {
	was, err := f.decode(before)
	if err != nil {
		return nil, nil, err
	}
	set, err := f.decode(after)
	if err != nil {
		return nil, nil, err
	}
	rest = now
	for _, path := range changedKeys(nil, was, set) {
		tree, err := f.decode(rest)
		if err != nil {
			return nil, nil, err
		}
		given, _ := lookup(set, path)
		switch value, there := lookup(tree, path); {
		case !there:
		case !same(value, given):
			stays = append(stays, dotted(path, '"'))
		default:
			if rest, err = f.restore(rest, was, path); err != nil {
				return nil, nil, err
			}
		}
	}
	return rest, stays, nil
}

// Holds reports whether a file still has each value that the edit from before
// to after set.
func Holds(f Format, before, after, now []byte) bool {
	_, stays, err := TakeBack(f, before, after, now)
	if err != nil || stays != nil {
		return false
	}
	tree, err1 := f.decode(now)
	was, err2 := f.decode(before)
	set, err3 := f.decode(after)
	gone := func(path []string) bool { _, there := lookup(tree, path); return !there }
	return err1 == nil && err2 == nil && err3 == nil && !slices.ContainsFunc(changedKeys(nil, was, set), gone)
}

// Empty reports whether a file sets nothing.
func (f Format) Empty(src []byte) bool {
	tree, err := f.decode(src)
	return err == nil && len(tree) == 0
}

func (f Format) decode(src []byte) (map[string]any, error) {
	if f == FormatTOML {
		return decodeTOML(src)
	}
	src = orEmptyObject(src)
	if _, err := parseJSON(src); err != nil {
		return nil, err
	}
	return decodeJSON(src)
}

// changedKeys lists the paths of values that differ, or that only one file has.
// A list is one value.
func changedKeys(at []string, was, set map[string]any) (paths [][]string) {
	for _, key := range sortedKeys(set) {
		path := append(slices.Clone(at), key)
		below, isTable := set[key].(map[string]any)
		old, had := was[key]
		oldTable, wasTable := old.(map[string]any)
		switch {
		case isTable && len(below) > 0 && (wasTable || !had):
			paths = append(paths, changedKeys(path, oldTable, below)...)
		case !had || !same(old, set[key]):
			paths = append(paths, path)
		}
	}
	return paths
}

func sortedKeys(m map[string]any) []string {
	var keys []string
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// restore gives a key its earlier value, or removes it and the tables that were
// made for it.
func (f Format) restore(src []byte, was map[string]any, path []string) ([]byte, error) {
	if old, had := lookup(was, path); had {
		return f.set(src, path, old)
	}
	for {
		var err error
		if src, err = f.remove(src, path); err != nil {
			return nil, err
		}
		path = path[:len(path)-1]
		tree, err := f.decode(src)
		if err != nil || len(path) == 0 {
			return src, err
		}
		left, there := lookup(tree, path)
		table, isTable := left.(map[string]any)
		if _, had := lookup(was, path); had || !there || !isTable || len(table) > 0 {
			return src, nil
		}
	}
}

func (f Format) set(src []byte, path []string, value any) ([]byte, error) {
	if f == FormatJSON {
		return JSON(src, path, value)
	}
	switch v := value.(type) {
	case int64:
		value = int(v)
	case []any:
		texts := make([]string, len(v))
		for i := range v {
			text, isText := v[i].(string)
			if !isText {
				return nil, fmt.Errorf("%s was a list of other things than strings", dotted(path, '"'))
			}
			texts[i] = text
		}
		value = texts
	}
	return TOML(src, path, value)
}

// remove removes a key, or an empty table, from a file, and reads the result
// again.
func (f Format) remove(src []byte, path []string) ([]byte, error) {
	want, err := f.decode(src)
	if err != nil {
		return nil, err
	}
	cut := cutTOML
	if f == FormatJSON {
		cut = cutJSON
	}
	changed, err := cut(src, path)
	if err != nil {
		return nil, err
	}
	got, err := f.decode(changed)
	unset(want, path)
	if err != nil || !reflect.DeepEqual(withoutEmpty(want), withoutEmpty(got)) {
		return nil, fmt.Errorf("without %s, the file would not read as it should: take it out by hand", dotted(path, '"'))
	}
	return changed, nil
}

func unset(tree map[string]any, path []string) {
	parent, _ := lookup(tree, path[:len(path)-1])
	if len(path) == 1 {
		parent = tree
	}
	if table, ok := parent.(map[string]any); ok {
		delete(table, path[len(path)-1])
	}
}

// withoutEmpty removes tables that hold nothing: TOML need not write them.
func withoutEmpty(tree map[string]any) map[string]any {
	out := map[string]any{}
	for key, value := range tree {
		if table, ok := value.(map[string]any); ok {
			if table = withoutEmpty(table); len(table) == 0 {
				continue
			}
			value = table
		}
		out[key] = value
	}
	return out
}

// cutJSON removes a member and the comma that it needed.
func cutJSON(src []byte, path []string) ([]byte, error) {
	d, err := parseJSON(src)
	if err != nil {
		return nil, err
	}
	change, err := d.Cut(path)
	if err != nil {
		return nil, err
	}
	return jsontext.Apply(src, change), nil
}

// cutTOML removes the line of a key or of a header, or a key in braces.
func cutTOML(src []byte, path []string) ([]byte, error) {
	f, err := readTOML(src)
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(f.items, func(it item) bool { return slices.Equal(it.path, path) })
	if at < 0 {
		return nil, fmt.Errorf("%s is not there", dotted(path, '"'))
	}
	it := &f.items[at]
	if it.nested {
		return f.cutNested(it), nil
	}
	start, end := f.lines(it)
	if it.isHeader() && start > 0 { // with the empty line before it
		if blank := f.lineStart(start - 1); strings.TrimSpace(string(src[blank:start])) == "" {
			start = blank
		}
	}
	return replace(src, start, end, ""), nil
}

// lines are the offsets of the lines of an item.
func (f *tomlFile) lines(it *item) (start, end int) {
	start, end = f.lineStart(int(it.keys[0].Offset)), it.end
	if i := strings.IndexByte(string(f.src[end:]), '\n'); i >= 0 {
		return start, end + i + 1
	}
	return start, len(f.src)
}

func (f *tomlFile) lineStart(offset int) int {
	return strings.LastIndexByte(string(f.src[:offset]), '\n') + 1
}

func (f *tomlFile) cutNested(it *item) []byte {
	var before, after *item
	for i := range f.items {
		switch other := &f.items[i]; {
		case !other.nested || !slices.Equal(other.table, it.table) || other == it:
		case other.start < it.start:
			before = other
		case after == nil:
			after = other
		}
	}
	start := int(it.keys[0].Offset)
	switch {
	case before != nil:
		return replace(f.src, before.end, it.end, "")
	case after != nil:
		return replace(f.src, start, int(after.keys[0].Offset), "")
	}
	return replace(f.src, start, it.end, "")
}
