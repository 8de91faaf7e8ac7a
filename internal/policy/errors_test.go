package policy

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/afalg-policy/afalg-policy/internal/yamltext"
)

// expected matches the expectation that a bad policy has on the faulty line: "#
// ERROR COLUMN: MESSAGE", or WARNING, or several of them. A file in which a
// comment cannot stand has a .want file beside it, with the whole text.
var expected = regexp.MustCompile(` # (ERROR|WARNING) (\d+): `)

// expectation collects the errors and warnings that a file promises.
func expectation(t *testing.T, file string, src []byte) (errs, warnings string) {
	t.Helper()
	want, err := os.ReadFile(strings.TrimSuffix(file, ".yaml") + ".want")
	if err == nil {
		return strings.TrimSuffix(string(want), "\n"), ""
	}
	if !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	lists := map[string][]string{}
	for i, line := range strings.Split(string(src), "\n") {
		marks := expected.FindAllStringSubmatchIndex(line, -1)
		for j, m := range marks {
			end := len(line)
			if j+1 < len(marks) {
				end = marks[j+1][0]
			}
			kind := line[m[2]:m[3]]
			lists[kind] = append(lists[kind], fmt.Sprintf("%s:%d:%s: %s", filepath.Base(file), i+1, line[m[4]:m[5]], line[m[1]:end]))
		}
	}
	return strings.Join(lists["ERROR"], "\n"), strings.Join(lists["WARNING"], "\n")
}

func TestErrorFiles(t *testing.T) {
	files, err := filepath.Glob("../../testdata/errors/*.yaml")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			src, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			wantErrs, wantWarnings := expectation(t, file, src)
			if wantErrs == "" && wantWarnings == "" {
				t.Fatal("the file expects nothing")
			}
			p, warnings, err := Parse(filepath.Base(file), src)
			if (p == nil) != (err != nil) {
				t.Errorf("policy %v with error %v", p, err)
			}
			if got := errorText(err); got != wantErrs {
				t.Errorf("errors:\n%s\nwant:\n%s", got, wantErrs)
			}
			if got := warningText(warnings); got != wantWarnings {
				t.Errorf("warnings:\n%s\nwant:\n%s", got, wantWarnings)
			}
		})
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func warningText(warnings []Warning) string {
	var lines []string
	for _, w := range warnings {
		lines = append(lines, w.String())
	}
	return strings.Join(lines, "\n")
}

// TestErrorBytes has the faults that a text file in this repository cannot
// hold.
func TestErrorBytes(t *testing.T) {
	const head = "version: 1\nname: x\n"
	for _, c := range []struct{ name, src, want string }{
		{"empty", "", `p:1:1: the file is empty; a policy begins with "version: 1"`},
		{"blank", " \n\n", `p:1:1: the file is empty; a policy begins with "version: 1"`},
		{"byte order mark", "\ufeff" + head, `p:1:1: a byte order mark; save the file as UTF-8 without it`},
		{"byte order mark inside", head + "# \ufeff\n", `p:3:3: a byte order mark; save the file as UTF-8 without it`},
		{"UTF-16", "\xff\xfev\x00e\x00", `p:1:1: not UTF-8: a policy is a text file in UTF-8`},
		{"invalid UTF-8", head + "# é \xc3(\n", `p:3:5: not UTF-8: a policy is a text file in UTF-8`},
		{"executable", "\x7fELF\x02\x01\x01\x00", `p:1:1: the control character U+007F; remove it`},
		{"gzip", "\x1f\x8b\x08\x00", `p:1:1: the control character U+001F; remove it`},
		{"NUL", head + "# a\x00b\n", `p:3:4: the control character U+0000; remove it`},
		{"next line", head + "# a\u0085allow: []\n", `p:3:4: the control character U+0085; remove it`},
		{"line separator", head + "# a\u2028allow: []\n", `p:3:4: the control character U+2028; remove it`},
		{"carriage return", head + "# a\rallow: []\n", `p:3:4: a carriage return without a line feed, which hides the text before it`},
		{"carriage return at the end", head + "\r", `p:3:1: a carriage return without a line feed, which hides the text before it`},
		{"reordered text", head + "# a \u202e b\n", `p:3:5: the character U+202E, which reorders the text on the screen; remove it`},
		{"too large", head + strings.Repeat("#", MaxSize), `p:1:1: the file has 1048595 bytes; a policy has 1048576 at most: split it with include`},
		{"brackets", strings.Repeat("[", yamltext.MaxParts/2), `p:1:17: not YAML: nested deeper than any policy`},
		{"braces", "a: " + strings.Repeat("{a: ", 1000), `p:1:68: not YAML: nested deeper than any policy (while increasing flow level that begins at 1:65)`},
		{"dashes", strings.Repeat("- ", 1000), `p:1:33: not YAML: nested deeper than any policy`},
		{"long key", head + strings.Repeat("k", 1000) + ": 1\n", `p:3:1: unknown key "` + strings.Repeat("k", 110) + `"… in a policy: write version, name, include, deny, allow, containers or expect-open`},
		{"long name", head + "allow: [{rule: r, users: [root], algorithms: {hash: [" + strings.Repeat("n", 1000) + "]}}]\n",
			`p:3:54: algorithm name "` + strings.Repeat("n", 103) + `"…: character 104: the name has 1000 characters; the kernel takes 103 at most`},
		{"long path", head + "allow: [{rule: r, binaries: [/" + strings.Repeat("p", 4095) + "], algorithms: {hash: [sha1]}}]\n",
			`p:3:30: path "/` + strings.Repeat("p", 109) + `"…: 4096 characters; 4095 are allowed`},
		{"long unit", head + "allow: [{rule: r, units: [" + strings.Repeat("u", 248) + ".service], algorithms: {hash: [sha1]}}]\n",
			`p:3:27: unit "` + strings.Repeat("u", 110) + `"…: 256 characters; 255 are allowed`},
		{"long container", grantOf("names: [" + strings.Repeat("n", 254) + "]"),
			`p:3:44: name "` + strings.Repeat("n", 110) + `"…: 254 characters; 253 are allowed`},
		{"long pod", grantOf("pods: [" + strings.Repeat("p", 254) + "]"),
			`p:3:43: pod "` + strings.Repeat("p", 110) + `"…: 254 characters; 253 are allowed`},
		{"long namespace", grantOf("namespaces: [" + strings.Repeat("n", 77) + "]"),
			`p:3:49: namespace "` + strings.Repeat("n", 77) + `": 77 characters; 76 are allowed`},
		{"long label", grantOf("labels: {" + strings.Repeat("k", 318) + ": " + strings.Repeat("v", 4097) + "}"),
			`p:3:45: a key of labels "` + strings.Repeat("k", 110) + `"…: 318 characters; 317 are allowed` + "\n" +
				`p:3:365: a value of labels "` + strings.Repeat("v", 110) + `"…: 4097 characters; 4096 are allowed`},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, _, err := Parse("p", []byte(c.src))
			if p != nil || errorText(err) != c.want {
				t.Errorf("got %v and\n%s\nwant\n%s", p, errorText(err), c.want)
			}
		})
	}
}

