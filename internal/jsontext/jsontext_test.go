package jsontext

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestParse: what is refused, and where.
func TestParse(t *testing.T) {
	deep := strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000)
	for _, tt := range []struct{ name, src, want string }{
		{"empty", "", "1:1: unexpected end of JSON input"},
		{"comment", "{\n// x\n}", "2:1: invalid character '/' looking for beginning of object key string"},
		{"comma", `[1,]`, "1:4: invalid character ']' looking for beginning of value"},
		{"two", `{} {}`, "1:4: invalid character '{' after top-level value"},
		{"mark", "\ufeff{}", "1:1: the text begins with a byte order mark, which container runtimes refuse: remove it, as with sed -i '1s/^\\xEF\\xBB\\xBF//' FILE"},
		{"twice", "{\"a\":1,\n \"a\":2}", `2:2: key "a" stands twice in one object`},
		{"twice by escape", `{"a":1,"\u0061":2}`, `1:8: key "a" stands twice in one object`},
		{"twice by escape, not ASCII", `{"ä":1,"\u00e4":2}`, `1:9: key "ä" stands twice in one object`},
		{"twice far away", `[{"b":[{"a":1,"a":2}]}]`, `1:15: key "a" stands twice in one object`},
		{"deep", deep, "1:10001: invalid character '[' exceeded max depth"},
		{"large", strings.Repeat(" ", Max+1), "16777217 bytes of JSON: the limit is 16777216"},
		{"many", "[" + strings.Repeat("1,", 1<<18) + "1]", "1:524289: more than 262144 values up to here"},
	} {
		d, err := Parse([]byte(tt.src))
		if err == nil || err.Error() != tt.want || d != nil {
			t.Errorf("%s: %v, want %s", tt.name, err, tt.want)
		}
	}
	for _, src := range []string{`{"a":{"a":1},"A":2}`, `[{"a":1},{"a":2}]`, `null`} {
		if _, err := Parse([]byte(src)); err != nil {
			t.Errorf("%s: %v", src, err)
		}
	}
}

// FuzzParse: plain JSON is taken, unless a key stands twice; nothing else is.
func FuzzParse(f *testing.F) {
	for _, src := range []string{`{"a":[1,2.5e3,"\u00e4",null,true]}`, "{/**/}", `{"a":1,}`, "[\"\xff\"]", `"\ud800"`, "\u2028", `-`, `01`} {
		f.Add([]byte(src))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		d, err := Parse(src)
		if err == nil && !json.Valid(src) {
			t.Errorf("%q is no JSON, and read", src)
		}
		if err != nil && json.Valid(src) && !strings.Contains(err.Error(), "stands twice") && !strings.Contains(err.Error(), "up to here") {
			t.Errorf("%q is JSON, and refused: %v", src, err)
		}
		if err == nil && string(d.Root.Pack()) != string(src) {
			t.Errorf("%q is kept as %q", src, d.Root.Pack())
		}
	})
}

// TestValues: pointers find what is written there, and keys in another case are
// other keys.
func TestValues(t *testing.T) {
	d := parsed(t, `{"a":{"b":"x","c":1,"l":["p",2,"q"],"m":{"k":"v"},"n":{"k":1},"o":null},"A":{"b":"y"}}`)
	if got := d.Text("/a/b") + d.Text("/a/c") + d.Text("/a/z") + d.Text("/a/B") + d.Text("/A/b"); got != "xy" {
		t.Errorf("texts: %q", got)
	}
	if got := strings.Join(d.List("/a/l"), " "); got != "p q" || d.List("/a/b") != nil || d.List("/z") != nil {
		t.Errorf("list: %q", got)
	}
	if got, err := d.Texts("/a/m"); err != nil || len(got) != 1 || got["k"] != "v" {
		t.Errorf("%v, %v", got, err)
	}
	for _, pointer := range []string{"/a/n", "/a/b"} {
		if got, err := d.Texts(pointer); err == nil {
			t.Errorf("%s: %v", pointer, got)
		}
	}
	for _, pointer := range []string{"/a/o", "/z"} {
		if got, err := d.Texts(pointer); got != nil || err != nil {
			t.Errorf("%s: %v, %v", pointer, got, err)
		}
	}
}
