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

// A call left to a listener is closed only as long as nobody can replace the
// listener. has_duplicate_listener() (kernel/seccomp.c) refuses a second
// listener, with EBUSY, while the first is open. Once that has closed, or if
// the process that loaded the filter never had one, any process of the tree may
// load a filter with a listener. Of equal actions the newest filter's counts,
// and its supervisor may answer that the call goes on.
//
// One call has to be asked about. prctl(PR_SET_SECCOMP) loads filters and takes
// no flags; io_uring has no operation for it; the calls 335 and 336 of x86-64,
// for which some kernels run no filter, return from probes.

// newListener asks whether a process can get a listener by an ABI:
// seccomp(SECCOMP_SET_MODE_FILTER) with the flag NEW_LISTENER among its flags.
// The kernel takes both as unsigned int, and ignores the upper halves.
func newListener(abi afalg.ABI) (Question, error) {
	nr, err := seccomp.Number("seccomp", specs.Arch(abi.Arch))
	if err != nil {
		return Question{}, fmt.Errorf("ask who can load a listener: %w", err)
	}
	call := afalg.Call{ABI: abi, Name: "seccomp", Nr: nr}
	const flag = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER
	region := RegionOf(call).
		With(cbpf.ArgLow(0), cbpf.Exactly(unix.SECCOMP_SET_MODE_FILTER)).
		With(cbpf.ArgLow(1), cbpf.Masked(flag, flag))
	return Question{call, region}, nil
}

// NewListener asks a filter whether a process can load a listener of its own,
// by any of the ABIs. It returns the first answer that is not Closed, or a
// Closed one.
func NewListener(f cbpf.Filter, abis []afalg.ABI, ask Asker) (Verdict, error) {
	worst := Verdict{State: Closed}
	for _, abi := range abis {
		q, err := newListener(abi)
		if err != nil {
			return Verdict{}, err
		}
		v, err := ask(f, q, Options{})
		if err != nil || v.State != Closed {
			return v, err
		}
		worst = v
	}
	return worst, nil
}

// Asker puts a question to a filter: Question.Ask, or Memo.Ask.
type Asker func(cbpf.Filter, Question, Options) (Verdict, error)

// Directly asks without a memo.
func Directly(f cbpf.Filter, q Question, o Options) (Verdict, error) { return q.Ask(f, o) }

// Replaceable is the reason why a call left to a listener is open.
const Replaceable = "left to a listener that can be replaced"

// OpenReplaceable opens the verdicts that are left to a listener if a process can
// replace it. abis are all that the machine runs, or the filter admits.
func OpenReplaceable(f cbpf.Filter, abis []afalg.ABI, verdicts []Verdict, ask Asker) error {
	left := func(v Verdict) bool { return v.State == Listener }
	if !slices.ContainsFunc(verdicts, left) {
		return nil
	}
	load, err := NewListener(f, abis, ask)
	if err != nil || load.State == Closed {
		return err
	}
	for i, v := range verdicts {
		if left(v) {
			verdicts[i].State, verdicts[i].Reason = Open, fmt.Sprintf("%s (%s)", Replaceable, loads(load))
		}
	}
	return nil
}

// loads says how a listener can be loaded.
func loads(v Verdict) string {
	return fmt.Sprintf("seccomp with NEW_LISTENER on %s is %s", v.Call.ABI.Name, v.State)
}

// LintListener finds a filter that leaves something to a listener, and permits
// others to be loaded.
func LintListener(f cbpf.Filter, abis []afalg.ABI, ask Asker) ([]Finding, error) {
	if !notifies(f) {
		return nil, nil
	}
	load, err := NewListener(f, abis, ask)
	if err != nil || load.State == Closed {
		return nil, err
	}
	return []Finding{{Rule: ruleListener, Level: Error,
		Message: "a call left to the listener is open to any process that can replace it: " + loads(load),
		Fix:     "permit seccomp with argument 1 below 8 (SCMP_CMP_LT), and deny it with errno 16 (EBUSY) from 8 on (SCMP_CMP_GE)",
	}}, nil
}

// notifies reports whether a program can return a notification.
func notifies(f cbpf.Filter) bool {
	return slices.ContainsFunc(f, func(p cbpf.Program) bool {
		return slices.ContainsFunc(p, func(in unix.SockFilter) bool {
			return in.Code == unix.BPF_RET|unix.BPF_K && cbpf.Action(in.K).Kind() == cbpf.UserNotif
		})
	})
}
