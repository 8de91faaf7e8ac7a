package plan

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

const classRules = `version: 1
name: p
deny:
  families: [AF_PACKET, AF_SMC]
  sockets: [{family: AF_NETLINK, protocol: NETLINK_XFRM}]
  socket-options: [{level: SOL_TCP, option: TCP_ULP}]
  user-namespaces: true
allow:
  - {rule: frames, anyone: true, sockets: [{family: AF_PACKET, type: SOCK_RAW}]}
  - {rule: packets, anyone: true, sockets: [{family: AF_PACKET}]}
  - {rule: xfrm, anyone: true, sockets: [{family: AF_NETLINK, protocol: NETLINK_XFRM}]}
`

// TestClassGaps: each kind of class that a target does not close is a wider gap of
// its own name.
func TestClassGaps(t *testing.T) {
	p := mustLoad(t, "p", "-- p --\n"+classRules)
	all := func(afalg.Sockets) bool { return true }
	for name, tt := range map[string]struct {
		plan    *Plan
		closing Closing
		want    []string
	}{
		"nothing is denied":  {&Plan{}, Closing{}, nil},
		"nothing is closed":  {p, Closing{}, []string{"sockets", "socket-options", "user-namespaces"}},
		"everything":         {p, Closing{all, true, true}, nil},
		"sockets alone":      {p, Closing{Sockets: all}, []string{"socket-options", "user-namespaces"}},
		"the rest alone":     {p, Closing{nil, true, true}, []string{"sockets"}},
		"a hook of families": {p, p.HookClosing(), []string{"sockets", "socket-options", "user-namespaces"}},
	} {
		var got []string
		for _, g := range tt.plan.ClassGaps(tt.closing) {
			if g.Kind != Wider || g.Routes != nil {
				t.Errorf("%s: %v", name, g)
			}
			got = append(got, g.Name)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: -want +got:\n%s", name, diff)
		}
	}
}

// TestHookClosing: in the kernel's socket hook AF_INET with SOCK_PACKET is
// AF_PACKET, and SMC over IP is no AF_SMC.
func TestHookClosing(t *testing.T) {
	p := mustLoad(t, "p", "-- p --\n"+classRules)
	const want = "AF_INET protocol IPPROTO_SMC, AF_INET6 protocol IPPROTO_SMC, AF_NETLINK protocol NETLINK_XFRM: open"
	if got := p.ClassGaps(p.HookClosing())[0].Text; !strings.HasPrefix(got, want) {
		t.Error(got)
	}
	var got []string
	for _, g := range p.HeldBack(Breaking) {
		got = append(got, g.Name+": "+g.Text)
	}
	const text = "AF_PACKET, AF_INET type SOCK_PACKET: closed to everybody, and so to those whom the rule allows it"
	if diff := cmp.Diff([]string{"frames: AF_PACKET: closed to everybody, and so to those whom the rule allows it", "packets: " + text}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestReopened: what a rule gives back of what a target closes.
func TestReopened(t *testing.T) {
	p := mustLoad(t, "p", "-- p --\n"+classRules)
	families := Closing{Sockets: afalg.Sockets.Whole}
	for _, tt := range []struct {
		rule    int
		closing Closing
		want    string
		whole   bool
	}{
		{0, families, "AF_PACKET", false},
		{1, families, "AF_PACKET", true},
		{2, families, "", true},
		{2, Closing{Sockets: func(afalg.Sockets) bool { return true }}, "AF_NETLINK protocol NETLINK_XFRM", true},
		{1, Closing{}, "", true},
	} {
		classes, whole := p.Reopened(tt.closing, []policy.Rule{p.Rules[tt.rule]})
		var names []string
		for _, c := range classes {
			names = append(names, c.String())
		}
		if got := strings.Join(names, ", "); got != tt.want || whole != tt.whole {
			t.Errorf("%s: %q, whole %t; want %q, %t", p.Rules[tt.rule].Name, got, whole, tt.want, tt.whole)
		}
	}
}

// TestIdleRules: a rule that allows what nothing denies is told, with its place.
func TestIdleRules(t *testing.T) {
	const rules = `allow:
  - rule: idle
    anyone: true
    sockets: [{family: AF_PACKET, type: SOCK_RAW}]
    socket-options: [{level: SOL_TCP, option: TCP_ULP}]
    user-namespaces: true
`
	warnings := func(deny string) (all []string) {
		_, found, err := Load("p", archive("-- p --\nversion: 1\nname: p\n"+deny+rules))
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range found {
			all = append(all, w.String())
		}
		return all
	}
	want := []string{
		`p:7:15: rule "idle" allows AF_PACKET type SOCK_RAW, and nothing denies it`,
		`p:8:22: rule "idle" allows TCP_ULP of SOL_TCP, and nothing denies it`,
		`p:5:5: rule "idle" allows user namespaces, and nothing denies it`,
	}
	if diff := cmp.Diff(want, warnings("deny: {families: [AF_KEY]}\n")); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if got := warnings("deny: {families: [AF_PACKET], socket-options: [{level: 6, option: 31}], user-namespaces: true}\n"); got != nil {
		t.Error(got)
	}
}

// TestGrantsOfClasses: a grant of a rule that allows denied classes alone takes no
// agent and no kernel half. One with conditions is warned of.
func TestGrantsOfClasses(t *testing.T) {
	const text = `version: 1
name: p
deny: {families: [AF_PACKET]}
containers:
  grants:
    - {rules: [frames], names: [web]}
    - {rules: [left], names: [web], decided-by: lsm}
allow:
  - {rule: frames, binaries: [/usr/bin/x], users: [root], sockets: [{family: AF_PACKET}]}
  - {rule: left, anyone: true, sockets: [{family: AF_PACKET}]}
`
	p, warnings, err := Load("p", archive("-- p --\n"+text))
	if err != nil {
		t.Fatal(err)
	}
	web := Container{Vouched: Identity{Name: "web"}}
	if held, _ := p.GrantsOf(web); strings.Join(held, " ") != "frames left" {
		t.Errorf("held: %v", held)
	}
	rules, sockets := p.GivesContainers()
	if rules || sockets || p.LeftToKernel(web) || p.KernelGaps() != nil {
		t.Errorf("agent %t, kernel half %t, %v", rules, p.LeftToKernel(web), p.KernelGaps())
	}
	const want = `p:6:16: grant of "frames": a container that holds it does not start: a filter opens what the rule allows, and sees no binaries and no users; write a rule with anyone: true`
	if len(warnings) != 1 || warnings[0].String() != want {
		t.Errorf("%v", warnings)
	}
}
