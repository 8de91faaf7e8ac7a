package plan

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// What containers of a platform may hold, by one grant or by two.
func TestHoldings(t *testing.T) {
	algorithms := policy.Algorithms{{}}
	p := &Plan{
		Rules: []policy.Rule{{Name: "a", Algorithms: algorithms}, {Name: "b", Algorithms: algorithms}, {Name: "c", Algorithms: algorithms}},
		Grants: []policy.Grant{
			{Rules: granted("b", "a"), Names: []string{"x"}},
			{Rules: granted("c", "gone"), Pods: []string{"y"}, Platforms: []string{"containerd"}, DecidedBy: policy.DecidedByLSM},
			{Rules: granted("a"), Pods: []string{"z"}, Platforms: []string{"docker"}},
			{Socketcall: policy.SocketcallBroker, Pods: []string{"w"}},
		},
	}
	want := []Holding{
		{},
		{Rules: []string{"a", "b"}}, {Rules: []string{"c"}, Left: true}, {Brokered: true},
		{Rules: []string{"a", "b", "c"}}, {Rules: []string{"a", "b"}, Brokered: true}, {Rules: []string{"c"}, Brokered: true},
	}
	if d := cmp.Diff(want, p.Holdings("containerd", 32)); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	if n := len(p.Holdings("containerd", 3)); n != 3 {
		t.Errorf("%d of them, where 3 are asked for", n)
	}
	if d := cmp.Diff([]Holding{{}}, (&Plan{}).Holdings("containerd", 9)); d != "" {
		t.Errorf("of no grants:\n%s", d)
	}
}
