package report

import (
	"cmp"
	"os"
	"slices"
	"time"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/verify"
	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/kernel"
	"github.com/afalg-policy/afalg-policy/internal/live"
	"github.com/afalg-policy/afalg-policy/internal/parallel"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/report/source"
)

// Host is what verify --all found of all processes of a host.
type Host struct {
	Header
	Host      string         `json:"host"`
	Kernel    string         `json:"kernel"`
	Machine   string         `json:"machine"`
	Time      string         `json:"time"` // when it was asked, RFC 3339
	Tool      Build          `json:"tool"`
	Policy    *Policy        `json:"policy,omitempty"` // that says what is expected
	Only      string         `json:"only,omitempty"`   // "containers": nothing else was asked
	Processes int            `json:"processes"`
	Expected  int            `json:"expected"` // to be open, and not closed
	Threads   int            `json:"threads"`
	Verdicts  []VerdictCount `json:"verdicts"`
	Routes    []RouteCount   `json:"routes"`
	Stacks    []Stack        `json:"stacks"`
	Unread    []Unread       `json:"unread"`
}

// Policy is one that was asked.
type Policy struct {
	Name   string `json:"name"`
	Digest string `json:"digest"`
}

// VerdictCount counts processes by the worst answer for any of their threads.
type VerdictCount struct {
	Verdict   string `json:"verdict"`
	Processes int    `json:"processes"`
}

// RouteCount counts the processes that a route is not closed for.
type RouteCount struct {
	Route     string `json:"route"`
	Processes int    `json:"processes"`
}

// Stack is one stack of filters and who is under it.
type Stack struct {
	ID           string    `json:"id"`
	Mode         string    `json:"mode"`
	Programs     int       `json:"programs"`
	Instructions int       `json:"instructions"`
	Verdict      string    `json:"verdict"`
	Calls        []Call    `json:"calls"` // that are not closed
	Processes    []Process `json:"processes"`
}

// routes are those of the calls, each once.
func (s Stack) routes() (list []string) {
	for _, c := range s.Calls {
		if c.Route != "" && !slices.Contains(list, c.Route) {
			list = append(list, c.Route)
		}
	}
	return list
}

// Call is one that a stack does not close.
type Call struct {
	About   string   `json:"about"` // a socket family, or the text of a query
	ABI     string   `json:"abi"`
	Route   string   `json:"route,omitempty"`
	Call    string   `json:"call"`
	Verdict string   `json:"verdict"`
	Actions []string `json:"actions"`
	Witness *Witness `json:"witness,omitempty"`
	Reason  string   `json:"reason,omitempty"`
}

// Process is a process under a stack, with all or some of its threads.
type Process struct {
	PID     int    `json:"pid"`
	Command string `json:"command"`
	Threads int    `json:"threads"` // those under this stack
	Place
}

// Unread is a process that could not be asked.
type Unread struct {
	PID     int    `json:"pid"`
	Command string `json:"command"`
	Error   string `json:"error"`
	Place
}

// asker asks a filter, and says what each answer is about.
type asker func(source.Source) ([]about, []verify.Verdict, error)

// HostQuestions are what every process of a host is asked.
type HostQuestions struct {
	Questions
	Plan      *plan.Plan // which processes are expected to be open; may be nil
	Contained bool       // processes of containers alone
	Visible   bool       // go on if no filter may be read: who is under none is known all the same
	Tool      Build      // that asks
}

// Ask asks about every process of this host, each distinct stack once. Errors
// are those of live.All and of Questions.Ask, and a *hosterr.Error.
func (q HostQuestions) Ask() (*Host, error) {
	asked := time.Now()
	all := live.All
	if q.Visible {
		all = live.Visible
	}
	host, err := all()
	if err != nil {
		return nil, err
	}
	machine, abis, err := live.Machine()
	if err != nil {
		return nil, err
	}
	places := placesOf(host, q.Plan)
	host = keep(host, func(pid int) bool {
		p, there := places[pid]
		return there && (p.Contained || !q.Contained)
	})
	stacks := stacksOf(host, places)
	var memo verify.Memo
	ask := func(s source.Source) ([]about, []verify.Verdict, error) { return q.answer(&memo, s) }
	s := source.Source{Kind: "process", Machine: machine, ABIs: abis}
	if err := parallel.Each(len(stacks), func(i int) error { return stacks[i].decide(s, ask) }); err != nil {
		return nil, err
	}
	r := reportHost(host, machine, stacks, places)
	return r, r.sign(asked, q)
}

