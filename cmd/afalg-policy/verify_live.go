package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/live"
	"github.com/afalg-policy/afalg-policy/internal/profile"
	"github.com/afalg-policy/afalg-policy/internal/verify"
	"github.com/spf13/cobra"
)

// liveFlags name running processes.
type liveFlags struct {
	pid       int
	container string
	all       bool
}

const (
	flagPID       = "pid"
	flagContainer = "container"
	flagAll       = "all"
)

// addLive gives a command the flags that name running processes.
func addLive(cmd *cobra.Command) *liveFlags {
	var l liveFlags
	cmd.Flags().IntVar(&l.pid, flagPID, 0, "ask about the filters of the running process `PID`, of all its threads")
	cmd.Flags().StringVar(&l.container, flagContainer, "", "the same for the first process of the running container `[ENGINE:]ID` ("+strings.Join(live.Engines(), ", ")+")")
	cmd.Flags().BoolVar(&l.all, flagAll, false, "ask about every process of this host")
	cmd.MarkFlagsMutuallyExclusive(flagPID, flagContainer, flagAll)
	return &l
}

// given tells whether the command line names running processes.
func (l *liveFlags) given(cmd *cobra.Command) bool {
	return cmd.Flags().Changed(flagPID) || cmd.Flags().Changed(flagContainer) || l.all
}

// sources reads the filters of the process that --pid or --container names:
// one source for each distinct stack that its threads are under.
func (l *liveFlags) sources(ctx context.Context) ([]source, error) {
	pid, name := l.pid, fmt.Sprintf("process %d", l.pid)
	if l.container != "" {
		c, err := live.FindContainer(ctx, l.container)
		if err != nil {
			return nil, liveError(err)
		}
		pid, name = c.PID, fmt.Sprintf("container %s of %s, process %d", c.ID, c.Engine, c.PID)
	}
	p, err := live.Read(pid)
	if err != nil {
		return nil, liveError(err)
	}
	machine, abis, err := thisMachine()
	if err != nil {
		return nil, err
	}
	groups := p.Groups()
	var sources []source
	for _, g := range groups {
		s := source{Name: fmt.Sprintf("%s (%s)", name, p.Command), Kind: "process", Machine: machine, Filter: g.Stack.Filter, ABIs: abis}
		if len(groups) > 1 {
			s.Name += ", " + threadList(g.TIDs)
		}
		sources = append(sources, s)
	}
	return sources, nil
}

// threadList names threads, and counts them where they are many.
func threadList(tids []int) string {
	const most = 4
	var texts []string
	for _, tid := range tids[:min(most, len(tids))] {
		texts = append(texts, strconv.Itoa(tid))
	}
	text := "threads " + strings.Join(texts, ", ")
	if rest := len(tids) - most; rest > 0 {
		text += fmt.Sprintf(" and %d more", rest)
	}
	if len(tids) == 1 {
		return "thread " + texts[0]
	}
	return text
}

// liveError gives an error of package live its exit status.
func liveError(err error) error {
	var unable *live.HostError
	if errors.As(err, &unable) {
		return &unableError{err}
	}
	return &unusableError{err}
}

// thisMachine is the machine whose kernel runs the filters that it shows. A
// kernel takes calls by all of its ABIs, whatever a filter's author thought of.
func thisMachine() (string, []afalg.ABI, error) {
	arch, err := profile.ArchByName(runtime.GOARCH)
	if err != nil {
		return "", nil, hostError("verify running processes: %w", err)
	}
	abis := verify.Machine(string(arch))
	if abis == nil {
		return "", nil, hostError("verify running processes: the system calls of %s are not known", runtime.GOARCH)
	}
	return runtime.GOARCH, abis, nil
}

// hostReport is what verify --all found. Its JSON names are stable.
type hostReport struct {
	Open      bool          `json:"open"` // whether any process is open, undecided or could not be asked
	Machine   string        `json:"machine"`
	Processes int           `json:"processes"`
	Threads   int           `json:"threads"`
	Verdicts  []hostVerdict `json:"verdicts"`
	Routes    []hostRoute   `json:"routes"`
	Stacks    []hostStack   `json:"stacks"`
	Unread    []hostUnread  `json:"unread"`
}

