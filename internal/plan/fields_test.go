package plan

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/policy"
	"github.com/afalg-policy/afalg-policy/internal/testing/fields"
)

// everyField shows each field of a plan, half of them through an include.
var everyField = `-- p --
version: 1
name: node
include: [q]
deny: {socket-errno: EPERM, families: [AF_RXRPC, AF_KEY], zero-copy: true, user-namespaces: true,
  sockets: [{family: AF_PACKET, type: SOCK_RAW}, {family: AF_INET, protocol: 9}],
  socket-options: [{level: SOL_TCP, option: TCP_ULP}]}
allow:
  - rule: all
    binaries: [{path: /b, sha256: ` + hexB + `}, {path: /a, sha256: ` + hexA + `}]
    strict-exec: true
    users: [root, alice]
    capabilities: [CAP_NET_ADMIN, CAP_BPF]
    units: [b.service, a.service]
    algorithms: {hash: [sha512, sha1], aead: ["gcm(aes)"]}
    sockets: [{family: AF_INET6, protocol: 8}, {family: AF_PACKET, type: SOCK_RAW}]
    socket-options: [{level: SOL_TCP, option: TCP_ULP}]
    user-namespaces: true
containers:
  unconfined: harden
  grants:
    - rules: [any, all]
      socketcall: broker
      platforms: [podman, docker]
      builds: true
      names: [web, db]
      images: ["sha256:` + hexB + `", "sha256:` + hexA + `"]
      namespaces: [prod, more]
      pods: [web-1, web-0]
      labels: {app: web, tier: back}
      annotations: {note: here}
    - {rules: [any], decided-by: lsm, names: [z]}
-- q --
version: 1
name: q
deny: {bind-errno: EACCES}
allow:
  - {rule: any, anyone: true, algorithms: {rng: ["*"]}}
expect-open:
  - {reason: what the host runs, outside-containers: true, units: [d.service, c.service], binaries: [/d, /c]}
`

// another returns a value that may stand where s does.
func another(s string) string {
	words := map[string]string{
		"AF_RXRPC": "AF_RDS", "AF_KEY": "AF_ATMPVC", "CAP_NET_ADMIN": "CAP_KILL", "CAP_BPF": "CAP_CHOWN",
		"harden": "lsm", "docker": "crio", "podman": "containerd", "broker": "", "lsm": "", "root": "daemon",
		"true": "false", "hash": "skcipher", "aead": "skcipher", "rng": "skcipher", "*": "stdrng",
	}
	if word, ok := words[s]; ok {
		return word
	}
	for old, digest := range map[string]string{hexA: strings.Repeat("c", 64), hexB: strings.Repeat("d", 64)} {
		if strings.Contains(s, old) {
			return strings.Replace(s, old, digest, 1)
		}
	}
	if strings.HasSuffix(s, ".service") {
		return "x" + s
	}
	return s + "x"
}

// of returns the fields that are exempt everywhere, and further ones.
func besides(more map[string]string) map[string]string {
	exempt := map[string]string{
		".Pos":               "it is where an item stands",
		"SocketErrno.Number": "it goes with the name",
		"BindErrno.Number":   "it goes with the name",
		"Families[].Number":  "it goes with the name",
		"UnconfinedSaid":     "it is who says so, not what holds",
	}
	for path, reason := range more {
		exempt[path] = reason
	}
	return exempt
}

// Two policies that mean different things have different digests.
func TestFieldsAreInTheDigest(t *testing.T) {
	p := mustLoad(t, "p", everyField)
	exempt := besides(map[string]string{"Name": "it is no part of what a policy means", "Digest": "it is the digest"})
	fields.Each(t, *p, another, exempt, func(t *testing.T, path string, changed Plan) {
		if digest(&changed) == p.Digest {
			t.Errorf("another %s has the same digest", path)
		}
	})
}

func TestFieldsAreShown(t *testing.T) {
	p := mustLoad(t, "p", everyField)
	before, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	exempt := besides(nil)
	delete(exempt, ".Pos")
	for path, reason := range map[string]string{
		"Families[].Pos":              "a family is short enough to be found",
		"Sockets[].Pos":               "so is a class",
		"SocketOptions[].Pos":         "so is an option",
		"Rules[].Sockets[].Pos":       "the rule's is shown",
		"Rules[].SocketOptions[].Pos": "the rule's is shown",
		"Rules[].Binaries[].Pos":      "the rule's is shown",
		"Rules[].Algorithms[].Pos":    "the rule's is shown",
		"Grants[].Rules[].Pos":        "the grant's is shown",
	} {
		exempt[path] = reason
	}
	fields.Each(t, *p, another, exempt, func(t *testing.T, path string, changed Plan) {
		if after, err := json.Marshal(&changed); err != nil || string(after) == string(before) {
			t.Errorf("another %s is not shown: %v", path, err)
		}
	})
}

