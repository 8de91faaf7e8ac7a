package harden

import (
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
	"github.com/afalg-policy/afalg-policy/internal/filter/seccomp"
	"github.com/afalg-policy/afalg-policy/internal/filter/verify"
)

func (c closing) proveBrokered(before, after *seccomp.Program, ch change) error {
	for _, abi := range verify.Admitted(after) {
		if err := samePermissions(cbpf.Program(before.Insns), cbpf.Program(after.Insns), abi, ch); err != nil {
			return err
		}
	}
	return c.answered(after)
}

// answered: the broker is asked what it must be, and nothing else.
func (c closing) answered(after *seccomp.Program) error {
	abis := verify.Admitted(after)
	program := cbpf.Program(after.Insns)
	setMM := uint32(unix.PR_SET_MM)
	for _, abi := range abis {
		if err := reachesBroker(program, abi); err != nil {
			return err
		}
		if err := closes(program, abi, "prctl", &setMM, "prctl(PR_SET_MM)"); err != nil {
			return err
		}
		if err := closes(program, abi, callGetfd, nil, callGetfd); err != nil {
			return err
		}
	}
	if err := keepsListener(program, abis); err != nil {
		return err
	}
	return c.notifiesNothingElse(program, abis)
}

// keepsListener: nobody can put a listener in the place of the broker's.
func keepsListener(program cbpf.Program, abis []afalg.ABI) error {
	v, err := verify.NewListener(cbpf.Filter{program}, abis, verify.Directly)
	if err != nil {
		return err
	}
	if v.State != verify.Closed {
		return fmt.Errorf("what is left to the broker is %s: seccomp(2) with NEW_LISTENER on %s is %s (%v), and has to be refused; witness: %v",
			verify.Replaceable, v.Call.ABI.Name, v.State, v.Actions, v.Witness)
	}
	return nil
}

// reachesBroker: a socket of AF_ALG on the machine's own ABI is made by nobody
// but the broker.
func reachesBroker(program cbpf.Program, abi afalg.ABI) error {
	for _, call := range abi.Calls(afalg.Family) {
		if call.Route != afalg.RouteSocket {
			continue
		}
		v, err := verify.Ask(cbpf.Filter{program}, call, verify.Options{})
		if err != nil {
			return err
		}
		if v.State != verify.Listener {
			return fmt.Errorf("socket(AF_ALG) on %s is not left to the broker but %s (%v)", abi.Name, v.State, v.Actions)
		}
	}
	return nil
}

// closes: a call is refused whatever its further arguments are.
func closes(program cbpf.Program, abi afalg.ABI, name string, arg0 *uint32, title string) error {
	nr, err := seccomp.Number(name, specs.Arch(abi.Arch))
	if err != nil {
		return err
	}
	v, err := verify.Ask(cbpf.Filter{program}, afalg.Call{ABI: abi, Name: name, Nr: nr, Arg0: arg0}, verify.Options{})
	if err != nil {
		return err
	}
	if v.State != verify.Closed {
		return fmt.Errorf("%s on %s is %s (%v); witness: %v", title, abi.Name, v.State, v.Actions, v.Witness)
	}
	return nil
}

// samePermissions: of the calls of a session, those are notified or let through
// that the base let through, and no others, except for denied socket options.
func samePermissions(before, after cbpf.Program, abi afalg.ABI, ch change) error {
	a, b := returning(before, permits), returning(after, permits)
	for _, t := range trappedCalls {
		nr, ok := numberOn(abi, t.name)
		if !ok {
			continue
		}
		within := cbpf.Everything.With(cbpf.Arch, cbpf.Exactly(abi.Audit)).With(cbpf.Nr, cbpf.Exactly(nr))
		d, err := cbpf.Comparison{Endian: cbpf.EndianOf(abi.BigEndian()), Within: within, Except: ch.besides(t, abi)}.Compare(cbpf.Filter{a}, cbpf.Filter{b})
		if err != nil {
			return err
		}
		if d.Equal != cbpf.Yes {
			return fmt.Errorf("%s on %s is let through where the base does not, or the other way round (proved equal: %v); witness: %v",
				t.name, abi.Name, d.Equal, d.Witness)
		}
	}
	return nil
}

// besides are the inputs of a call in which the result departs for another reason
// than the broker.
func (ch change) besides(t trapped, abi afalg.ABI) []cbpf.Region {
	var regions []cbpf.Region
	for _, d := range ch.departures {
		if d.call == t.name && !slices.Contains(d.parts, t.part()) {
			regions = append(regions, d.on(abi)...)
		}
	}
	return regions
}

// notifiesNothingElse: no call but those that the broker expects.
func (c closing) notifiesNothingElse(program cbpf.Program, abis []afalg.ABI) error {
	silent := returning(program, func(a cbpf.Action) cbpf.Action {
		if a.Kind() == cbpf.UserNotif {
			return cbpf.Action(unix.SECCOMP_RET_KILL_PROCESS)
		}
		return a
	})
	d, err := verify.Compare(cbpf.Filter{program}, cbpf.Filter{silent}, cbpf.EndianOf(abis[0].BigEndian()), c.brokered(abis)...)
	if err != nil {
		return err
	}
	if d.Equal != cbpf.Yes {
		return fmt.Errorf("the broker is notified of other calls than its own (proved: %v); witness: %v", d.Equal, d.Witness)
	}
	return nil
}

// brokered lists the calls that the broker answers. Upper halves are left free
// where the kernel takes an int.
func (c closing) brokered(abis []afalg.ABI) []cbpf.Region {
	var regions []cbpf.Region
	for _, abi := range abis {
		at := func(nr uint32, arg int, value uint64) {
			if nr == 0 {
				return
			}
			r := cbpf.Everything.With(cbpf.Arch, cbpf.Exactly(abi.Audit)).With(cbpf.Nr, cbpf.Exactly(abi.Bit|nr))
			regions = append(regions, r.With(cbpf.ArgLow(arg), cbpf.Exactly(uint32(value))))
		}
		at(abi.Socket, 0, afalg.Family)
		for _, t := range trappedCalls {
			nr, _ := numberOn(abi, t.name)
			at(nr&^abi.Bit, int(t.arg), t.value)
		}
		if c.socketcall == SocketcallBroker {
			for _, call := range socketcallBrokered {
				at(abi.Socketcall, 0, call)
			}
		}
	}
	return regions
}

// returning is a program with other actions in the place of its own.
func returning(p cbpf.Program, action func(cbpf.Action) cbpf.Action) cbpf.Program {
	out := slices.Clone(p)
	for i := range out {
		if out[i].Code == unix.BPF_RET|unix.BPF_K {
			out[i].K = uint32(action(cbpf.Action(out[i].K)))
		}
	}
	return out
}
