package edit

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestTOML(t *testing.T) {
	tests := []struct {
		name, in string
		path     string // keys with a space between
		value    any
		want     string
	}{
		{"no file", "", "a", 1, "a = 1\n"},
		{"no file, deep", "", "a b.c d key", "x", "[a.\"b.c\".d]\nkey = \"x\"\n"},
		{"white space", "\r\n\r\n", "a b", true, "\r\n\r\n[a]\r\nb = true\r\n"},
		{"comments alone", "# x\n#y = 1\n", "y", 2, "# x\n#y = 1\ny = 2\n"},
		{"comments alone, no newline", "# x", "t y", 2, "# x\n\n[t]\ny = 2"},

		{"replaced", "a = 1 # one\nb = 2\n", "a", 3, "a = 3 # one\nb = 2\n"},
		{"replaced in a table", "[t]\n  a = 'x' # one\n", "t a", "y", "[t]\n  a = 'y' # one\n"},
		{"replaced, single quotes not enough", "a = 'x'", "a", "it's", `a = "it's"`},
		{"replaced, another type", "[t]\na = [1,\n  2] # list\nb = 1\n", "t a", []string{"x", "y"}, "[t]\na = [\"x\", \"y\"] # list\nb = 1\n"},
		{"replaced over lines", "a = \"\"\"\nx\n\"\"\" # text\nb = 1", "a", "y", "a = \"y\" # text\nb = 1"},
		{"replaced, dotted", "t.u.a=1", "t u a", 2, "t.u.a=2"},
		{"replaced, dotted in a table", "[t]\nu . a = 1", "t u a", 2, "[t]\nu . a = 2"},
		{"replaced in braces", "t = { a = 1, u = { b.c = 2 } } # x", "t u b c", 3, "t = { a = 1, u = { b.c = 3 } } # x"},
		{"braces replaced", "t = { a = 1 }", "t", "x", `t = "x"`},
		{"replaced by quoted keys", "[\"t\".'u']\n\"\\u0061\" = 1\n", "t u a", 2, "[\"t\".'u']\n\"\\u0061\" = 2\n"},
		{"no newline at the end", "[t]\na = 1", "t a", 2, "[t]\na = 2"},
		{"CRLF", "[t]\r\na = 1 # x\r\nb = 2\r\n", "t a", 3, "[t]\r\na = 3 # x\r\nb = 2\r\n"},
		{"a date replaced", "a = 1979-05-27 07:32:00Z # x", "a", "d", `a = "d" # x`},

		{"there already", "a = [ 'x',\n'y' ] # z", "a", []string{"x", "y"}, "a = [ 'x',\n'y' ] # z"},
		{"there already, by escape", "a = \"\\u0078\"", "a", "x", "a = \"\\u0078\""},
		{"there already, in hexadecimal", "a = 0x10", "a", 16, "a = 0x10"},

		{"added at the top", "a = 1\n\n[t]\n", "b", 2, "a = 1\nb = 2\n\n[t]\n"},
		{"added at the top, spelled as its neighbour", "a=1", "b", 2, "a=1\nb=2"},
		{"added before tables", "# x\n\n[t]\na = 1\n", "b", 2, "b = 2\n\n# x\n\n[t]\na = 1\n"},
		{"added to a table", "[t]\n    a = 1 # one\n\n[u]\nx = 1\n", "t b", 2, "[t]\n    a = 1 # one\n    b = 2\n\n[u]\nx = 1\n"},
		{"added behind a list", "[t]\na = [\n  1, # ]\n] # end\n[u]\n", "t b", 2, "[t]\na = [\n  1, # ]\n] # end\nb = 2\n[u]\n"},
		{"added behind a text over lines", "[t]\na = '''\n[u]\nb = 1\n'''\n", "t b", 2, "[t]\na = '''\n[u]\nb = 1\n'''\nb = 2\n"},
		{"added behind braces", "[t]\na = { b = 1 }\n", "t b", 2, "[t]\na = { b = 1 }\nb = 2\n"},
		{"added at the end of the file", "[t]\n\ta = 1", "t b", 2, "[t]\n\ta = 1\n\tb = 2"},
		{"added, CRLF", "[t]\r\na = 1\r\n[u]\r\n", "t b", 2, "[t]\r\na = 1\r\nb = 2\r\n[u]\r\n"},
		{"added to an empty table", "[t] # x\n[u]\na = 1\n", "t b", 2, "[t] # x\nb = 2\n[u]\na = 1\n"},
		{"added to an empty table, indented", "[t]\n  a = 1\n\n  [t.u]\n\n[v]\n", "t u b", 2, "[t]\n  a = 1\n\n  [t.u]\n    b = 2\n\n[v]\n"},
		{"added to an empty table at the end", "[t]", "t b", 2, "[t]\nb = 2"},
		{"added to a table below its own tables", "[t.u]\na = 1\n[t]\nb = 1\n", "t c", 2, "[t.u]\na = 1\n[t]\nb = 1\nc = 2\n"},
		{"added, not aligned", "[t]\na    = 1\n", "t b", 2, "[t]\na    = 1\nb = 2\n"},
		{"added, single quotes", "[t]\na = 'x'\n", "t b.c", "y", "[t]\na = 'x'\n\"b.c\" = 'y'\n"},
		{"added in the middle of an indented file", "[p]\n  [p.q]\n    a = 1\n    [p.q.r]\n      b = 1\n", "p q c", 2, "[p]\n  [p.q]\n    a = 1\n    c = 2\n    [p.q.r]\n      b = 1\n"},

		{"a dotted key beside one", "[t]\nu.a = 1\nb = 1\n", "t u c", 2, "[t]\nu.a = 1\nu.c = 2\nb = 1\n"},
		{"a dotted key beside a deeper one", "t.u.a = 1\n[v]\n", "t c", 2, "t.u.a = 1\nt.c = 2\n[v]\n"},
		{"a table below dotted keys", "[t]\nu.a = 1\n", "t u v c", 2, "[t]\nu.a = 1\n\n[t.u.v]\nc = 2\n"},

		{"added in braces", "t = { a = 1 } # x\n", "t b", 2, "t = { a = 1, b = 2 } # x\n"},
		{"added in braces, deep", "t = {a = 1}", "t b.c d", 2, "t = {a = 1, \"b.c\".d = 2}"},
		{"added in inner braces", "[t]\nu = { v = { a = [1, 2] }, w = { a = 1 } }", "t u v b", 2, "[t]\nu = { v = { a = [1, 2], b = 2 }, w = { a = 1 } }"},
		{"added in empty braces", "t = {}", "t b", 2, "t = { b = 2 }"},
		{"added in empty braces with a space", "t = { }", "t b", 2, "t = { b = 2 }"},
		{"added in braces beside dots", "t = { u.a = 1 }", "t u b", 2, "t = { u.a = 1, u.b = 2 }"},

		{"a table behind all", "[t]\na = 1\n\n[u]\n", "t v b", 2, "[t]\na = 1\n\n[u]\n\n[t.v]\nb = 2\n"},
		{"a table spelled as its parent", "[ 't.t' . u ]\n  a = 1\n", "t.t u v.w b", "x", "[ 't.t' . u ]\n  a = 1\n\n['t.t'.u.'v.w']\n  b = \"x\"\n"},
		{"a table above others", "[t.u]\na = 1\n", "t b", 2, "[t.u]\na = 1\n\n[t]\nb = 2\n"},
		{"a table above a list of tables", "[[t.u]]\na = 1\n", "t b", 2, "[[t.u]]\na = 1\n\n[t]\nb = 2\n"},
		{"a table beside a list of tables", "[[t]]\na = 1\n[[t]]\na = 2", "u b", 2, "[[t]]\na = 1\n[[t]]\na = 2\n\n[u]\nb = 2"},
		{"the name of a table in a list", "[[t]]\n[t.u]\na = 1\n", "u a", 2, "[[t]]\n[t.u]\na = 1\n\n[u]\na = 2\n"},

		{"escapes", "", "a", "\"\\\t\x00\x7fä\U0001f512", "a = \"\\\"\\\\\\u0009\\u0000\\u007Fä\U0001f512\"\n"},
		{"no single quotes around a tab", "b = 'x'\n", "a", "\t", "b = 'x'\na = \"\\u0009\"\n"},
		{"no list", "", "a", []string{}, "a = []\n"},
		{"below zero", "", "a", -1, "a = -1\n"},
		{"empty key", "[t]\n\"\" = 1\n", "t ", 2, "[t]\n\"\" = 2\n"},
		{"not a number elsewhere", "a = nan\nb = [-inf, nan]\nc = 1", "c", 2, "a = nan\nb = [-inf, nan]\nc = 2"},
		{"case differs elsewhere", "[T]\na = 1\n[u]\n", "u t", 2, "[T]\na = 1\n[u]\nt = 2\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := strings.Split(tt.path, " ")
			got, err := TOML([]byte(tt.in), path, tt.value)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, string(got)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if err := checkTOMLEdit([]byte(tt.in), got, path, tt.value); err != nil {
				t.Error(err)
			}
			if again, err := TOML(got, path, tt.value); err != nil || !bytes.Equal(again, got) {
				t.Errorf("again: %v\n%s", err, again)
			}
		})
	}
}

