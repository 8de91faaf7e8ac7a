package gen

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// classesPolicy closes classes of every kind, and opens some to units.
const classesPolicy = `version: 1
name: classes
deny:
  families: [AF_KEY, AF_PACKET, AF_SMC]
  sockets:
    - {family: AF_NETLINK, protocol: NETLINK_XFRM}
    - {family: AF_INET6, type: SOCK_RAW}
  socket-options: [{level: SOL_TCP, option: TCP_ULP}]
  user-namespaces: true
allow:
  - {rule: capture, units: [capture.service], sockets: [{family: AF_PACKET}]}
  - {rule: frames, units: [frames.service], sockets: [{family: AF_PACKET, type: SOCK_RAW}]}
  - {rule: ipsec, units: [ipsec.service], binaries: [/usr/sbin/charon], sockets: [{family: AF_KEY}, {family: AF_NETLINK, protocol: NETLINK_XFRM}]}
  - {rule: options, units: [options.service], socket-options: [{level: SOL_TCP, option: TCP_ULP}]}
  - {rule: sandbox, units: [sandbox.service], user-namespaces: true}
  - {rule: hasher, units: [hasher.service], algorithms: {hash: [sha1]}}
`

func classesPlan(t *testing.T) *plan.Plan { return planOf(t, classesPolicy) }

func planOf(t *testing.T, text string) *plan.Plan {
	t.Helper()
	p, _, err := plan.Load("classes.yaml", func(string) ([]byte, error) { return []byte(text), nil })
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// classGapNames are those that have to be accepted for the plan of classesPolicy.
var classGapNames = []string{policy.GapSockets, policy.GapSocketOptions, policy.GapUserNamespaces}

// A target refuses to leave a class open, unless that is accepted by name, and
// says which and what else closes it.
func TestClassesMustBeAccepted(t *testing.T) {
	show := []byte("Id=a.service\nRestrictAddressFamilies=~\n")
	render := map[string]func(c Common) ([]File, []plan.Gap, error){
		"systemd": func(c Common) ([]File, []plan.Gap, error) {
			return Systemd(classesPlan(t), SystemdOptions{Common: c, Show: show})
		},
		"systemd loong64": func(c Common) ([]File, []plan.Gap, error) {
			c.Accept = append(slices.Clone(c.Accept), "socket")
			return Systemd(classesPlan(t), SystemdOptions{Common: c, Show: show, Arch: specs.ArchLOONGARCH64})
		},
		"apparmor": func(c Common) ([]File, []plan.Gap, error) {
			return AppArmor(classesPlan(t), AppArmorOptions{Common: c})
		},
		"apparmor 4.0": func(c Common) ([]File, []plan.Gap, error) {
			return AppArmor(classesPlan(t), AppArmorOptions{Common: c, ABI: "4.0"})
		},
		"abstraction": func(c Common) ([]File, []plan.Gap, error) {
			return AppArmor(classesPlan(t), AppArmorOptions{Common: c, Abstraction: true})
		},
		"tetragon": func(c Common) ([]File, []plan.Gap, error) {
			c.Accept = append(slices.Clone(c.Accept), "preemption")
			return Tetragon(classesPlan(t), TetragonOptions{Common: c})
		},
	}
	const smc, xfrm, raw6, packet = "AF_INET protocol IPPROTO_SMC, AF_INET6 protocol IPPROTO_SMC", "AF_NETLINK protocol NETLINK_XFRM", "AF_INET6 type SOCK_RAW", "AF_INET type SOCK_PACKET"
	tests := map[string]struct {
		open  string // of the gap "sockets"
		names []string
	}{
		"systemd":         {"AF_INET protocol IPPROTO_SMC, " + packet + ", AF_INET6 protocol IPPROTO_SMC, " + raw6 + ", " + xfrm, classGapNames[:2]},
		"systemd loong64": {"AF_KEY, AF_PACKET, AF_SMC", classGapNames},
		"apparmor":        {smc + ", " + xfrm, classGapNames},
		"apparmor 4.0":    {smc + ", " + xfrm, classGapNames[:2]},
		"abstraction":     {smc + ", " + xfrm, classGapNames},
		"tetragon":        {"AF_INET protocol IPPROTO_SMC, AF_INET6 protocol IPPROTO_SMC, " + raw6 + ", " + xfrm, classGapNames},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			files, gaps, err := render[name](Common{})
			var open *plan.UnacceptedError
			if !errors.As(err, &open) || files != nil {
				t.Fatalf("%d files, %v", len(files), err)
			}
			var got []string
			for _, g := range open.Gaps {
				got = append(got, g.Name)
			}
			if diff := cmp.Diff(tt.names, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			for _, g := range gaps {
				if g.Name == policy.GapSockets && !strings.HasPrefix(g.Text, tt.open) {
					t.Errorf("%s", g.Text)
				}
			}
			if _, _, err := render[name](Common{Accept: tt.names}); err != nil {
				t.Errorf("accepted: %v", err)
			}
		})
	}
}