// A plan that was kept is the plan.
func TestFieldsAreKept(t *testing.T) {
	p := mustLoad(t, "p", everyField)
	s := Store{Dir: t.TempDir(), Read: ReadFile}
	if err := s.Keep("/p", p); err != nil {
		t.Fatal(err)
	}
	got, err := s.Kept("/p")
	if err != nil {
		t.Fatal(err)
	}
	anywhere := cmp.Comparer(func(policy.Pos, policy.Pos) bool { return true })
	if d := cmp.Diff(p, got, anywhere); d != "" {
		t.Error(d)
	}
}

// apply tells each change of a policy before it is put in force.
func TestFieldsAreDifferences(t *testing.T) {
	p := mustLoad(t, "p", everyField)
	exempt := besides(map[string]string{
		"Name":   "it is no part of what a policy means",
		"Digest": "what it stands for is compared",
	})
	fields.Each(t, *p, another, exempt, func(t *testing.T, path string, changed Plan) {
		if d := Differences(p, &changed); len(d) == 0 {
			t.Errorf("another %s makes no difference", path)
		}
	})
}

// Files that are merged lose nothing: what differs stands twice, and the order
// of a list does not matter.
func TestFieldsAreMerged(t *testing.T) {
	p := mustLoad(t, "p", everyField)
	pos := map[string]string{".Pos": "it is where an item stands"}
	checkMerged(t, p.Rules[0], map[string]string{".Pos": pos[".Pos"], "Anyone": "the rule has conditions"})
	full := p.Grants[0]
	full.DecidedBy = policy.DecidedByLSM // which would count for nothing in the sample
	checkMerged(t, full, pos)
	checkMerged(t, p.ExpectOpen[0], pos)
}

func checkMerged[T any](t *testing.T, v T, exempt map[string]string) {
	t.Helper()
	if compareMeaning(v, v) != 0 {
		t.Errorf("%T differs from itself", v)
	}
	fields.Each(t, v, another, exempt, func(t *testing.T, path string, changed T) {
		there, back := compareMeaning(v, changed), compareMeaning(changed, v)
		if there == 0 || back != -there {
			t.Errorf("another %s is the same (%d, %d)", path, there, back)
		}
	})
	reversed := v
	lists := reflect.ValueOf(&reversed).Elem()
	for i := range lists.NumField() {
		if list := lists.Field(i); list.Kind() == reflect.Slice {
			backward := reflect.MakeSlice(list.Type(), 0, 2*list.Len())
			for j := range list.Len() {
				backward = reflect.Append(backward, list.Index(list.Len()-1-j), list.Index(j))
			}
			list.Set(backward)
		}
	}
	if d := cmp.Diff(v, normal(reversed)); d != "" {
		t.Errorf("%T in another order, everything twice: %s", v, d)
	}
}

// Each list of a rule, except what it allows, is a condition: it must hold, it is
// explained, and it says for whom the rule is.
func TestListsOfARuleAreConditions(t *testing.T) {
	full := mustLoad(t, "p", everyField).Rules[0]
	for i := range reflect.TypeFor[policy.Rule]().NumField() {
		f := reflect.TypeFor[policy.Rule]().Field(i)
		if f.Type.Kind() != reflect.Slice || slices.Contains([]string{"Algorithms", "Sockets", "SocketOptions"}, f.Name) {
			continue
		}
		t.Run(f.Name, func(t *testing.T) {
			alone := policy.Rule{Name: "alone", Algorithms: full.Algorithms}
			reflect.ValueOf(&alone).Elem().Field(i).Set(reflect.ValueOf(full).Field(i))
			rest := full
			reflect.ValueOf(&rest).Elem().Field(i).SetZero()
			met := leastOf(t, &full)
			for name, r := range map[string]Request{"nobody": {Algorithm: met.Algorithm}, "all others": leastOf(t, &rest)} {
				for _, rule := range []policy.Rule{alone, full} {
					p := &Plan{Rules: []policy.Rule{rule}}
					if Decide(p, r).Allowed || Reaches(p, r) {
						t.Errorf("rule %s is met by a request of %s", rule.Name, name)
					}
					e := Explain(p, r)
					if !slices.ContainsFunc(e.Misses, func(m Miss) bool { return p.HasCondition(m.Condition) && m.Text != "" && m.Condition != "algorithm" }) {
						t.Errorf("%s: why not is not told: %+v", name, e.Misses)
					}
				}
			}
			for _, rule := range []policy.Rule{alone, full} {
				if !Decide(&Plan{Rules: []policy.Rule{rule}}, met).Allowed {
					t.Errorf("rule %s is not met by a request that has everything", rule.Name)
				}
			}
			if !strings.Contains(subjectMiss(nil, nil), conditionOf(t, &alone)) {
				t.Errorf("%q does not name it", subjectMiss(nil, nil))
			}
		})
	}
}