func TestTOMLErrors(t *testing.T) {
	tests := []struct {
		name, in string
		path     []string
		value    any
		want     string
	}{
		{"no path", "", nil, 1, "no key is named whose value is to be set"},
		{"path that is no text", "", []string{"\xff"}, 1, `key "\xff" is not UTF-8`},
		{"value that is no text", "", []string{"a"}, "\xff", `the value of a: "\xff" is not UTF-8`},
		{"list that is no text", "", []string{"a"}, []string{"x", "\xff"}, `the value of a: "\xff" is not UTF-8`},
		{"value of no kind", "", []string{"a", "b.c"}, 1.5, `the value of a."b.c": a float64 has no place in a TOML file here`},

		{"broken", "a = 1\nb = \n", []string{"a"}, 2, "2:5: unexpected character U+000A at start of value"},
		{"duplicate key", "[t]\na = 1\na = 2\n", []string{"t", "a"}, 2, "3:1: key a is already defined"},
		{"duplicate table", "[t]\na = 1\n[u]\n[t]\n", []string{"t", "a"}, 2, "4:2: table t already exists"},
		{"carriage return", "a = 1\rb = 2", []string{"a"}, 2, "1:6: expected newline but got U+000D"},
		{"byte order mark", "\ufeffa = 1", []string{"a"}, 2, "1:1: a byte order mark: save the file as UTF-8 without one"},
		{"UTF-16", "\xfe\xff\x00a", []string{"a"}, 2, "1:1: a byte order mark: save the file as UTF-8 without one"},
		{"no UTF-8", "a = 1\n# \xe4", []string{"a"}, 2, "2:3: byte 0xe4: the file is no text in UTF-8"},
		{"NUL", "a = 1\n\x00", []string{"a"}, 2, "2:1: byte 0x00: the file is no text in UTF-8"},
		{"large", strings.Repeat("#", 1<<20+1), []string{"a"}, 2, "1048577 bytes: the limit is 1048576"},
		{"deep", "a = " + strings.Repeat("[", 20000) + strings.Repeat("]", 20000), []string{"b"}, 2,
			"1:10005: arrays and inline tables are nested more than the maximum of 10000 levels deep"},

		{"list of tables", "[t]\n  [[t.u]]\n  a = 1\n", []string{"t", "u", "a"}, 2,
			"2:5: [[t.u]] is one of several tables, and it is not known which one is meant; set a = 2 in [t.u] by hand"},
		{"below a list of tables", "[[t]]\n[t.u]\na = 1\n", []string{"t", "u", "a"}, 2,
			"1:3: [[t]] is one of several tables, and it is not known which one is meant; set a = 2 in [t.u] by hand"},
		{"list of tables as value", "[[t]]\n", []string{"t"}, 2,
			"1:3: [[t]] is one of several tables, and it is not known which one is meant; set t = 2 above all tables by hand"},
		{"list of braces", "t = [{ a = 1 }]", []string{"t", "a"}, 2, "1:5: t is no table; set a = 2 in [t] by hand"},
		{"text on the way", "[t]\n\"u.v\" = 'x'", []string{"t", "u.v", "a"}, "y", "2:9: t.\"u.v\" is no table; set a = \"y\" in [t.\"u.v\"] by hand"},
		{"text in braces on the way", "t = { u = 1 }", []string{"t", "u", "a"}, 2, "1:11: t.u is no table; set a = 2 in [t.u] by hand"},
		{"a table in the place", "[t.u]\n", []string{"t", "u"}, 2, "1:2: t.u is a table, not a value; set u = 2 in [t] by hand"},
		{"a table above in the place", "[t.u]\n", []string{"t"}, 2, "1:2: t is a table, not a value; set t = 2 above all tables by hand"},
		{"a table by dots in the place", "t.u.a = 1\n", []string{"t", "u"}, 2, "1:9: t.u is a table, not a value; set u = 2 in [t] by hand"},

		{"another case", "[t]\nBinaryname = 1", []string{"t", "BinaryName"}, "x",
			`2:1: key "Binaryname": some programs read it as "BinaryName" and others do not; set BinaryName = "x" in [t] by hand`},
		{"another case beside the key", "[t]\nkey = 1\nKEY = 2", []string{"t", "key"}, 2,
			`3:1: key "KEY": some programs read it as "key" and others do not; set key = 2 in [t] by hand`},
		{"another case before the key", "[t]\nKEY = 1\nkey = 2", []string{"t", "key"}, 2,
			`2:1: key "KEY": some programs read it as "key" and others do not; set key = 2 in [t] by hand`},
		{"a table in another case", "[t]\n[t.u.'V'.w]\n", []string{"t", "u", "v", "a"}, 2,
			`2:6: key "V": some programs read it as "v" and others do not; set a = 2 in [t.u.v] by hand`},
		{"a dotted key in another case", "[t]\nu.V.w = 1\n", []string{"t", "u", "v", "a"}, 2,
			`2:3: key "V": some programs read it as "v" and others do not; set a = 2 in [t.u.v] by hand`},
		{"braces in another case", "t = { a = { x.B = 1 } }", []string{"t", "a", "x", "b"}, 2,
			`1:15: key "B": some programs read it as "b" and others do not; set b = 2 in [t.a.x] by hand`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			src := []byte(tt.in)
			got, err := TOML(src, tt.path, tt.value)
			if err == nil || err.Error() != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
			if got != nil || string(src) != tt.in {
				t.Errorf("an error, and yet %q", got)
			}
		})
	}
}

