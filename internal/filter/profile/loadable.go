package profile

import (
	"errors"
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
)

// Loadable finds what makes every runtime refuse the profile on that host, all
// of it. Each error begins with the place of what it is about.
func (p *Profile) Loadable(h Host) error {
	if p.FiltersNothing() {
		return nil
	}
	errs := []error{p.knownAction("/defaultAction", p.DefaultAction), p.oneByteOrder(h.Arch)}
	for i, r := range p.Syscalls {
		path := fmt.Sprintf("/syscalls/%d", i)
		holds, err := r.Applies(h)
		if err != nil {
			errs = append(errs, p.Errorf(path, "%w", err))
		}
		if !holds {
			continue
		}
		errs = append(errs, p.knownAction(path+"/action", r.Action))
		for j, a := range r.Args {
			errs = append(errs, p.knownComparison(fmt.Sprintf("%s/args/%d", path, j), a))
		}
	}
	return errors.Join(errs...)
}

var actions = setOf(
	specs.ActKill, specs.ActKillProcess, specs.ActKillThread, specs.ActTrap, specs.ActErrno,
	specs.ActNotify, specs.ActTrace, specs.ActLog, specs.ActAllow,
)

var operators = setOf(Operators()...)

// Operators lists every operator of a comparison.
func Operators() []specs.LinuxSeccompOperator {
	return []specs.LinuxSeccompOperator{
		specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo,
		specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpMaskedEqual,
	}
}

func setOf[T ~string](words ...T) map[string]bool {
	set := map[string]bool{}
	for _, w := range words {
		set[string(w)] = true
	}
	return set
}

func (p *Profile) knownAction(path string, a specs.LinuxSeccompAction) error {
	if actions[string(a)] {
		return nil
	}
	return p.Errorf(path, "unknown action %q%s", a, Suggest("SCMP_ACT_", string(a), actions))
}

func (p *Profile) knownComparison(path string, a specs.LinuxSeccompArg) error {
	if !operators[string(a.Op)] {
		return p.Errorf(path+"/op", "unknown operator %q%s", a.Op, Suggest("SCMP_CMP_", string(a.Op), operators))
	}
	if a.Index > 5 {
		return p.Errorf(path+"/index", "argument %d: a call has arguments 0 to 5", a.Index)
	}
	return nil
}

// oneByteOrder finds architectures that libseccomp knows none of, or takes into
// no filter of that machine: a filter is for one byte order.
func (p *Profile) oneByteOrder(native specs.Arch) error {
	var errs []error
	machine, known := afalg.ABIOf(string(native))
	for i, a := range p.Architectures {
		path := fmt.Sprintf("/architectures/%d", i)
		abi, ok := afalg.ABIOf(string(a))
		switch {
		case !ok:
			errs = append(errs, p.Errorf(path, "unknown architecture %q", a))
		case known && abi.BigEndian() != machine.BigEndian():
			errs = append(errs, p.Errorf(path, "no runtime on %s loads a filter with %s, which has the other byte order: %s",
				ShortName(native), a, p.remedy(a)))
		}
	}
	return errors.Join(errs...)
}

// remedy says how a profile for machines of both byte orders is written.
func (p *Profile) remedy(a specs.Arch) string {
	if p.text != nil && p.text.Prefix != "" {
		return "remove it, and write a profile of its own for that machine"
	}
	return fmt.Sprintf(`list each machine in archMap instead, as in "archMap": [{"architecture": %q, "subArchitectures": []}], which Docker and Podman read, or write a profile of its own for that machine`, a)
}