// leastOf is a request that meets a rule, and has no more than that.
func leastOf(t *testing.T, rule *policy.Rule) Request {
	t.Helper()
	for s := range subjectsOf(rule) {
		s.Algorithm = rule.Algorithms[0].Algorithm
		return s.Request
	}
	t.Fatal("no subject")
	return Request{}
}

// conditionOf is the name of the only condition of a rule.
func conditionOf(t *testing.T, rule *policy.Rule) string {
	t.Helper()
	var names []string
	for _, c := range listedConditions {
		if c.applies(rule) {
			names = append(names, c.name)
		}
	}
	if len(names) != 1 {
		t.Fatalf("conditions %v", names)
	}
	return names[0]
}

// Each field of a grant but what it gives is a condition.
func TestFieldsOfAGrantAreConditions(t *testing.T) {
	full := mustLoad(t, "p", everyField).Grants[0]
	gives := []string{"Pos", "Rules", "Socketcall", "DecidedBy"}
	var met Container
	for c := range containersOf(&full) {
		met = c
		break
	}
	p := &Plan{Rules: []policy.Rule{{Name: "all"}, {Name: "any"}}, Grants: []policy.Grant{full}}
	if rules, _ := p.GrantsOf(met); len(rules) != 2 || !p.BrokersSocketcall(met) {
		t.Fatalf("the container that has everything holds %v", rules)
	}
	for i := range reflect.TypeFor[policy.Grant]().NumField() {
		f := reflect.TypeFor[policy.Grant]().Field(i)
		if slices.Contains(gives, f.Name) {
			continue
		}
		rest := full
		reflect.ValueOf(&rest).Elem().Field(i).SetZero()
		for c := range containersOf(&rest) {
			if rules, _ := p.GrantsOf(c); len(rules) > 0 || p.BrokersSocketcall(c) {
				t.Errorf("a container without what %s asks for holds %v", f.Name, rules)
			}
		}
		alone := policy.Grant{Rules: full.Rules}
		reflect.ValueOf(&alone).Elem().Field(i).Set(reflect.ValueOf(full).Field(i))
		q := &Plan{Rules: p.Rules, Grants: []policy.Grant{alone}}
		if rules, _ := q.GrantsOf(met); (len(rules) == 2) != (f.Name != "Platforms") {
			t.Errorf("%s alone grants %v", f.Name, rules)
		}
	}
}

// Each fact of a container counts for a grant, or is one by which none is given.
func TestFactsOfAContainerCount(t *testing.T) {
	full := mustLoad(t, "p", everyField).Grants[0]
	p := &Plan{Rules: []policy.Rule{{Name: "all"}, {Name: "any"}}, Grants: []policy.Grant{full}}
	var met Container
	for c := range containersOf(&full) {
		met = c
		break
	}
	exempt := map[string]string{"ID": "it is a name that a container is given for one run", "Claimed": "it grants nothing", "Asks": "they grant nothing"}
	fields.Each(t, met, another, exempt, func(t *testing.T, path string, changed Container) {
		if rules, _ := p.GrantsOf(changed); len(rules) > 0 {
			t.Errorf("another %s holds %v", path, rules)
		}
	})
}

// Each fact of a request counts for a rule.
func TestFactsOfARequestCount(t *testing.T) {
	root := uint32(0)
	rule := policy.Rule{Name: "r", Binaries: []policy.Binary{{Path: "/a", SHA256: hexA}}, Users: []string{"7"}, Capabilities: []string{"CAP_BPF"},
		Units: []string{"a.service"}, StrictExec: true, Algorithms: sha1s}
	met := Request{Binary: "/a", SHA256: hexA, CleanExec: true, UID: uid(7), Capabilities: []string{"CAP_BPF"}, Unit: "a.service", Algorithm: sha1}
	p := &Plan{Rules: []policy.Rule{rule}}
	if !Decide(p, met).Allowed {
		t.Fatal(Explain(p, met))
	}
	exempt := map[string]string{"User": "the rule asks for a uid; below, it asks for a name", "Claimed": "it counts for a path without a digest; below, there is none"}
	denied := func(t *testing.T, path string, changed Request) {
		if Decide(p, changed).Allowed {
			t.Errorf("another %s is allowed", path)
		}
	}
	fields.Each(t, met, another, exempt, denied)

	p.Rules[0].Binaries[0].SHA256, p.Rules[0].Users = "", []string{"alice"}
	met.User, met.UID = "alice", &root
	if !Decide(p, met).Allowed {
		t.Fatal(Explain(p, met))
	}
	met.User = "bob"
	denied(t, "User", met)
	met.User, met.Claimed = "alice", true
	denied(t, "Claimed", met)
	if met.Algorithm.Type != afalg.Hash {
		t.Error(met.Algorithm)
	}
}
