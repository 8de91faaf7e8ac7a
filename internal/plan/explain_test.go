package plan

import (
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

const explained = `
-- p --
version: 1
name: p
allow:
  - rule: check
    binaries: [/usr/bin/kcapi-hasher]
    users: [root]
    algorithms: {hash: ["hmac(sha512)", "hmac(sha256)"]}
  - rule: pinned
    binaries: [{path: /pinned, sha256: "` + "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" + `"}]
    algorithms: {aead: ["*"]}
  - rule: radio
    units: [iwd.service, radio@.service]
    capabilities: [CAP_NET_ADMIN, CAP_SYS_ADMIN]
    algorithms: {skcipher: [a1, a2, a3, a4, a5, a6, a7, a8]}
  - rule: strict
    binaries: [/strict]
    strict-exec: true
    algorithms: {rng: [jitterentropy_rng]}
`

func TestExplain(t *testing.T) {
	p := mustLoad(t, "p", explained)
	hash := func(name string) afalg.Algorithm { return afalg.Algorithm{Type: afalg.Hash, Name: name} }
	aead := afalg.Algorithm{Type: afalg.AEAD, Name: "gcm(aes)"}
	cipher := func(name string) afalg.Algorithm { return afalg.Algorithm{Type: afalg.Skcipher, Name: name} }
	jitter := afalg.Algorithm{Type: afalg.RNG, Name: "jitterentropy_rng"}
	tests := map[string]struct {
		p    *Plan
		r    Request
		want string
	}{
		"allowed": {p, Request{Binary: "/usr/bin/kcapi-hasher", UID: uid(0), Algorithm: hash("hmac(sha512)")},
			"allowed: hash:hmac(sha512) by rule check (p:4:5)"},
		"allowed with a whole type": {p, Request{Binary: "/pinned", SHA256: hexA, Algorithm: aead},
			"allowed: aead:gcm(aes) by rule pinned (p:8:5), which opens every aead algorithm"},
		"another binary": {p, Request{Binary: "/usr/bin/kcapi-dgst", UID: uid(0), User: "root", Algorithm: hash("hmac(sha512)")},
			"denied: hash:hmac(sha512)\nnearest rule: check (p:4:5), but\n" +
				"  binary /usr/bin/kcapi-dgst is not among /usr/bin/kcapi-hasher"},
		"another user and name": {p, Request{Binary: "/usr/bin/kcapi-hasher", UID: uid(7), User: "alice", Algorithm: hash("sha1")},
			"denied: hash:sha1\nnearest rule: check (p:4:5), but\n" +
				"  algorithm hash:sha1 is not among hash: hmac(sha256), hmac(sha512)\n" +
				"  user alice (uid 7) is not among root"},
		"unknown user": {p, Request{Binary: "/usr/bin/kcapi-hasher", Algorithm: hash("hmac(sha512)")},
			"denied: hash:hmac(sha512)\nnearest rule: check (p:4:5), but\n" +
				"  the user is not known; the rule asks for root"},
		"unknown digest": {p, Request{Binary: "/pinned", Algorithm: aead},
			"denied: aead:gcm(aes)\nnearest rule: pinned (p:8:5), but\n" +
				"  the sha256 of /pinned is not known; the rule asks for " + hexA},
		"another digest": {p, Request{Binary: "/pinned", SHA256: hexB, Algorithm: aead},
			"denied: aead:gcm(aes)\nnearest rule: pinned (p:8:5), but\n" +
				"  the sha256 of /pinned is " + hexB + ", the rule asks for " + hexA},
		"claimed path": {p, Request{Binary: "/usr/bin/kcapi-hasher", SHA256: hexA, Claimed: true, UID: uid(0), Algorithm: hash("hmac(sha512)")},
			"denied: hash:hmac(sha512)\nnearest rule: check (p:4:5), but\n" +
				"  the path /usr/bin/kcapi-hasher is what the container says it is; to hold there, the rule needs its sha256"},
		"claimed path with the digest": {p, Request{Binary: "/pinned", SHA256: hexA, Claimed: true, Algorithm: aead},
			"allowed: aead:gcm(aes) by rule pinned (p:8:5), which opens every aead algorithm"},
		"claimed path with another digest": {p, Request{Binary: "/pinned", SHA256: hexB, Claimed: true, Algorithm: aead},
			"denied: aead:gcm(aes)\nnearest rule: pinned (p:8:5), but\n" +
				"  the sha256 of /pinned is " + hexB + ", the rule asks for " + hexA},
		"claimed path, digest not known": {p, Request{Binary: "/pinned", Claimed: true, Algorithm: aead},
			"denied: aead:gcm(aes)\nnearest rule: pinned (p:8:5), but\n" +
				"  the sha256 of /pinned is not known; the rule asks for " + hexA},
		"another claimed path": {p, Request{Binary: "/usr/bin/kcapi-dgst", Claimed: true, UID: uid(0), Algorithm: hash("hmac(sha512)")},
			"denied: hash:hmac(sha512)\nnearest rule: check (p:4:5), but\n" +
				"  binary /usr/bin/kcapi-dgst is not among /usr/bin/kcapi-hasher"},
		"another type": {p, Request{Binary: "/pinned", SHA256: hexA, Algorithm: cipher("a1")},
			"denied: skcipher:a1\nnearest rule: pinned (p:8:5), but\n" +
				"  algorithm skcipher:a1: the rule allows no skcipher"},
		"neither unit nor capability": {p, Request{Algorithm: cipher("a1")},
			"denied: skcipher:a1\nnearest rule: radio (p:11:5), but\n" +
				"  the request holds no capability; the rule asks for one of CAP_NET_ADMIN, CAP_SYS_ADMIN\n" +
				"  the request belongs to no unit; the rule asks for one of iwd.service, radio@.service"},
		"another unit, capability and name": {p, Request{Unit: "x.service", Capabilities: []string{"CAP_KILL", "CAP_NET_ADMIN"}, Algorithm: cipher("a9")},
			"denied: skcipher:a9\nnearest rule: radio (p:11:5), but\n" +
				"  algorithm skcipher:a9 is not among skcipher: a1, a2, a3, a4, a5, a6 and 2 more\n" +
				"  unit x.service is not among iwd.service, radio@.service"},
		"another capability": {p, Request{Unit: "radio@x.service", Capabilities: []string{"CAP_KILL"}, Algorithm: cipher("a1")},
			"denied: skcipher:a1\nnearest rule: radio (p:11:5), but\n" +
				"  the request holds CAP_KILL; the rule asks for one of CAP_NET_ADMIN, CAP_SYS_ADMIN"},
		"a star": {p, Request{Binary: "/pinned", SHA256: hexA, Algorithm: afalg.Algorithm{Type: afalg.AEAD, Name: "*"}},
			"denied: aead:*\nnearest rule: pinned (p:8:5), but\n" +
				"  algorithm aead:*: a request names one algorithm, not a whole type"},
		"started cleanly": {p, Request{Binary: "/strict", CleanExec: true, Algorithm: jitter}, "allowed: rng:jitterentropy_rng by rule strict (p:15:5)"},
		"steered, or not known": {p, Request{Binary: "/strict", Algorithm: jitter},
			"denied: rng:jitterentropy_rng\nnearest rule: strict (p:15:5), but\n" +
				"  it is not known that nobody else steers the executable, by LD_PRELOAD or as a tracer; the rule asks for that (strict-exec), and only the kernel half can tell"},
		"nothing in common": {p, Request{Algorithm: afalg.Algorithm{Type: afalg.RNG, Name: "stdrng"}},
			"denied: rng:stdrng: the request meets no condition of any rule (the policy has 4)"},
		"no rules": {&Plan{}, Request{Algorithm: sha1}, "denied: hash:sha1: the policy has no rules, it allows nothing"},
		"no plan":  {nil, Request{Algorithm: sha1}, "denied: hash:sha1: the policy has no rules, it allows nothing"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, Explain(tt.p, tt.r).String()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// For a path listed with a digest and without one, the digest helps.
func TestExplainClaimedPathThatIsListedTwice(t *testing.T) {
	p := &Plan{Rules: []policy.Rule{{Name: "r", Algorithms: sha1s, Binaries: []policy.Binary{
		{Path: "/a"}, {Path: "/a", SHA256: hexA}, {Path: "/a", SHA256: strings.Repeat("c", 64)},
	}}}}
	e := Explain(p, Request{Binary: "/a", SHA256: hexB, Claimed: true, Algorithm: sha1})
	want := []Miss{{"binary", "the sha256 of /a is " + hexB + ", the rule asks for " + hexA}}
	if diff := cmp.Diff(want, e.Misses); diff != "" {
		t.Error(diff)
	}
}

func TestReason(t *testing.T) {
	p := mustLoad(t, "p", explained)
	hmac := afalg.Algorithm{Type: afalg.Hash, Name: "hmac(sha512)"}
	for name, tt := range map[string]struct {
		p    *Plan
		r    Request
		want string
	}{
		"allowed": {p, Request{Binary: "/usr/bin/kcapi-hasher", UID: uid(0), Algorithm: hmac}, "rule check"},
		"one miss": {p, Request{Binary: "/usr/bin/kcapi-hasher", UID: uid(7), Algorithm: hmac},
			"rule check: user (uid 7) is not among root"},
		"two misses": {p, Request{Binary: "/usr/bin/kcapi-hasher", Claimed: true, Algorithm: hmac},
			"rule check: the path /usr/bin/kcapi-hasher is what the container says it is; to hold there, the rule needs its sha256; " +
				"the user is not known; the rule asks for root"},
		"hostile path": {p, Request{Binary: "/a\nallowed: \x1b[2K\u202e\u00a0\xff", UID: uid(0), Algorithm: hmac},
			`rule check: binary /a\nallowed: \x1b[2K\u202e\u00a0` + "\ufffd is not among /usr/bin/kcapi-hasher"},
		"long path": {p, Request{Binary: "/" + strings.Repeat("x", 5000), UID: uid(0), Algorithm: hmac},
			"rule check: binary /" + strings.Repeat("x", maxReason-len("rule check: binary /")) + "…"},
		"no condition": {p, Request{Algorithm: afalg.Algorithm{Type: afalg.RNG, Name: "stdrng"}}, "no rule has a condition that holds"},
		"no rules":     {&Plan{}, Request{Algorithm: hmac}, "the policy has no rules"},
		"no plan":      {nil, Request{}, "the policy has no rules"},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, Explain(tt.p, tt.r).Reason()); diff != "" {
				t.Error(diff)
			}
		})
	}
	if got := (Explanation{}).Reason(); got != "the policy has no rules" {
		t.Error(got)
	}
}

// checkReason checks every explanation: one line that names the rule.
func checkReason(t *testing.T, e Explanation) {
	reason := e.Reason()
	if reason == "" || strings.ContainsFunc(reason, func(r rune) bool { return !unicode.IsPrint(r) }) {
		t.Fatalf("reason %q", reason)
	}
	if e.Allowed != (reason == "rule "+nameOf(e.Rule)) || !e.Allowed && e.Nearest != nil && !strings.HasPrefix(reason, "rule "+e.Nearest.Name+": ") {
		t.Fatalf("reason %q of %+v", reason, e)
	}
}

func nameOf(r *policy.Rule) string {
	if r == nil {
		return ""
	}
	return r.Name
}

// Everybody meets a rule for anyone: only the algorithm is missing.
func TestNearestForAnyone(t *testing.T) {
	p := mustLoad(t, "p", `
-- p --
version: 1
name: p
allow:
  - {rule: all, anyone: true, algorithms: {hash: [sha256]}}
  - {rule: one, units: [u.service], algorithms: {rng: [stdrng]}}
`)
	e := Explain(p, Request{UID: uid(0), Binary: "/bin/a", Algorithm: sha1})
	if want := "rule all: algorithm hash:sha1 is not among hash: sha256"; e.Reason() != want {
		t.Errorf("%s\nwant %s", e.Reason(), want)
	}
	e = Explain(p, Request{Unit: "u.service", Algorithm: sha1})
	if e.Nearest == nil || e.Nearest.Name != "all" {
		t.Errorf("%+v", e.Nearest)
	}
}

// Among rules with equally few misses, the one with more conditions met is
// nearer, and then the first by name.
func TestNearest(t *testing.T) {
	p := mustLoad(t, "p", `
-- p --
version: 1
name: p
allow:
  - {rule: a, users: [root], algorithms: {hash: [md5]}}
  - {rule: b, users: [root], units: [u.service], algorithms: {hash: [sha1]}}
  - {rule: c, users: [root], units: [u.service], algorithms: {hash: [sha1]}}
`)
	e := Explain(p, Request{UID: uid(0), Algorithm: sha1})
	if e.Nearest == nil || e.Nearest.Name != "b" {
		t.Errorf("%+v", e.Nearest)
	}
}