// hostVerdict counts processes by the worst answer for any of their threads.
type hostVerdict struct {
	Verdict   string `json:"verdict"`
	Processes int    `json:"processes"`
}

// hostRoute counts the processes that a route is not closed for.
type hostRoute struct {
	Route     string `json:"route"`
	Processes int    `json:"processes"`
}

// hostStack is one stack of filters and who is under it.
type hostStack struct {
	ID           string        `json:"id"`
	Mode         string        `json:"mode"`
	Programs     int           `json:"programs"`
	Instructions int           `json:"instructions"`
	Verdict      string        `json:"verdict"`
	Calls        []hostCall    `json:"calls"` // that are not closed
	Processes    []hostProcess `json:"processes"`

	state  verify.State
	routes []string // of calls
}

type hostCall struct {
	ABI     string   `json:"abi"`
	Route   string   `json:"route,omitempty"`
	Call    string   `json:"call"`
	Verdict string   `json:"verdict"`
	Actions []string `json:"actions"`
	Witness *witness `json:"witness,omitempty"`
	Reason  string   `json:"reason,omitempty"`
}

type hostProcess struct {
	PID     int    `json:"pid"`
	Command string `json:"command"`
	Threads int    `json:"threads"` // those under this stack
}

type hostUnread struct {
	PID     int    `json:"pid"`
	Command string `json:"command"`
	Error   string `json:"error"`
}

// asker answers the questions of a command line for a filter.
type asker func(source) ([]verify.Verdict, error)

// verifyHost asks about every process of the host, each distinct stack once.
func verifyHost(t *tui, ask asker, asJSON bool) error {
	host, err := live.All()
	if err != nil {
		return liveError(err)
	}
	machine, abis, err := thisMachine()
	if err != nil {
		return err
	}
	stacks := stacksOf(host)
	if err := decideStacks(stacks, source{Kind: "process", Machine: machine, ABIs: abis}, ask); err != nil {
		return err
	}
	r := reportHost(host, machine, stacks)
	if asJSON {
		err = t.json(r)
	} else {
		showHost(t, r)
	}
	if err == nil && r.Open {
		err = errNo
	}
	return err
}

// users is a distinct stack on its way into the report.
type users struct {
	stack *live.Stack
	hostStack
}

// stacksOf turns the host round: for each stack, who is under it.
func stacksOf(h live.Host) []*users {
	var list []*users
	known := map[*live.Stack]*users{}
	for _, p := range h.Processes {
		for _, g := range p.Groups() {
			u := known[g.Stack]
			if u == nil {
				s := g.Stack
				u = &users{s, hostStack{
					ID: s.ID, Mode: s.Mode.String(), Programs: len(s.Filter), Instructions: s.Instructions(), Calls: []hostCall{},
				}}
				known[s], list = u, append(list, u)
			}
			u.Processes = append(u.Processes, hostProcess{p.PID, p.Command, len(g.TIDs)})
		}
	}
	return list
}

// decideStacks asks about every stack, as many at a time as there are
// processors.
func decideStacks(stacks []*users, s source, ask asker) error {
	errs := make([]error, len(stacks))
	next := make(chan int)
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for i := range next {
				errs[i] = stacks[i].decide(s, ask)
			}
		})
	}
	for i := range stacks {
		next <- i
	}
	close(next)
	workers.Wait()
	return errors.Join(errs...)
}

func (u *users) decide(s source, ask asker) error {
	s.Name, s.Filter = "filters "+u.ID, u.stack.Filter
	verdicts, err := ask(s)
	if err != nil {
		return err
	}
	u.state = verify.Closed
	for _, v := range verdicts {
		if v.State == verify.Closed {
			continue
		}
		if concern(v.State) > concern(u.state) {
			u.state = v.State
		}
		u.Calls = append(u.Calls, hostCallOf(v))
		if route := string(v.Call.Route); route != "" && !slices.Contains(u.routes, route) {
			u.routes = append(u.routes, route)
		}
	}
	u.Verdict = stateWords[u.state]
	return nil
}

func hostCallOf(v verify.Verdict) hostCall {
	return hostCall{
		ABI: v.Call.ABI.Name, Route: string(v.Call.Route), Call: v.Call.Name,
		Verdict: stateWords[v.State], Actions: v.Actions, Witness: newWitness(v.Witness), Reason: v.Reason,
	}
}

