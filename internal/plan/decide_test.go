package plan

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

func uid(n uint32) *uint32 { return &n }

func algorithm(t afalg.Type, name string) policy.Algorithm {
	return policy.Algorithm{Algorithm: afalg.Algorithm{Type: t, Name: name}}
}

var (
	sha1  = afalg.Algorithm{Type: afalg.Hash, Name: "sha1"}
	hexA  = strings.Repeat("a", 64)
	hexB  = strings.Repeat("b", 64)
	sha1s = []policy.Algorithm{algorithm(afalg.Hash, "sha1")}
)

func TestDecide(t *testing.T) {
	binaries := func(list ...policy.Binary) policy.Rule { return policy.Rule{Binaries: list, Algorithms: sha1s} }
	users := func(list ...string) policy.Rule { return policy.Rule{Users: list, Algorithms: sha1s} }
	units := func(list ...string) policy.Rule { return policy.Rule{Units: list, Algorithms: sha1s} }
	capabilities := func(list ...string) policy.Rule { return policy.Rule{Capabilities: list, Algorithms: sha1s} }
	anyone := func(list ...policy.Algorithm) policy.Rule { return policy.Rule{Anyone: true, Algorithms: list} }
	whole := anyone(algorithm(afalg.Hash, "*"))
	all := policy.Rule{
		Binaries: []policy.Binary{{Path: "/a"}}, Users: []string{"root"}, Capabilities: []string{"CAP_CHOWN"},
		Units: []string{"a.service"}, Algorithms: sha1s,
	}
	strict := policy.Rule{Binaries: []policy.Binary{{Path: "/a"}}, StrictExec: true, Algorithms: sha1s}
	met := Request{Binary: "/a", UID: uid(0), Capabilities: []string{"CAP_CHOWN"}, Unit: "a.service", Algorithm: sha1}
	but := func(change func(*Request)) Request { r := met; change(&r); return r }
	ask := func(t afalg.Type, name string) Request {
		return Request{Algorithm: afalg.Algorithm{Type: t, Name: name}}
	}

	tests := map[string]struct {
		rule policy.Rule
		r    Request
		want bool
	}{
		"anyone":                             {anyone(sha1s...), Request{Algorithm: sha1}, true},
		"no condition and not anyone":        {policy.Rule{Algorithms: sha1s}, met, false},
		"anyone with a condition that fails": {policy.Rule{Anyone: true, Users: []string{"root"}, Algorithms: sha1s}, Request{Algorithm: sha1}, false},
		"no algorithm in the rule":           {anyone(), met, false},
		"no algorithm in the request":        {anyone(sha1s...), Request{}, false},

		"another name":             {anyone(sha1s...), ask("hash", "sha256"), false},
		"another type":             {anyone(sha1s...), ask("skcipher", "sha1"), false},
		"a longer name":            {anyone(sha1s...), ask("hash", "sha1x"), false},
		"a prefix":                 {anyone(sha1s...), ask("hash", "sha"), false},
		"another case":             {anyone(sha1s...), ask("hash", "SHA1"), false},
		"white space":              {anyone(sha1s...), ask("hash", "sha1 "), false},
		"a NUL":                    {anyone(sha1s...), ask("hash", "sha1\x00"), false},
		"a wrapper around it":      {anyone(sha1s...), ask("hash", "hmac(sha1)"), false},
		"whole type":               {whole, ask("hash", "cryptd(whatever)"), true},
		"whole other type":         {whole, ask("aead", "gcm(aes)"), false},
		"star asks for whole type": {whole, ask("hash", "*"), false},
		"empty name":               {whole, ask("hash", ""), false},
		"star asks":                {anyone(sha1s...), ask("hash", "*"), false},
		"a star inside a name":     {anyone(algorithm("hash", "hmac(*)")), ask("hash", "hmac(sha1)"), false},
		"empty type in both":       {anyone(algorithm("", "sha1")), ask("", "sha1"), false},
		"star as a type":           {anyone(algorithm("*", "*")), ask("hash", "sha1"), false},

		"binary":                           {binaries(policy.Binary{Path: "/a"}), Request{Binary: "/a", Algorithm: sha1}, true},
		"second binary":                    {binaries(policy.Binary{Path: "/b"}, policy.Binary{Path: "/a"}), Request{Binary: "/a", Algorithm: sha1}, true},
		"another binary":                   {binaries(policy.Binary{Path: "/a"}), Request{Binary: "/b", Algorithm: sha1}, false},
		"a binary below":                   {binaries(policy.Binary{Path: "/a"}), Request{Binary: "/a/b", Algorithm: sha1}, false},
		"a removed binary":                 {binaries(policy.Binary{Path: "/a"}), Request{Binary: "/a (deleted)", Algorithm: sha1}, false},
		"an unclean path":                  {binaries(policy.Binary{Path: "/a"}), Request{Binary: "//a", Algorithm: sha1}, false},
		"binary not known":                 {binaries(policy.Binary{Path: "/a"}), Request{Algorithm: sha1}, false},
		"empty path in both":               {binaries(policy.Binary{}), Request{Algorithm: sha1}, false},
		"digest":                           {binaries(policy.Binary{Path: "/a", SHA256: hexA}), Request{Binary: "/a", SHA256: hexA, Algorithm: sha1}, true},
		"another digest":                   {binaries(policy.Binary{Path: "/a", SHA256: hexA}), Request{Binary: "/a", SHA256: hexB, Algorithm: sha1}, false},
		"digest not known":                 {binaries(policy.Binary{Path: "/a", SHA256: hexA}), Request{Binary: "/a", Algorithm: sha1}, false},
		"digest of another binary":         {binaries(policy.Binary{Path: "/a", SHA256: hexA}, policy.Binary{Path: "/b", SHA256: hexB}), Request{Binary: "/a", SHA256: hexB, Algorithm: sha1}, false},
		"right digest at another path":     {binaries(policy.Binary{Path: "/a", SHA256: hexA}), Request{Binary: "/b", SHA256: hexA, Algorithm: sha1}, false},
		"a digest where none is asked for": {binaries(policy.Binary{Path: "/a"}), Request{Binary: "/a", SHA256: hexA, Algorithm: sha1}, true},

		"a claimed path":                          {binaries(policy.Binary{Path: "/a"}), Request{Binary: "/a", Claimed: true, Algorithm: sha1}, false},
		"a claimed path with a digest":            {binaries(policy.Binary{Path: "/a"}), Request{Binary: "/a", SHA256: hexA, Claimed: true, Algorithm: sha1}, false},
		"a claimed path and the digest":           {binaries(policy.Binary{Path: "/a", SHA256: hexA}), Request{Binary: "/a", SHA256: hexA, Claimed: true, Algorithm: sha1}, true},
		"a claimed path and another digest":       {binaries(policy.Binary{Path: "/a", SHA256: hexA}), Request{Binary: "/a", SHA256: hexB, Claimed: true, Algorithm: sha1}, false},
		"a claimed path, digest not known":        {binaries(policy.Binary{Path: "/a", SHA256: hexA}), Request{Binary: "/a", Claimed: true, Algorithm: sha1}, false},
		"another claimed path and the digest":     {binaries(policy.Binary{Path: "/a", SHA256: hexA}), Request{Binary: "/b", SHA256: hexA, Claimed: true, Algorithm: sha1}, false},
		"a claimed path, listed also without":     {binaries(policy.Binary{Path: "/a"}, policy.Binary{Path: "/a", SHA256: hexA}), Request{Binary: "/a", SHA256: hexB, Claimed: true, Algorithm: sha1}, false},
		"a claimed path and digest, also without": {binaries(policy.Binary{Path: "/a"}, policy.Binary{Path: "/a", SHA256: hexA}), Request{Binary: "/a", SHA256: hexA, Claimed: true, Algorithm: sha1}, true},
		"claimed where no binary is asked for":    {users("0"), Request{Binary: "/a", Claimed: true, UID: uid(0), Algorithm: sha1}, true},
		"nothing claimed":                         {binaries(policy.Binary{}), Request{Claimed: true, Algorithm: sha1}, false},

		"root by uid":                {users("root"), Request{UID: uid(0), Algorithm: sha1}, true},
		"zero":                       {users("0"), Request{UID: uid(0), Algorithm: sha1}, true},
		"root by name alone":         {users("root"), Request{User: "root", Algorithm: sha1}, false},
		"a user who is called root":  {users("root"), Request{UID: uid(1000), User: "root", Algorithm: sha1}, false},
		"a root with another name":   {users("root"), Request{UID: uid(0), User: "toor", Algorithm: sha1}, true},
		"uid":                        {users("1000"), Request{UID: uid(1000), Algorithm: sha1}, true},
		"another uid":                {users("1000"), Request{UID: uid(1001), Algorithm: sha1}, false},
		"uid not known":              {users("0"), Request{Algorithm: sha1}, false},
		"a user whose name is a uid": {users("1000"), Request{UID: uid(5), User: "1000", Algorithm: sha1}, false},
		"name":                       {users("alice"), Request{UID: uid(5), User: "alice", Algorithm: sha1}, true},
		"another name than the user": {users("alice"), Request{UID: uid(5), User: "bob", Algorithm: sha1}, false},
		"one of several users":       {users("alice", "5"), Request{UID: uid(5), User: "bob", Algorithm: sha1}, true},
		"empty user in both":         {users(""), Request{Algorithm: sha1}, false},
		"a uid that wraps around":    {users("4294967296"), Request{UID: uid(0), Algorithm: sha1}, false},
		"a negative uid":             {users("-1"), Request{UID: uid(1<<32 - 1), Algorithm: sha1}, false},

		"capability":             {capabilities("CAP_CHOWN"), Request{Capabilities: []string{"CAP_KILL", "CAP_CHOWN"}, Algorithm: sha1}, true},
		"any of them":            {capabilities("CAP_CHOWN", "CAP_KILL"), Request{Capabilities: []string{"CAP_KILL"}, Algorithm: sha1}, true},
		"another capability":     {capabilities("CAP_CHOWN"), Request{Capabilities: []string{"CAP_KILL"}, Algorithm: sha1}, false},
		"no capability":          {capabilities("CAP_CHOWN"), Request{UID: uid(0), Algorithm: sha1}, false},
		"empty capability":       {capabilities(""), Request{Capabilities: []string{""}, Algorithm: sha1}, false},
		"unit":                   {units("a.service"), Request{Unit: "a.service", Algorithm: sha1}, true},
		"another unit":           {units("a.service"), Request{Unit: "b.service", Algorithm: sha1}, false},
		"no unit":                {units("a.service"), Request{Algorithm: sha1}, false},
		"empty unit in both":     {units(""), Request{Algorithm: sha1}, false},
		"instance":               {units("a@.service"), Request{Unit: "a@x.service", Algorithm: sha1}, true},
		"instance with at signs": {units("a@.service"), Request{Unit: "a@x@y.z.service", Algorithm: sha1}, true},
		"instance by its name":   {units("a@x.service"), Request{Unit: "a@x.service", Algorithm: sha1}, true},
		"another instance":       {units("a@x.service"), Request{Unit: "a@y.service", Algorithm: sha1}, false},
		"another template":       {units("a@.service"), Request{Unit: "b@x.service", Algorithm: sha1}, false},
		"another type of unit":   {units("a@.service"), Request{Unit: "a@x.socket", Algorithm: sha1}, false},
		"no instance of it":      {units("a@.service"), Request{Unit: "a.service", Algorithm: sha1}, false},

		"strict-exec":                       {strict, Request{Binary: "/a", CleanExec: true, Algorithm: sha1}, true},
		"strict-exec, steered or not known": {strict, Request{Binary: "/a", Algorithm: sha1}, false},
		"strict-exec of another binary":     {strict, Request{Binary: "/b", CleanExec: true, Algorithm: sha1}, false},
		"strict-exec alone names nobody":    {policy.Rule{StrictExec: true, Algorithms: sha1s}, Request{CleanExec: true, Algorithm: sha1}, false},
		"strict-exec of anyone":             {policy.Rule{Anyone: true, StrictExec: true, Algorithms: sha1s}, Request{Algorithm: sha1}, false},
		"clean where nobody asks for that":  {users("0"), Request{UID: uid(0), CleanExec: true, Algorithm: sha1}, true},

		"all conditions":       {all, met, true},
		"all but the binary":   {all, but(func(r *Request) { r.Binary = "/b" }), false},
		"all but the user":     {all, but(func(r *Request) { r.UID = uid(1) }), false},
		"all but a capability": {all, but(func(r *Request) { r.Capabilities = nil }), false},
		"all but the unit":     {all, but(func(r *Request) { r.Unit = "" }), false},
		"all but the name":     {all, but(func(r *Request) { r.Algorithm.Name = "md5" }), false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := &Plan{Rules: []policy.Rule{tt.rule}}
			got := Decide(p, tt.r)
			if got.Allowed != tt.want || (got.Rule != nil) != tt.want {
				t.Errorf("Decide = %+v, want %v", got, tt.want)
			}
			if tt.want != oracle(p, tt.r) {
				t.Error("the oracle disagrees")
			}
		})
	}
}

