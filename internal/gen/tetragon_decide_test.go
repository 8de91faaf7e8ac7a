package gen

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/policies"
)

// tetragonCall is what a kprobe sees of a call. A binary that Tetragon could not
// read is empty.
type tetragonCall struct {
	family, kern        int
	binary              string
	uid                 uint32
	capabilities        []string
	firstMnt, firstUser bool
	address             []byte
}

// answer is what a kprobe returns in place of the function, 0 if it lets the
// call go on: the model of Tetragon (bpf/process/generic_calls.h and pfilter.h
// of 1.7.0) against which the output is compared with Decide. The first selector
// of which all filters match acts, and a filter that cannot read does not match.
func (k kprobe) answer(t *testing.T, c tetragonCall) int {
	for _, s := range k.Selectors {
		if !k.matches(t, s, c) {
			continue
		}
		errno := 0
		for _, a := range s.MatchActions {
			switch a.Action {
			case "Override":
				errno = a.ArgError
			case "NoPost":
			default:
				t.Fatalf("the model has no action %s", a.Action)
			}
		}
		return errno
	}
	return 0
}

func (k kprobe) matches(t *testing.T, s selector, c tetragonCall) bool {
	for _, f := range s.MatchBinaries {
		if c.binary == "" || !slices.Contains(f.Values, c.binary) {
			return false
		}
	}
	for _, f := range s.MatchNamespaces {
		if !map[string]bool{"Mnt": c.firstMnt, "User": c.firstUser}[f.Namespace] {
			return false
		}
	}
	for _, f := range s.MatchCapabilities {
		if !slices.ContainsFunc(f.Values, func(v string) bool { return slices.Contains(c.capabilities, v) }) {
			return false
		}
	}
	for _, f := range s.MatchData {
		if d := k.Data[f.Index]; d.Resolve != "cred.euid.val" || !slices.Contains(f.Values, strconv.Itoa(int(c.uid))) {
			return false
		}
	}
	for _, f := range s.MatchArgs {
		i := slices.IndexFunc(k.Args, func(a argument) bool { return a.Index == f.Index })
		if i < 0 {
			t.Fatalf("%s: a filter on argument %d, which it does not read", k.Call, f.Index)
		}
		if !argumentMatches(t, k.Args[i], f, c) {
			return false
		}
	}
	return true
}

func argumentMatches(t *testing.T, a argument, f indexFilter, c tetragonCall) bool {
	switch a.Label + " " + a.Type + " " + f.Operator {
	case "family int Equal", "family int InMap", "socket socket Family":
		return slices.Contains(f.Values, strconv.Itoa(c.family))
	case "kern int Equal":
		return slices.Contains(f.Values, strconv.Itoa(c.kern))
	case "address char_buf Prefix":
		return slices.ContainsFunc(f.Values, func(v string) bool { return bytes.HasPrefix(c.address, []byte(v)) })
	}
	t.Fatalf("the model has no filter %+v on %+v", f, a)
	return false
}