// FuzzTOML shows that an accepted text keeps its meaning apart from the one
// value, to the parser of Podman and CRI-O, changes in one place, and does not
// change the second time.
func FuzzTOML(f *testing.F) {
	for _, src := range []string{"", "a = 1", "a = 'x' # y\n", "[a]\n  b = 1\n\n[c]\n", "[a.b]\r\n\r\n", "a.b = 1\n", "a = { b = 1 }\n", "a = {}",
		"[[a]]\nb = 1\n", "[a]\nb.c = [1,\n2]\n", "[\"a\".'b']\nc = '''\n[c]'''", "a = nan\n# x", "A = 1979-05-27", "[c.d]\n[c]\n[c.d.e]\n", "a = {b.c = 1, d = [{e = 1}]}"} {
		for _, path := range []string{"a", "a b", "b", "c d e", "a b c", ""} {
			f.Add([]byte(src), path, "x", byte(len(path)))
		}
	}
	for _, file := range readFiles(f) {
		for _, s := range file.steps {
			f.Add(file.before, strings.Join(s.path, " "), "x", byte(0))
		}
	}
	f.Fuzz(func(t *testing.T, src []byte, path, text string, kind byte) {
		var value any
		switch kind % 4 {
		case 0:
			value = text
		case 1:
			value = len(text)
		case 2:
			value = []string{text, "y"}
		case 3:
			value = len(text)%2 == 0
		}
		keys := strings.Split(path, " ")
		original := bytes.Clone(src)
		once, err := TOML(src, keys, value)
		if !bytes.Equal(src, original) {
			t.Fatal("the source has changed")
		}
		if err != nil {
			if once != nil {
				t.Errorf("output beside an error: %s", once)
			}
			return
		}
		if err := checkTOMLEdit(src, once, keys, value); err != nil {
			t.Errorf("%q\n%q\n%v", src, once, err)
		}
		twice, err := TOML(once, keys, value)
		if err != nil || !bytes.Equal(once, twice) {
			t.Errorf("again: %v\n%q\n%q", err, once, twice)
		}
	})
}