func TestDecideNothing(t *testing.T) {
	full := Request{Binary: "/a", SHA256: hexA, UID: uid(0), User: "root", Capabilities: []string{"CAP_SYS_ADMIN"}, Unit: "a.service", Algorithm: sha1}
	open := &Plan{Rules: []policy.Rule{{Anyone: true, Algorithms: []policy.Algorithm{
		algorithm(afalg.AEAD, "*"), algorithm(afalg.Hash, "*"), algorithm(afalg.RNG, "*"), algorithm(afalg.Skcipher, "*"),
	}}}}
	for name, d := range map[string]Decision{
		"nil plan":                  Decide(nil, full),
		"zero plan":                 Decide(&Plan{}, full),
		"zero rule":                 Decide(&Plan{Rules: []policy.Rule{{}}}, full),
		"zero request":              Decide(open, Request{}),
		"zero request of zero rule": Decide(&Plan{Rules: []policy.Rule{{}}}, Request{}),
	} {
		if d.Allowed || d.Rule != nil {
			t.Errorf("%s: %+v", name, d)
		}
	}
	if !Decide(open, full).Allowed {
		t.Error("the open plan allows nothing: the test proves nothing")
	}
}

func TestDecideNamesTheRule(t *testing.T) {
	p := &Plan{Rules: []policy.Rule{
		{Name: "a", Users: []string{"1"}, Algorithms: sha1s},
		{Name: "b", Users: []string{"0"}, Algorithms: sha1s},
		{Name: "c", Anyone: true, Algorithms: sha1s},
	}}
	if got := Decide(p, Request{UID: uid(0), Algorithm: sha1}); got.Rule != &p.Rules[1] {
		t.Errorf("%+v", got.Rule)
	}
}