// sign says of which host the report is, when it was made, and by what.
func (r *Host) sign(asked time.Time, q HostQuestions) (err error) {
	if r.Host, err = os.Hostname(); err != nil {
		return hosterr.Errorf("the name of this host: %w", err)
	}
	if r.Kernel, err = kernel.Release(); err != nil {
		return hosterr.Errorf("the kernel's release: %w", err)
	}
	r.Time, r.Tool = asked.UTC().Format(time.RFC3339), q.Tool
	if q.Plan != nil {
		r.Policy = &Policy{q.Plan.Name, q.Plan.Digest}
	}
	if q.Contained {
		r.Only = "containers"
	}
	return nil
}

// users is a distinct stack on its way into the report.
type users struct {
	stack *live.Stack
	Stack
}

// stacksOf turns the host round: for each stack, who is under it.
func stacksOf(h live.Snapshot, places map[int]Place) []*users {
	var list []*users
	known := map[*live.Stack]*users{}
	for _, p := range h.Processes {
		for _, g := range p.Groups() {
			u := known[g.Stack]
			if u == nil {
				s := g.Stack
				u = &users{s, Stack{
					ID: s.ID, Mode: s.Mode.String(), Programs: len(s.Filter), Instructions: s.Instructions(), Calls: []Call{},
				}}
				known[s], list = u, append(list, u)
			}
			u.Processes = append(u.Processes, Process{p.PID, p.Command, len(g.TIDs), places[p.PID]})
		}
	}
	return list
}

func (u *users) decide(s source.Source, ask asker) error {
	s.Name, s.Filter = "filters "+u.ID, u.stack.Filter
	all, verdicts, err := ask(s)
	if err != nil {
		return err
	}
	u.Verdict = Closed
	for i, v := range verdicts {
		if v.State == verify.Closed {
			continue
		}
		if word := wordOf(v.State); concern(word) > concern(u.Verdict) {
			u.Verdict = word
		}
		u.Calls = append(u.Calls, callOf(all[i].what, v))
	}
	return nil
}

func callOf(what string, v verify.Verdict) Call {
	return Call{
		About: what, ABI: v.Call.ABI.Name, Route: string(v.Call.Route), Call: v.Call.Name,
		Verdict: wordOf(v.State), Actions: v.Actions, Witness: newWitness(v.Witness), Reason: v.Reason,
	}
}

// states are in the order of concern, the worst last.
var states = []string{Closed, Listener, Undecided, Open}

func concern(verdict string) int { return slices.Index(states, verdict) }

func reportHost(h live.Snapshot, machine string, stacks []*users, places map[int]Place) *Host {
	r := &Host{Header: NewHeader("verify --all", Closed), Stacks: []Stack{}, Machine: machine, Processes: len(h.Processes), Unread: []Unread{}}
	worst := map[int]string{} // by process
	routes := map[string]map[int]bool{}
	for _, u := range stacks {
		r.Stacks = append(r.Stacks, u.Stack)
		for _, p := range u.Processes {
			r.Threads += p.Threads
			if s, ok := worst[p.PID]; !ok || concern(u.Verdict) > concern(s) {
				worst[p.PID] = u.Verdict
			}
			for _, route := range u.routes() {
				if routes[route] == nil {
					routes[route] = map[int]bool{}
				}
				routes[route][p.PID] = true
			}
		}
	}
	counts := map[string]int{}
	for pid, s := range worst {
		counts[s]++
		switch {
		case s == Closed:
		case places[pid].Expected != "":
			r.Expected++
		default:
			r.Verdict = Open
		}
	}
	for _, s := range slices.Backward(states) {
		r.Verdicts = append(r.Verdicts, VerdictCount{s, counts[s]})
	}
	for _, info := range afalg.Routes() {
		if info.Route != afalg.RouteInherited { // no filter sees it
			r.Routes = append(r.Routes, RouteCount{string(info.Route), len(routes[string(info.Route)])})
		}
	}
	for _, u := range h.Unread {
		r.Unread = append(r.Unread, Unread{u.PID, u.Command, u.Err.Error(), places[u.PID]})
		if places[u.PID].Expected == "" {
			r.Verdict = Open
		} else {
			r.Expected++
		}
	}
	slices.SortStableFunc(r.Stacks, func(a, b Stack) int {
		return cmp.Or(concern(b.Verdict)-concern(a.Verdict), len(b.Processes)-len(a.Processes), cmp.Compare(a.ID, b.ID))
	})
	return r
}
