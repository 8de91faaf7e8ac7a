package printable

import (
	"strings"
	"testing"
	"unicode"
)

func TestLine(t *testing.T) {
	for text, want := range map[string]string{
		"":                          "",
		"plain 'text' é…":           "plain 'text' é…",
		"a\nFDSTOREREMOVE=1\r\x00b": `a\nFDSTOREREMOVE=1\r\x00b`,
		"\x1b[31m\x9b\u009b\x7f":    `\x1b[31m` + "\ufffd" + `\u009b\x7f`,
		"a\u202eb\u2028c\u2066":     `a\u202eb\u2028c\u2066`,
		"no\u00a0break":             `no\u00a0break`,
		"\U000e0041":                `\U000e0041`,
	} {
		if got := Line(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	if got, want := Lines("a\tb\n\rc\x00"), "a\tb\n"+`\rc\x00`; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestCut(t *testing.T) {
	for _, tt := range []struct {
		text  string
		limit int
		want  string
	}{
		{"abcd", 4, "abcd"},
		{"abcde", 4, "abcd…"},
		{"ab\x00cd", 4, `ab\x00…`},
		{"éé", 2, "é…"},
		{"", 0, ""},
	} {
		if got := Cut(tt.text, tt.limit); got != tt.want {
			t.Errorf("%q within %d: %q, want %q", tt.text, tt.limit, got, tt.want)
		}
	}
}

// FuzzLine: whatever comes in, one line comes out, which prints.
func FuzzLine(f *testing.F) {
	f.Add("a\r\n\x1b[2J\u202e\xff")
	f.Fuzz(func(t *testing.T, text string) {
		if got := Line(text); strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) || Line(got) != got {
			t.Errorf("%q became %q", text, got)
		}
	})
}