// A rule without algorithms opens AF_ALG by no target, however it is granted.
func TestRuleWithoutAlgorithms(t *testing.T) {
	for _, rule := range []string{"capture", "frames", "ipsec", "options", "sandbox"} {
		t.Run(rule, func(t *testing.T) {
			c := Common{Grants: []string{rule}}
			show := []byte("Id=" + rule + ".service\nRestrictAddressFamilies=~\n")
			files, gaps, _ := Systemd(classesPlan(t), SystemdOptions{Common: accepting(c, rule, 2), Show: show})
			if files == nil {
				t.Fatal(gaps)
			}
			for _, f := range files {
				if strings.Contains(settings(string(f.Data)), "AF_ALG") && !strings.HasPrefix(f.Path, "afalg-policy") {
					t.Errorf("%s:\n%s", f.Path, f.Data)
				}
			}
			for _, abstraction := range []bool{false, true} {
				files, gaps, _ = AppArmor(classesPlan(t), AppArmorOptions{Common: accepting(c, rule, 3), Abstraction: abstraction})
				if files == nil {
					t.Fatal(gaps)
				}
				if !strings.Contains(string(files[0].Data), "deny network alg,") {
					t.Errorf("AppArmor:\n%s", files[0].Data)
				}
			}
			_, _, err := Tetragon(classesPlan(t), TetragonOptions{Common: c})
			if want := "--grant " + rule + ": the rule allows no algorithm, and Tetragon closes everything else to everybody"; err == nil || err.Error() != want {
				t.Errorf("%v", err)
			}
			for _, g := range gaps {
				if len(g.Routes) > 0 && g.Kind == plan.Wider {
					t.Errorf("AF_ALG is open: %v", g)
				}
			}
		})
	}
	files, _, err := Tetragon(classesPlan(t), TetragonOptions{Common: Common{Accept: append(classGapNames, "preemption")}})
	if err != nil || strings.Count(string(files[0].Data), "NoPost") != 0 {
		t.Errorf("a rule for a unit lets somebody through: %v\n%s", err, files[0].Data)
	}
}

// accepting accepts the first so many gaps of classes, and a rule that is wider
// than the policy.
func accepting(c Common, rule string, n int) Common {
	c.Accept = slices.Clone(classGapNames[:n])
	if rule == "frames" || rule == "ipsec" || rule == "capture" && n == len(classGapNames) {
		c.Accept = append(c.Accept, rule)
	}
	return c
}

// classesToUnits opens a class to each unit that has a rule, and a lists its
// families itself.
var classesToUnits = SystemdOptions{
	Common: Common{
		Tool:   "afalg-policy test",
		Grants: []string{"capture", "frames", "ipsec", "sandbox"},
		Accept: append([]string{"frames", "ipsec"}, classGapNames[:2]...),
	},
	Show: []byte("Id=a.service\nRestrictAddressFamilies=AF_PACKET AF_UNIX\n\nId=capture.service\nRestrictAddressFamilies=AF_UNIX\n"),
}
