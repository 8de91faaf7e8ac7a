package gen

import (
	"fmt"
	"github.com/afalg-policy/afalg-policy/internal/profile"
	"strings"
	"sync"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/bpf"
	"github.com/afalg-policy/afalg-policy/internal/seccomp"
	"github.com/afalg-policy/afalg-policy/internal/verify"
)

// prove compiles the profile as each runtime would on that host, and asks the
// programs about every route. A compiler of filters has bugs; the profile's
// text proves nothing.
func prove(p *profile.Profile, h profile.Host, c closing) error {
	resolved, err := p.Resolve(h)
	if err != nil {
		return err
	}
	runtimes := seccomp.Runtimes()
	return inParallel(len(runtimes), func(i int) error {
		o := seccomp.Options{Runtime: runtimes[i], Native: h.Arch}
		program, err := seccomp.Compile(resolved, o)
		if err != nil {
			return fmt.Errorf("compiling the hardened profile as %s does on %s: %w", o.Runtime, h.Arch, err)
		}
		return c.proveProgram(program, o.Runtime, isPermissive(p.DefaultAction))
	})
}

func (c closing) proveProgram(program *seccomp.Program, r seccomp.Runtime, allows bool) error {
	filter := bpf.Filter{bpf.Program(program.Insns)}
	for _, family := range c.families {
		verdicts, err := verify.Routes(filter, verify.Admitted(program), family, verify.Options{})
		if err != nil {
			return fmt.Errorf("proving the program of %s: %w", r, err)
		}
		for _, v := range verdicts {
			if v.State != verify.Closed && !c.accepts(v, family, allows) {
				return &OpenError{Runtime: r, Level: program.Level, Family: family, Verdict: v}
			}
		}
	}
	return nil
}

// inParallel calls f for each index and returns the first error by index.
func inParallel(n int, f func(i int) error) error {
	errs := make([]error, n)
	var wait sync.WaitGroup
	for i := range n {
		wait.Go(func() { errs[i] = f(i) })
	}
	wait.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// accepts tells whether a route is open because the user took that gap on, or
// because the broker answers.
func (c closing) accepts(v verify.Verdict, family uint32, allows bool) bool {
	call := v.Call
	if c.broker && v.State == verify.Listener {
		return call.Name == "socket" && family == afalg.Family || call.Name == "socketcall" && c.socketcall == SocketcallBroker
	}
	if call.Name == "socketcall" {
		return c.socketcall == SocketcallKeep
	}
	if !c.granted || family != afalg.Family || call.Name != "socket" {
		return false
	}
	// A grant in a default-deny profile opens the exact number only.
	return call.Route != afalg.RouteSocketHighbits || allows
}

// OpenError says that a hardened profile would leave a route open. Nothing is
// written then.
type OpenError struct {
	Runtime seccomp.Runtime
	Level   int
	Family  uint32
	Verdict verify.Verdict
}

func (e *OpenError) Error() string {
	v := e.Verdict
	witness := "none found"
	if v.Witness != nil {
		witness = v.Witness.String()
	}
	return fmt.Sprintf("the base cannot be hardened: with %s (libseccomp %s, level %d) %s on %s still reaches %s (%s: %s); witness: %s",
		e.Runtime, seccomp.Version(), e.Level, v.Call.Name, v.Call.ABI.Name,
		afalg.FamilyName(e.Family), v.State, strings.Join(v.Actions, ", "), witness)
}