// states are in the order of concern, the worst last.
var states = []verify.State{verify.Closed, verify.Listener, verify.Undecided, verify.Open}

func concern(s verify.State) int { return slices.Index(states, s) }

func reportHost(h live.Host, machine string, stacks []*users) hostReport {
	r := hostReport{Open: len(h.Unread) > 0, Machine: machine, Processes: len(h.Processes), Unread: []hostUnread{}}
	worst := map[int]verify.State{} // by process
	routes := map[string]map[int]bool{}
	for _, u := range stacks {
		r.Stacks = append(r.Stacks, u.hostStack)
		for _, p := range u.Processes {
			r.Threads += p.Threads
			if s, ok := worst[p.PID]; !ok || concern(u.state) > concern(s) {
				worst[p.PID] = u.state
			}
			for _, route := range u.routes {
				if routes[route] == nil {
					routes[route] = map[int]bool{}
				}
				routes[route][p.PID] = true
			}
		}
	}
	counts := map[verify.State]int{}
	for _, s := range worst {
		counts[s]++
		r.Open = r.Open || s != verify.Closed
	}
	for _, s := range slices.Backward(states) {
		r.Verdicts = append(r.Verdicts, hostVerdict{stateWords[s], counts[s]})
	}
	for _, info := range afalg.Routes() {
		if info.Route != afalg.RouteInherited { // no filter sees it
			r.Routes = append(r.Routes, hostRoute{string(info.Route), len(routes[string(info.Route)])})
		}
	}
	for _, u := range h.Unread {
		r.Unread = append(r.Unread, hostUnread{u.PID, u.Command, u.Err.Error()})
	}
	slices.SortStableFunc(r.Stacks, func(a, b hostStack) int {
		return cmp.Or(concern(b.state)-concern(a.state), len(b.Processes)-len(a.Processes), cmp.Compare(a.ID, b.ID))
	})
	return r
}

// showHost writes the report as four tables; each line begins with the name
// of its table where there is no terminal, so that scripts can select.
func showHost(t *tui, r hostReport) {
	section := func(name string, header []string, rows [][]string) {
		if len(rows) == 0 {
			return
		}
		if !t.tables {
			for i := range rows {
				rows[i] = append([]string{name}, rows[i]...)
			}
		}
		t.table(header, rows)
	}
	t.notef("%d processes with %s; distinct stacks of filters: %d", r.Processes, count(r.Threads, "thread"), len(r.Stacks))
	var rows [][]string
	for _, v := range r.Verdicts {
		rows = append(rows, []string{v.Verdict, strconv.Itoa(v.Processes)})
	}
	if len(r.Unread) > 0 {
		rows = append(rows, []string{"not asked", strconv.Itoa(len(r.Unread))})
	}
	section("verdict", []string{"verdict", "processes"}, rows)
	rows = nil
	for _, route := range r.Routes {
		rows = append(rows, []string{route.Route, strconv.Itoa(route.Processes)})
	}
	section("route", []string{"route", "processes that it is not closed for"}, rows)
	rows = nil
	for _, s := range r.Stacks {
		rows = append(rows, []string{s.Verdict, s.ID[:12], fmt.Sprintf("%s, %s, %d instructions", s.Mode, count(s.Programs, "program"), s.Instructions),
			dash(strings.Join(s.routes, " ")), processList(s.Processes)})
	}
	section("stack", []string{"verdict", "id", "filters", "not closed", "processes"}, rows)
	rows = nil
	for _, u := range r.Unread {
		rows = append(rows, []string{strconv.Itoa(u.PID), u.Command, u.Error})
	}
	section("not-asked", []string{"pid", "command", "why it could not be asked"}, rows)
}

// processList names some processes and counts the rest.
func processList(list []hostProcess) string {
	const most = 3
	var texts []string
	for _, p := range list[:min(most, len(list))] {
		texts = append(texts, fmt.Sprintf("%d %s", p.PID, p.Command))
	}
	text := strings.Join(texts, ", ")
	if rest := len(list) - most; rest > 0 {
		text += fmt.Sprintf(" and %d more", rest)
	}
	return text
}
