package gen

import (
	"fmt"
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// tetragonGaps are those of any output.
var tetragonGaps = []plan.Gap{
	plan.Wider.Gap("preemption", nil,
		"a kernel skips Tetragon's program, and so allows the call, while another task that it preempted is inside it: with preempt=full, and wherever the kernel preempts itself, anybody can bring that about; take it on for nodes whose preemption is none or voluntary"),
}

// gaps says what Tetragon cannot express of the policy, the worst first.
func (t *tetragon) gaps() []plan.Gap {
	gaps := slices.Clone(tetragonGaps)
	for _, a := range t.asked {
		gaps = append(gaps, t.ruleGaps(&a)...)
	}
	gaps = append(gaps, t.plan.HeldBack(plan.Stricter)...)
	gaps = append(gaps, t.plan.ClassGaps(t.plan.HookClosing())...)
	if len(t.plan.Grants) > 0 {
		gaps = append(gaps, plan.Stricter.Gap("container-grants", nil, "no grant of the policy to a container holds"))
	}
	if len(t.held()) > 0 {
		gaps = append(gaps, heldGaps...)
	}
	return append(gaps, t.plan.ZeroCopyGaps(len(t.held()) > 0)...)
}

// heldGaps are those of any rule that Tetragon asks for.
var heldGaps = []plan.Gap{
	plan.Stricter.Gap("namespaces", nil,
		"rules hold in the node's first mount namespace and user namespace alone: not in a container, and not in a unit that has a mount namespace of its own, as by ProtectSystem= or PrivateTmp="),
	plan.Stricter.Gap("address", nil,
		"an address must be zero between the type and the name, and begin with AF_ALG, as all known clients have it"),
}

func (t *tetragon) ruleGaps(a *askedRule) []plan.Gap {
	unasked := strings.Join(a.unasked, ", nor for ")
	granted := slices.Contains(t.Grants, a.name)
	opens := fmt.Sprintf("; --grant %s drops the condition", a.name)
	switch {
	case a.out != "" && (granted || len(a.unasked) == 0):
		return []plan.Gap{plan.Stricter.Gap(a.name, nil, a.out+"; the rule is left out")}
	case a.out != "":
		return []plan.Gap{plan.Stricter.Gap(a.name, nil, a.out+"; the rule is left out"+opens)}
	case len(a.unasked) == 0:
		return nil
	case granted:
		return []plan.Gap{plan.Wider.Gap(a.name, nil, fmt.Sprintf("Tetragon cannot ask for %s: the rule holds without", unasked))}
	}
	return []plan.Gap{plan.Stricter.Gap(a.name, nil, fmt.Sprintf("Tetragon cannot ask for %s: the rule does not hold for those", unasked)+opens)}
}
