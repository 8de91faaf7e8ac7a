package vouch

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

func objects(src string) ([]string, error) {
	var all []string
	err := eachObject([]byte(src), func(o []byte) { all = append(all, string(o)) })
	return all, err
}

func TestEachObject(t *testing.T) {
	for src, want := range map[string][]string{
		`[]`:                                  nil,
		" [\n]\t":                             nil,
		`[{}]`:                                {`{}`},
		`[ {"a":1} , {} ]`:                    {`{"a":1}`, `{}`},
		`[{"a":{"b":[{}]}}]`:                  {`{"a":{"b":[{}]}}`},
		`[{"a":"}]"},{"b":"\"}"},{"c":"\\"}]`: {`{"a":"}]"}`, `{"b":"\"}"}`, `{"c":"\\"}`},
	} {
		if got, err := objects(src); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v; want %q", src, got, err, want)
		}
	}
	for _, src := range []string{``, `{}`, `[`, `[{}`, `[{},`, `[{},]`, `[{}{}]`, `[1]`, `[{"a":"]`, `[{"a":"\`, `[{}] x`, `[],`, `[{}]]`} {
		if got, err := objects(src); err == nil {
			t.Errorf("%q: no error, and %q", src, got)
		}
	}
}

// eachObject divides every array of objects as encoding/json does.
func FuzzEachObject(f *testing.F) {
	for _, src := range []string{`[]`, `[{}]`, `[{"a":"\\\""},{"b":[{},"]"]}]`, `[{"a":"\u0022}"}]`, `[{},1]`, `[{}`, "[{\"\\\\\":1}\n]"} {
		f.Add(src)
	}
	f.Fuzz(func(t *testing.T, src string) {
		got, err := objects(src)
		var want []json.RawMessage
		if json.Unmarshal([]byte(src), &want) != nil || want == nil {
			return
		}
		for _, o := range want {
			if o[0] != '{' {
				if err == nil {
					t.Fatalf("%q: no error, although not all are objects", src)
				}
				return
			}
		}
		if err != nil || len(got) != len(want) {
			t.Fatalf("%q: %q, %v", src, got, err)
		}
		for i := range want {
			if !bytes.Equal([]byte(got[i]), want[i]) {
				t.Errorf("%q: object %d is %q, want %q", src, i, got[i], want[i])
			}
		}
	})
}

func TestAsks(t *testing.T) {
	many := ""
	for i := range 200 {
		many += fmt.Sprintf(" r%03d", i)
	}
	for _, tt := range []struct {
		name, spec string
		want       []string
	}{
		{"nothing", `{}`, nil},
		{"annotations", `{"annotations":{"io.afalg-policy.grant":"wifi, b","io.afalg-policy.grants":"c\td","io.afalg-policy.other":"e"}}`, []string{"b", "c", "d", "wifi"}},
		{"variables", `{"process":{"env":["AFALG_POLICY_GRANT=a,a","AFALG_POLICY_GRANTS=b","AFALG_POLICY_GRANT","XAFALG_POLICY_GRANT=c"]}}`, []string{"a", "b"}},
		{"metadata", `{"linux":{"seccomp":{"listenerMetadata":"{\"version\":1,\"policy\":\"p\",\"grants\":[\"wifi\"]}"}}}`, []string{"wifi"}},
		{"metadata of others", `{"linux":{"seccomp":{"listenerMetadata":"{\"grants\":[\"wifi\"]}"}}}`, nil},
		{"no names of rules", `{"process":{"env":["AFALG_POLICY_GRANT=A ../x -y \u001b[31m é ` + strings.Repeat("a", 65) + ` ok"]}}`, []string{"ok"}},
		{"too long", `{"process":{"env":["AFALG_POLICY_GRANT=` + strings.Repeat(" ", maxAskText) + ` late"]}}`, nil},
	} {
		c, err := Container(Source{Platform: "oci", ID: "x", Spec: config(t, []byte(tt.spec))})
		if err != nil || !slices.Equal(c.Asks, tt.want) {
			t.Errorf("%s: %q, %v; want %q", tt.name, c.Asks, err, tt.want)
		}
	}
	c, err := Container(Source{Platform: "oci", ID: "x", Spec: config(t, []byte(`{"process":{"env":["AFALG_POLICY_GRANT=`+many+`"]}}`))})
	if err != nil || len(c.Asks) != maxAsks {
		t.Errorf("%d names, %v; want %d", len(c.Asks), err, maxAsks)
	}
}

// The store has 1,000 containers and 100 images.
func BenchmarkPodman(b *testing.B) {
	dir := unpack(b, "podman")
	for _, list := range []struct {
		name  string
		count int
	}{{"containers", 1000}, {"images", 100}} {
		path := dir + "/graph/vfs-" + list.name + "/" + list.name + ".json"
		src := read(b, path)
		own, err := objects(src)
		if err != nil {
			b.Fatal(err)
		}
		var all strings.Builder
		for i := range list.count {
			other := strings.NewReplacer(podmanWeb, fmt.Sprintf("%064x", i), podmanLayer, fmt.Sprintf("%064x", i+1<<20), strings.TrimPrefix(podmanID, "sha256:"), fmt.Sprintf("%064x", i+1<<21))
			all.WriteString(other.Replace(own[0]) + ",")
		}
		put(b, path, "["+all.String()+src[1:])
		b.Logf("%s.json: %d bytes", list.name, all.Len()+len(src))
	}
	s := source(b, dir, "podman", "", "web")
	for b.Loop() {
		if _, err := Container(s); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDocker(b *testing.B) {
	dir := unpack(b, "docker")
	s := source(b, dir, "docker", dockerWeb, "web")
	for b.Loop() {
		if _, err := Container(s); err != nil {
			b.Fatal(err)
		}
	}
}

func read(b *testing.B, path string) string {
	b.Helper()
	src, err := os.ReadFile(path)
	if err != nil {
		b.Fatal(err)
	}
	return string(src)
}
