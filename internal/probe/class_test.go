package probe

import (
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/kernel"
	"github.com/afalg-policy/afalg-policy/internal/testing/kerneltest"
)

var (
	xfrmSockets  = afalg.Sockets{Family: unix.AF_NETLINK, Protocol: unix.NETLINK_XFRM, HasProtocol: true}
	routeSockets = afalg.Sockets{Family: unix.AF_NETLINK, Protocol: unix.NETLINK_ROUTE, HasProtocol: true}
	rawPackets   = afalg.Sockets{Family: unix.AF_PACKET, Type: unix.SOCK_RAW}
	family       = afalg.Sockets{Family: unix.AF_RDS}
)

// testClasses are asked about by name.
var testClasses = map[string]Class{
	"route":  {Sockets: &routeSockets},
	"xfrm":   {Sockets: &xfrmSockets},
	"packet": {Sockets: &rawPackets},
	"ulp":    {Option: &afalg.SocketOption{Level: unix.SOL_TCP, Option: unix.TCP_ULP}},
	"userns": {},
}

// TestClasses puts real filters on a process and has it probed. What no filter
// closes is open, by the same calls.
func TestClasses(t *testing.T) {
	kerneltest.NeedI386(t)
	const whole = ", to all that is asked by this call: it is closed as a whole"
	for filter, wanted := range map[string]map[string]string{
		"none": {
			"route": "open", "route/socket": "open", "route/i386 socket": "open", "route/i386 socketcall(1)": "open",
			"packet/socket": "passes", "packet/socketpair": "passes", "packet/i386 socket": "passes", "packet/i386 socketcall(1)": "passes", "packet/io_uring": "passes",
			"ulp": "open", "ulp/setsockopt": "open", "ulp/setsockopt (upper halves 0x80000000)": "open", "ulp/i386 setsockopt": "open", "ulp/i386 socketcall(14)": "open",
		},
		"classes": {
			"route": "open",
			"xfrm":  "closed", "xfrm/socket": "closed EAFNOSUPPORT ok: a filter answers EAFNOSUPPORT",
			"xfrm/socket (upper halves 0x80000000)": "closed EAFNOSUPPORT ok: a filter answers EAFNOSUPPORT",
			"xfrm/i386 socketcall(1)":               "closed EAFNOSUPPORT EAFNOSUPPORT: a filter answers EAFNOSUPPORT" + whole,
			"xfrm/io_uring":                         "closed ENOSYS ENOSYS: ",
			"xfrm/socketpair":                       "closed EAFNOSUPPORT ok: ", "xfrm/i386 socketpair": "closed EAFNOSUPPORT ok: ",
			"packet": "closed", "packet/socket": "closed EAFNOSUPPORT ok: ", "packet/i386 socket": "closed EAFNOSUPPORT ok: ",
			"ulp": "closed", "ulp/setsockopt": "closed ENOPROTOOPT ok: ", "ulp/i386 setsockopt": "closed ENOPROTOOPT ok: ", "ulp/i386 socketcall(14)": "closed EAFNOSUPPORT EAFNOSUPPORT: ",
			"userns": "closed", "userns/clone": "closed EINVAL ok: a filter answers EINVAL", "userns/unshare": "closed EINVAL ok: ",
			"userns/clone3":     "closed ENOSYS ENOSYS: a filter answers ENOSYS" + whole,
			"userns/i386 clone": "closed EPERM ok: ", "userns/i386 unshare": "closed SIGSYS ok: a filter kills with SIGSYS", "userns/i386 clone3": "closed ENOSYS ENOSYS: ",
		},
		"naive-classes": {
			"xfrm/socket":   "closed EAFNOSUPPORT ok: ",
			"packet/socket": "open  ok: a socket was obtained", "ulp/setsockopt": "closed ENOPROTOOPT ok: ", "ulp/i386 setsockopt": "open",
			"xfrm/i386 socket": "passes", "xfrm/io_uring": "passes", "xfrm/socketpair": "passes", "userns/unshare": "closed EPERM ok: ",
		},
	} {
		t.Run(filter, func(t *testing.T) {
			report := probed(t, roleFiltered, filter, "inherited", "route", "xfrm", "packet", "ulp", "userns")
			for name, want := range wanted {
				o := classOutcome(t, report, name)
				got := strings.Join([]string{string(o.Verdict), o.Errno, o.Control}, " ") + ": " + o.Detail
				if want == "passes" && o.Filter == Passes {
					continue
				}
				if !strings.HasPrefix(got, want) {
					t.Errorf("%s: %s, want %s", name, got, want)
				}
			}
		})
	}
}

func classOutcome(t *testing.T, r Report, name string) Outcome {
	t.Helper()
	class, call, isCall := strings.Cut(name, "/")
	for _, c := range r.Classes {
		if c.Class != class {
			continue
		}
		if !isCall {
			return c.Outcome
		}
		for _, one := range c.Calls {
			if one.Call == call {
				return one.Outcome
			}
		}
	}
	t.Fatalf("the report has no %q", name)
	return Outcome{}
}