// checkTOMLEdit judges an edit by another parser. A text that this one could
// not read before, it need not read afterwards.
func checkTOMLEdit(before, after []byte, path []string, value any) error {
	want := map[string]any{}
	if toml.Unmarshal(before, &want) != nil {
		return nil
	}
	taken := gone(before, after)
	old, ok := setOther(want, path, value)
	if !ok && len(taken) > 0 {
		return fmt.Errorf("there was no value, and yet this is gone: %q", taken)
	}
	if bytes.ContainsRune(taken, '\n') && isOneLine(old) {
		return fmt.Errorf("more than the old value is gone: %q", taken)
	}
	got := map[string]any{}
	if err := toml.Unmarshal(after, &got); err != nil {
		return err
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateNaNs()); diff != "" {
		return fmt.Errorf("read again: -want +got:\n%s", diff)
	}
	return nil
}

// setOther sets a value in the other parser's tree, and returns the old one.
func setOther(tree map[string]any, path []string, value any) (old any, ok bool) {
	for _, key := range path[:len(path)-1] {
		if tree[key] == nil {
			tree[key] = map[string]any{}
		}
		tree = tree[key].(map[string]any)
	}
	switch v := value.(type) {
	case int:
		value = int64(v)
	case []string:
		list := []any{}
		for _, s := range v {
			list = append(list, s)
		}
		value = list
	}
	key := path[len(path)-1]
	old, ok = tree[key]
	tree[key] = value
	return old, ok
}

func isOneLine(old any) bool {
	switch old.(type) {
	case bool, int64, float64:
		return true
	default:
		return false
	}
}
