package deploy

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

// TestDocumentedValues: the table in docs/chart.md has each value, and no other;
// the schema has each too, as it refuses what it does not know.
func TestDocumentedValues(t *testing.T) {
	text, err := os.ReadFile(chart + "/values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var values map[string]any
	if err := yaml.Unmarshal(text, &values); err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile("../docs/chart.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(doc), "| value | default | means |\n")
	if !found {
		t.Fatal("no table of values")
	}
	table, _, _ = strings.Cut(table, "\n\n")
	documented := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-zA-Z.]+)` \\| (.*?) \\|").FindAllStringSubmatch(table, -1) {
		documented[row[1]] = strings.Trim(row[2], "`")
	}
	for name, value := range leaves("", values) {
		shown, found := documented[name]
		if !found {
			t.Errorf("%s is not in docs/chart.md", name)
		}
		// A text or a table of resources is put in words.
		if value != "" && !strings.Contains(value, "\n") && name != "nri.resources" && shown != value {
			t.Errorf("%s is %q, and %q in docs/chart.md", name, value, shown)
		}
		delete(documented, name)
	}
	for name := range documented {
		t.Errorf("%s of docs/chart.md is no value", name)
	}
}

// leaves are the values as "helm --set" names them.
func leaves(path string, v any) map[string]string {
	m, ok := v.(map[string]any)
	if !ok || len(m) == 0 || slices.Contains([]string{"nri.resources"}, path) {
		out, err := yaml.Marshal(v)
		if err != nil {
			return nil
		}
		return map[string]string{path: strings.Trim(flow(v, string(out)), "\"")}
	}
	all := map[string]string{}
	for key, value := range m {
		for name, leaf := range leaves(strings.TrimPrefix(path+"."+key, "."), value) {
			all[name] = leaf
		}
	}
	return all
}

// flow writes a list in one line.
func flow(v any, text string) string {
	if list, ok := v.([]any); ok {
		var items []string
		for _, item := range list {
			items = append(items, item.(string))
		}
		return "[" + strings.Join(items, ", ") + "]"
	}
	if s, ok := v.(string); ok {
		return s
	}
	return strings.TrimSpace(text)
}
