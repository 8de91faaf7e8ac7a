package verify

import (
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
	"github.com/afalg-policy/afalg-policy/internal/filter/seccomp"
)

// Classes are what a policy denies.
type Classes struct {
	Families       []uint32 // whole ones
	Sockets        []afalg.Sockets
	Options        []afalg.SocketOption
	UserNamespaces bool
}

// Asked are the questions about one class.
type Asked struct {
	About     string // the class
	Family    uint32 // if it is a whole one
	Questions []Question
}

// Questions lists every call by which the ABIs reach the classes. io_uring reaches
// all sockets: one answer, with the first family, is enough.
func (c Classes) Questions(abis []afalg.ABI) ([]Asked, error) {
	var all []Asked
	for i, f := range c.Families {
		questions := RouteQuestions(abis, f)
		if i > 0 {
			questions = withoutIOUring(questions)
		}
		all = append(all, Asked{afalg.FamilyName(f), f, questions})
	}
	for _, s := range c.Sockets {
		all = append(all, Asked{About: s.String(), Questions: SocketQuestions(abis, s)})
	}
	for _, o := range c.Options {
		all = append(all, Asked{About: o.String(), Questions: OptionQuestions(abis, o)})
	}
	if c.UserNamespaces {
		questions, err := NamespaceQuestions(abis)
		if err != nil {
			return nil, err
		}
		all = append(all, Asked{About: "user namespaces", Questions: questions})
	}
	return all, nil
}

func withoutIOUring(questions []Question) []Question {
	return slices.DeleteFunc(questions, func(q Question) bool { return q.Call.Route == afalg.RouteIOUring })
}

// SocketQuestions lists every call by which the ABIs make a socket of a class,
// whatever the high bits of its arguments are. Behind the pointer of socketcall
// any class may be.
func SocketQuestions(abis []afalg.ABI, s afalg.Sockets) []Question {
	var questions []Question
	for _, q := range withoutIOUring(RouteQuestions(abis, s.Family)) {
		if q.Call.Name == "socket" || q.Call.Name == "socketpair" {
			q.Region = q.Region.With(cbpf.ArgLow(1), typeOn(q.Call.ABI, s.Type))
			if s.HasProtocol {
				q.Region = q.Region.With(cbpf.ArgLow(2), cbpf.Exactly(s.Protocol))
			}
		}
		questions = append(questions, q)
	}
	return questions
}

// typeOn holds what the kernel takes for a type: with flags, or without. With any
// other bit it answers EINVAL.
func typeOn(abi afalg.ABI, typ uint32) cbpf.Constraint {
	if typ == 0 {
		return cbpf.Constraint{}
	}
	return cbpf.Masked(^uint32(unix.SOCK_CLOEXEC|abi.SocketNonblock()), abi.SocketTypeOn(typ))
}

const socketcallSetsockopt = 14 // SYS_SETSOCKOPT, include/uapi/linux/net.h

// OptionQuestions lists every call by which the ABIs set a socket option.
func OptionQuestions(abis []afalg.ABI, o afalg.SocketOption) []Question {
	var questions []Question
	for _, abi := range abis {
		level := abi.SocketLevelOn(o.Level)
		r := cbpf.Everything.With(cbpf.ArgLow(1), cbpf.Exactly(level)).With(cbpf.ArgLow(2), cbpf.Exactly(o.Option))
		questions = append(questions, on(abi, "setsockopt", abi.Bit|abi.Setsockopt, r))
		if abi.Socketcall != 0 {
			number := uint32(socketcallSetsockopt)
			questions = append(questions, ofCall(afalg.Call{ABI: abi, Name: "socketcall", Nr: abi.Bit | abi.Socketcall, Arg0: &number}))
		}
	}
	return questions
}

// NamespaceQuestions lists every call by which the ABIs make a user namespace. The
// flags of clone3 are behind a pointer. setns joins one that is there.
func NamespaceQuestions(abis []afalg.ABI) ([]Question, error) {
	var questions []Question
	for _, abi := range abis {
		for _, name := range []string{"clone", "unshare", "clone3"} {
			nr, err := seccomp.Number(name, specs.Arch(abi.Arch))
			if err != nil {
				return nil, fmt.Errorf("the number of %s on %s: %w", name, abi.Name, err)
			}
			r := cbpf.Everything
			if name != "clone3" {
				r = NewUser(abi, name)
			}
			questions = append(questions, on(abi, name, nr, r))
		}
	}
	return questions, nil
}

// NewUser are the inputs of clone or unshare with CLONE_NEWUSER.
func NewUser(abi afalg.ABI, name string) cbpf.Region {
	arg := 0
	if name == "clone" {
		arg = abi.CloneFlags()
	}
	return cbpf.Everything.With(cbpf.ArgLow(arg), cbpf.Masked(unix.CLONE_NEWUSER, unix.CLONE_NEWUSER))
}

func on(abi afalg.ABI, name string, nr uint32, r cbpf.Region) Question {
	r = r.With(cbpf.Arch, cbpf.Exactly(abi.Audit)).With(cbpf.Nr, cbpf.Exactly(nr))
	return Question{afalg.Call{ABI: abi, Name: name, Nr: nr}, r}
}
