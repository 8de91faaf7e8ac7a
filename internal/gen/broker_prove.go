package gen

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/bpf"
	"github.com/afalg-policy/afalg-policy/internal/profile"
	"github.com/afalg-policy/afalg-policy/internal/seccomp"
	"github.com/afalg-policy/afalg-policy/internal/verify"
)

// proveBroker compiles base and result as each runtime does, and proves what a
// broker relies on.
func (c closing) proveBroker(base, hardened *profile.Profile, h profile.Host) error {
	runtimes := seccomp.Runtimes()
	return inParallel(len(runtimes), func(i int) error {
		before, err := compileFor(base, h, runtimes[i])
		if err != nil {
			return fmt.Errorf("compiling the base: %w", err)
		}
		after, err := compileFor(hardened, h, runtimes[i])
		if err != nil {
			return fmt.Errorf("compiling the hardened profile: %w", err)
		}
		if err := c.proveBrokered(before, after); err != nil {
			return fmt.Errorf("the base cannot be hardened for a broker: with %s on %s %w", runtimes[i], h.Arch, err)
		}
		return nil
	})
}

func compileFor(p *profile.Profile, h profile.Host, r seccomp.Runtime) (*seccomp.Program, error) {
	resolved, err := p.Resolve(h)
	if err != nil {
		return nil, err
	}
	return seccomp.Compile(resolved, seccomp.Options{Runtime: r, Native: h.Arch})
}

// proveAnswered proves what can be proved of a brokered profile whose base is
// not known.
func (c closing) proveAnswered(p *profile.Profile, h profile.Host) error {
	runtimes := seccomp.Runtimes()
	return inParallel(len(runtimes), func(i int) error {
		program, err := compileFor(p, h, runtimes[i])
		if err != nil {
			return err
		}
		if err := c.answered(program); err != nil {
			return fmt.Errorf("with %s on %s %w", runtimes[i], h.Arch, err)
		}
		return nil
	})
}

func (c closing) proveBrokered(before, after *seccomp.Program) error {
	for _, abi := range verify.Admitted(after) {
		if err := samePermissions(bpf.Program(before.Insns), bpf.Program(after.Insns), abi); err != nil {
			return err
		}
	}
	return c.answered(after)
}

// answered: the broker is asked what it must be, and nothing else.
func (c closing) answered(after *seccomp.Program) error {
	abis := verify.Admitted(after)
	program := bpf.Program(after.Insns)
	for _, abi := range abis {
		if err := reachesBroker(program, abi); err != nil {
			return err
		}
		if err := closesSetMM(program, abi); err != nil {
			return err
		}
	}
	return c.notifiesNothingElse(program, abis)
}

// reachesBroker: a socket of AF_ALG on the machine's own ABI is made by nobody
// but the broker.
func reachesBroker(program bpf.Program, abi afalg.ABI) error {
	for _, call := range abi.Calls(afalg.Family) {
		if call.Route != afalg.RouteSocket {
			continue
		}
		v, err := verify.Ask(bpf.Filter{program}, call, verify.Options{})
		if err != nil {
			return err
		}
		if v.State != verify.Listener {
			return fmt.Errorf("socket(AF_ALG) on %s is not left to the broker but %s (%v)", abi.Name, v.State, v.Actions)
		}
	}
	return nil
}

func closesSetMM(program bpf.Program, abi afalg.ABI) error {
	nr, err := seccomp.Number("prctl", specs.Arch(abi.Arch))
	if err != nil {
		return err
	}
	setMM := uint32(unix.PR_SET_MM)
	v, err := verify.Ask(bpf.Filter{program}, afalg.Call{ABI: abi, Name: "prctl", Nr: nr, Arg0: &setMM}, verify.Options{})
	if err != nil {
		return err
	}
	if v.State != verify.Closed {
		return fmt.Errorf("prctl(PR_SET_MM) on %s is %s (%v); witness: %v", abi.Name, v.State, v.Actions, v.Witness)
	}
	return nil
}

