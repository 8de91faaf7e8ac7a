package kube

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

// taken are the functions of Kubernetes that decide, by the file of the module that
// has them.
var taken = map[string][]string{
	"pkg/kubelet/kuberuntime/helpers.go":     {"fieldSeccompProfile", "getSeccompProfile"},
	"pkg/securitycontext/util.go":            {"DetermineEffectiveSecurityContext", "securityContextFromPodSecurityContext"},
	"pkg/apis/core/validation/validation.go": {"validateSeccompProfileField", "validateSeccompProfileType", "validateLocalDescendingPath", "validatePathNoBacksteps"},
}

// takenText is a Go file with the text of these functions, byte by byte.
func takenText(t *testing.T, module string) []byte {
	text := bytes.NewBufferString(`package main

import (
	"fmt"
	"path"
	"path/filepath"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/kubernetes/pkg/apis/core"
)
`)
	for _, name := range slices.Sorted(maps.Keys(taken)) {
		src, err := os.ReadFile(filepath.Join(module, name))
		if err != nil {
			t.Fatal(err)
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, name, src, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && slices.Contains(taken[name], f.Name.Name) {
				found++
				fmt.Fprintf(text, "\n%s\n", src[set.Position(f.Pos()).Offset:set.Position(f.End()).Offset])
			}
		}
		if found != len(taken[name]) {
			t.Fatalf("%s has %d of %q", name, found, taken[name])
		}
	}
	return text.Bytes()
}