// oracle decides again, written as the policy reference reads and sharing
// nothing with Decide: it strikes out rules, one reason after the other.
func oracle(p *Plan, r Request) bool {
	left := map[int]policy.Rule{}
	for i, rule := range p.Rules {
		left[i] = rule
	}
	for i, rule := range p.Rules {
		names := map[string]bool{}
		for _, a := range rule.Algorithms {
			names[string(a.Type)+":"+a.Name] = true
		}
		asked := string(r.Algorithm.Type) + ":" + r.Algorithm.Name
		whole := string(r.Algorithm.Type) + ":*"
		if asked == whole || r.Algorithm.Name == "" || r.Algorithm.Type == "" || !(names[asked] || names[whole]) {
			delete(left, i)
		}
		nobody := len(rule.Binaries)+len(rule.Users)+len(rule.Capabilities)+len(rule.Units) == 0
		if nobody && !rule.Anyone {
			delete(left, i)
		}
		if len(rule.Binaries) > 0 {
			files := map[[2]string]bool{}
			for _, b := range rule.Binaries {
				files[[2]string{b.Path, b.SHA256}] = true
			}
			if r.Claimed {
				delete(files, [2]string{r.Binary, ""})
			}
			if r.Binary == "" || !files[[2]string{r.Binary, ""}] && !files[[2]string{r.Binary, r.SHA256}] {
				delete(left, i)
			}
		}
		if rule.StrictExec && !r.CleanExec {
			delete(left, i)
		}
		if len(rule.Users) > 0 {
			who := map[string]bool{}
			for _, u := range rule.Users {
				who[u] = true
			}
			isNumber := strings.Trim(r.User, "0123456789") == ""
			byName := who[r.User] && r.User != "root" && !isNumber
			byUID := r.UID != nil && (who[decimalOf(*r.UID)] || *r.UID == 0 && who["root"])
			if !byName && !byUID {
				delete(left, i)
			}
		}
		if len(rule.Capabilities) > 0 {
			both := 0
			for _, mine := range rule.Capabilities {
				for _, theirs := range r.Capabilities {
					if mine != "" && mine == theirs {
						both++
					}
				}
			}
			if both == 0 {
				delete(left, i)
			}
		}
		if len(rule.Units) > 0 {
			template := ""
			if before, after, ok := strings.Cut(r.Unit, "@"); ok && before != "" {
				if parts := strings.Split(after, "."); len(parts) > 1 && !strings.HasPrefix(after, "."+parts[len(parts)-1]) {
					template = before + "@." + parts[len(parts)-1]
				}
			}
			found := false
			for _, u := range rule.Units {
				found = found || u != "" && (u == r.Unit || u == template)
			}
			if !found {
				delete(left, i)
			}
		}
	}
	return len(left) > 0
}

