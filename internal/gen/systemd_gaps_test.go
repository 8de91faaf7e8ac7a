package gen

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

func TestSystemdGaps(t *testing.T) {
	errno := wirelessPlan()
	errno.SocketErrno = plan.Errno{Name: "EPERM", Number: 1}
	pages := wirelessPlan()
	pages.ZeroCopy = policy.Yes
	granting := &plan.Plan{Grants: []policy.Grant{{}}}
	early := &plan.Plan{Rules: []policy.Rule{{Name: "early", Units: []string{"dracut-pre-pivot.service"}, Algorithms: oneAlgorithm}}}
	mixed := &plan.Plan{Rules: []policy.Rule{{Name: "mixed", Units: []string{"dracut-pre-pivot.service", "a.service"}, Algorithms: oneAlgorithm}}}
	facts := []byte("Id=a.service\nRestrictAddressFamilies=~\n\nId=b.service\nRestrictAddressFamilies=~\n")
	engines := []byte("Id=containerd.service\nRestrictAddressFamilies=~\n\nId=iwd.service\nRestrictAddressFamilies=~\n")
	naming := []byte("Id=a.service\nRestrictAddressFamilies=AF_ALG AF_UNIX\n\nId=afalg-policy-agent.service\nRestrictAddressFamilies=AF_ALG AF_UNIX\n\nId=iwd.service\nRestrictAddressFamilies=AF_ALG AF_NETLINK\n")
	holders := []byte("Id=capture.service\nRestrictAddressFamilies=AF_UNIX\n\nId=sandbox.service\nRestrictAddressFamilies=~\nRestrictNamespaces=mnt user\n")
	hiding := []byte("Id=a.service\nRestrictAddressFamilies=~\nDropInPaths=/etc/systemd/system/a.service.d/zz-afalg-policy.conf /etc/systemd/system/a.service.d/zz-afalg-policy-runtime.conf /x/b.conf\n\n" +
		"Id=b.service\nRestrictAddressFamilies=~\nDropInPaths=/etc/systemd/system/service.d/zz-afalg-policy.conf\n")
	accept := func(names ...string) Common { return Common{Accept: names} }
	always := []string{"different socketpair", "stricter foreign-abi", "stricter io_uring", "stricter no-new-privileges"}
	every := append([]string{"stricter initramfs", "different later-units"}, always...)
	tests := []struct {
		name string
		plan *plan.Plan
		opts SystemdOptions
		want []string // before those of every output
		ok   bool     // nothing is left to accept
	}{
		{"zero plan", &plan.Plan{}, SystemdOptions{Show: facts}, nil, true},
		{"errno", errno, SystemdOptions{Show: facts}, []string{"stricter hasher", "stricter iwd", "different socket-errno"}, true},
		{"grant", wirelessPlan(), SystemdOptions{Show: facts, Common: Common{Grants: []string{"iwd"}}}, []string{"wider iwd", "stricter hasher"}, false},
		{"zero-copy, nobody", pages, SystemdOptions{Show: facts}, []string{"stricter hasher", "stricter iwd"}, true},
		{"zero-copy, grant", pages, SystemdOptions{Show: facts, Common: Common{Grants: []string{"iwd"}, Accept: []string{"iwd"}}}, []string{"wider iwd", "stricter hasher", "wider zero-copy"}, false},
		{"zero-copy, left out", pages, SystemdOptions{Show: facts, Except: []string{"a.service"}, Common: accept("a.service", "zero-copy")}, []string{"wider a.service", "stricter hasher", "stricter iwd", "wider zero-copy"}, true},
		{"s390x", &plan.Plan{}, SystemdOptions{Show: facts, Arch: specs.ArchS390X}, []string{"wider socket"}, false},
		{"ppc64le", &plan.Plan{}, SystemdOptions{Show: facts, Arch: specs.ArchPPC64LE}, []string{"wider socket"}, false},
		{"loong64", &plan.Plan{}, SystemdOptions{Show: facts, Arch: specs.ArchLOONGARCH64}, []string{"wider socket"}, false},
		{"aarch64", &plan.Plan{}, SystemdOptions{Show: facts, Arch: specs.ArchAARCH64}, nil, true},
		{"riscv64", &plan.Plan{}, SystemdOptions{Show: facts, Arch: specs.ArchRISCV64}, nil, true},
		{"except", &plan.Plan{}, SystemdOptions{Show: facts, Except: []string{"b.service", "a.service"}}, []string{"wider a.service", "wider b.service"}, false},
		{"holder is here", wirelessPlan(), SystemdOptions{Show: engines}, []string{"stricter hasher", "breaking iwd"}, false},
		{"holder is here, accepted", wirelessPlan(), SystemdOptions{Show: engines, Common: accept("iwd")}, []string{"stricter hasher", "breaking iwd"}, true},
		{"holder is here, granted", wirelessPlan(), SystemdOptions{Show: engines, Common: Common{Grants: []string{"iwd"}, Accept: []string{"iwd"}}}, []string{"wider iwd", "stricter hasher"}, true},
		{"holder is here, left out", wirelessPlan(), SystemdOptions{Show: engines, Except: []string{"iwd.service"}, Common: accept("iwd.service")}, []string{"wider iwd.service", "stricter hasher", "stricter iwd"}, true},
		{"names AF_ALG", &plan.Plan{}, SystemdOptions{Show: naming}, []string{"stricter a.service", "stricter iwd.service"}, true},
		{"names AF_ALG, by a rule", wirelessPlan(), SystemdOptions{Show: naming, Common: accept("iwd")}, []string{"stricter hasher", "breaking iwd", "stricter a.service"}, true},
		{"names AF_ALG, left out", &plan.Plan{}, SystemdOptions{Show: naming, Except: []string{"a.service", "iwd.service"}, Common: accept("a.service", "iwd.service")}, []string{"wider a.service", "wider iwd.service"}, true},
		{"granted without AF_NETLINK", wirelessPlan(), SystemdOptions{Show: []byte("Id=iwd.service\nRestrictAddressFamilies=AF_UNIX\n"), Common: Common{Grants: []string{"iwd"}, Accept: []string{"iwd"}}}, []string{"wider iwd", "stricter hasher", "stricter iwd.service"}, true},
		{"containers are granted", granting, SystemdOptions{Show: engines}, []string{"breaking container-grants"}, false},
		{"containers are granted, left out", granting, SystemdOptions{Show: engines, Except: []string{"containerd.service"}, Common: accept("containerd.service")}, []string{"wider containerd.service"}, true},
		{"containers are granted, none here", granting, SystemdOptions{Show: facts}, nil, true},
		{"hidden by a file of the same name", &plan.Plan{}, SystemdOptions{Show: hiding}, []string{"wider a.service"}, false},
		{"hidden by a file that goes", &plan.Plan{}, SystemdOptions{Show: hiding, Gone: []string{"/etc/systemd/system/a.service.d/zz-afalg-policy.conf"}}, nil, true},
		{"hidden by a file that is replaced", &plan.Plan{}, SystemdOptions{Show: hiding, Except: []string{"a.service"}, Common: accept("a.service")}, []string{"wider a.service"}, true},
		{"classes", classesPlan(t), SystemdOptions{Show: facts, Common: accept(classGapNames[:2]...)}, []string{"stricter capture", "stricter frames", "stricter hasher", "stricter ipsec", "stricter sandbox", "wider sockets", "wider socket-options", "stricter setns"}, true},
		{"classes, their holders are here", classesPlan(t), SystemdOptions{Show: holders, Common: accept(classGapNames[:2]...)}, []string{"breaking capture", "stricter frames", "stricter hasher", "stricter ipsec", "breaking sandbox", "wider sockets", "wider socket-options", "stricter setns", "stricter sandbox.service"}, false},
		{"classes, granted", classesPlan(t), SystemdOptions{Show: holders, Common: Common{Grants: []string{"capture", "sandbox"}, Accept: classGapNames[:2]}}, []string{"stricter frames", "stricter hasher", "stricter ipsec", "wider sockets", "wider socket-options", "stricter setns", "stricter capture.service"}, true},
		{"classes, kept by another rule", planOf(t, twoRules), SystemdOptions{Show: facts, Common: Common{Grants: []string{"one"}}}, []string{"stricter two"}, true},
		{"initramfs", early, SystemdOptions{Show: facts}, []string{"wider early"}, true},
		{"initramfs, and another unit", mixed, SystemdOptions{Show: facts}, []string{"breaking mixed"}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			files, gaps, err := Systemd(tt.plan, tt.opts)
			var got []string
			for _, g := range gaps {
				got = append(got, string(g.Kind)+" "+g.Name)
			}
			if diff := cmp.Diff(append(tt.want, every...), got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			var open *plan.UnacceptedError
			if errors.As(err, &open) == tt.ok || (err == nil) != tt.ok || (len(files) > 0) != tt.ok {
				t.Errorf("%d files, error %v", len(files), err)
			}
		})
	}
	_, gaps, err := Systemd(&plan.Plan{}, SystemdOptions{Show: facts, Units: []string{"a.service"}})
	if err != nil || len(gaps) != len(always) {
		t.Errorf("a named unit: %v, %v", gaps, err)
	}
}

