package kube

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

// FuzzRead shows that what Read takes is in the text, and says the same to a plain decoder,
// which knows neither places nor limits.
func FuzzRead(f *testing.F) {
	for _, name := range []string{"kinds.yaml", "pods.json"} {
		src, err := os.ReadFile("testdata/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(src)
		for _, part := range bytes.Split(src, []byte("\n---")) {
			f.Add(part)
		}
	}
	f.Add([]byte(podWith("securityContext: {privileged: true, seccompProfile: {type: OCI}}")))
	f.Add([]byte("--- {kind: Pod}\n"))
	f.Add([]byte("kind: Pod\n...\nkind: Pod\nspec: {containers: [{name: a}]}\n"))
	f.Fuzz(func(t *testing.T, src []byte) {
		m, err := Read(src)
		if err != nil {
			return
		}
		lines := bytes.Split(src, []byte("\n"))
		for _, w := range m.Workloads {
			for _, c := range w.Containers {
				if c.Line < 1 || c.Line > len(lines) || c.Column < 1 || c.Column > len(lines[c.Line-1])+1 {
					t.Errorf("%s is at %d:%d, outside of the text", c.Name, c.Line, c.Column)
				}
			}
		}
		if len(m.Workloads) == 1 && m.Workloads[0].Kind == "Pod" && len(m.Others)+m.Foreign == 0 {
			comparePlain(t, src, m.Workloads[0])
		}
	})
}

// comparePlain compares the containers of a text with one pod.
func comparePlain(t *testing.T, src []byte, w Workload) {
	var plain map[string]any
	if isJSON(src) {
		if json.Unmarshal(src, &plain) != nil {
			t.Error("a plain decoder does not take it")
		}
	} else if yaml.Load(src, &plain) != nil {
		return // several documents of which one is empty
	}
	if items, is := plain["items"].([]any); is && len(items) > 0 {
		plain, _ = items[0].(map[string]any)
	}
	spec, is := plain["spec"].(map[string]any)
	if !is {
		return
	}
	var want []string
	pod := typeOf(spec["securityContext"])
	for _, list := range []string{"initContainers", "containers", "ephemeralContainers"} {
		all, _ := spec[list].([]any)
		for _, one := range all {
			c, _ := one.(map[string]any)
			typ := typeOf(c["securityContext"])
			if typ == "" {
				typ = pod
			}
			want = append(want, typ+privileged(c["securityContext"]))
		}
	}
	var got []string
	for _, c := range w.Containers {
		text := string(c.Type)
		if c.Privileged {
			text += "!"
		}
		got = append(got, text)
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("containers %q, want %q", got, want)
	}
}

func typeOf(context any) string {
	c, _ := context.(map[string]any)
	p, _ := c["seccompProfile"].(map[string]any)
	s, _ := p["type"].(string)
	return s
}

func privileged(context any) string {
	c, _ := context.(map[string]any)
	if is, _ := c["privileged"].(bool); is {
		return "!"
	}
	return ""
}