// kubelet builds testdata/kubernetes/kubelet with these functions.
func kubelet(t *testing.T) string {
	const module = "../../testdata/kubernetes"
	find := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes")
	find.Dir = module
	dir, err := find.Output()
	if err != nil {
		t.Fatal(err)
	}
	temporary := t.TempDir()
	from, err := filepath.Abs(module + "/kubelet/taken.go")
	if err != nil {
		t.Fatal(err)
	}
	overlay, _ := json.Marshal(map[string]any{"Replace": map[string]string{from: temporary + "/taken.go"}})
	for name, text := range map[string][]byte{"taken.go": takenText(t, strings.TrimSpace(string(dir))), "overlay.json": overlay} {
		if err := os.WriteFile(filepath.Join(temporary, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	program := filepath.Join(temporary, "kubelet")
	build := exec.Command("go", "build", "-ldflags=-s -w", "-overlay", temporary+"/overlay.json", "-o", program, "./kubelet")
	build.Dir = module
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

// TestKubelet asks Kubernetes' own code about random pods: its strict decoder and
// validation, and what its kubelet passes to the runtime. Whatever Read takes is read
// alike, and Read refuses little that Kubernetes takes.
func TestKubelet(t *testing.T) {
	program := kubelet(t)
	const pods = 4000
	r := rand.New(rand.NewPCG(16, 2))
	var texts [][]byte
	for range pods {
		texts = append(texts, randomPod(r))
	}
	for _, seccompDefault := range []bool{false, true} {
		cmd := exec.Command(program, fmt.Sprintf("-seccomp-default=%t", seccompDefault))
		cmd.Stdin = bytes.NewReader(bytes.Join(texts, []byte{0}))
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v\n%s", err, stderr.String())
		}
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		if len(lines) != pods {
			t.Fatalf("%d answers about %d pods", len(lines), pods)
		}
		taken, both := 0, 0
		for i, line := range lines {
			m, err := Read(texts[i])
			ours, is := "refused", strings.HasPrefix(line, "pod")
			if is {
				taken++
			}
			if err == nil {
				ours = kubeletLine(m.Workloads[0], seccompDefault)
				both++
			}
			switch {
			case err == nil && ours != line:
				t.Errorf("%s\nread as    %s\nKubernetes %s", texts[i], ours, line)
			case err != nil && is && !slices.ContainsFunc(stricter, func(why string) bool { return strings.Contains(err.Error(), why) }):
				t.Errorf("%s\nrefused: %v\nKubernetes %s", texts[i], err, line)
			}
		}
		t.Logf("seccompDefault %t: of %d pods Kubernetes takes %d, and Read %d", seccompDefault, pods, taken, both)
		if taken < pods/4 || both < pods/5 {
			t.Errorf("of %d pods Kubernetes takes %d, and Read %d: too few to show anything", pods, taken, both)
		}
	}
}

// stricter is what Read refuses, and Kubernetes takes: the truths of YAML 1.1, and keys
// that other programs take for one that counts.
var stricter = []string{"privileged cannot be a string", "Kubernetes ignores it, and other programs read it as"}

// kubeletLine says it as testdata/kubernetes/kubelet does.
func kubeletLine(w Workload, seccompDefault bool) string {
	line := "pod"
	for _, c := range w.Containers {
		typ, ref := c.Type, ""
		switch {
		case typ == Undefined && seccompDefault:
			typ = RuntimeDefault
		case typ == Undefined:
			typ = Unconfined
		case typ == Localhost:
			ref = filepath.Clean(c.Localhost)
		}
		line += fmt.Sprintf(" %s=%s:%s/%t", c.Name, typ, ref, c.Privileged)
	}
	return line
}

// pick returns one of several, with the weights of how often they stand there.
func pick[T any](r *rand.Rand, all ...T) T { return all[r.IntN(len(all))] }

// randomPod is a pod that Kubernetes takes, more often than not.
func randomPod(r *rand.Rand) []byte {
	spec := map[string]any{}
	if r.IntN(2) == 0 {
		spec["securityContext"] = randomContext(r, false)
	}
	names := 0
	list := func(n int, more map[string]any) (all []any) {
		for range n {
			names++
			c := map[string]any{"name": fmt.Sprintf("c%d", names), "image": "x"}
			for k, v := range more {
				c[k] = v
			}
			if r.IntN(3) > 0 {
				c["securityContext"] = randomContext(r, true)
			}
			all = append(all, c)
		}
		return all
	}
	if n := r.IntN(3); n > 0 {
		spec["initContainers"] = list(n, nil)
	}
	spec["containers"] = list(1+r.IntN(2), nil)
	if r.IntN(4) == 0 {
		spec["ephemeralContainers"] = list(1, nil)
	}
	metadata := map[string]any{"name": "p", "namespace": "default"}
	if r.IntN(4) == 0 {
		metadata["annotations"] = map[string]any{podAnnotation: pick(r, "unconfined", "runtime/default", "localhost/x.json")}
	}
	pod := map[string]any{"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
	if r.IntN(2) == 0 {
		text, _ := json.Marshal(pod)
		return text
	}
	text, _ := yaml.Marshal(pod)
	// What YAML 1.1, which Kubernetes reads, takes for a truth.
	return bytes.ReplaceAll(text, []byte("privileged: true"), []byte("privileged: "+pick(r, "true", "true", "True", "TRUE", "yes", "on", "y", "!!bool true", `"true"`)))
}

func randomContext(r *rand.Rand, ofContainer bool) any {
	if r.IntN(8) == 0 {
		return nil
	}
	context := map[string]any{}
	if r.IntN(3) > 0 {
		context["seccompProfile"] = randomProfile(r)
	}
	if ofContainer && r.IntN(3) == 0 {
		context["privileged"] = pick[any](r, true, true, false, nil)
	}
	if r.IntN(40) == 0 {
		context[pick(r, "SeccompProfile", "seccompprofile", "privileged", "\u017feccompProfile")] = nil
	}
	return context
}

func randomProfile(r *rand.Rand) any {
	switch r.IntN(20) {
	case 0:
		return nil
	case 1:
		return map[string]any{}
	case 2:
		return map[string]any{"type": pick[any](r, "unconfined", "", nil, "Undefined", 1)}
	case 3:
		return map[string]any{"type": pick(r, "Unconfined", "RuntimeDefault"), "localhostProfile": pick[any](r, "x.json", "", nil)}
	case 4:
		return map[string]any{"type": "Localhost", "localhostProfile": pick[any](r, nil, "", "/a", "../a", "a/..", "a/../b", "a/./b", "a//b", "a..b", "..", " ")}
	}
	p := map[string]any{"type": pick(r, "Unconfined", "RuntimeDefault", "Localhost")}
	if p["type"] == "Localhost" {
		p["localhostProfile"] = pick(r, DefaultProfile, "operator/x.json", "a b.json")
	}
	return p
}