// TestJudgeClass has answers judged that no filter on this host gives.
func TestJudgeClass(t *testing.T) {
	ok, native := answer{OK: true}, machine(runtime.GOARCH)[0]
	socket := func(s afalg.Sockets, gate answer, real ...answer) (func(*prober, tried) Outcome, tried) {
		return judgeSocket(s), tried{trial: trial{abi: native, refusal: unix.EINVAL}, control: []answer{ok}, gateControl: []answer{no(unix.EINVAL)}, gate: gate, real: real}
	}
	namespace := func(gate, real answer) (func(*prober, tried) Outcome, tried) {
		return (*prober).judgeNamespace, tried{trial: trial{abi: native, refusal: unix.EINVAL}, control: []answer{ok}, gateControl: []answer{no(unix.EINVAL)}, gate: gate, real: []answer{real}}
	}
	type judged struct {
		judge func(*prober, tried) Outcome
		t     tried
	}
	of := func(j func(*prober, tried) Outcome, t tried) judged { return judged{j, t} }
	reached := no(unix.EINVAL)
	noControl := of(socket(xfrmSockets, no(unix.EPERM)))
	noControl.t.gateControl = []answer{no(unix.EPERM)}
	otherTypes := of(socket(xfrmSockets, no(unix.EPERM), no(unix.EAFNOSUPPORT)))
	otherTypes.t.gateControl = []answer{no(unix.EPERM)}
	for name, test := range map[string]struct {
		judged
		want Verdict
	}{
		"reached, not made":              {of(socket(xfrmSockets, reached)), Loadable},
		"made":                           {of(socket(xfrmSockets, reached, no(unix.EPROTONOSUPPORT), ok)), Open},
		"made though the gate is denied": {of(socket(xfrmSockets, no(unix.EPERM), ok)), Open},
		"no such protocol":               {of(socket(xfrmSockets, reached, no(unix.ESOCKTNOSUPPORT), no(unix.EPROTONOSUPPORT))), Absent},
		"the family has other types":     {of(socket(family, reached, no(unix.ESOCKTNOSUPPORT))), Open},
		"the family has other protocols": {of(socket(family, reached, no(unix.EPROTONOSUPPORT))), Open},
		"no such family":                 {of(socket(family, reached, no(unix.EAFNOSUPPORT))), Absent},
		"a capability lacks":             {of(socket(rawPackets, reached, no(unix.EPERM))), Undecided},
		"a capability lacks for one":     {of(socket(xfrmSockets, reached, no(unix.EPROTONOSUPPORT), no(unix.EPERM))), Undecided},
		"an LSM":                         {of(socket(family, reached, no(unix.EACCES))), Closed},
		"an LSM for one type":            {of(socket(family, reached, no(unix.EACCES), no(unix.ESOCKTNOSUPPORT))), Open},
		"out of memory":                  {of(socket(family, reached, no(unix.ENOMEM))), Undecided},
		"killed later":                   {of(socket(family, reached, answer{Signal: "SIGKILL"})), Undecided},
		"denied":                         {of(socket(family, no(unix.EAFNOSUPPORT))), Closed},
		"killed":                         {of(socket(family, answer{Signal: "SIGSYS"})), Closed},
		"no answer":                      {of(socket(family, answer{Hung: true})), Undecided},
		"out of descriptors":             {of(socket(family, no(unix.EMFILE))), Undecided},
		"the control's gate is denied":   {noControl, Undecided},
		"and a real call is":             {otherTypes, Undecided},
		"a namespace":                    {of(namespace(reached, ok)), Open},
		"denied like the gate":           {of(namespace(no(unix.EPERM), no(unix.EPERM))), Closed},
		"denied behind":                  {of(namespace(reached, no(unix.EPERM))), Closed},
		"as without namespaces":          {of(namespace(reached, reached)), Absent},
		"too many":                       {of(namespace(reached, no(unix.ENOSPC))), Undecided},
		"too many processes":             {of(namespace(reached, no(unix.EAGAIN))), Undecided},
		"something else":                 {of(namespace(reached, no(unix.EIO))), Undecided},
		"hung":                           {of(namespace(reached, answer{Hung: true})), Undecided},
		"killed by another signal":       {of(namespace(reached, answer{Signal: "SIGKILL"})), Undecided},
	} {
		// A host that shows nothing.
		if o := test.judge(&prober{host: kernel.View{Proc: t.TempDir()}}, test.t); o.Verdict != test.want {
			t.Errorf("%s: %+v, want %s", name, o, test.want)
		}
	}
}

// Every class is asked about by every route that a machine has, and the gate
// belongs to the class.
func TestTrials(t *testing.T) {
	p := &prober{host: kernel.View{IsProc: func(string) bool { return false }}, opt: Options{Classes: []Class{testClasses["xfrm"], testClasses["packet"]}}}
	for _, s := range []afalg.Sockets{xfrmSockets, rawPackets, family} {
		trials := p.socketTrials(machine("amd64"), Class{Sockets: &s})
		var names []string
		for _, trial := range trials {
			names = append(names, trial.name)
			q := trial.gate
			if !s.Contains(uint32(q.Family), uint32(q.Type), uint32(q.Protocol)) {
				t.Errorf("%v: %s asks for another class: %+v", s, trial.name, q)
			}
			if len(trial.real) > 0 {
				t.Errorf("%v: a real call may load a module", s)
			}
		}
		for _, name := range []string{"socket", "socket (upper halves 0x80000000)", "socketpair", "io_uring", "i386 socket", "i386 socketcall(1)", "i386 socketcall(8)", "i386 socketpair", "i386 io_uring", "x32 socket", "x32 socketpair"} {
			if !slices.Contains(names, name) {
				t.Errorf("%v: no %s among %q", s, name, names)
			}
		}
	}
}
