package harden

import (
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/filter/seccomp"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// RunOptions are the inputs of RunFilter.
type RunOptions struct {
	Arch       specs.Arch // the machine's own
	Socketcall Socketcall // SocketcallDeny or SocketcallBroker; "" denies
	Grants     []string   // policy rules that the command holds
	Accept     []string   // names of wider gaps that the user takes on
}

// RunFilter returns the filter that a process loads to run a command under the
// broker: everything is allowed but what the policy closes, on every ABI of the
// machine. The program has been asked every route, and does not depend on the
// rules, which are for the broker to know.
func RunFilter(p *plan.Plan, o RunOptions) (program []unix.SockFilter, gaps []plan.Gap, err error) {
	if o.Socketcall == SocketcallKeep {
		return nil, nil, fmt.Errorf("socketcall cannot be kept for a command with a broker: it is denied, or left to the broker")
	}
	if err := checkSocketcall(o.Socketcall, true); err != nil {
		return nil, nil, err
	}
	base := profile.AllowAll(o.Arch)
	held, err := p.RulesNamed(o.Grants)
	if err != nil {
		return nil, nil, err
	}
	if gaps, err = grantedRules(p, base, true, o.Grants); err != nil {
		return nil, nil, err
	}
	if err := plan.Settle(gaps, o.Accept, nil); err != nil {
		return nil, gaps, err
	}
	c := closing{classes: classesOf(p, held), errno: uint(p.SocketErrno.Number), socketcall: o.Socketcall, broker: true}
	hardened, ch, err := rewrite(base, c)
	if err != nil {
		return nil, nil, fmt.Errorf("making the filter: %w", err)
	}
	h := profile.Host{Arch: o.Arch}
	compiled, err := c.compileRun(base, hardened, ch, h)
	if err != nil {
		return nil, nil, fmt.Errorf("the filter for %s: %w", h.Arch, err)
	}
	return compiled.Insns, append(gaps, filterGaps(base, c, ch, Options{Host: h})...), nil
}

// compileRun compiles and proves the program that is loaded.
func (c closing) compileRun(base, hardened *profile.Profile, ch change, h profile.Host) (*seccomp.Program, error) {
	before, err := base.Resolve(h)
	if err != nil {
		return nil, err
	}
	after, err := hardened.Resolve(h)
	if err != nil {
		return nil, err
	}
	program, err := seccomp.Compile(after, seccomp.Options{Runtime: seccomp.Runc, Native: h.Arch})
	if err != nil {
		return nil, err
	}
	if err := c.proveProgram(program, seccomp.Runc, true); err != nil {
		return nil, err
	}
	return program, pair{h, before, after}.proveEqual(c, ch, program, seccomp.Runc)
}
