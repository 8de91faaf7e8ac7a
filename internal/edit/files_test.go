package edit

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
)

// step is a line of a file in testdata: set KEY… = VALUE, the value in JSON.
type step struct {
	path  []string
	value any
}

// file is the content of a file in testdata.
type file struct {
	name          string
	steps         []step
	before, after []byte
}

// TestTOMLFiles edits files as they are found on hosts: through several edits,
// with line ends of each kind, and with the value in place already.
func TestTOMLFiles(t *testing.T) {
	for _, f := range readFiles(t) {
		for _, newline := range []string{"\n", "\r\n"} {
			t.Run(f.name+newlineNames[newline], func(t *testing.T) {
				text := bytes.ReplaceAll(f.before, []byte("\n"), []byte(newline))
				want := strings.ReplaceAll(string(f.after), "\n", newline)
				for range 2 {
					for _, s := range f.steps {
						changed, err := TOML(text, s.path, s.value)
						if err != nil {
							t.Fatal(err)
						}
						if err := checkTOMLEdit(text, changed, s.path, s.value); err != nil {
							t.Error(err)
						}
						text = changed
					}
					if diff := cmp.Diff(want, string(text)); diff != "" {
						t.Fatalf("-want +got:\n%s", diff)
					}
				}
			})
		}
	}
}

var newlineNames = map[string]string{"\n": "", "\r\n": ", CRLF"}

func readFiles(t testing.TB) (files []file) {
	t.Helper()
	names, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(names) == 0 {
		t.Fatal("no files in testdata", err)
	}
	for _, name := range names {
		a, err := txtar.ParseFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if len(a.Files) != 2 || a.Files[0].Name != "before" || a.Files[1].Name != "after" {
			t.Fatalf("%s: want before and after", name)
		}
		f := file{name: strings.TrimSuffix(filepath.Base(name), ".txtar"), before: a.Files[0].Data, after: a.Files[1].Data}
		for line := range strings.Lines(string(a.Comment)) {
			if text, ok := strings.CutPrefix(line, "set "); ok {
				f.steps = append(f.steps, readStep(t, text))
			}
		}
		if len(f.steps) == 0 {
			t.Fatalf("%s: nothing is set", name)
		}
		files = append(files, f)
	}
	return files
}

func readStep(t testing.TB, text string) step {
	t.Helper()
	path, literal, _ := strings.Cut(text, " = ")
	s := step{path: strings.Fields(path)}
	if err := json.Unmarshal([]byte(literal), &s.value); err != nil {
		t.Fatal(err)
	}
	switch v := s.value.(type) {
	case float64:
		s.value = int(v)
	case []any:
		list := []string{}
		for _, e := range v {
			list = append(list, e.(string))
		}
		s.value = list
	}
	return s
}

// containerd itself reads the same as before, and the one value: it prints its
// whole configuration. The parser of its 1.x is older than TOML 1.0.
func TestContainerdReads(t *testing.T) {
	const (
		head    = "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc]\nruntime_type = 'io.containerd.runc.v2'\n"
		program = "/usr/local/lib/afalg-policy/containerd/runc"
	)
	defaults, err := exec.Command("containerd", "config", "default").Output()
	if err != nil {
		t.Fatal("containerd, of Debian's package of that name, is needed here: ", err)
	}
	for name, before := range map[string]string{
		"default":       string(defaults),
		"key missing":   head + "[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc.options]\nSystemdCgroup = true\n",
		"no key":        head + "[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc.options]\n",
		"table missing": head,
		"dots":          head + "options.SystemdCgroup = true\n",
		"braces":        head + "options = { SystemdCgroup = true }",
		"empty braces":  head + "options = {}",
		"CRLF":          strings.ReplaceAll(head, "\n", "\r\n"),
	} {
		t.Run(name, func(t *testing.T) {
			path := []string{"plugins", "io.containerd.grpc.v1.cri", "containerd", "runtimes", "runc", "options", "BinaryName"}
			after, err := TOML([]byte(before), path, program)
			if err != nil {
				t.Fatal(err)
			}
			config := filepath.Join(t.TempDir(), "config.toml")
			want, _ := dump(t, config, before)
			got, names := dump(t, config, string(after))
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if diff := cmp.Diff([]string{`BinaryName = "` + program + `"`}, names); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// dump returns containerd's output, and separately its lines with the value.
func dump(t *testing.T, config, text string) (rest, names []string) {
	t.Helper()
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("containerd", "--config", config, "config", "dump").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s\n%s", err, out, text)
	}
	for line := range strings.Lines(string(out)) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "BinaryName") {
			names = append(names, line)
		} else {
			rest = append(rest, line)
		}
	}
	return rest, names
}
