package main

import (
	"reflect"
	"testing"

	"github.com/spf13/cobra"

	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// Whatever a rule may ask of a request, explain can be told by a flag.
func TestExplainFillsTheRequest(t *testing.T) {
	s := asked{
		binary: "/a", sha256: "aa", user: "root", unit: "a.service", algorithm: "hash:sha1", capabilities: []string{"CAP_BPF"}, container: true, cleanExec: true,
	}
	r, err := s.request()
	if err != nil {
		t.Fatal(err)
	}
	checkWhole(t, r)
}

// Whatever a grant may ask of a container, too.
func TestExplainFillsTheContainer(t *testing.T) {
	cmd := &cobra.Command{}
	facts := addContainerFacts(cmd)
	for flag, value := range map[string]string{
		"platform": "docker", "name": "web", "image": "sha256:0", "build": "true", "namespace": "prod", "pod": "web-0", "label": "a=b", "annotation": "c=d",
	} {
		if err := cmd.Flags().Set(flag, value); err != nil {
			t.Fatal(err)
		}
	}
	c, err := facts.container()
	if err != nil {
		t.Fatal(err)
	}
	checkWhole(t, c.Vouched)
	if c.Platform != "docker" {
		t.Errorf("platform %q", c.Platform)
	}
}

func checkWhole(t *testing.T, v any) {
	t.Helper()
	for i := range reflect.ValueOf(v).NumField() {
		if reflect.ValueOf(v).Field(i).IsZero() {
			t.Errorf("no flag gives %T its %s", v, reflect.TypeOf(v).Field(i).Name)
		}
	}
}

// Each fact of a container by itself makes explain ask for a container.
func TestEachFactIsOfAContainer(t *testing.T) {
	for i := range reflect.TypeFor[plan.Identity]().NumField() {
		f := &containerFacts{platform: newChoice("docker")}
		field := reflect.ValueOf(&f.identity).Elem().Field(i)
		switch field.Kind() {
		case reflect.String:
			field.SetString("x")
		case reflect.Bool:
			field.SetBool(true)
		case reflect.Slice:
			field.Set(reflect.ValueOf([]string{"x"}))
		case reflect.Map:
			f.labels, f.annotations = []string{"a=b"}, []string{"c=d"}
		}
		if c, err := f.container(); err != nil || c == nil {
			t.Errorf("%s alone is no container: %v", reflect.TypeFor[plan.Identity]().Field(i).Name, err)
		}
	}
}
