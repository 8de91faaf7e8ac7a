package learn

import (
	"bytes"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

var (
	hexA = strings.Repeat("a", 64)
	hexB = strings.Repeat("0", 64)
)

func use(path, sha256, algorithm string) Use {
	t, name, _ := strings.Cut(algorithm, ":")
	return Use{path, sha256, afalg.Algorithm{Type: afalg.Type(t), Name: name}}
}

func record(uses ...Use) *Recorder {
	r := &Recorder{}
	for _, u := range uses {
		r.Used(u)
	}
	return r
}

// load reads the recorder's file as check does, and fails unless it is the
// policy under a comment.
func load(t *testing.T, r *Recorder) *plan.Plan {
	t.Helper()
	file := r.File("learned", "made\nby: a test")
	checkFile(t, r, file)
	p, _, err := plan.Load("learned.yaml", func(name string) ([]byte, error) {
		if name != "learned.yaml" {
			return nil, fs.ErrNotExist
		}
		return file, nil
	})
	if err != nil {
		t.Fatalf("%v\nin\n%.2000s", err, file)
	}
	return p
}

func checkFile(t *testing.T, r *Recorder, file []byte) {
	t.Helper()
	rest := file
	for bytes.HasPrefix(rest, []byte("# ")) {
		_, rest, _ = bytes.Cut(rest, []byte("\n"))
	}
	if head := len(file) - len(rest); head > maxComment {
		t.Fatalf("a comment of %d bytes", head)
	}
	want := r.Policy("learned")
	if !bytes.Equal(rest, policy.Format(want)) {
		t.Fatalf("under its comment the file is not the policy:\n%.2000s", rest)
	}
	got, _, err := policy.Parse("learned.yaml", file)
	if err != nil {
		t.Fatalf("%v\nin\n%.2000s", err, file)
	}
	ignored := cmp.Options{cmpopts.IgnoreTypes(policy.Pos{}), cmpopts.IgnoreFields(policy.Policy{}, "File")}
	if diff := cmp.Diff(want, got, ignored); diff != "" {
		t.Fatalf("the file reads as another policy: %s", diff)
	}
}

func decide(p *plan.Plan, u Use, claimed bool) bool {
	return plan.Decide(p, plan.Request{Binary: u.Binary, SHA256: u.SHA256, Claimed: claimed, Algorithm: u.Algorithm}).Allowed
}

// neighbours of a use differ from it in one thing.
func neighbours(u Use) []Use {
	var all []Use
	for _, path := range []string{"", "/", u.Binary + "x", u.Binary + "/x", u.Binary + " (deleted)", strings.ToUpper(u.Binary), "/x" + u.Binary} {
		all = append(all, Use{path, u.SHA256, u.Algorithm})
	}
	for _, sha256 := range []string{"", hexA, hexB, strings.ToUpper(u.SHA256)} {
		all = append(all, Use{u.Binary, sha256, u.Algorithm})
	}
	for _, name := range []string{"", "*", u.Algorithm.Name + "x", "hmac(" + u.Algorithm.Name + ")", u.Algorithm.Name + "-generic", "sha1"} {
		all = append(all, Use{u.Binary, u.SHA256, afalg.Algorithm{Type: u.Algorithm.Type, Name: name}})
	}
	for _, typ := range append(afalg.Types(), "", "*") {
		all = append(all, Use{u.Binary, u.SHA256, afalg.Algorithm{Type: typ, Name: u.Algorithm.Name}})
	}
	return all
}

// checkExact checks the promise: each recorded use is allowed or reported as
// unexpressed, and none of its neighbours is allowed.
func checkExact(t *testing.T, uses []Use) *Recorder {
	t.Helper()
	r := record(uses...)
	p := load(t, r)
	unexpressed := map[Use]bool{}
	for _, e := range r.Unexpressed() {
		if e.Reason == "" || e.Count < 1 {
			t.Fatalf("%+v", e)
		}
		unexpressed[e.Use] = true
	}
	recorded := map[Use]bool{}
	for _, u := range uses {
		recorded[u] = true
		if unexpressed[u.cut()] == decide(p, u, true) {
			t.Fatalf("%+v: unexpressed is %v, and so is allowed", u, unexpressed[u.cut()])
		}
	}
	for _, u := range uses {
		for _, n := range neighbours(u) {
			if !recorded[n] && (decide(p, n, false) || decide(p, n, true)) {
				t.Fatalf("%+v was not recorded, and is allowed", n)
			}
		}
	}
	if r.Lost() != 0 {
		t.Fatalf("%d lost", r.Lost())
	}
	return r
}

func TestLearned(t *testing.T) {
	uses := []Use{
		use("/usr/bin/kcapi-hasher", hexA, "hash:hmac(sha512)"),
		use("/usr/libexec/iwd", hexA, "hash:md4"),
		use("/usr/bin/kcapi-hasher", hexA, "hash:hmac(sha512)"),
		use("/usr/libexec/iwd", hexA, "skcipher:cbc(aes)"),
		use("/usr/libexec/iwd", hexB, "hash:md5"),
		use("/opt/iwd", hexB, "aead:authencesn(hmac(sha256),cbc(aes))"),
		use("/usr/bin/rng", hexB, "rng:stdrng"),
		use("/usr/libexec/iwd", hexA, "hash:cmac(aes)"),
	}
	r := checkExact(t, uses)
	if got := r.Unexpressed(); got != nil {
		t.Error(got)
	}
	want := `# afalg-policy 1.0
# Learned from recorded uses. Read it before you use it: it allows every use during the
# recording, intended or not, and denies all others.
version: 1
name: node
allow:
  - rule: iwd
    binaries:
      - path: /opt/iwd
        sha256: "` + hexB + `"
    algorithms:
      aead: ["authencesn(hmac(sha256),cbc(aes))"]
  - rule: kcapi-hasher
    binaries:
      - path: /usr/bin/kcapi-hasher
        sha256: "` + hexA + `"
    algorithms:
      hash: ["hmac(sha512)"]
  - rule: rng
    binaries:
      - path: /usr/bin/rng
        sha256: "` + hexB + `"
    algorithms:
      rng: [stdrng]
  - rule: iwd-2
    binaries:
      - path: /usr/libexec/iwd
        sha256: "` + hexB + `"
    algorithms:
      hash: [md5]
  - rule: iwd-3
    binaries:
      - path: /usr/libexec/iwd
        sha256: "` + hexA + `"
    algorithms:
      hash: ["cmac(aes)", md4]
      skcipher: ["cbc(aes)"]
`
	if diff := cmp.Diff(want, string(r.File("node", "afalg-policy 1.0"))); diff != "" {
		t.Error(diff)
	}
	reversed := &Recorder{}
	for i := range uses {
		reversed.Used(uses[len(uses)-1-i])
	}
	if diff := cmp.Diff(want, string(reversed.File("node", "afalg-policy 1.0"))); diff != "" {
		t.Errorf("the order of uses matters: %s", diff)
	}
}

func TestLearnedNothing(t *testing.T) {
	r := &Recorder{}
	p := load(t, r)
	if len(p.Rules) != 0 || r.Unexpressed() != nil || r.Lost() != 0 {
		t.Errorf("%+v", p)
	}
	want := `# Learned from recorded uses. Read it before you use it: it allows every use during the
# recording, intended or not, and denies all others.
# NOTHING WAS LEARNED: this policy denies everything.
version: 1
name: none
`
	if diff := cmp.Diff(want, string(r.File("none", ""))); diff != "" {
		t.Error(diff)
	}
}

// A workload chooses paths and names.
func TestHostile(t *testing.T) {
	long := "/" + strings.Repeat("x", 4094)
	expressed := []Use{
		use("/opt/with space", hexA, "hash:sha1"),
		use(`/opt/"quotes" and \n`, hexA, "hash:sha1"),
		use("/opt/'single'", hexA, "hash:sha1"),
		use("/opt/a #b", hexA, "hash:sha1"),
		use("/opt/a: b", hexA, "hash:sha1"),
		use("/opt/- rule: x", hexA, "hash:sha1"),
		use("/opt/*&!%@`|>{}[],?", hexA, "hash:sha1"),
		use("/opt/ünïcödé/日本", hexA, "hash:sha1"),
		use("/opt/\ufffd", hexA, "hash:sha1"),
		use("/...", hexA, "hash:sha1"),
		use("/yes", hexA, "hash:1e3"),
		use("/opt/null", hexB, "hash:null"),
		use("/socketpair", hexB, "hash:n"),
		use(long, hexA, "hash:"+strings.Repeat("n", afalg.MaxLongName)),
	}
	if got := checkExact(t, expressed).Unexpressed(); got != nil {
		t.Errorf("%v", got)
	}
	unexpressed := map[string]Use{
		"the executable is not known":                                                                                                                       use("", hexA, "hash:sha1"),
		"the digest of the executable is not known":                                                                                                         use("/a", "", "hash:sha1"),
		`path "/a\nb": a path may not contain the character U+000A`:                                                                                         use("/a\nb", hexA, "hash:sha1"),
		`path "/a\x1b[2K": a path may not contain the character U+001B`:                                                                                     use("/a\x1b[2K", hexA, "hash:sha1"),
		`path "/a\u202eb": a path may not contain the character U+202E`:                                                                                     use("/a\u202eb", hexA, "hash:sha1"),
		`path "/a\u2028b": a path may not contain the character U+2028`:                                                                                     use("/a\u2028b", hexA, "hash:sha1"),
		`path "/a\x00b": a path may not contain the character U+0000`:                                                                                       use("/a\x00b", hexA, "hash:sha1"),
		`path "a": the path must be absolute`:                                                                                                               use("a", hexA, "hash:sha1"),
		`path "/": the path is a directory`:                                                                                                                 use("/", hexA, "hash:sha1"),
		`path "//a": the path must be clean, as the kernel shows it: write "/a"`:                                                                            use("//a", hexA, "hash:sha1"),
		`path "/a (deleted)": the kernel writes " (deleted)" after the path of a removed executable; no rule may match one`:                                 use("/a (deleted)", hexA, "hash:sha1"),
		`in a policy it would be another binary: "/aÿ" with the digest "` + hexA + `"`:                                                                      use("/a\xff", hexA, "hash:sha1"),
		`in a policy it would be another binary: "/a" with the digest "` + hexA + `"`:                                                                       use("/a", strings.ToUpper(hexA), "hash:sha1"),
		`sha256 "zz": a SHA-256 digest is 64 hexadecimal digits, as sha256sum prints them`:                                                                  use("/a", "zz", "hash:sha1"),
		`path "/` + strings.Repeat("x", 109) + `"…: 4096 characters; 4095 are allowed`:                                                                      use(long+"xxx", hexA, "hash:sha1"),
		`algorithm name "*": character 1: "*" is no part of a name: names are exact, and "*" stands alone, in a policy, for a whole type`:                   use("/a", hexA, "hash:*"),
		`algorithm name "": character 1: the name is empty`:                                                                                                 use("/a", hexA, "hash:"),
		`algorithm name "sha1]\n- rule: x": character 5: ']' is no part of a name: only letters, digits, '-', '_', and '(', ',', ')' around parameters are`: use("/a", hexA, "hash:sha1]\n- rule: x"),
		`algorithm name "` + strings.Repeat("n", 104) + `": character 104: the name has 104 characters; the kernel takes 103 at most`:                       use("/a", hexA, "hash:"+strings.Repeat("n", 5000)),
		`algorithm ":sha1": unknown type ""; the types are aead, hash, rng, skcipher`:                                                                       use("/a", hexA, ":sha1"),
		`algorithm "*:sha1": unknown type "*"; the types are aead, hash, rng, skcipher`:                                                                     use("/a", hexA, "*:sha1"),
		`algorithm "akcipher:rsa": unknown type "akcipher"; the types are aead, hash, rng, skcipher`:                                                        use("/a", hexA, "akcipher:rsa"),
	}
	var uses []Use
	want := map[string]Use{}
	for reason, u := range unexpressed {
		uses = append(uses, u, u)
		want[strings.ReplaceAll(reason, `"…`, `…`)] = u.cut()
	}
	got := map[string]Use{}
	for _, e := range checkExact(t, uses).Unexpressed() {
		if e.Count != 2 {
			t.Errorf("%+v was recorded twice", e)
		}
		got[strings.ReplaceAll(e.Reason, `"…`, `…`)] = e.Use
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestRuleNames(t *testing.T) {
	long := strings.Repeat("x", 100)
	paths := []string{
		"/a/b", "/b/b", "/b/b-2", "/c/b", "/d/b-2", "/e/B", "/e/B!", "/f/---", "/f/日本", "/g/-x", "/g/.hidden.sh",
		"/h/socketpair", "/h/socket", "/i/" + long, "/j/" + long,
	}
	var uses []Use
	for _, path := range paths {
		uses = append(uses, use(path, hexA, "hash:sha1"))
	}
	r := checkExact(t, uses)
	var got []string
	for _, rule := range r.Policy("p").Rules {
		got = append(got, rule.Name)
	}
	x58 := strings.Repeat("x", 58)
	want := []string{
		"b", "b-2", "b-2-2", "b-3", "b-2-3", "b-4", "b-5", "binary", "binary-2", "x", "hidden-sh",
		"socket-2", "socketpair-2", x58, x58 + "-2",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestPolicyNames(t *testing.T) {
	for name, want := range map[string]string{
		"node": "node", "a--b.": "a--b.", "0": "0", "": "learned", "Node 1": "node-1", "../x": "x", "é\n": "learned",
		strings.Repeat("a", 65): strings.Repeat("a", 64),
	} {
		p := (&Recorder{}).Policy(name)
		if p.Name != want {
			t.Errorf("%q became %q, not %q", name, p.Name, want)
		}
		if _, _, err := policy.Parse("p", policy.Format(p)); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestConcurrent(t *testing.T) {
	r := &Recorder{}
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := range 200 {
				r.Used(use(fmt.Sprintf("/bin/p%d", i%20), hexA, fmt.Sprintf("hash:h%d", i%50)))
				r.Used(use("", hexA, "hash:sha1"))
				if i%50 == worker {
					r.File("p", "")
				}
			}
		})
	}
	wg.Wait()
	load(t, r)
	if got := r.Unexpressed(); len(got) != 1 || got[0].Count != 8*200 {
		t.Errorf("%+v", got)
	}
	if got := len(r.sorted()); got != 100 {
		t.Errorf("%d uses", got)
	}
}
