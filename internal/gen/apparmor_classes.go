package gen

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// userNamespaceABIs have mediation of user namespaces. apparmor_parser knows its
// rules from 4.0 on, and refuses the profile before.
var userNamespaceABIs = []string{"4.0", ABIKernel}

// closing: AppArmor sees family and type of a socket. An abstraction cannot know
// whether the profile that includes it mediates user namespaces.
func (a *appArmor) closing() plan.Closing {
	return plan.Closing{
		Sockets:        a.closes,
		UserNamespaces: !a.Abstraction && slices.Contains(userNamespaceABIs, a.ABI),
	}
}

func (a *appArmor) closes(s afalg.Sockets) bool {
	_, named := appArmorFamily(s.Family)
	_, typed := appArmorType(s)
	return named && typed || s.Whole() // a family without a name has a gap of its own
}

// appArmorType returns the name of the type of a class that is no narrower.
// AF_UNIX has rules of its own in some ABIs.
func appArmorType(s afalg.Sockets) (string, bool) {
	if s.Whole() || s.HasProtocol || s.Family == unix.AF_UNIX || s.Type == unix.SOCK_DCCP {
		return "", false
	}
	return strings.ToLower(strings.TrimPrefix(afalg.SocketTypeName(s.Type), "SOCK_")), true
}

// classRules deny what is narrower than a family, and user namespaces. A profile
// whose ABI mediates these and that has no rule about them denies them.
func (a *appArmor) classRules() []string {
	var rules []string
	reopened, _ := a.plan.Reopened(a.closing(), a.held)
	for _, s := range a.plan.ClosedSockets() {
		seen := s.InHook()
		if s.Whole() || !a.closes(s) || a.plan.Closes(seen.Family) || slices.Contains(reopened, s) {
			continue
		}
		family, _ := appArmorFamily(seen.Family)
		typ, _ := appArmorType(seen)
		rules = append(rules, "deny network "+family+" "+typ)
	}
	if a.plan.UserNamespaces && a.closing().UserNamespaces {
		if plan.OpenedBy(a.held).UserNamespaces {
			return append(rules, "userns")
		}
		rules = append(rules, "deny userns")
	}
	return rules
}

func (a *appArmor) classGaps() []plan.Gap { return a.plan.ClassGaps(a.closing()) }

// granter opens to the processes under a profile, whose units are not seen.
func (a *appArmor) granter(holder string) granter {
	exact := func(r policy.Rule) bool { return r.Anyone }
	return granter{a.plan, a.closing(), appArmorRoutes(), func(string) string { return holder }, exact}
}
