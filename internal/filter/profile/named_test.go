package profile

import (
	"errors"
	"testing"
)

func TestNamedError(t *testing.T) {
	for text, want := range map[string]string{
		"no such file":            "a.json: no such file",
		"3:14: unknown":           "a.json:3:14: unknown",
		"3:14: one\n5:1: another": "a.json:3:14: one\na.json:5:1: another",
		"one\n  of two lines":     "a.json: one\n  of two lines",
		"3:x: no place":           "a.json: 3:x: no place",
		"3:14 no place":           "a.json: 3:14 no place",
		":: no place":             "a.json: :: no place",
		"3:14:no place":           "a.json: 3:14:no place",
	} {
		cause := errors.New(text)
		err := &NamedError{"a.json", cause}
		if got := err.Error(); got != want || !errors.Is(err, cause) {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