// twoRules allow one unit the same.
const twoRules = `version: 1
name: two
deny: {families: [AF_RDS]}
allow:
  - {rule: one, units: [a.service], sockets: [{family: AF_RDS}]}
  - {rule: two, units: [a.service], sockets: [{family: AF_RDS}]}
`

// TestStrictExecIsLost: what opens a unit, or a profile, does so however its
// binaries are started, and says so.
func TestStrictExecIsLost(t *testing.T) {
	const steered = "to whoever steers its binaries, by LD_PRELOAD or as a tracer, which strict-exec denies"
	for _, strict := range []bool{false, true} {
		p := &plan.Plan{Rules: []policy.Rule{
			{Name: "early", Units: []string{"dracut-pre-pivot.service"}, StrictExec: strict, Algorithms: oneAlgorithm},
			{Name: "late", Units: []string{"a.service"}, StrictExec: strict, Algorithms: oneAlgorithm},
		}}
		c := Common{Grants: []string{"late"}, Accept: []string{"late"}}
		_, bySystemd, err := Systemd(p, SystemdOptions{Show: freeUnits, Common: c})
		if err != nil {
			t.Fatal(err)
		}
		_, byAppArmor, err := AppArmor(p, AppArmorOptions{Common: c})
		if err != nil {
			t.Fatal(err)
		}
		told := 0
		for _, g := range append(bySystemd, byAppArmor...) {
			if strings.Contains(g.Text, steered) {
				told++
			}
		}
		if want := map[bool]int{true: 3}[strict]; told != want {
			t.Errorf("strict-exec %t: %d gaps tell, want %d: %v %v", strict, told, want, bySystemd, byAppArmor)
		}
	}
}