func decimalOf(n uint32) string {
	digits := ""
	for {
		digits = string(rune('0'+n%10)) + digits
		if n /= 10; n == 0 {
			return digits
		}
	}
}

// world draws plans and requests from small sets of words, so that they meet.
type world struct{ *rand.Rand }

func pick[T any](w world, list ...T) T { return list[w.IntN(len(list))] }

func some1[T any](w world, most int, draw func() T) []T {
	var list []T
	for range w.IntN(most + 1) {
		list = append(list, draw())
	}
	return list
}

func (w world) algorithm() afalg.Algorithm {
	return afalg.Algorithm{Type: pick(w, afalg.Hash, afalg.Hash, afalg.AEAD, ""), Name: pick(w, "sha1", "md5", "hmac(sha1)", "*", "")}
}

func (w world) digest() string { return pick(w, "", hexA, hexB) }
func (w world) path() string   { return pick(w, "/a", "/b", "/a (deleted)", "") }
func (w world) user() string   { return pick(w, "root", "0", "1", "alice", "bob", "") }
func (w world) cap() string    { return pick(w, "CAP_CHOWN", "CAP_KILL", "") }
func (w world) unit() string {
	return pick(w, "a.service", "a@.service", "a@x.service", "a@x@y.service", "@.service", "a@", "")
}

