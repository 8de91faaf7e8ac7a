package probe

import (
	"maps"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
)

var (
	ok   = answer{OK: true, Domain: unix.AF_INET}
	alg  = answer{OK: true, Domain: afalg.Family}
	sys  = answer{Signal: "SIGSYS"}
	segv = answer{Signal: "SIGSEGV"}
	hung = answer{Hung: true}
)

func no(e unix.Errno) answer          { return answer{Errno: e} }
func at(s stage, e unix.Errno) answer { return answer{Errno: e, Stage: s} }
func each(a answer, n int) (r []answer) { // n times the same
	for range n {
		r = append(r, a)
	}
	return r
}

// passed is the evidence of a call that no filter stops.
func passed(c call, real ...answer) evidence {
	return evidence{call: c, control: each(ok, 3), gateControl: each(no(unix.EINVAL), 3), gate: no(unix.EINVAL), real: real}
}

// uniform is the evidence of a call with the same answer to everything.
func uniform(c call, alive, a answer) evidence {
	return evidence{call: c, alive: []answer{alive}, control: each(a, 3), gateControl: each(a, 3), gate: a}
}

func callNamed(t *testing.T, name string) call {
	t.Helper()
	for _, r := range afalg.Routes() {
		for _, c := range callsOf(machine("amd64"), r.Route) {
			if c.String() == name {
				return c
			}
		}
	}
	t.Fatalf("no call %q", name)
	return call{}
}