// tracingPolicyOf reads an output as the API server would.
func tracingPolicyOf(t *testing.T, files []File) (all tracingPolicy) {
	t.Helper()
	if len(files) != 1 {
		t.Fatalf("%d files", len(files))
	}
	if err := yaml.Unmarshal(files[0].Data, &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// socketAnswer and bindAnswer are what a caller gets: a call that one kprobe
// denies is denied.
func (p tracingPolicy) socketAnswer(t *testing.T, c tetragonCall) int {
	return p.answer(t, "security_socket_create", c)
}

func (p tracingPolicy) bindAnswer(t *testing.T, c tetragonCall) int {
	return p.answer(t, "security_socket_bind", c)
}

func (p tracingPolicy) answer(t *testing.T, call string, c tetragonCall) int {
	for _, k := range p.Spec.Kprobes {
		if k.Call != call {
			continue
		}
		if errno := k.answer(t, c); errno != 0 {
			return errno
		}
	}
	return 0
}

// request is what Decide is asked about the same caller.
func (c tetragonCall) request(alg afalg.Algorithm) plan.Request {
	r := plan.Request{Binary: c.binary, Claimed: !c.firstMnt, UID: &c.uid, Algorithm: alg}
	if c.firstUser {
		r.Capabilities = c.capabilities
	}
	return r
}

// salgAddress is the address that clients pass for an algorithm.
func salgAddress(a afalg.Algorithm) []byte {
	b := make([]byte, max(afalg.SockaddrSize, 24+len(a.Name)+1))
	binary.LittleEndian.PutUint16(b, afalg.Family)
	copy(b[2:16], a.Type)
	copy(b[24:], a.Name)
	return b
}

// callers are some of a plan's subjects, and others.
func callers(p *plan.Plan) (all []tetragonCall) {
	binaries := []string{"", "/usr/bin/other"}
	capabilities := [][]string{nil, {"CAP_SYS_BOOT"}}
	uids := []uint32{0, 1000}
	for _, rule := range p.Rules {
		for _, b := range rule.Binaries {
			binaries = append(binaries, b.Path)
		}
		for _, c := range rule.Capabilities {
			capabilities = append(capabilities, []string{c})
		}
		for _, user := range rule.Users {
			if uid, ok := plan.UserID(user); ok {
				uids = append(uids, uid)
			}
		}
	}
	for _, b := range sortedSet(binaries) {
		for _, uid := range slices.Compact(slices.Sorted(slices.Values(uids))) {
			for _, held := range capabilities {
				for _, first := range [][2]bool{{true, true}, {false, true}, {true, false}, {false, false}} {
					all = append(all, tetragonCall{
						family: afalg.Family, binary: b, uid: uid, capabilities: held, firstMnt: first[0], firstUser: first[1],
					})
				}
			}
		}
	}
	return all
}

func algorithmsOf(p *plan.Plan) []afalg.Algorithm {
	all := []afalg.Algorithm{{Type: afalg.Hash, Name: "md4"}, {Type: "akcipher", Name: "rsa"}}
	for _, rule := range p.Rules {
		for _, a := range rule.Algorithms {
			if a.Name == afalg.AnyName {
				a.Name = "anything"
			}
			all = append(all, a.Algorithm,
				afalg.Algorithm{Type: a.Type, Name: a.Name[:len(a.Name)-1]},
				afalg.Algorithm{Type: a.Type, Name: a.Name + "x"},
				afalg.Algorithm{Type: a.Type + "x", Name: a.Name})
		}
	}
	slices.SortFunc(all, func(a, b afalg.Algorithm) int { return strings.Compare(a.String(), b.String()) })
	return slices.Compact(all)
}

func shippedPlans(t *testing.T) map[string]*plan.Plan {
	t.Helper()
	plans := map[string]*plan.Plan{}
	for _, name := range policies.Names() {
		p, _, err := plan.Load("builtin:"+name, plan.ReadNamed)
		if err != nil {
			t.Fatal(err)
		}
		plans[name] = p
	}
	return plans
}

// TestTetragonDecides: where no unit, digest or name of a user is known, the
// output answers in the first namespaces as Decide does, and elsewhere with a
// denial wherever Decide denies. A caller gets a socket if it may bind anything.
func TestTetragonDecides(t *testing.T) {
	plans := shippedPlans(t)
	plans["conditions"] = conditionsPlan()
	for name, p := range plans {
		t.Run(name, func(t *testing.T) {
			files, _, err := Tetragon(p, TetragonOptions{Common: preempted()})
			if err != nil {
				t.Fatal(err)
			}
			policy := tracingPolicyOf(t, files)
			allowed := 0
			for _, c := range callers(p) {
				first := c.firstMnt && c.firstUser
				any := false
				for _, alg := range algorithmsOf(p) {
					c.address = salgAddress(alg)
					want := plan.Decide(p, c.request(alg)).Allowed && first
					if errno := policy.bindAnswer(t, c); (errno == 0) != want || errno != 0 && errno != -2 {
						t.Errorf("bind %s by %+v: %d, want allowed %t", alg, c, errno, want)
					}
					any = any || want
				}
				if errno := policy.socketAnswer(t, c); (errno == 0) != any || errno != 0 && errno != -97 {
					t.Errorf("socket by %+v: %d, want allowed %t", c, errno, any)
				}
				if any {
					allowed++
				}
			}
			if reached := len(policyRules(p)) > 0; (allowed > 0) != reached {
				t.Errorf("%d callers are allowed something; a rule can be asked for: %t", allowed, reached)
			}
		})
	}
}

// policyRules lists the rules of which something is left without a grant.
func policyRules(p *plan.Plan) []askedRule {
	t := tetragon{plan: p}
	if err := t.resolve(); err != nil {
		panic(err)
	}
	return t.held()
}

// TestTetragonAddresses: whatever bytes an address has, what is allowed is what
// the kernel then reads.
func TestTetragonAddresses(t *testing.T) {
	p := conditionsPlan()
	files, _, err := Tetragon(p, TetragonOptions{Common: preempted()})
	if err != nil {
		t.Fatal(err)
	}
	policy := tracingPolicyOf(t, files)
	c := tetragonCall{family: afalg.Family, binary: "/usr/bin/plain", firstMnt: true, firstUser: true}
	random := rand.New(rand.NewPCG(1, 2))
	algorithms := algorithmsOf(p)
	allowed := 0
	for range 200_000 {
		c.address = salgAddress(algorithms[random.IntN(len(algorithms))])
		for range random.IntN(3) { // some bytes changed, near the ends of type and name too
			c.address[random.IntN(40)] = []byte{0, 'a', 'c', '\xff'}[random.IntN(4)]
		}
		c.address = c.address[:random.IntN(len(c.address)+1)]
		if random.IntN(2) == 0 {
			c.address = c.address[:min(len(c.address), 25+random.IntN(12))]
		}
		if policy.bindAnswer(t, c) != 0 {
			continue
		}
		allowed++
		alg, err := afalg.ParseSockaddr(c.address)
		if err == nil && alg.Name != "" && !plan.Decide(p, c.request(alg)).Allowed {
			t.Fatalf("address %q is allowed, and is of %s", c.address, alg)
		}
	}
	if allowed < 1000 {
		t.Errorf("only %d addresses are allowed", allowed)
	}
}

// TestTetragonLeaves: sockets of other families, and the kernel's own, are as
// before; the families of the policy are closed to everybody.
func TestTetragonLeaves(t *testing.T) {
	p := conditionsPlan()
	files, _, err := Tetragon(p, TetragonOptions{Common: preempted()})
	if err != nil {
		t.Fatal(err)
	}
	policy := tracingPolicyOf(t, files)
	for _, c := range callers(p) {
		for family := range 50 {
			c.family, c.kern = family, 0
			closed := family == 33
			if errno := policy.socketAnswer(t, c); family != afalg.Family && errno != map[bool]int{true: -97}[closed] {
				t.Errorf("socket of family %d by %+v: %d", family, c, errno)
			}
			c.address = salgAddress(afalg.Algorithm{Type: afalg.Hash, Name: "md4"})
			if errno := policy.bindAnswer(t, c); family != afalg.Family && errno != 0 {
				t.Errorf("bind of family %d by %+v: %d", family, c, errno)
			}
			c.kern = 1
			if errno := policy.socketAnswer(t, c); errno != 0 {
				t.Errorf("the kernel's socket of family %d: %d", family, errno)
			}
		}
	}
}

// TestTetragonGrants: with a grant the rule holds for whoever meets it, whatever
// Tetragon cannot ask for.
func TestTetragonGrants(t *testing.T) {
	for name, p := range shippedPlans(t) {
		for _, rule := range p.Rules {
			a := askRule(rule, false)
			if len(a.unasked) == 0 {
				continue
			}
			files, _, err := Tetragon(p, TetragonOptions{Common: preempted(rule.Name)})
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			policy := tracingPolicyOf(t, files)
			c := tetragonCall{family: afalg.Family, firstMnt: true, firstUser: true, capabilities: rule.Capabilities}
			for _, b := range rule.Binaries {
				c.binary = b.Path
				for _, alg := range rule.Algorithms {
					c.address = salgAddress(alg.Algorithm)
					if s, b := policy.socketAnswer(t, c), policy.bindAnswer(t, c); s != 0 || b != 0 {
						t.Errorf("%s: %s by %s with rule %s granted: %d, %d", name, alg, c.binary, rule.Name, s, b)
					}
				}
			}
		}
	}
}
