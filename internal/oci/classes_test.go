package oci

import (
	"slices"
	"testing"
)

const classesText = `version: 1
name: classes
deny:
  sockets: [{family: AF_NETLINK, protocol: NETLINK_XFRM}]
  user-namespaces: true
containers:
  unconfined: UNCONFINED
  grants:
    - {rules: [ipsec], names: [web]}
    - {rules: [sandbox], names: [conditions]}
allow:
  - rule: ipsec
    anyone: true
    sockets: [{family: AF_NETLINK, protocol: NETLINK_XFRM}]
  - rule: sandbox
    users: [root]
    user-namespaces: true
`

// TestGrantOfClasses: the container that is granted a denied class has it, again
// and at the gate; its profile is no good for another one. A rule with conditions
// that a filter does not see is refused.
func TestGrantOfClasses(t *testing.T) {
	t.Parallel()
	o := options(t, "harden")
	o.Plan = planOf(t, classesText, "harden")
	granted, err := o.harden([]byte(openSpec), web)
	if err != nil || !slices.Equal(granted.Grants, []string{"ipsec"}) {
		t.Fatalf("granted %v: %v", granted.Grants, err)
	}
	text := granted.Spec.Text()
	mustCheck(t, o, text, web)
	if again, err := o.harden(text, web); err != nil || !slices.Equal(again.Grants, []string{"ipsec"}) {
		t.Errorf("again: granted %v: %v", again.Grants, err)
	}
	refusedWith(t, "does not close", func() error { _, err := o.check(text, plain); return err })
	refusedWith(t, "does not close", func() error { _, err := o.check([]byte(openSpec), plain); return err })
	conditions := plain
	conditions.Vouched.Name = "conditions"
	refusedWith(t, "under conditions that a filter does not see", func() error { _, err := o.harden([]byte(openSpec), conditions); return err })
	refused, err := o.harden([]byte(openSpec), plain)
	if err != nil {
		t.Fatal(err)
	}
	mustCheck(t, o, refused.Spec.Text(), plain)
}