func TestJudge(t *testing.T) {
	var (
		socket = callNamed(t, "socket(38)")
		pair   = callNamed(t, "socketpair(38)")
		i386   = callNamed(t, "i386 socket(38)")
		x32    = callNamed(t, "x32 socket(38)")
		ring   = callNamed(t, "io_uring")
	)
	bound := func(errno string) answer { a := alg; a.Bind = errno; return a }
	with := func(e evidence, change func(*evidence)) evidence { change(&e); return e }
	none := facts{ioUring: func() bool { return false }, algorithm: "hash:sha256"}
	registered, load, rings := none, none, none
	registered.registered, load.load, rings.ioUring = true, true, func() bool { return true }

	for _, tt := range []struct {
		name string
		e    evidence
		f    facts
		want Outcome
	}{
		{"a socket", passed(socket, alg, alg), registered,
			Outcome{Open, "", "ok", Passes, "not asked", "an AF_ALG socket was obtained"}},
		{"a socket that binds", passed(socket, bound("ok"), bound("ok")), registered,
			Outcome{Open, "", "ok", Passes, "ok", "an AF_ALG socket was obtained; hash:sha256 can be bound"}},
		{"denied at bind", passed(socket, bound("ENOENT"), bound("ENOENT")), registered,
			Outcome{Open, "", "ok", Passes, "ENOENT", "an AF_ALG socket was obtained; hash:sha256 is missing or denied at bind"}},
		{"bind denied by an LSM", passed(socket, bound("EACCES")), registered,
			Outcome{Open, "", "ok", Passes, "EACCES", "an AF_ALG socket was obtained; binding hash:sha256 gives EACCES"}},
		{"one spelling of the type gives a socket", passed(socket, no(unix.EPERM), alg), registered,
			Outcome{Open, "", "ok", Passes, "not asked", "an AF_ALG socket was obtained"}},
		{"a filter that denies the gate only", with(passed(socket, alg), func(e *evidence) { e.gate = no(unix.EPERM) }), registered,
			Outcome{Open, "", "ok", Denies, "not asked", "an AF_ALG socket was obtained"}},
		{"a domain that cannot be read", passed(socket, answer{OK: true}), registered,
			Outcome{Open, "", "ok", Passes, "not asked", "an AF_ALG socket was obtained"}},
		{"a placeholder", passed(socket, answer{OK: true, Domain: unix.AF_UNIX, Bind: "ENOENT"}), registered,
			Outcome{Brokered, "", "ok", Passes, "ENOENT", "a broker handed out a placeholder; hash:sha256 is missing or denied at bind"}},
		{"a placeholder beside the real thing", passed(socket, answer{OK: true, Domain: unix.AF_UNIX}, alg), registered,
			Outcome{Open, "", "ok", Passes, "not asked", "an AF_ALG socket was obtained"}},
		{"socketpair reaches the family", passed(pair, no(unix.EOPNOTSUPP)), registered,
			Outcome{Open, "EOPNOTSUPP", "ok", Passes, "", "reaches the family, which makes no pairs: no descriptor, but it would load the module"}},
		{"EOPNOTSUPP is nothing to socket", passed(socket, no(unix.EOPNOTSUPP)), none,
			Outcome{Closed, "EOPNOTSUPP", "ok", Passes, "", "denied with an error that the kernel does not give here: by a filter that looks at the type, or an LSM"}},

		{"not asked", passed(socket), none,
			Outcome{Loadable, "", "ok", Passes, "", "no filter stops it; the module is not loaded, and a real call might load it (--load asks)"}},
		{"absent", passed(socket, no(unix.EAFNOSUPPORT)), none,
			Outcome{Absent, "EAFNOSUPPORT", "ok", Passes, "", "no filter stops it; this kernel has no AF_ALG"}},
		{"absent after all", passed(socket, no(unix.EAFNOSUPPORT)), load,
			Outcome{Absent, "EAFNOSUPPORT", "ok", Passes, "", "no filter stops it; a request for the module brought no AF_ALG"}},
		{"the kernel's own switch", passed(socket, no(unix.EAFNOSUPPORT)), registered,
			Outcome{Closed, "EAFNOSUPPORT", "ok", Passes, "", "the family is registered and refuses (crypto.af_alg_restrict=2, or a policy in the kernel)"}},
		{"AppArmor", passed(socket, no(unix.EACCES), no(unix.EACCES)), registered,
			Outcome{Closed, "EACCES", "ok", Passes, "", "denied behind the filters, by an LSM (AppArmor, SELinux, BPF)"}},
		{"out of memory", passed(socket, no(unix.ENOMEM)), registered,
			Outcome{Undecided, "ENOMEM", "ok", Passes, "", "the call did not come to an end: ENOMEM"}},
		{"a modprobe that hangs", passed(socket, hung, hung), load,
			Outcome{Undecided, "timeout", "ok", Passes, "", "the call did not come to an end: timeout"}},
		{"killed by somebody else", passed(socket, answer{Signal: "SIGKILL"}), load,
			Outcome{Undecided, "SIGKILL", "ok", Passes, "", "the call did not come to an end: SIGKILL"}},

		{"a filter", with(passed(socket), func(e *evidence) { e.gate = no(unix.EAFNOSUPPORT) }), none,
			Outcome{Closed, "EAFNOSUPPORT", "ok", Denies, "", "a filter answers EAFNOSUPPORT"}},
		{"a filter, with a real call", with(passed(socket, no(unix.EPERM)), func(e *evidence) { e.gate = no(unix.EPERM) }), none,
			Outcome{Closed, "EPERM", "ok", Denies, "", "a filter answers EPERM"}},
		{"a filter that kills", with(passed(socket), func(e *evidence) { e.gate = sys }), none,
			Outcome{Closed, "SIGSYS", "ok", Denies, "", "a filter kills with SIGSYS"}},
		{"a filter that allows AF_UNIX only", with(passed(socket), func(e *evidence) {
			e.gate, e.control[0] = no(unix.EAFNOSUPPORT), no(unix.EAFNOSUPPORT)
		}), none,
			Outcome{Closed, "EAFNOSUPPORT", "ok", Denies, "", "a filter answers EAFNOSUPPORT; AF_INET gives EAFNOSUPPORT as well"}},
		{"no sockets at all", uniform(socket, ok, no(unix.EPERM)), none,
			Outcome{Closed, "EPERM", "EPERM", Denies, "", "a filter answers EPERM, to other families too: the whole route is closed"}},
		{"AF_ALG alone is allowed", with(uniform(socket, ok, no(unix.EPERM)), func(e *evidence) { e.gate = no(unix.EINVAL) }), none,
			Outcome{Loadable, "", "EPERM", Passes, "", "no filter stops it; the module is not loaded, and a real call might load it (--load asks)"}},
		{"a filter that looks at types", with(passed(socket), func(e *evidence) {
			e.gate, e.gateControl = no(unix.EPERM), each(no(unix.EPERM), 3)
		}), none,
			Outcome{Undecided, "EPERM", "ok", Uncertain, "", "the answers do not tell whether a filter stops it; --load asks with a real call"}},

		{"no 32-bit programs", uniform(i386, segv, segv), none,
			Outcome{Unavailable, "", "SIGSEGV", Uncertain, "", "this kernel does not run 32-bit programs"}},
		{"a filter without i386", uniform(i386, sys, sys), none,
			Outcome{Closed, "SIGSYS", "SIGSYS", Denies, "", "a filter kills with SIGSYS, to other families too: the whole route is closed"}},
		{"i386 denied with ENOSYS", uniform(i386, no(unix.ENOSYS), no(unix.ENOSYS)), none,
			Outcome{Closed, "ENOSYS", "ENOSYS", Denies, "", "a filter answers ENOSYS, to other families too: the whole route is closed"}},
		{"no x32", uniform(x32, no(unix.ENOSYS), no(unix.ENOSYS)), none,
			Outcome{Unavailable, "", "ENOSYS", Uncertain, "", "this kernel does not run x32 programs, or a filter denies all of x32 with ENOSYS"}},
		{"x32 sockets denied", uniform(x32, answer{OK: true}, no(unix.ENOSYS)), none,
			Outcome{Closed, "ENOSYS", "ENOSYS", Denies, "", "a filter answers ENOSYS, to other families too: the whole route is closed"}},
		{"x32 denied but for AF_ALG", with(uniform(x32, no(unix.ENOSYS), no(unix.ENOSYS)), func(e *evidence) { e.gate = no(unix.EINVAL) }), none,
			Outcome{Loadable, "", "ENOSYS", Passes, "", "no filter stops it; the module is not loaded, and a real call might load it (--load asks)"}},

		{"no io_uring", uniform(ring, ok, at(stageSetup, unix.ENOSYS)), none,
			Outcome{Unavailable, "", "ENOSYS", Uncertain, "", "this kernel has no io_uring, as far as can be seen"}},
		{"io_uring denied", uniform(ring, ok, at(stageSetup, unix.ENOSYS)), rings,
			Outcome{Closed, "ENOSYS", "ENOSYS", Denies, "", "a filter answers ENOSYS, to other families too: the whole route is closed"}},
		{"io_uring before 5.19", uniform(ring, ok, no(unix.EINVAL)), rings,
			Outcome{Unavailable, "", "EINVAL", Uncertain, "", "this kernel's io_uring makes no sockets (IORING_OP_SOCKET is in Linux 5.19)"}},
		{"io_uring_setup with EINVAL", uniform(ring, ok, at(stageSetup, unix.EINVAL)), rings,
			Outcome{Closed, "EINVAL", "EINVAL", Denies, "", "a filter answers EINVAL, to other families too: the whole route is closed"}},
		{"rings cannot be mapped", uniform(ring, ok, at(stageMap, unix.EPERM)), rings,
			Outcome{Undecided, "EPERM", "EPERM", Uncertain, "", "the answers do not tell whether a filter stops it; --load asks with a real call"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := judge(tt.e, tt.f); got != tt.want {
				t.Errorf("\ngot  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

// TestNeverTooSure judges every combination of answers, and checks that each
// verdict but an opening was earned.
func TestNeverTooSure(t *testing.T) {
	answers := []answer{ok, alg, sys, segv, hung, no(unix.EINVAL), no(unix.EPERM), no(unix.ENOSYS), no(unix.EAFNOSUPPORT), no(unix.EMFILE), at(stageSetup, unix.ENOSYS), at(stageSetup, unix.EINVAL)}
	reals := [][]answer{nil}
	for _, a := range answers {
		reals = append(reals, []answer{a, no(unix.EPERM)}, []answer{no(unix.EAFNOSUPPORT), a})
	}
	f := facts{ioUring: func() bool { return false }}
	for _, name := range []string{"socket(38)", "socketpair(38)", "i386 socketcall(1)", "x32 socket(38)", "io_uring"} {
		c := callNamed(t, name)
		for _, alive := range answers {
			for _, control := range answers {
				for _, gateControl := range answers {
					for _, gate := range answers {
						for _, real := range reals {
							e := evidence{c, []answer{alive}, []answer{control}, []answer{gateControl}, gate, real}
							if got := judge(e, f); !got.Verdict.Open() && !earned(e, got.Verdict) {
								t.Fatalf("%s: %+v judged %+v", name, e, got)
							}
						}
					}
				}
			}
		}
	}
}

// earned says, in other words than judge, what it takes to call a route shut.
func earned(e evidence, v Verdict) bool {
	for _, a := range e.real {
		if a.OK && (v != Brokered || a.Domain == 0 || a.Domain == afalg.Family) {
			return false
		}
		if v != Unavailable && !a.OK && !a.denied() && v != Brokered {
			return false
		}
	}
	if v == Brokered || len(e.real) > 0 {
		return true
	}
	switch {
	case e.gate.OK, e.gate.Hung, e.gate.is(unix.EMFILE):
		return false
	case v == Absent:
		return false
	case v == Unavailable:
		return e.gate == e.control[0]
	case e.gate.is(unix.EINVAL) && e.gate.Stage == "":
		return e.ring() && !e.control[0].OK // the operation is not known
	case e.control[0].OK:
		return e.gateControl[0].is(unix.EINVAL)
	}
	return true
}

func TestCallsOf(t *testing.T) {
	for _, tt := range []struct {
		machine string
		route   afalg.Route
		want    []string
	}{
		{"amd64", afalg.RouteSocket, []string{"socket(38)"}},
		{"amd64", afalg.RouteCompatSocket, []string{"i386 socket(38)"}},
		{"amd64", afalg.RouteCompatSocketcall, []string{"i386 socketcall(1)"}},
		{"amd64", afalg.RouteIOUring, []string{"io_uring", "io_uring SQPOLL", "i386 io_uring", "i386 io_uring SQPOLL", "x32 io_uring", "x32 io_uring SQPOLL"}},
		{"arm64", afalg.RouteCompatSocket, []string{"arm socket(38)"}},
		{"arm64", afalg.RouteCompatSocketcall, nil},
		{"arm64", afalg.RouteX32Socket, nil},
		{"s390x", afalg.RouteCompatSocketcall, []string{"socketcall(1)", "s390 socketcall(1)"}},
		{"386", afalg.RouteSocket, []string{"x86-64 socket(38)"}},
		{"vax", afalg.RouteSocket, nil},
	} {
		var got []string
		for _, c := range callsOf(machine(tt.machine), tt.route) {
			got = append(got, c.String())
		}
		if len(got) != len(tt.want) {
			t.Errorf("%s %s: got %q, want %q", tt.machine, tt.route, got, tt.want)
			continue
		}
		for i := range got {
			if got[i] != tt.want[i] {
				t.Errorf("%s %s: got %q, want %q", tt.machine, tt.route, got, tt.want)
			}
		}
	}
}

// TestEntered joins the tables of what this build can enter with afalg's.
func TestEntered(t *testing.T) {
	for _, name := range slices.Concat(slices.Collect(maps.Keys(reach)), slices.Collect(maps.Keys(getpid))) {
		if _, known := afalg.ABINamed(name); !known {
			t.Errorf("%q is no ABI", name)
		}
	}
}

func TestWorst(t *testing.T) {
	for i, v := range byWorry {
		calls := []Call{{"least", Outcome{Verdict: Unavailable}}, {"this", Outcome{Verdict: v, Detail: "why"}}}
		if got := worst(calls); got.Verdict != v {
			t.Errorf("worst of %s and unavailable: %s", v, got.Verdict)
		}
		for _, milder := range byWorry[i:] {
			if got := worst([]Call{{"a", Outcome{Verdict: milder}}, {"b", Outcome{Verdict: v}}}); got.Verdict != v {
				t.Errorf("worst of %s and %s: %s", milder, v, got.Verdict)
			}
		}
	}
	if got := worst(nil); got.Verdict != Unavailable {
		t.Errorf("no calls: %+v", got)
	}
	if !Verdict("").Open() {
		t.Error("the zero verdict must count as open")
	}
}