func (w world) rule() policy.Rule {
	return policy.Rule{
		Name:         pick(w, "a", "b", "c"),
		Anyone:       w.IntN(4) == 0,
		Binaries:     some1(w, 2, func() policy.Binary { return policy.Binary{Path: w.path(), SHA256: w.digest()} }),
		StrictExec:   w.IntN(4) == 0,
		Users:        some1(w, 2, w.user),
		Capabilities: some1(w, 2, w.cap),
		Units:        some1(w, 2, w.unit),
		Algorithms:   some1(w, 8, func() policy.Algorithm { return policy.Algorithm{Algorithm: w.algorithm()} }),
	}
}

func (w world) request() Request {
	return Request{
		Binary:       w.path(),
		SHA256:       w.digest(),
		Claimed:      w.IntN(3) == 0,
		CleanExec:    w.IntN(3) > 0,
		UID:          pick(w, nil, uid(0), uid(1), uid(10)),
		User:         w.user(),
		Capabilities: some1(w, 2, w.cap),
		Unit:         w.unit(),
		Algorithm:    w.algorithm(),
	}
}

func newWorld(seed uint64) world { return world{rand.New(rand.NewPCG(seed, 0))} }

// checkProperties checks the properties of every plan and request.
func checkProperties(t *testing.T, w world) (allowed bool) {
	p := &Plan{Rules: some1(w, 4, w.rule)}
	r := w.request()
	d := Decide(p, r)
	if d.Allowed != oracle(p, r) {
		t.Fatalf("Decide = %v, the oracle disagrees\nplan %+v\nrequest %+v", d.Allowed, p, r)
	}
	if e := Explain(p, r); e.Allowed != d.Allowed || e.Rule != d.Rule || e.String() == "" || (e.Allowed && e.Misses != nil) {
		t.Fatalf("Explain differs from Decide: %+v\n%+v", e, d)
	}
	checkReason(t, Explain(p, r))
	checkClaimed(t, p, r)
	checkReaches(t, p, r)
	checkGranted(t, w, p, r)
	more := &Plan{Rules: append(append([]policy.Rule{}, p.Rules...), w.rule())}
	if d.Allowed && !Decide(more, r).Allowed {
		t.Fatalf("a further rule denies: %+v\nrequest %+v", more, r)
	}
	opened := &Plan{Rules: append([]policy.Rule{}, p.Rules...)}
	emptied := &Plan{Rules: append([]policy.Rule{}, p.Rules...)}
	for i := range opened.Rules {
		opened.Rules[i] = policy.Rule{Anyone: true, Algorithms: p.Rules[i].Algorithms}
		emptied.Rules[i] = policy.Rule{Algorithms: p.Rules[i].Algorithms}
	}
	if d.Allowed && !Decide(opened, r).Allowed {
		t.Fatalf("without conditions a rule denies more: %+v\nrequest %+v", opened, r)
	}
	if Decide(emptied, r).Allowed {
		t.Fatalf("a rule that names nobody allows: %+v\nrequest %+v", emptied, r)
	}
	if len(p.Rules) > 0 && d.Allowed != Decide(&Plan{Rules: reversed(p.Rules)}, r).Allowed {
		t.Fatalf("the order of rules matters: %+v\nrequest %+v", p, r)
	}
	return d.Allowed
}

