package jsontext

import (
	"math"
	"testing"
)

func parsed(t *testing.T, src string) *Document {
	t.Helper()
	d, err := Parse([]byte(src))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestSet(t *testing.T) {
	d := parsed(t, `{"linux":{"x":1}}`)
	change, err := d.Set([]string{"linux", "seccomp"}, map[string]int{"y": 2})
	if got, want := string(Apply(d.Src, change)), `{"linux":{"x":1,"seccomp":{"y":2}}}`; err != nil || got != want {
		t.Errorf("%s, %v", got, err)
	}
	if got := string(d.Root.Pack()); got != `{"linux":{"x":1}}` {
		t.Errorf("the parsed text has changed: %s", got)
	}
	if _, err := d.Set(nil, 1); err == nil {
		t.Error("without a path")
	}
	if _, err := d.Set([]string{"a"}, math.Inf(1)); err == nil {
		t.Error("infinity")
	}
}

// TestApply: changes come in any order, and src stays as it is.
func TestApply(t *testing.T) {
	const src = `{"a":1,"b":"x","c":3}`
	d := parsed(t, src)
	c, err := d.Set([]string{"c"}, "longer")
	if err != nil {
		t.Fatal(err)
	}
	a, err := d.Set([]string{"a"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	cut, err := d.Cut([]string{"b"})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(Apply(d.Src, c, a, cut)), `{"a":null,"c":"longer"}`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got := string(Apply(d.Src)); got != src || string(d.Src) != src {
		t.Errorf("without a change: %s, %s", got, d.Src)
	}
}
