package main

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v4"
)

// workflow is what of a workflow could give away a release.
type workflow struct {
	Permissions map[string]string
	Jobs        map[string]struct {
		Permissions map[string]string
		Uses        string
		Container   any
		Steps       []struct {
			Uses string
			Run  string
			With map[string]any
		}
	}
}

// rights has every permission that a job holds.
var rights = map[string]map[string]string{
	"ci.yml test":         {"contents": "read"},
	"weekly.yml test":     {"contents": "read"},
	"release.yml test":    {"contents": "read"},
	"release.yml build":   {"contents": "read"},
	"release.yml sign":    {"id-token": "write", "attestations": "write"},
	"release.yml image":   {"id-token": "write", "attestations": "write", "packages": "write"},
	"release.yml publish": {"contents": "write"},
}

// unpinned lists what workflows take by a name that others can move.
var unpinned = map[string]string{"debian:12": "apt changes it anyway, and checks what it adds"}

// What a workflow runs is pinned, what others wrote reaches no shell, and a job
// that builds can neither sign nor publish.
func TestWorkflows(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(root, ".github/workflows/*"))
	if err != nil || len(files) < 2 {
		t.Fatalf("%v: %v", files, err)
	}
	pinned := regexp.MustCompile(`^\s*(?:- )?uses: (?:\./\S+|[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+)$`)
	seen, taken, versions := map[string]map[string]string{}, map[string]string{}, map[any]bool{}
	for _, file := range files {
		name := filepath.Base(file)
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if line = strings.TrimRight(line, "\n"); strings.Contains(line, "uses:") && !pinned.MatchString(line) {
				t.Errorf("%s: %s: pin it to a commit, with its tag as a comment", name, line)
			}
		}
		var w workflow
		if err := yaml.Unmarshal(text, &w); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if w.Permissions == nil || len(w.Permissions) > 0 {
			t.Errorf("%s: its jobs hold %v by default: say permissions: {}", name, w.Permissions)
		}
		for job, j := range w.Jobs {
			seen[name+" "+job] = j.Permissions
			switch c := j.Container.(type) {
			case string:
				taken[c] = unpinned[c]
			case map[string]any:
				image, _ := c["image"].(string)
				taken[image] = unpinned[image]
			}
			for _, step := range j.Steps {
				if strings.Contains(step.Run, "${{") {
					t.Errorf("%s %s: an expression in a script is a text of others in a shell: give it by env:\n%s", name, job, step.Run)
				}
				if strings.HasPrefix(step.Uses, "actions/checkout@") && step.With["persist-credentials"] != false {
					t.Errorf("%s %s: checkout leaves a token beside the sources", name, job)
				}
				if version, ok := step.With["go-version"]; ok {
					versions[version] = true
				}
			}
		}
	}
	if diff := cmp.Diff(rights, seen); diff != "" {
		t.Errorf("permissions (-listed +in the workflows):\n%s", diff)
	}
	if !maps.Equal(unpinned, taken) {
		t.Errorf("images without a digest: %v, want %v", taken, unpinned)
	}
	if len(versions) != 1 {
		t.Errorf("the workflows build with several versions of Go: %v", versions)
	}
}