func grantOf(condition string) string {
	return "version: 1\nname: x\ncontainers: {grants: [{rules: [r], " + condition + "}]}\n"
}

// The longest accepted values are printed and read again.
func TestLongGrant(t *testing.T) {
	p, _, err := Parse("p", []byte(grantOf(fmt.Sprintf("names: [%s], pods: [%s], namespaces: [%s], labels: {%s: %s}",
		strings.Repeat("n", 253), strings.Repeat("p", 253), strings.Repeat("n", 76),
		"'"+strings.Repeat(`"`, 317)+"'", "'"+strings.Repeat(`\`, 4096)+"'")))) // doubled by the quoting
	if err != nil {
		t.Fatal(err)
	}
	checkRoundTrip(t, p)
}

func TestManyGrants(t *testing.T) {
	source := func(grants int) []byte {
		return []byte("version: 1\nname: many\ncontainers:\n grants:\n" + strings.Repeat(" - {rules: [r], names: [n]}\n", grants))
	}
	p, _, err := Parse("p", source(MaxGrants))
	if err != nil || len(p.Containers.Grants) != MaxGrants {
		t.Fatalf("%d grants: %v", MaxGrants, err)
	}
	_, _, err = Parse("p", source(MaxGrants+1))
	if want := `p:10005:4: grant 10001; a policy has 10000 at most`; errorText(err) != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestManyRules(t *testing.T) {
	source := func(rules int) []byte {
		var b bytes.Buffer
		b.WriteString("version: 1\nname: many\nallow:\n")
		for i := range rules {
			fmt.Fprintf(&b, "- {rule: r%d, users: [root], algorithms: {hash: [sha-%d]}}\n", i, i)
		}
		return b.Bytes()
	}
	p, _, err := Parse("p", source(MaxRules))
	if err != nil || len(p.Rules) != MaxRules {
		t.Fatalf("%d rules: %v", MaxRules, err)
	}
	_, _, err = Parse("p", source(MaxRules+1))
	if want := `p:10004:3: rule 10001; a policy has 10000 at most`; errorText(err) != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// A file of nonsense gets a bounded list, in order.
func TestManyErrors(t *testing.T) {
	_, _, err := Parse("p", bytes.Repeat([]byte("- nonsense\n"), 5))
	if want := `p:1:1: a policy must be a mapping with version, name, include, deny, allow, containers or expect-open, not a list`; errorText(err) != want {
		t.Errorf("got %v", err)
	}
	_, _, err = Parse("p", []byte("version: 1\nname: x\nallow:\n"+strings.Repeat("- nonsense\n", 3000)))
	var list ErrorList
	if !errors.As(err, &list) || len(list) != maxErrors+1 {
		t.Fatalf("%d errors", len(list))
	}
	if want := "p:1003:3: 2000 more errors follow; correct these first"; list[maxErrors].Error() != want {
		t.Errorf("got  %v\nwant %s", list[maxErrors], want)
	}
	var one *Error
	if !errors.As(err, &one) || one.Pos != (Pos{"p", 4, 3}) {
		t.Errorf("errors.As found %v", one)
	}
}
