package edit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestJSON(t *testing.T) {
	tests := []struct {
		name, in string
		path     string // keys with a space between
		value    any
		want     string
	}{
		{"no file", "", "a", "x", "{\n  \"a\": \"x\"\n}\n"},
		{"no file, deep", "", "a b", true, "{\n  \"a\": {\n    \"b\": true\n  }\n}\n"},
		{"white space", "\r\n \r\n", "a", 1, "{\r\n  \"a\": 1\r\n}\r\n \r\n"},
		{"empty object", "{}", "a b", 1, "{\n  \"a\": {\n    \"b\": 1\n  }\n}"},
		{"empty object over lines", "\n{\n}\n", "a", 1, "\n{\n  \"a\": 1\n}\n"},
		{"empty object, CRLF", "{\r\n\r\n}\r\n", "a", 1, "{\r\n  \"a\": 1\r\n\r\n}\r\n"},
		{"empty object inside", "{\n    \"a\": {}\n}", "a b", 1, "{\n    \"a\": {\n        \"b\": 1\n    }\n}"},
		{"replaced", `{"a":1,"b":2}`, "a", 3, `{"a":3,"b":2}`},
		{"added, compact", `{"a":1}`, "b c", "x", `{"a":1,"b":{"c":"x"}}`},
		{"added, spaces in one line", `{ "a" : 1 }`, "b", 2, `{ "a" : 1, "b" : 2 }`},
		{"added, tabs", "{\n\t\"a\": 1\n}\n", "b c", 2, "{\n\t\"a\": 1,\n\t\"b\": {\n\t\t\"c\": 2\n\t}\n}\n"},
		{"added, CRLF", "{\r\n  \"a\": 1\r\n}\r\n", "b c", 2, "{\r\n  \"a\": 1,\r\n  \"b\": {\r\n    \"c\": 2\r\n  }\r\n}\r\n"},
		{"added to one line among many", "{\n  \"a\": { \"b\": 1 }\n}", "a c d", 2, "{\n  \"a\": { \"b\": 1, \"c\": {\"d\":2} }\n}"},
		{"blank lines stay", "{\n\n  \"a\": 1\n\n}", "b", 2, "{\n\n  \"a\": 1,\n  \"b\": 2\n\n}"},
		{"null on the way", `{"a":null,"c":0}`, "a b", 1, `{"a":{"b":1},"c":0}`},
		{"null as value", "{\n \"a\": null\n}", "a", []string{"x"}, "{\n \"a\": [\n  \"x\"\n ]\n}"},
		{"set to null", `{"a":1}`, "a", nil, `{"a":null}`},
		{"an object replaced", `{"a":{"b":[1,2]}}`, "a", "x", `{"a":"x"}`},
		{"there already", `{"a":["x" , "y"]}`, "a", []string{"x", "y"}, `{"a":["x" , "y"]}`},
		{"there already, by escape", `{"a":"\u0078"}`, "a", "x", `{"a":"\u0078"}`},
		{"another number", `{"a":1.0}`, "a", 1, `{"a":1}`},
		{"numbers elsewhere", `{"a":1e400,"b":1.50}`, "c", 10000000, `{"a":1e400,"b":1.50,"c":10000000}`},
		{"escaped keys", `{"\u0061":{"b\/c":1}}`, "a b/c", 2, `{"\u0061":{"b\/c":2}}`},
		{"no HTML", `{"a":1}`, "<&>", "<&>", `{"a":1,"<&>":"<&>"}`},
		{"quotation marks", `{"a":1}`, `"\`, "\u2028\x00", `{"a":1,"\"\\":"\u2028\u0000"}`},
		{"the escape of nothing", `{}`, "a", `\ufffd`, "{\n  \"a\": \"\\\\ufffd\"\n}"},
		{"empty key", `{"":{"":1}}`, " ", 2, `{"":{"":2}}`},
		{"case differs elsewhere", `{"A":{"b":1},"c":{"a":1}}`, "c a", 2, `{"A":{"b":1},"c":{"a":2}}`},
		{"key of an outer name inside", `{"x":{"a":1},"a":2}`, "a", 3, `{"x":{"a":1},"a":3}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := strings.Split(tt.path, " ")
			got, err := JSON([]byte(tt.in), path, tt.value)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, string(got)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if err := checkJSONEdit([]byte(tt.in), got, path, tt.value); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestJSONSteps edits a file of dockerd in several steps.
func TestJSONSteps(t *testing.T) {
	const before = `{
    "log-driver": "journald",
    "runtimes": {
        "kata": {
            "path": "/usr/bin/kata-runtime",
            "runtimeArgs": ["--debug"]
        }
    },
    "bip": "10.1.0.1/24"
}
`
	const after = `{
    "log-driver": "journald",
    "runtimes": {
        "kata": {
            "path": "/usr/bin/kata-runtime",
            "runtimeArgs": ["--debug"]
        },
        "afalg-policy": {
            "path": "/usr/local/lib/afalg-policy/docker/runc"
        }
    },
    "bip": "10.1.0.1/24",
    "default-runtime": "afalg-policy",
    "seccomp-profile": "/etc/afalg-policy/seccomp/docker.json"
}
`
	got := []byte(before)
	for range 2 {
		for _, step := range [][]string{
			{"runtimes", "afalg-policy", "path", "/usr/local/lib/afalg-policy/docker/runc"},
			{"default-runtime", "afalg-policy"},
			{"seccomp-profile", "/etc/afalg-policy/seccomp/docker.json"},
		} {
			var err error
			if got, err = JSON(got, step[:len(step)-1], step[len(step)-1]); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff(after, string(got)); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	}
}

func TestJSONErrors(t *testing.T) {
	deep := strings.Repeat("[", 20000) + strings.Repeat("]", 20000)
	tests := []struct {
		name, in string
		path     []string
		value    any
		want     string
	}{
		{"no path", "{}", nil, 1, "no key is named whose value is to be set"},
		{"path that is no text", "{}", []string{"a", "\xff"}, 1, `key "\xff" is not UTF-8`},
		{"value that is no text", "{}", []string{"a", "b"}, []string{"\xff"}, `the value of a.b: ["\ufffd"] is not UTF-8`},
		{"value behind a backslash", "{}", []string{"a"}, "\\\xff", `the value of a: "\\\ufffd" is not UTF-8`},
		{"value of no kind", "{}", []string{"a"}, math.NaN(), "the value of a: json: unsupported value: NaN"},
		{"array", "\n []", []string{"a"}, 1, "2:2: the file is no JSON object"},
		{"null", "null", []string{"a"}, 1, "1:1: the file is no JSON object"},
		{"text on the way", `{"a":"x"}`, []string{"a", "b"}, 1, "1:6: a is no JSON object"},
		{"array on the way", `{"a":{"b":[{"c":1}]}}`, []string{"a", "b", "c"}, 1, "1:11: a.b is no JSON object"},
		{"comment", "{\n// x\n\"a\":1}", []string{"a"}, 1, "2:1: a comment: the programs that read this file accept plain JSON only; remove it"},
		{"comment in the middle", "{\"a\": /* x */ 1}", []string{"a"}, 1, "1:7: a comment: the programs that read this file accept plain JSON only; remove it"},
		{"comment at the end", "{\"a\":1}\n# x\n", []string{"a"}, 1, "2:1: a comment: the programs that read this file accept plain JSON only; remove it"},
		{"comma at the end", "{\"a\":1,\n}", []string{"a"}, 1, "1:7: a comma before '}': the programs that read this file accept plain JSON only; remove it"},
		{"comma at the end of an array", `{"a":[1, ]}`, []string{"a"}, 1, "1:8: a comma before ']': the programs that read this file accept plain JSON only; remove it"},
		{"no comment", `{"a":/x/}`, []string{"a"}, 1, "1:6: invalid character '/' looking for beginning of value"},
		{"single quotes", `{'a':1}`, []string{"a"}, 1, `1:2: invalid character '\'' looking for beginning of object key string`},
		{"cut off", "{\"a\":", []string{"a"}, 1, "1:5: unexpected end of JSON input"},
		{"two values", "{}\n{}", []string{"a"}, 1, "2:1: invalid character '{' after top-level value"},
		{"duplicate", "{\"a\":1,\n \"a\":2}", []string{"b"}, 1, `2:2: key "a" stands twice in one object`},
		{"duplicate by escape", `{"a":1,"\u0061":2}`, []string{"a"}, 1, `1:8: key "a" stands twice in one object`},
		{"another case", `{"Runtimes":{}}`, []string{"runtimes", "x"}, 1,
			`1:2: key "Runtimes": some programs read it as "runtimes" and others do not; rename or remove it`},
		{"another case beside the key", `{"a":{"key":1,"KEY":2}}`, []string{"a", "key"}, 1,
			`1:15: key "KEY": some programs read it as "key" and others do not; rename or remove it`},
		{"long s", `{"\u017feccomp":1}`, []string{"seccomp"}, 1,
			`1:2: key "\u017feccomp": some programs read it as "seccomp" and others do not; rename or remove it`},
		{"byte order mark", "\ufeff{}", []string{"a"}, 1, "1:1: a byte order mark: save the file as UTF-8 without one"},
		{"UTF-16", "\xff\xfe{\x00}\x00", []string{"a"}, 1, "1:1: a byte order mark: save the file as UTF-8 without one"},
		{"no UTF-8", "{\n\"a\":\"\xe4\"}", []string{"a"}, 1, "2:6: byte 0xe4: the file is no text in UTF-8"},
		{"NUL", "{}\x00", []string{"a"}, 1, "1:3: byte 0x00: the file is no text in UTF-8"},
		{"deep", `{"a":` + deep + `}`, []string{"b"}, 1, "1:10005: invalid character '[' exceeded max depth"},
		{"large", "{}" + strings.Repeat(" ", 16<<20), []string{"a"}, 1, "16777218 bytes: the limit is 16777216"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			src := []byte(tt.in)
			got, err := JSON(src, tt.path, tt.value)
			if err == nil || err.Error() != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
			if got != nil || string(src) != tt.in {
				t.Errorf("an error, and yet %q", got)
			}
		})
	}
}

// A text that becomes too deep to read is not written.
func TestJSONTooDeepAfterwards(t *testing.T) {
	path := slices.Repeat([]string{"a"}, 10001)
	got, err := JSON([]byte(`{"z":1}`), path, 1)
	if want := "with " + strings.Join(path, ".") + " set, the file would not read as it should: set it by hand"; err == nil || err.Error() != want || got != nil {
		t.Errorf("%.80s, %v, want %s", got, err, want)
	}
}

// FuzzJSON: whatever is accepted says afterwards what it said before, with the
// one value set; it changes in one place; and the second time it does not
// change.
func FuzzJSON(f *testing.F) {
	for _, src := range []string{"", "\n", "{}", "{\r\n}", `{"a":{"b":1}}`, "{\n\t\"a\": null\n}", "{\n\"b\":\n1}", `{ "a" : { } }`,
		`{"a":[1,{"a":2}]}`, `{"a":1,}`, "{\"a\":1}//", `{"A":1}`, `{"a":"\ud800"}`, "{\"a\":\"\\u0000\"}\n"} {
		for _, path := range []string{"a", "a b", "b", "c d e", ""} {
			f.Add([]byte(src), path, "x", byte(len(path)))
		}
	}
	f.Fuzz(func(t *testing.T, src []byte, path, text string, kind byte) {
		var value any
		switch kind % 6 {
		case 0:
			value = text
		case 1:
			value = len(text)
		case 2:
			value = []string{text, "y"}
		case 3:
			value = map[string]any{text: map[string]any{"z": []int{}}}
		case 4:
			value = nil
		case 5:
			value = len(text)%2 == 0
		}
		keys := strings.Split(path, " ")
		original := bytes.Clone(src)
		once, err := JSON(src, keys, value)
		if !bytes.Equal(src, original) {
			t.Fatal("the source has changed")
		}
		if err != nil {
			if once != nil {
				t.Errorf("output beside an error: %s", once)
			}
			return
		}
		if err := checkJSONEdit(src, once, keys, value); err != nil {
			t.Errorf("%q\n%q\n%v", src, once, err)
		}
		twice, err := JSON(once, keys, value)
		if err != nil || !bytes.Equal(once, twice) {
			t.Errorf("again: %v\n%q\n%q", err, once, twice)
		}
	})
}

// checkJSONEdit judges an edit by the standard library.
func checkJSONEdit(before, after []byte, path []string, value any) error {
	taken := gone(before, after)
	if len(bytes.Trim(before, " \t\r\n")) == 0 {
		before = []byte("{}")
	}
	old, err := oldJSON(before, path)
	if err != nil {
		return err
	}
	if !bytes.Contains(old, taken) {
		return fmt.Errorf("more than the old value is gone: %q", taken)
	}
	want, err := numbersAsWritten(before)
	if err != nil {
		return err
	}
	encoded, err := json.Marshal(value)
	if err != nil {
		return err
	}
	at := want.(map[string]any)
	for _, key := range path[:len(path)-1] {
		if at[key] == nil {
			at[key] = map[string]any{}
		}
		at = at[key].(map[string]any)
	}
	if at[path[len(path)-1]], err = numbersAsWritten(encoded); err != nil {
		return err
	}
	got, err := numbersAsWritten(after)
	if err != nil {
		return err
	}
	if diff := cmp.Diff(want, got); diff != "" {
		return fmt.Errorf("read again: -want +got:\n%s", diff)
	}
	return nil
}

func numbersAsWritten(src []byte) (v any, err error) {
	d := json.NewDecoder(bytes.NewReader(src))
	d.UseNumber()
	return v, d.Decode(&v)
}

// gone returns the part that an edit removed: the part of the old text between
// the common ends of both texts.
func gone(before, after []byte) []byte {
	start := 0
	for start < min(len(before), len(after)) && before[start] == after[start] {
		start++
	}
	end := 0
	for end < min(len(before), len(after))-start && before[len(before)-1-end] == after[len(after)-1-end] {
		end++
	}
	return before[start : len(before)-end]
}

// oldJSON returns the text of the value at a path, or of the null on the way.
func oldJSON(src []byte, path []string) (json.RawMessage, error) {
	at := json.RawMessage(src)
	for _, key := range path {
		var object map[string]json.RawMessage
		if err := json.Unmarshal(at, &object); err != nil {
			return nil, err
		}
		if object == nil {
			return at, nil
		}
		at = object[key]
		if at == nil {
			return nil, nil
		}
	}
	return at, nil
}
