package harden

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/filter/seccomp"
	"github.com/afalg-policy/afalg-policy/internal/filter/verify"
	"github.com/afalg-policy/afalg-policy/internal/jsontext"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// judge runs base and result on many inputs. It knows nothing of departures:
// what may change is written down here once more.
func judge(o task, result *profile.Profile, gaps []plan.Gap) error {
	base, err := profile.Parse(o.base)
	if err != nil {
		return err
	}
	written, err := jsontext.Encode(result)
	if err != nil {
		return err
	}
	hardened, err := profile.Parse(written)
	if err != nil {
		return err
	}
	for _, r := range seccomp.Runtimes() {
		after, err := compileFor(hardened, o.Host, r)
		if err != nil {
			return err
		}
		j := judgement{options: o, allows: isPermissive(base.DefaultAction), after: cbpf.Program(after.Insns), random: rand.New(rand.NewPCG(1, 2))}
		// No runtime loads a base that does not compile: all that counts is that
		// the result is closed.
		if before, err := compileFor(base, o.Host, r); err == nil {
			j.before, j.base = cbpf.Program(before.Insns), resolve(base, o.Host)
			j.revived = slices.ContainsFunc(gaps, func(g plan.Gap) bool { return g.Name == gapRevived })
			j.stub = r == seccomp.Runc && slices.ContainsFunc(gaps, func(g plan.Gap) bool { return g.Name == "enosys" })
		}
		for _, abi := range verify.Admitted(after) {
			if err := j.abi(abi); err != nil {
				return fmt.Errorf("%s: %w", r, err)
			}
		}
	}
	return nil
}

func resolve(p *profile.Profile, h profile.Host) *specs.LinuxSeccomp {
	out, err := p.Resolve(h)
	if err != nil {
		panic(err)
	}
	return out
}

type judgement struct {
	options       task
	allows        bool
	before, after cbpf.Program
	base          *specs.LinuxSeccomp
	stub          bool // a gap says that runc's ENOSYS stub moved
	revived       bool // a gap says that libseccomp lost denials
	random        *rand.Rand
}

// abi asks every call number, and the calls on sockets for many arguments.
func (j judgement) abi(abi afalg.ABI) error {
	for nr := range uint32(600) {
		tries := 3
		switch base := abi.Socket &^ 1023; nr | base {
		case abi.Socket, abi.Socketpair, abi.Socketcall, abi.Bind, abi.Accept, abi.Accept4, abi.Setsockopt:
			tries = 400
		}
		for range tries {
			d := cbpf.Data{Arch: abi.Audit, Nr: abi.Bit | abi.Socket&^1023 | nr, IP: j.random.Uint64()}
			for i := range d.Args {
				d.Args[i] = j.word()
			}
			if err := j.input(abi, d); err != nil {
				return err
			}
		}
	}
	return nil
}

// word is a value near those that profiles compare with, or any.
func (j judgement) word() uint64 {
	values := []uint64{0, 1, 2, 3, 5, 8, 10, 14, 16, 17, 18, 33, 37, 38, 39, 40, 45, 46, 88, 132, 279, lowWord}
	v := values[j.random.IntN(len(values))]
	switch j.random.IntN(10) {
	case 0:
		return j.random.Uint64()
	case 1:
		return v | uint64(j.random.Uint32())<<32
	case 2:
		return v + 1
	}
	return v
}

func (j judgement) input(abi afalg.ABI, d cbpf.Data) error {
	e := cbpf.EndianOf(abi.BigEndian())
	is, _, err := j.after.Run(d, e)
	if err != nil {
		return err
	}
	nr, low := d.Nr&^abi.Bit, uint32(d.Args[0])
	brokered := j.options.Broker != "" && is.Kind() == cbpf.UserNotif
	if route := j.route(abi, nr, low); route && passes(is) && !(brokered && nr != abi.Socketpair) {
		return fmt.Errorf("%s: %v is open: %v", abi.Name, d, is)
	}
	if j.before == nil {
		return nil
	}
	was, _, err := j.before.Run(d, e)
	switch {
	case err != nil:
		return err
	case passes(is) && !passes(was) && !(brokered && nr == abi.Socket && low == unix.AF_ALG):
		return fmt.Errorf("%s: %v was %v and is %v", abi.Name, d, was, is)
	case was.Effective() == is.Effective() || j.mayChange(abi, d) || brokered && passes(was):
		return nil
	}
	return fmt.Errorf("%s: %v was %v and is %v", abi.Name, d, was, is)
}

func passes(a cbpf.Action) bool { return permits(a).Kind() == cbpf.Allow }

// route reports whether a call reaches AF_ALG. What --socketcall keep leaves
// open is no route here.
func (j judgement) route(abi afalg.ABI, nr, low uint32) bool {
	switch {
	case nr == 0:
		return false
	case nr == abi.Socket || nr == abi.Socketpair:
		return low == unix.AF_ALG
	case nr == abi.Socketcall:
		return (low == 1 || low == 8) && j.options.Socketcall != SocketcallKeep
	}
	return nr >= abi.IOUring && nr <= abi.IOUring+2
}

// mayChange reports whether a gap, or the policy, names the call.
func (j judgement) mayChange(abi afalg.ABI, d cbpf.Data) bool {
	nr, low := d.Nr&^abi.Bit, uint32(d.Args[0])
	prctl, _ := numberOn(abi, "prctl")
	listener, _ := numberOn(abi, callSeccomp)
	getfd, _ := numberOn(abi, callGetfd)
	switch {
	case j.route(abi, nr, low):
		return true
	case j.stub && d.Nr > j.last(abi):
		return true // both refuse
	case nr == abi.Socketcall:
		return !j.allows || low == 1 || low == 8 || j.options.Broker != ""
	case j.revived && nr == abi.Socket && j.denies("socket", d), j.revived && nr == abi.Socketpair && j.denies("socketpair", d):
		return true
	case nr == abi.Socket || nr == abi.Socketpair:
		return !j.allows && d.Args[0] >= familyLimit
	case d.Nr == prctl:
		return j.options.Broker != "" && (low == unix.PR_SET_MM || !j.allows && d.Args[0] >= prctlLimit)
	case d.Nr == listener:
		return j.options.Broker != "" && d.Args[1] >= listenerFlags
	case d.Nr == getfd:
		return j.options.Broker != ""
	}
	return false
}

// denies reports whether a rule of the base's text denies a call.
func (j judgement) denies(call string, d cbpf.Data) bool {
	return slices.ContainsFunc(j.base.Syscalls, func(r specs.LinuxSyscall) bool {
		return slices.Contains(r.Names, call) && !isPermissive(r.Action) && !slices.ContainsFunc(r.Args, func(a specs.LinuxSeccompArg) bool {
			low := uint32(d.Args[a.Index])
			return a.Op != specs.OpMaskedEqual && low != uint32(a.Value) || a.Op == specs.OpMaskedEqual && low&uint32(a.Value) != uint32(a.ValueTwo)
		})
	})
}

// last is the largest number that the base gives runc's stub.
func (j judgement) last(abi afalg.ABI) uint32 {
	last, err := seccomp.LastCall(j.base, specs.Arch(abi.Arch))
	if err != nil {
		panic(err)
	}
	return last
}
