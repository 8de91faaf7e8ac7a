package yamltext

import (
	"strings"
	"testing"
)

func TestDocuments(t *testing.T) {
	for name, tt := range map[string]struct {
		text      string
		documents int
		err       string
	}{
		"nothing":            {"", 0, ""},
		"one":                {"a: [1]", 1, ""},
		"more than are read": {"a\n---\nb\n---\n: {", 2, ""},
		"as deep as may be":  {"[[[a]]]", 1, ""},
		"too deep":           {"[[[[a]]]]", 0, "nested deeper than any test"},
		"too many parts":     {strings.Repeat(",", MaxParts/2+1), 0, ErrTooManyParts.Error()},
		"no YAML":            {"a: [", 0, "did not find"},
	} {
		documents, err := Documents([]byte(tt.text), "test", 3, 2)
		if len(documents) != tt.documents || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: %d documents, %v", name, len(documents), err)
		}
	}
}