// The agent is left as it is, whatever the manager knows of it, and so is a
// unit of the initramfs for which there is a rule.
func TestSystemdByConstruction(t *testing.T) {
	early := &plan.Plan{Name: "early", Rules: []policy.Rule{{Name: "early", Units: []string{"dracut-pre-pivot.service"}, Algorithms: oneAlgorithm}}}
	files, _, err := Systemd(early, SystemdOptions{Show: freeUnits})
	if err != nil {
		t.Fatal(err)
	}
	got := fileMap(files)
	agent, ok := got["afalg-policy-agent.service.d/zz-afalg-policy.conf"]
	if !ok || strings.Contains(agent, "[Service]") {
		t.Errorf("the agent's drop-in, written %t:\n%s", ok, agent)
	}
	pivot := settings(got["dracut-pre-pivot.service.d/zz-afalg-policy.conf"])
	if !strings.Contains(" "+pivot+" ", " AF_ALG ") || !strings.Contains(" "+pivot+" ", " AF_NETLINK ") {
		t.Errorf("dracut-pre-pivot.service has %q", pivot)
	}
	named, _, err := Systemd(early, SystemdOptions{Show: freeUnits, Units: []string{"app.service"}})
	if err != nil || len(named) != 1 {
		t.Errorf("a named unit: %d files, %v", len(named), err)
	}
}

// TestContainerGrantsAdvice: what leaves the units out can be copied.
func TestContainerGrantsAdvice(t *testing.T) {
	granting := &plan.Plan{Grants: []policy.Grant{{Names: []string{"web"}}}}
	show := []byte("Id=containerd.service\nRestrictAddressFamilies=~\n\nId=docker.service\nRestrictAddressFamilies=~\n")
	_, _, err := Systemd(granting, SystemdOptions{Show: show})
	const flags = "(--except containerd.service --accept containerd.service --except docker.service --accept docker.service)"
	if err == nil || !strings.Contains(err.Error(), flags) {
		t.Errorf("%v\nwant %s", err, flags)
	}
}
