package plan

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// archive reads policies from the text of a txtar archive.
func archive(text string) ReadFunc {
	files := map[string][]byte{}
	for _, f := range txtar.Parse([]byte(text)).Files {
		files[f.Name] = f.Data
	}
	return func(name string) ([]byte, error) {
		src, ok := files[name]
		if !ok {
			return nil, fs.ErrNotExist
		}
		return src, nil
	}
}

func mustLoad(t *testing.T, name, text string) *Plan {
	t.Helper()
	p, _, err := Load(name, archive(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// withRule is a policy text with one rule.
func withRule(name, rule string, more ...string) string {
	return fmt.Sprintf(`version: 1
name: %s
%sallow:
  - rule: %s
    users: [root]
    algorithms: {hash: [sha1]}
`, name, strings.Join(more, ""), rule)
}

func TestLoadMerges(t *testing.T) {
	p := mustLoad(t, "dir/main.yaml", `
-- dir/main.yaml --
version: 1
name: main
include: [sub/a.yaml, ../b.yaml, "builtin:c"]
deny: {families: [AF_RXRPC]}
allow:
  - rule: z
    binaries: [/b, {path: /a, sha256: "`+strings.Repeat("b", 64)+`"}, {path: /a, sha256: "`+strings.Repeat("a", 64)+`"}]
    users: [root, "7"]
    capabilities: [CAP_SYS_ADMIN, CAP_NET_ADMIN]
    units: [b.service, a.service]
    algorithms: {skcipher: [ecb(aes)], hash: [sha256, sha1]}
-- dir/sub/a.yaml --
version: 1
name: a
include: [../../b.yaml]
deny: {socket-errno: EPERM, families: [AF_KEY, AF_RXRPC]}
allow:
  - {rule: a, anyone: true, algorithms: {rng: ["*"]}}
-- b.yaml --
version: 1
name: b
deny: {socket-errno: EPERM}
allow:
  - {rule: b, users: [root], algorithms: {hash: [sha1]}}
-- builtin:c --
version: 1
name: c
include: ["builtin:d"]
-- builtin:d --
version: 1
name: d
deny: {bind-errno: EACCES}
`)
	got, err := p.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	want := `{"version":1,"name":"main","digest":"` + p.Digest + `",` +
		`"deny":{"socket-errno":"EPERM","bind-errno":"EACCES","families":["AF_KEY","AF_RXRPC"]},"allow":[` +
		`{"rule":"a","position":"dir/sub/a.yaml:6:5","anyone":true,"algorithms":{"rng":["*"]}},` +
		`{"rule":"b","position":"b.yaml:5:5","users":["root"],"algorithms":{"hash":["sha1"]}},` +
		`{"rule":"z","position":"dir/main.yaml:6:5","binaries":[{"path":"/a","sha256":"` + strings.Repeat("a", 64) + `"},` +
		`{"path":"/a","sha256":"` + strings.Repeat("b", 64) + `"},{"path":"/b"}],"users":["7","root"],` +
		`"capabilities":["CAP_NET_ADMIN","CAP_SYS_ADMIN"],"units":["a.service","b.service"],` +
		`"algorithms":{"hash":["sha1","sha256"],"skcipher":["ecb(aes)"]}}],` +
		`"containers":{"unconfined":"refuse","grants":[]}}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
	if (p.SocketErrno != Errno{"EPERM", 1}) || (p.BindErrno != Errno{"EACCES", 13}) {
		t.Errorf("errnos %v %v", p.SocketErrno, p.BindErrno)
	}
}

func TestLoadDefaults(t *testing.T) {
	p := mustLoad(t, "p", "-- p --\nversion: 1\nname: p\n")
	if (p.SocketErrno != Errno{"EAFNOSUPPORT", 97}) || (p.BindErrno != Errno{"ENOENT", 2}) {
		t.Errorf("errnos %v %v", p.SocketErrno, p.BindErrno)
	}
	if p.Name != "p" || p.Families != nil || p.Rules != nil {
		t.Errorf("%+v", p)
	}
}

func TestLoadErrors(t *testing.T) {
	tests := map[string]struct{ files, want string }{
		"cycle of one": {
			"-- main --\nversion: 1\nname: m\ninclude: [./main]\n",
			"main:3:11: include cycle: main → main",
		},
		"cycle of three, entered from outside": {`
-- main --
version: 1
name: m
include: [a]
-- a --
version: 1
name: a
include: [b]
-- b --
version: 1
name: b
include:
  - c
-- c --
version: 1
name: c
include: [a]
`, "c:3:11: include cycle: a → b → c → a"},
		"missing include": {
			"-- main --\nversion: 1\nname: m\ninclude: [sub/x.yaml, 'builtin:x']\n",
			"main:3:11: include sub/x.yaml: file does not exist\nmain:3:23: include builtin:x: file does not exist",
		},
		"a shipped policy names a path": {
			"-- main --\nversion: 1\nname: m\ninclude: ['builtin:x']\n-- builtin:x --\nversion: 1\nname: x\ninclude: [/etc/x]\n",
			"builtin:x:3:11: include /etc/x: a shipped policy includes only shipped policies",
		},
		"errors of all files at once": {
			"-- main --\nversion: 1\nname: m\ninclude: [a, b, c]\n-- a --\nversion: 2\nname: a\n-- b --\nversion: 2\nname: b\n",
			"a:1:10: version \"2\": this program reads version 1\n" +
				"b:1:10: version \"2\": this program reads version 1\n" +
				"main:3:17: include c: file does not exist",
		},
		"a broken file is reported once": {
			"-- main --\nversion: 1\nname: m\ninclude: [a, b]\n-- a --\nversion: 2\nname: a\n-- b --\nversion: 1\nname: b\ninclude: [a]\n",
			"a:1:10: version \"2\": this program reads version 1",
		},
		"duplicate rule": {
			"-- main --\n" + withRule("m", "x", "include: [a]\n") + "-- a --\n" + withRule("a", "x"),
			`a:4:5: rule "x" is defined at main:5:5 already`,
		},
		"a copy of a file is another file": {
			"-- main --\nversion: 1\nname: m\ninclude: [a, b]\n-- a --\n" + withRule("a", "x") + "-- b --\n" + withRule("a", "x"),
			`b:4:5: rule "x" is defined at a:4:5 already`,
		},
		"includes disagree": {`
-- main --
version: 1
name: m
include: [a, b, c]
-- a --
version: 1
name: a
deny: {socket-errno: EPERM, bind-errno: EACCES}
-- b --
version: 1
name: b
deny: {bind-errno: EACCES}
-- c --
version: 1
name: c
include: [d]
-- d --
version: 1
name: d
deny: {socket-errno: EACCES}
`, "main:3:17: socket-errno: a says EPERM and c says EACCES; say in main which one holds"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p, _, err := Load("main", archive(tt.files))
			if p != nil || err == nil {
				t.Fatalf("Load = %+v, %v", p, err)
			}
			if diff := cmp.Diff(tt.want, err.Error()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestLoadIncluderWins(t *testing.T) {
	p := mustLoad(t, "main", `
-- main --
version: 1
name: m
include: [a, b]
deny: {socket-errno: EINVAL}
-- a --
version: 1
name: a
deny: {socket-errno: EPERM}
-- b --
version: 1
name: b
deny: {socket-errno: EACCES}
`)
	if p.SocketErrno.Name != "EINVAL" {
		t.Errorf("socket-errno %s", p.SocketErrno.Name)
	}
}

func TestLoadDiamond(t *testing.T) {
	p := mustLoad(t, "main", `
-- main --
version: 1
name: m
include: [a, b]
-- a --
version: 1
name: a
include: [./sub/../d]
-- b --
version: 1
name: b
include: [d]
-- d --
`+withRule("d", "x"))
	if len(p.Rules) != 1 || p.Rules[0].Name != "x" {
		t.Errorf("%+v", p.Rules)
	}
}

// chain makes files 0 to n, each including the next.
func chain(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "-- %d --\nversion: 1\nname: c\ninclude: ['%d']\n", i, i+1)
	}
	fmt.Fprintf(&b, "-- %d --\nversion: 1\nname: c\n", n)
	return b.String()
}

func TestLoadDepth(t *testing.T) {
	mustLoad(t, "0", chain(maxDepth))
	_, _, err := Load("0", archive(chain(maxDepth+1)))
	want := "8:3:11: include 9: more than 8 includes deep"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	// The chain is too long only by its second way.
	_, _, err = Load("main", archive("-- main --\nversion: 1\nname: m\ninclude: ['1', '0']\n"+chain(maxDepth)))
	want = "0:3:11: include 1: more than 8 includes deep"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestLoadFileLimit(t *testing.T) {
	var b strings.Builder
	b.WriteString("-- main --\nversion: 1\nname: m\ninclude:\n")
	for i := range maxFiles {
		fmt.Fprintf(&b, "  - f%d\n", i)
	}
	for i := range maxFiles {
		fmt.Fprintf(&b, "-- f%d --\nversion: 1\nname: f\n", i)
	}
	_, _, err := Load("main", archive(b.String()))
	want := "main:1003:5: include f999: more than 1000 files in all"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestLoadRuleLimit(t *testing.T) {
	half := func(prefix string, n int) string {
		var b strings.Builder
		fmt.Fprintf(&b, "-- %s --\nversion: 1\nname: h\nallow:\n", prefix)
		for i := range n {
			fmt.Fprintf(&b, "- {rule: %s%d, users: [root], algorithms: {hash: [sha1]}}\n", prefix, i)
		}
		return b.String()
	}
	main := "-- main --\nversion: 1\nname: m\ninclude: [a, b]\n"
	p := mustLoad(t, "main", main+half("a", 5000)+half("b", 5000))
	if len(p.Rules) != policy.MaxRules {
		t.Errorf("%d rules", len(p.Rules))
	}
	_, _, err := Load("main", archive(main+half("a", 5000)+half("b", 5001)))
	want := "b:5004:3: more than 10000 rules in all"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestLoadUnreadable(t *testing.T) {
	_, _, err := Load("main", archive(""))
	var unreadable *ReadError
	if !errors.As(err, &unreadable) || !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("got %v", err)
	}
	if err.Error() != "policy main: file does not exist" {
		t.Error(err)
	}
	big := func(string) ([]byte, error) { return make([]byte, policy.MaxSize+1), nil }
	_, _, err = Load("main", big)
	if err == nil || err.Error() != "policy main: larger than 1024 KiB, the most that is read" {
		t.Error(err)
	}
}

func TestLoadWarnings(t *testing.T) {
	_, warnings, err := Load("main", archive("-- main --\nversion: 1\nname: m\ninclude: [a]\n-- a --\n"+
		"version: 1\nname: a\nallow:\n  - {rule: a, users: [root], algorithms: {hash: ['*']}}\n"))
	if err != nil || len(warnings) != 1 || warnings[0].Pos.String() != "a:4:50" {
		t.Errorf("%v %v", warnings, err)
	}
}

// The digest depends on the meaning of a policy: not on order, files, names of
// files and policies, comments, or explicit defaults.
func TestDigestIsOfTheMeaning(t *testing.T) {
	split := mustLoad(t, "main", `
-- main --
version: 1
name: one
include: [a]
allow:
  - {rule: r1, users: [root, "5"], algorithms: {hash: [sha1, md5]}}
-- a --
version: 1
name: a
deny: {families: [AF_KEY, AF_RXRPC]}
allow:
  - {rule: r2, units: [a.service], algorithms: {aead: [ccm(aes)]}}
`)
	single := mustLoad(t, "other", `
-- other --
# a comment
version: 1
name: two
deny:
  families: [AF_RXRPC, AF_KEY]
  bind-errno: ENOENT
allow:
  - rule: r2
    units: [a.service]
    algorithms: {aead: [ccm(aes)]}
  - rule: r1
    algorithms: {hash: [md5, sha1]}
    users: ["5", root]
`)
	if split.Digest != single.Digest {
		t.Errorf("%s\n%s", split.Digest, single.Digest)
	}
	if !strings.HasPrefix(split.Digest, "sha256:") || len(split.Digest) != len("sha256:")+64 {
		t.Error(split.Digest)
	}
}

func TestDigestSeesEveryPart(t *testing.T) {
	const text = "-- p --\nversion: 1\nname: p\ndeny: {socket-errno: EPERM, bind-errno: EACCES, families: [AF_KEY]}\n" +
		"allow:\n  - {rule: r, binaries: [{path: /a, sha256: '" + "0000000000000000000000000000000000000000000000000000000000000000" +
		"'}], users: [u], capabilities: [CAP_CHOWN], units: [u.service], algorithms: {hash: [sha1]}}\n"
	seen := map[string]string{mustLoad(t, "p", text).Digest: "unchanged"}
	for _, change := range [][2]string{
		{"EPERM", "EIO"}, {"EACCES", "EIO"}, {"AF_KEY", "AF_RDS"}, {"rule: r", "rule: s"}, {"/a", "/b"}, {"0000", "0001"},
		{"[u]", "[v]"}, {"CAP_CHOWN", "CAP_KILL"}, {"u.service", "v.service"}, {"hash", "skcipher"}, {"sha1", "sha2"},
		{"users: [u], ", ""}, {"units: [u.service], ", ""}, {"capabilities: [CAP_CHOWN], ", ""}, {", families: [AF_KEY]", ""},
	} {
		changed := strings.Replace(text, change[0], change[1], 1)
		d := mustLoad(t, "p", changed).Digest
		if before, ok := seen[d]; ok {
			t.Errorf("%v has the digest of %v", change, before)
		}
		seen[d] = fmt.Sprint(change)
	}
}

// Loading is a function of the text: shuffled lists give the same plan, and the
// same input the same bytes.
func TestLoadIsDeterministic(t *testing.T) {
	lines := func(order []int) string {
		var b strings.Builder
		b.WriteString("-- p --\nversion: 1\nname: p\nallow:\n")
		for _, i := range order {
			fmt.Fprintf(&b, "  - {rule: r%d, users: [root], algorithms: {hash: [sha%d], aead: [a%d]}}\n", i, i, i)
		}
		return b.String()
	}
	order := make([]int, 30)
	for i := range order {
		order[i] = i
	}
	random := rand.New(rand.NewPCG(1, 2))
	want := mustLoad(t, "p", lines(order))
	for range 20 {
		random.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		got := mustLoad(t, "p", lines(order))
		names := func(p *Plan) (list []string) {
			for _, r := range p.Rules {
				list = append(list, r.Name)
			}
			return list
		}
		if got.Digest != want.Digest || !slices.Equal(names(got), names(want)) {
			t.Fatalf("%v differs from %v", names(got), names(want))
		}
	}
}

// The plan shares no slice with the parser's result.
func TestNormalCopies(t *testing.T) {
	r := policy.Rule{Users: []string{"b", "a"}, Units: []string{"b", "a"}, Capabilities: []string{"b", "a"}}
	normal(r)
	if r.Users[0] != "b" || r.Units[0] != "b" || r.Capabilities[0] != "b" {
		t.Errorf("input was changed: %+v", r)
	}
}
