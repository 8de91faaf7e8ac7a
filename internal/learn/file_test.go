package learn

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

func TestFileComment(t *testing.T) {
	r := record(
		use("", hexA, "hash:sha1"),
		use("/a\nallow: x", hexA, "hash:sha1"), use("/a\nallow: x", hexA, "hash:sha1"),
		use("/b", hexA, "hash:x\n- rule: y\u2028\x1b[2K\xff"),
	)
	want := `# made\nversion: 2\r\u202e\x1b
# Learned from recorded uses. Read it before you use it: it allows every use during the
# recording, intended or not, and denies all others.
# NOTHING WAS LEARNED: this policy denies everything.
# No rule can stand for these, they are denied:
# - hash:sha1 by an unknown executable, 1 time: the executable is not known
# - hash:sha1 by "/a\nallow: x", 2 times: path "/a\nallow: x": a path may not contain the character U+000A
` + "# - hash:x\\n- rule: y\\u2028\\x1b[2K\ufffd by \"/b\", 1 time: algorithm name " +
		`"x\n- rule: y\u2028\x1b[2K\xff": character 2: '\n' is no part of a name: only letters, digits, '-', '_', and '(', ',', ')' around parameters are` + `
version: 1
name: p
`
	if diff := cmp.Diff(want, string(r.File("p", "made\nversion: 2\r\u202e\x1b"))); diff != "" {
		t.Error(diff)
	}
}

func TestFileCommentIsBounded(t *testing.T) {
	r := &Recorder{}
	for i := range 2 * maxUnexpressed {
		r.Used(use(fmt.Sprintf("/%s\n%d", strings.Repeat("\u202e", 1000), i), hexA, "hash:"+strings.Repeat("n", 100)))
	}
	load(t, r)
	if len(r.Unexpressed()) != maxUnexpressed || r.Lost() != maxUnexpressed {
		t.Errorf("%d unexpressed, %d lost", len(r.Unexpressed()), r.Lost())
	}
	text := string(r.File("p", strings.Repeat("made ", 10_000)))
	for _, line := range []string{
		"\n# THE RECORDER WAS FULL: 1000 further uses are not in it.\n", "\n# - and 900 more\n",
	} {
		if strings.Count(text, line) != 1 {
			t.Errorf("no line %q", line)
		}
	}
	for line := range strings.Lines(text) {
		if len(line) > maxLine+len("# …\n")+10 {
			t.Errorf("%d bytes: %.80s", len(line), line)
		}
	}
}

func TestFullOfUses(t *testing.T) {
	r := &Recorder{}
	for i := range maxUses + 5 {
		r.Used(use("/bin/a", hexA, fmt.Sprintf("hash:h%d", i)))
	}
	r.Used(use("/bin/a", hexA, "hash:h0")) // known: not lost
	p := load(t, r)
	if r.Lost() != 5 || len(p.Rules) != 1 || len(p.Rules[0].Algorithms) != maxUses {
		t.Errorf("%d lost, %d rules", r.Lost(), len(p.Rules))
	}
	if !decide(p, use("/bin/a", hexA, "hash:h0"), true) || decide(p, use("/bin/a", hexA, fmt.Sprintf("hash:h%d", maxUses)), true) {
		t.Error("another use than the last was lost")
	}
}

// However long the names are, a parser accepts the file.
func TestFullOfText(t *testing.T) {
	for name, tt := range map[string]struct {
		padding      string
		rules, least int // recorded, and the number that must find room
	}{
		"short":  {"", 2500, 1500},
		"long":   {strings.Repeat("x", 4000), 300, 200},
		"quotes": {strings.Repeat(`"`, 4000), 200, 100},
		"wide":   {strings.Repeat("日", 1300), 300, 200},
	} {
		t.Run(name, func(t *testing.T) {
			r := &Recorder{}
			for i := range tt.rules {
				for _, typ := range afalg.Types() {
					r.Used(use(fmt.Sprintf("/%s%d/%s", tt.padding, i, strings.Repeat("r", 64)), hexA, string(typ)+":"+strings.Repeat("a", 40)))
				}
			}
			for i := range maxUnexpressed {
				r.Used(use(fmt.Sprintf("/\n%s%d", tt.padding, i), hexA, "hash:sha1"))
			}
			if r.Lost() == 0 {
				t.Fatal("nothing was lost: the test proves nothing")
			}
			if p := load(t, r); len(p.Rules) < tt.least {
				t.Errorf("only %d rules", len(p.Rules))
			}
			file := r.File("p", "made")
			if len(file) > policy.MaxSize {
				t.Errorf("%d bytes", len(file))
			}
		})
	}
}

func TestSizesAreEnough(t *testing.T) {
	b := binary{`/"日` + strings.Repeat("a", 100), hexA}
	rule := policy.Rule{Name: strings.Repeat("1", policy.MaxName), Binaries: []policy.Binary{{Path: b.path, SHA256: b.sha256}}}
	size := ruleSize(b)
	for _, typ := range afalg.Types() {
		for _, name := range []string{"hmac(sha1)", "1", strings.Repeat("n", 103)} {
			a := afalg.Algorithm{Type: typ, Name: name}
			rule.Algorithms = append(rule.Algorithms, policy.Algorithm{Algorithm: a})
			size += algorithmSize(a)
		}
	}
	without := len(policy.Format(&policy.Policy{Name: "p"})) + len("allow:\n")
	if got := len(policy.Format(&policy.Policy{Name: "p", Rules: []policy.Rule{rule}})) - without; got > size || got < size-100 {
		t.Errorf("a rule has %d bytes, %d were counted", got, size)
	}
}

// FuzzLearned holds the promise of checkExact for any strings, beside a use
// that must always get through.
func FuzzLearned(f *testing.F) {
	f.Add("/usr/bin/kcapi-hasher", hexA, "hash", "hmac(sha512)", "/b", "made")
	f.Add("/a\n- rule: x", hexB, "hash", "sha1]", "/a #b", "a\nversion: 2")
	f.Add("/a\xff", strings.ToUpper(hexA), "aead", "*", "/a: 'b\"\\", "\u2028")
	f.Add("/\u00a0", "1e5", "*", "a,b", "/socket", "\ufeff")
	good := use("/usr/bin/good", hexA, "hash:sha512")
	f.Fuzz(func(t *testing.T, path, sha256, typ, name, other, made string) {
		uses := []Use{good}
		for _, p := range []string{path, other} {
			for _, digest := range []string{sha256, hexA} {
				for _, a := range []string{typ + ":" + name, "hash:" + name, "hash:sha1"} {
					uses = append(uses, use(p, digest, a))
				}
			}
		}
		r := checkExact(t, uses)
		for _, e := range r.Unexpressed() {
			if e.Use == good {
				t.Fatalf("%+v", e)
			}
		}
		file := r.File(name, made)
		if _, _, err := policy.Parse("f", file); err != nil {
			t.Fatalf("%v\nin\n%s", err, file)
		}
		if bytes.Contains(file, []byte("\r")) {
			t.Fatalf("%q", file)
		}
	})
}
