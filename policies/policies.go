// Package policies holds the shipped policies.
package policies

import (
	"embed"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

//go:embed *.yaml
var files embed.FS

//go:embed policy.schema.json
var schema string

// Schema is the JSON Schema of a policy file.
func Schema() []byte { return []byte(schema) }

//go:embed reports.v1.schema.json
var reportSchema string

// ReportSchema is the JSON Schema of the output of commands with --json.
func ReportSchema() []byte { return []byte(reportSchema) }

//go:embed presets/classes.yaml
var classes string

// Classes is the catalogue of the classes that a policy may deny, and of the
// presets.
func Classes() []byte { return []byte(classes) }

const extension = ".yaml"

// Names lists the shipped policies, sorted: "acvp", "baseline", …
func Names() []string {
	entries, err := fs.Glob(files, "*"+extension)
	if err != nil { // the pattern is a constant, and legal
		return nil
	}
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e, extension))
	}
	slices.Sort(names)
	return names
}

// Read returns the text of a shipped policy. The error for a name that is not
// in Names wraps fs.ErrNotExist and lists the names.
func Read(name string) ([]byte, error) {
	if !slices.Contains(Names(), name) {
		return nil, fmt.Errorf("%w: the shipped policies are %s", fs.ErrNotExist, strings.Join(Names(), ", "))
	}
	return files.ReadFile(name + extension)
}

// Summary is the first sentence of the comment at the head of a policy.
func Summary(name string) (string, error) {
	src, err := Read(name)
	if err != nil {
		return "", err
	}
	var words []string
	for line := range strings.Lines(string(src)) {
		text, ok := strings.CutPrefix(strings.TrimSpace(line), "# ")
		if !ok {
			break
		}
		words = append(words, text)
	}
	return strings.Join(words, " "), nil
}
