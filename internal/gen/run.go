package gen

import (
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/profile"
	"github.com/afalg-policy/afalg-policy/internal/seccomp"
)

// RunOptions are the inputs of RunFilter.
type RunOptions struct {
	Arch       specs.Arch // the machine's own
	Socketcall Socketcall // SocketcallDeny or SocketcallBroker; "" denies
}

// RunFilter returns the filter that a process loads to run a command under the
// broker: everything is allowed but what the policy closes, on every ABI of the
// machine. The gaps are those of the filter; which rules the command holds is
// for the broker to know. The program has been asked every route.
func RunFilter(p *plan.Plan, o RunOptions) (program []unix.SockFilter, gaps []Gap, err error) {
	if o.Socketcall == SocketcallKeep {
		return nil, nil, fmt.Errorf("socketcall cannot be kept for a command with a broker: it is denied, or left to the broker")
	}
	if err := checkSocketcall(o.Socketcall, true); err != nil {
		return nil, nil, err
	}
	src, err := profile.AllowAll(o.Arch)
	if err != nil {
		return nil, nil, err
	}
	base, err := profile.Parse(src)
	if err != nil {
		return nil, nil, err
	}
	c := closing{families: closedFamilies(p), errno: uint(p.SocketErrno.Number), socketcall: o.Socketcall, broker: true}
	hardened, ch, err := harden(base, c)
	if err != nil {
		return nil, nil, fmt.Errorf("making the filter: %w", err)
	}
	h := profile.Host{Arch: o.Arch}
	compiled, err := c.compileRun(base, hardened, h)
	if err != nil {
		return nil, nil, err
	}
	return compiled.Insns, filterGaps(base, c, ch, SeccompOptions{Format: FormatOCI, Host: h}), nil
}

// compileRun compiles and proves the program that is loaded.
func (c closing) compileRun(base, hardened *profile.Profile, h profile.Host) (*seccomp.Program, error) {
	before, err := compileFor(base, h, seccomp.Runc)
	if err != nil {
		return nil, fmt.Errorf("compiling a filter for %s: %w", h.Arch, err)
	}
	program, err := compileFor(hardened, h, seccomp.Runc)
	if err != nil {
		return nil, fmt.Errorf("compiling the filter for %s: %w", h.Arch, err)
	}
	if err := c.proveProgram(program, seccomp.Runc, true); err != nil {
		return nil, err
	}
	if err := c.proveBrokered(before, program); err != nil {
		return nil, fmt.Errorf("the filter for %s: %w", h.Arch, err)
	}
	return program, nil
}
