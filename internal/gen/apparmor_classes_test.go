package gen

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// narrowPolicy closes types of families, and a family to which one of them belongs.
const narrowPolicy = `version: 1
name: narrow
deny:
  families: [AF_PACKET]
  sockets:
    - {family: AF_PACKET, type: SOCK_RAW}
    - {family: AF_INET6, type: SOCK_RAW}
    - {family: AF_NETLINK, type: SOCK_DGRAM}
    - {family: AF_CAN, type: SOCK_RAW}
allow:
  - {rule: capture, anyone: true, sockets: [{family: AF_PACKET}]}
  - {rule: can, anyone: true, sockets: [{family: AF_CAN, type: SOCK_RAW}]}
`

// The compiled profile is asked about each family and each type that has a name.
func TestAppArmorClasses(t *testing.T) {
	closed := []afalg.Sockets{
		{Family: unix.AF_INET6, Type: unix.SOCK_RAW},
		{Family: unix.AF_NETLINK, Type: unix.SOCK_DGRAM}, {Family: unix.AF_NETLINK, Type: unix.SOCK_RAW}, // the kernel takes one for the other
		{Family: unix.AF_CAN, Type: unix.SOCK_RAW},
	}
	packet := afalg.Sockets{Family: unix.AF_PACKET}
	for _, tt := range []struct {
		name   string
		opts   AppArmorOptions
		closed []afalg.Sockets
	}{
		{"container", AppArmorOptions{}, append(slices.Clone(closed), packet)},
		{"abstraction", AppArmorOptions{Abstraction: true}, append(slices.Clone(closed), packet)},
		{"family granted", AppArmorOptions{Common: Common{Grants: []string{"capture"}}}, closed},
		{"type granted", AppArmorOptions{Common: Common{Grants: []string{"can"}}}, append(slices.Clone(closed[:3]), packet)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			files, _, err := AppArmor(planOf(t, narrowPolicy), tt.opts)
			if err != nil {
				t.Fatal(err)
			}
			ours := readPolicydb(t, compileAppArmor(t, loadable(string(files[0].Data), tt.opts)))
			without, _, err := AppArmor(&plan.Plan{}, tt.opts.without())
			if err != nil {
				t.Fatal(err)
			}
			base := readPolicydb(t, compileAppArmor(t, loadable(string(without[0].Data), tt.opts)))
			for family := uint32(0); family <= lastFamily; family++ {
				for _, typ := range namedTypes {
					denied := slices.ContainsFunc(tt.closed, func(s afalg.Sockets) bool { return s.Contains(family, typ, 0) })
					if got, want := ours.creates(family, typ), base.creates(family, typ) && !denied; got != want {
						t.Errorf("%s: created %t, want %t", afalg.Sockets{Family: family, Type: typ}, got, want)
					}
				}
			}
		})
	}
}

// without drops the grants.
func (o AppArmorOptions) without() AppArmorOptions {
	o.Grants = nil
	return o
}

// User namespaces are denied where the abi mediates them. A parser that does not
// know the rule refuses the profile.
func TestAppArmorUserNamespaces(t *testing.T) {
	for _, tt := range []struct {
		opts AppArmorOptions
		want string // the line
	}{
		{AppArmorOptions{ABI: "3.0"}, ""},
		{AppArmorOptions{Abstraction: true}, ""},
		{AppArmorOptions{ABI: "4.0"}, "  deny userns,"},
		{AppArmorOptions{ABI: ABIKernel}, "  deny userns,"},
		{AppArmorOptions{ABI: "4.0", Common: Common{Grants: []string{"sandbox"}}}, "  userns,"},
	} {
		tt.opts.Accept = append(slices.Clone(classGapNames[:2]), tt.opts.Grants...)
		if tt.want == "" {
			tt.opts.Accept = classGapNames
		}
		files, _, err := AppArmor(classesPlan(t), tt.opts)
		if err != nil {
			t.Errorf("%+v: %v", tt.opts, err)
			continue
		}
		var got string
		for line := range strings.Lines(string(files[0].Data)) {
			if strings.Contains(line, "userns,") {
				got += strings.TrimSuffix(line, "\n")
			}
		}
		if got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.opts, got, tt.want)
		}
	}
	out, err := appArmorParser(t, "profile p {\n  deny userns,\n}\n", "--warn=rule-not-enforced", "--Werror=rule-not-enforced")
	if err != nil && !strings.Contains(out, "syntax error") && !strings.Contains(out, "not enforced") {
		t.Errorf("%s", out)
	}
}
