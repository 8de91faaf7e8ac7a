package kube

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/jsontext"
)

var update = flag.Bool("update", false, "write what was read into testdata")

// said writes what was read, a container a line.
func said(m *Manifest) string {
	var b strings.Builder
	for _, w := range m.Workloads {
		fmt.Fprintf(&b, "%s %d:%d windows=%t\n", w, w.Line, w.Column, w.Windows)
		for _, c := range w.Containers {
			fmt.Fprintf(&b, "  %d:%d %s %s %q privileged=%t %s", c.Line, c.Column, c.Role, c.Name, c.Type, c.Privileged, c.Localhost)
			if a := c.Annotation; a != nil {
				fmt.Fprintf(&b, " (%d:%d %s=%s)", a.Line, a.Column, a.Key, a.Value)
			}
			b.WriteString("\n")
		}
	}
	for _, p := range m.Bindings {
		fmt.Fprintf(&b, "%s: %s of %s for %s\n", p, p.Profile, p.ProfileKind, p.Image)
	}
	for _, o := range m.Others {
		fmt.Fprintf(&b, "passed over: %s\n", o)
	}
	return b.String()
}

// TestRead reads the manifests of testdata, each beside what it says.
func TestRead(t *testing.T) {
	for _, name := range []string{"kinds.yaml", "pods.json"} {
		src, err := os.ReadFile("testdata/" + name)
		if err != nil {
			t.Fatal(err)
		}
		m, err := Read(src)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if *update {
			if err := os.WriteFile("testdata/"+name+".want", []byte(said(m)), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile("testdata/" + name + ".want")
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), said(m)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// podWith is a pod whose container says no more than this of itself.
func podWith(container string) string {
	return "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - name: a\n    " + container + "\n"
}

// TestRefused has texts that programs read in different ways, that are no manifest yet, or that
// cost more than they may.
func TestRefused(t *testing.T) {
	profile := func(text string) string { return podWith("securityContext: {seccompProfile: {" + text + "}}") }
	deep := strings.Repeat("[", 40) + strings.Repeat("]", 40)
	bomb := "kind: Pod\na: &a [x,x]\nb: &b [*a,*a]\nspec: {containers: [*b,*b]}\n"
	for _, tt := range []struct{ name, src, want string }{
		{"key twice", podWith("securityContext: {privileged: true, privileged: false}"), `6:41: key "privileged" stands twice in one object`},
		{"kind twice", "kind: ConfigMap\nkind: Pod\nspec: {containers: [{name: a}]}\n", `2:1: key "kind" stands twice in one object`},
		{"key in another case", podWith("SecurityContext: {privileged: true}"), `6:5: key "SecurityContext": Kubernetes ignores it, and other programs read it as "securityContext"`},
		{"key with a long s", podWith("\u017fecurityContext: {privileged: true}"), "6:5: key \"\u017fecurityContext\": Kubernetes ignores it"},
		{"alias", "kind: Pod\nx: &x {privileged: true}\nspec: {containers: [{securityContext: *x}]}\n", "2:4: an anchor or an alias: write the text itself there"},
		{"merge", podWith("securityContext: {<<: {privileged: true}}"), "6:23: a key must be a word"},
		{"merge of the root", "<<: {kind: Pod}\nspec: {containers: [{name: a}]}\n", "1:1: a key must be a word"},
		{"bomb", bomb, "2:4: an anchor or an alias"},
		{"deep", podWith("x: " + deep), "nested deeper than any manifest"},
		{"many parts", podWith("x: [" + strings.Repeat("a,", 1<<16) + "]"), "1:1: the document has too many parts"},
		{"large", podWith("x: " + strings.Repeat("a", maxYAML)), "of YAML: the limit is 2097152"},
		{"tab", "kind: Pod\n\tspec: {}\n", "2:1: neither JSON nor YAML"},
		{"tag", podWith("securityContext: {privileged: !!binary dHJ1ZQ==}"), `6:35: the tag "!!binary"`},
		{"yes of YAML 1.1", podWith("securityContext: {privileged: yes}"), "securityContext.privileged cannot be a string"},
		{"number", podWith("securityContext: {privileged: 1}"), "securityContext.privileged cannot be a number"},
		{"NUL", "kind: Pod\x00", "1:10: a NUL byte"},
		{"mark", "\xef\xbb\xbfkind: Pod\n", "1:1: the text begins with a byte order mark"},
		{"content behind ---", "--- {kind: ConfigMap}\n", "1:4: kubectl drops what follows --- in a line"},
		{"separator without a blank", "kind: Pod\n---x: y\n", "2:4: kubectl drops what follows --- in a line"},
		{"template", "kind: Deployment\nspec:\n{{- if .Values.x }}\n  a: b\n{{- end }}\n", "3:1: a template, which is no manifest yet: render it first, as with helm template CHART | afalg-policy verify -"},
		{"value of a template", podWith("securityContext: {privileged: {{ .Values.x }}}"), "6:35: a template, which is no manifest yet"},
		{"template of JSON", `{"kind": "Pod", "spec": {{ .Values.spec }}}`, "1:25: a template"},
		{"no type", profile("localhostProfile: a"), `6:39: a seccompProfile of type ""`},
		{"type in another case", profile("type: unconfined"), `6:46: a seccompProfile of type "unconfined"`},
		{"no file", profile("type: Localhost"), "6:39: localhostProfile goes with type Localhost"},
		{"file of another type", profile("type: RuntimeDefault, localhostProfile: a"), "6:39: localhostProfile goes with type Localhost, and with no other"},
		{"empty file", profile(`type: Localhost, localhostProfile: ""`), "6:75: localhostProfile: it is empty"},
		{"path upwards", profile("type: Localhost, localhostProfile: a/../../b"), `6:75: localhostProfile: "a/../../b": name a file below`},
		{"path from the root", profile("type: Localhost, localhostProfile: /etc/x"), `6:75: localhostProfile: "/etc/x": name a file below`},
		{"patch", "kind: Deployment\napiVersion: apps/v1\nspec: {template: {spec: {}}}\n", "3:18: the pod has no containers: if this is a patch, render it first"},
		{"no template", "kind: Deployment\napiVersion: apps/v1\nspec: {replicas: 2}\n", "3:7: spec.template is missing"},
		{"items of no kind", "kind: List\nitems: [{spec: {}}]\n", "2:9: an object without a kind"},
		{"items as a mapping", "kind: List\nitems: {a: b}\n", "2:8: items is no list"},
		{"containers as a mapping", "kind: Pod\nspec: {containers: {a: b}}\n", "spec.containers cannot be a object"},
	} {
		_, err := Read([]byte(tt.src))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v\nwant %s", tt.name, err, tt.want)
		}
	}
}

// TestForeign shows which texts are nobody's business here.
func TestForeign(t *testing.T) {
	for _, tt := range []struct {
		src             string
		foreign, others int
	}{
		{"", 0, 0},
		{"---\n# nothing\n---\n", 0, 0},
		{"services: {web: {image: &x a, again: *x}}\n", 1, 0},
		{"- a\n- b\n", 1, 0},
		{`{"defaultAction": "SCMP_ACT_ALLOW"}`, 1, 0},
		{"kind: ConfigMap\ndata: {1: b, x: '{{ .y }}'}\n", 1, 0},
		{"kind: ConfigMap\ndata: {x: \"{{ .y }}\"}\n", 0, 1},
	} {
		m, err := Read([]byte(tt.src))
		if err != nil {
			t.Errorf("%q: %v", tt.src, err)
		} else if m.Foreign != tt.foreign || len(m.Others) != tt.others || m.Workloads != nil {
			t.Errorf("%q: %d foreign, %d others, %d workloads", tt.src, m.Foreign, len(m.Others), len(m.Workloads))
		}
	}
}

// TestRuler compares with a plain count.
func TestRuler(t *testing.T) {
	for _, src := range []string{"", "a", "\n", strings.Repeat("é\n", 3*ruled), strings.Repeat("éab", 2*ruled), strings.Repeat("x", ruled) + "\n"} {
		r := newRuler([]byte(src))
		for offset := 0; offset <= len(src)+1; offset += 1 + len(src)/5000 {
			if offset < len(src) && !utf8.RuneStart(src[offset]) {
				continue
			}
			line, column := r.position(offset)
			wantLine, wantColumn := jsontext.Position([]byte(src), offset)
			if line != wantLine || column != wantColumn {
				t.Fatalf("%.10q at %d: %d:%d, want %d:%d", src, offset, line, column, wantLine, wantColumn)
			}
		}
	}
}

// TestLarge reads a list in one line, as large as may be, in a time that grows with it.
func TestLarge(t *testing.T) {
	const pods = 15_000 // nearly as many values as are read
	one := `{"metadata":{"name":"p"},"spec":{"containers":[{"name":"a","securityContext":{"privileged":true}}]}}`
	src := []byte(`{"kind":"PodList","items":[` + strings.Repeat(one+",", pods-1) + one + `]}`)
	m, err := Read(src)
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Workloads) != pods || m.Workloads[pods-1].Containers[0].Column < len(src)-100 {
		t.Errorf("%v, %d pods", err, len(m.Workloads))
	}
}

// TestBundle reads more than one document may have: only each has a limit.
func TestBundle(t *testing.T) {
	one := "---\nkind: ConfigMap\ndata:\n  a: " + strings.Repeat("x", maxYAML/2) + "\n"
	m, err := Read([]byte(strings.Repeat(one, 4) + "---\n" + podWith("image: x")))
	if err != nil || len(m.Others) != 4 || len(m.Workloads) != 1 || m.Workloads[0].Line != 18 {
		t.Errorf("%v, %+v", err, m)
	}
}