// checkClaimed shows that a path that the subject's side made is worth less
// than one of the host, and nothing where only digests are asked for.
func checkClaimed(t *testing.T, p *Plan, r Request) {
	host, claimed := r, r
	host.Claimed, claimed.Claimed = false, true
	if Decide(p, claimed).Allowed && !Decide(p, host).Allowed {
		t.Fatalf("a claimed path is worth more: %+v\nrequest %+v", p, r)
	}
	unknown := claimed
	unknown.Binary, unknown.SHA256 = "", ""
	claimed.SHA256 = ""
	if Decide(p, claimed).Allowed != Decide(p, unknown).Allowed {
		t.Fatalf("a claimed path without a digest is worth something: %+v\nrequest %+v", p, r)
	}
	pinned := &Plan{}
	for _, rule := range p.Rules {
		pinned.Rules = append(pinned.Rules, rule)
		binaries := &pinned.Rules[len(pinned.Rules)-1].Binaries
		*binaries = slices.DeleteFunc(slices.Clone(*binaries), func(b policy.Binary) bool { return b.SHA256 == "" })
		if len(rule.Binaries) > 0 && len(*binaries) == 0 {
			pinned.Rules = pinned.Rules[:len(pinned.Rules)-1]
		}
	}
	claimed.SHA256 = r.SHA256
	if Decide(p, claimed).Allowed != Decide(pinned, host).Allowed {
		t.Fatalf("entries without a digest count: %+v\nrequest %+v", p, r)
	}
}

func reversed(rules []policy.Rule) []policy.Rule {
	var list []policy.Rule
	for i := range rules {
		list = append(list, rules[len(rules)-1-i])
	}
	return list
}

func TestDecideProperties(t *testing.T) {
	allowed := 0
	const runs = 20_000
	for seed := range uint64(runs) {
		if checkProperties(t, newWorld(seed)) {
			allowed++
		}
	}
	if allowed < runs/100 {
		t.Errorf("only %d of %d requests were allowed: the properties say little", allowed, runs)
	}
}

func FuzzDecide(f *testing.F) {
	f.Add("/a", hexA, uint32(0), true, false, true, "root", "CAP_KILL", "a@x.service", "hash", "sha1", uint64(1))
	f.Add("/a (deleted)", "", uint32(1), false, true, false, "alice", "", "@.service", "hash", "*", uint64(2))
	f.Fuzz(func(t *testing.T, binary, digest string, id uint32, known, claimed, clean bool, user, capability, unit, typ, name string, seed uint64) {
		w := newWorld(seed)
		p := &Plan{Rules: some1(w, 4, w.rule)}
		r := Request{
			Binary: binary, SHA256: digest, Claimed: claimed, CleanExec: clean, User: user, Capabilities: []string{capability}, Unit: unit,
			Algorithm: afalg.Algorithm{Type: afalg.Type(typ), Name: name},
		}
		if known {
			r.UID = &id
		}
		if Decide(p, r).Allowed != oracle(p, r) {
			t.Errorf("Decide = %v, the oracle disagrees\nplan %+v\nrequest %+v", Decide(p, r).Allowed, p, r)
		}
	})
}