// samePermissions: of the calls of a session, those are notified or let through
// that the base let through, and no others. The broker lets the kernel do what
// is none of its business, so that a notification is a permission.
func samePermissions(before, after bpf.Program, abi afalg.ABI) error {
	permits := func(a bpf.Action) bpf.Action {
		switch a.Kind() {
		case bpf.Allow, bpf.Log, bpf.Trace, bpf.UserNotif:
			return bpf.Action(unix.SECCOMP_RET_ALLOW)
		}
		return bpf.Action(unix.SECCOMP_RET_KILL_PROCESS)
	}
	a, b := returning(before, permits), returning(after, permits)
	for _, t := range trappedCalls {
		nr := t.number(abi)
		if nr == 0 {
			continue
		}
		within := bpf.Everything.With(bpf.Arch, bpf.Exactly(abi.Audit)).With(bpf.Nr, bpf.Exactly(nr))
		d, err := bpf.Comparison{Endian: bpf.EndianOf(abi.BigEndian), Within: within}.Compare(bpf.Filter{a}, bpf.Filter{b})
		if err != nil {
			return err
		}
		if d.Equal != bpf.Yes {
			return fmt.Errorf("%s on %s is let through where the base does not, or the other way round (proved equal: %v); witness: %v",
				t.name, abi.Name, d.Equal, d.Witness)
		}
	}
	return nil
}

// notifiesNothingElse: no call but those that the broker expects.
func (c closing) notifiesNothingElse(program bpf.Program, abis []afalg.ABI) error {
	silent := returning(program, func(a bpf.Action) bpf.Action {
		if a.Kind() == bpf.UserNotif {
			return bpf.Action(unix.SECCOMP_RET_KILL_PROCESS)
		}
		return a
	})
	d, err := verify.Compare(bpf.Filter{program}, bpf.Filter{silent}, bpf.EndianOf(abis[0].BigEndian), c.brokered(abis)...)
	if err != nil {
		return err
	}
	if d.Equal != bpf.Yes {
		return fmt.Errorf("the broker is notified of other calls than its own (proved: %v); witness: %v", d.Equal, d.Witness)
	}
	return nil
}

// brokered lists the calls that the broker answers. Upper halves are left free
// where the kernel takes an int.
func (c closing) brokered(abis []afalg.ABI) []bpf.Region {
	var regions []bpf.Region
	for _, abi := range abis {
		at := func(nr uint32, arg int, value uint64) {
			if nr == 0 {
				return
			}
			r := bpf.Everything.With(bpf.Arch, bpf.Exactly(abi.Audit)).With(bpf.Nr, bpf.Exactly(abi.Bit|nr))
			regions = append(regions, r.With(bpf.ArgLow(arg), bpf.Exactly(uint32(value))))
		}
		at(abi.Socket, 0, afalg.Family)
		for _, t := range trappedCalls {
			at(t.number(abi)&^abi.Bit, int(t.arg), t.value)
		}
		if c.socketcall == SocketcallBroker {
			for _, call := range socketcallBrokered {
				at(abi.Socketcall, 0, call)
			}
		}
	}
	return regions
}

// number is that of the call on an ABI as a filter sees it; 0 if there is none.
func (t trapped) number(abi afalg.ABI) uint32 {
	nr := map[string]uint32{
		"bind": abi.Bind, "setsockopt": abi.Setsockopt, "accept": abi.Accept, "accept4": abi.Accept4,
	}[t.name]
	if nr == 0 {
		return 0
	}
	return abi.Bit | nr
}

// returning is a program with other actions in the place of its own.
func returning(p bpf.Program, action func(bpf.Action) bpf.Action) bpf.Program {
	out := slices.Clone(p)
	for i := range out {
		if out[i].Code == unix.BPF_RET|unix.BPF_K {
			out[i].K = uint32(action(bpf.Action(out[i].K)))
		}
	}
	return out
}
