package learn

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// replay gives a recorder the reports of a broker while a real program ran.
func replay(t *testing.T, name string) *Recorder {
	t.Helper()
	f, err := os.Open("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := &Recorder{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var line struct{ Call, Executable, SHA256, Algorithm string }
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			t.Fatal(err)
		}
		u := use(line.Executable, line.SHA256, line.Algorithm)
		switch line.Call {
		case "bind":
			r.Bound(u)
		case "accept":
			r.Used(u)
		default:
			t.Fatalf("call %q", line.Call)
		}
	}
	return r
}

// iwd 2.3 joins a network with a passphrase: it binds many algorithms, and uses
// few.
func TestLearnedFromIWD(t *testing.T) {
	r := replay(t, "iwd-psk.log")
	p := load(t, r)
	if len(p.Rules) != 1 {
		t.Fatalf("%d rules", len(p.Rules))
	}
	var got []string
	for _, a := range p.Rules[0].Algorithms {
		got = append(got, a.String())
	}
	if d := cmp.Diff([]string{"hash:hmac(sha1)", "hash:sha256", "skcipher:ecb(aes)"}, got); d != "" {
		t.Error(d)
	}
	text := string(r.File("p", ""))
	unused, _ := r.Unused()
	for _, u := range unused {
		if !strings.Contains(text, "\n# - "+u.Algorithm.String()+` by "/usr/libexec/iwd"`+"\n") || decide(p, u, true) {
			t.Errorf("%v is no comment, or allowed", u.Algorithm)
		}
	}
	if len(unused) != 18 {
		t.Errorf("%d were bound and never used", len(unused))
	}
}

// A bind is no use: it may only show what the kernel has.
func TestBound(t *testing.T) {
	r := &Recorder{}
	r.Bound(use("/bin/a", hexA, "hash:sha1"))
	r.Bound(use("/bin/a", hexA, "hash:sha1"))
	r.Bound(use("/bin/a", hexA, "hash:md5"))
	r.Bound(use("/bin/b", hexA, "hash:md5"))
	r.Bound(use("", hexA, "hash:md5"))
	r.Used(use("/bin/a", hexA, "hash:md5"))
	r.Used(use("/bin/c", hexA, "hash:md5")) // another executable bound it
	r.Bound(use("/bin/a", hexA, "hash:md5"))
	r.Used(use("/x\n", hexA, "hash:md5"))
	r.Bound(use("/x\n", hexA, "hash:md5"))
	want := `# Learned from recorded uses. Read it before you use it: it allows every use during the
# recording, intended or not, and denies all others.
# No rule can stand for these, they are denied:
# - hash:md5 by "/x\n", 1 time: path "/x\n": a path may not contain the character U+000A
# Bound and never used, so these are denied. If a program then misses one, add it to its rule:
# - hash:md5 by an unknown executable
# - hash:sha1 by "/bin/a"
# - hash:md5 by "/bin/b"
version: 1
name: p
allow:
  - rule: a
    binaries:
      - path: /bin/a
        sha256: "` + hexA + `"
    algorithms:
      hash: [md5]
  - rule: c
    binaries:
      - path: /bin/c
        sha256: "` + hexA + `"
    algorithms:
      hash: [md5]
`
	if d := cmp.Diff(want, string(r.File("p", ""))); d != "" {
		t.Error(d)
	}
	load(t, r)
}

// Endless binds fill neither the memory nor the file, and take no room from
// uses.
func TestBoundIsBounded(t *testing.T) {
	r := &Recorder{}
	for i := range 2 * maxBound {
		r.Bound(use(fmt.Sprintf("/%s\n%d", strings.Repeat("\u202e", 1000), i), hexA, "hash:"+strings.Repeat("n", 100)))
	}
	for i := range maxUnexpressed {
		r.Used(use(fmt.Sprintf("/%s\n%d", strings.Repeat("\u202e", 1000), i+maxBound), hexA, "hash:x"))
	}
	r.Used(use("/bin/a", hexA, "hash:sha1"))
	if list, more := r.Unused(); len(list) != maxBound || more != maxBound {
		t.Errorf("%d listed, %d more", len(list), more)
	}
	if p := load(t, r); len(p.Rules) != 1 {
		t.Errorf("%d rules", len(p.Rules))
	}
	text := string(r.File("p", ""))
	if line := fmt.Sprintf("\n# - and %d more\nversion: 1\n", 2*maxBound-maxListed); strings.Count(text, line) != 1 {
		t.Errorf("no line %q", line)
	}
	for line := range strings.Lines(text) {
		if len(line) > maxLine+len("# …\n")+10 {
			t.Errorf("%d bytes: %.80s", len(line), line)
		}
	}
}
