package broker

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/subject"
)

// answer is the plan's answer to a caller.
type answer struct {
	allowed   bool
	plan      *plan.Plan
	subject   subject.Subject
	request   plan.Request
	rule      string
	reason    string
	algorithm string
}

// caller returns the caller's executable.
func (a *answer) caller() Caller { return Caller{a.subject.Binary, a.subject.SHA256} }

// ask has the plan decide: about an algorithm, or about whether the caller may
// use any. Nothing else decides.
func (s *server) ask(c *call, algorithm afalg.Algorithm) answer {
	p := s.workload.plan.Load()
	if p == nil {
		p = &plan.Plan{SocketErrno: errnoOf(unix.EAFNOSUPPORT), BindErrno: errnoOf(unix.ENOENT)}
	}
	a := answer{plan: p}
	if algorithm != (afalg.Algorithm{}) {
		a.algorithm = algorithm.String()
	}
	s.judge(&a, s.subjects.Glance(int(c.n.TID)), algorithm)
	if a.subject.Pending && (!a.allowed || s.o.EveryDigest) {
		c.handOver()
		s.judge(&a, s.subjects.Look(int(c.n.TID)), algorithm)
	} else if !a.allowed && a.subject.Recent {
		s.judge(&a, s.subjects.Look(int(c.n.TID)), algorithm)
	}
	return a
}

// needsDigest says why the digest of an executable is needed: a rule of the
// workload asks for it, or the records have it.
func (s *server) needsDigest(binary string) subject.Need {
	p := s.workload.plan.Load()
	switch {
	case p != nil && p.HasDigest(binary):
		return subject.ToDecide
	case s.o.EveryDigest:
		return subject.ToRecord
	}
	return subject.NotNeeded
}

// judge has the plan decide about a caller.
func (s *server) judge(a *answer, who subject.Subject, algorithm afalg.Algorithm) {
	a.subject, a.request = who, s.request(who)
	a.request.Algorithm = algorithm
	switch {
	case !who.Contained:
		a.reason = "the caller may hold CAP_SYS_PTRACE over the broker, and could take it apart: drop that capability"
	case a.algorithm == "":
		if a.allowed = plan.Reaches(a.plan, a.request); !a.allowed {
			a.reason = because(a, "no rule allows this caller any algorithm")
		}
	default:
		d := plan.Decide(a.plan, a.request)
		if a.allowed = d.Allowed; a.allowed {
			a.rule = d.Rule.Name
		} else {
			a.reason = because(a, plan.Explain(a.plan, a.request).Reason())
		}
	}
}

// request puts the facts about a caller into the words of the plan. CleanExec
// stays unknown: only where an executable is started can one see whether somebody
// steers it.
func (s *server) request(who subject.Subject) plan.Request {
	r := plan.Request{
		Binary: who.Binary, SHA256: who.SHA256, Claimed: who.Claimed,
		UID: who.UID, Capabilities: who.Capabilities, Unit: who.Unit,
	}
	if who.UID != nil {
		r.User = s.o.UserName(*who.UID)
	}
	return r
}

// because adds to the reason of a denial the facts that could not be found out
// and would have mattered.
func because(a *answer, why string) string {
	if len(a.plan.Rules) == 0 {
		return "the workload holds no grant"
	}
	for _, unknown := range a.subject.Unknown {
		if name, ok := conditions[unknown.Fact]; !ok || a.plan.HasCondition(name) {
			why += "; " + unknown.String()
		}
	}
	if a.algorithm == "" && a.plan.HasCondition("strict-exec") {
		why += "; a rule with strict-exec holds under the kernel half alone"
	}
	return why
}

// conditions names the condition of a rule that asks for a fact.
var conditions = map[subject.Fact]string{
	subject.Binary: "binary", subject.Digest: "binary", subject.User: "user",
	subject.Capabilities: "capability", subject.Unit: "unit",
}

// denied answers and records a denial.
func (s *server) denied(c *call, a answer, errno plan.Errno) reply {
	a.allowed, a.rule = false, ""
	s.decided(c, a, errno.Number)
	return fail(unix.Errno(errno.Number))
}

// refuse denies a call whose caller cannot be asked about.
func (s *server) refuse(c *call) reply {
	if c.op == opSocket || c.op == opSocketcall || c.op == opSocketpair {
		return fail(unix.EAFNOSUPPORT)
	}
	return fail(unix.EINVAL)
}

func (s *server) decided(c *call, a answer, errno uint32) {
	call := c.op.String()
	if c.op == opAccept4 {
		call = opAccept.String()
	}
	s.o.Observer.Decided(plan.Record{
		Time: time.Now(), Workload: s.workload.Name, Call: call,
		PID: a.subject.PID, TID: int(c.n.TID),
		Executable: a.subject.Shown, Binary: a.subject.Binary, SHA256: a.subject.SHA256,
		UID: a.subject.UID, User: a.request.User, Unit: a.subject.Unit,
		Algorithm: a.algorithm, Allowed: a.allowed, Rule: a.rule, Reason: a.reason, Errno: errno,
	})
}
