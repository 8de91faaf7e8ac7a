package doctor

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/gen"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/report"
	"github.com/afalg-policy/afalg-policy/internal/subject"
)

// group is the processes of a container, of a unit, or of a command that is in
// neither.
type group struct {
	report.Subject
	filters []*report.Stack // over threads of them; nil stands for one that was not read
	pids    []int
	places  []report.Place
	unread  string // why some process was not asked
}

// groups are the subjects of the matrix, by name.
func (f *found) groups() []*group {
	all := map[string]*group{}
	of := func(place report.Place, command string, pid int) *group {
		s := subjectOf(place, command)
		g := all[s.Kind+" "+s.Name]
		if g == nil {
			g = &group{Subject: s}
			all[s.Kind+" "+s.Name] = g
		}
		if !slices.Contains(g.pids, pid) { // threads may be under several stacks
			g.pids, g.places = append(g.pids, pid), append(g.places, place)
			g.Processes++
		}
		return g
	}
	for i := range f.filters.Stacks {
		s := &f.filters.Stacks[i]
		for _, p := range s.Processes {
			g := of(p.Place, p.Command, p.PID)
			if !slices.Contains(g.filters, s) {
				g.filters = append(g.filters, s)
			}
		}
	}
	for _, u := range f.filters.Unread {
		of(u.Place, u.Command, u.PID).unread = u.Error
	}
	return slices.SortedFunc(maps.Values(all), func(a, b *group) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
	})
}

// subjectOf names the container of a process, else its unit, else itself.
func subjectOf(p report.Place, command string) report.Subject {
	s := report.Subject{Container: p.Container, Unit: p.Unit}
	switch {
	case p.Container != "":
		s.Kind, s.Name = "container", p.Container
	case p.Contained:
		s.Kind, s.Name = "process", command+" in a PID namespace"
	case p.Unit != "":
		s.Kind, s.Name = "unit", p.Unit
	default:
		s.Kind, s.Name = "process", command
	}
	return s
}

// matrix says who may use what. Of the processes of a subject, the worst counts.
func (f *found) matrix() (m report.Matrix, err error) {
	m = report.Matrix{Columns: []report.Column{}, Rows: []report.Row{}}
	for _, c := range f.columns {
		m.Columns = append(m.Columns, c.Column)
	}
	if f.filters == nil {
		return m, f.unseen(&m, "every process")
	}
	judge := f.newJudge()
	defer judge.close()
	for _, g := range f.groups() {
		var cells []report.Cell
		for _, c := range f.columns {
			cells = append(cells, judge.cell(g, c))
		}
		if err := m.Add(g.Subject, cells...); err != nil {
			return m, err
		}
	}
	if f.partial {
		return m, f.unseen(&m, "processes that are not to be seen")
	}
	return m, nil
}

// unseen adds a row for whoever may be there and was not asked.
func (f *found) unseen(m *report.Matrix, who string) error {
	var cells []report.Cell
	for _, c := range f.columns {
		cell := report.Cell{State: report.Unknown, Reason: "nobody was asked"}
		if by := f.closers(c); len(by) > 0 {
			cell = closedBy(by)
		} else if !c.wanted {
			cell = report.Cell{State: report.LeftOpen, Reason: "nothing of the host closes it"}
		}
		cells = append(cells, cell)
	}
	return m.Add(report.Subject{Name: who, Kind: "process"}, cells...)
}

func closedBy(all []closer) (cell report.Cell) {
	cell.State = report.UnprovedClosed
	var whys []string
	for _, c := range all {
		if !slices.Contains(cell.By, c.layer) {
			cell.By = append(cell.By, c.layer)
		}
		whys = append(whys, c.why)
	}
	cell.Reason = strings.Join(whys, "; ")
	return cell
}

// judge decides cells.
type judge struct {
	*found
	host  map[string][]closer // by column
	who   *subject.Share      // nil if nobody can be identified
	close func()
	known map[int]plan.Request
}

func (f *found) newJudge() *judge {
	j := &judge{found: f, host: map[string][]closer{}, close: func() {}, known: map[int]plan.Request{}}
	for _, c := range f.columns {
		j.host[c.Name] = f.closers(c)
	}
	if f.plan == nil || len(f.plan.Rules) == 0 {
		return j
	}
	if r, err := subject.NewReader(subject.Options{Units: true}); err == nil {
		j.who = r.Share(func(string) subject.Need { return subject.NotNeeded })
		j.close = r.Close
	}
	return j
}

// cell decides about a subject. A filter that is proved needs no other layer; what
// the host closes is closed whoever asks; what is left is a matter of rules.
func (j *judge) cell(g *group, c column) report.Cell {
	verdict, call := g.verdict(c)
	if verdict == report.Closed {
		return report.Cell{State: report.ProvedClosed, By: []string{layerFilter}, Reason: g.remark(c)}
	}
	if by := j.host[c.Name]; len(by) > 0 {
		return closedBy(by)
	}
	if c.typ != "" && confined(g.pids) {
		return report.Cell{State: report.UnprovedClosed, By: []string{layerAppArmor}, Reason: "under profile " + gen.DefaultProfile + ", which denies the family"}
	}
	if cell, decided := j.byRule(g, c); decided {
		return cell
	}
	switch {
	case verdict == report.Open && !c.wanted:
		return report.Cell{State: report.LeftOpen, Witness: witnessOf(call), Reason: g.unfiltered()}
	case verdict == report.Open:
		return report.Cell{State: report.Open, Witness: witnessOf(call), Reason: g.unfiltered()}
	case verdict == report.Listener:
		return report.Cell{State: report.Unknown, Witness: witnessOf(call), Reason: "whoever listens to the filter's notifications decides"}
	case call != nil:
		return report.Cell{State: report.Unknown, Witness: witnessOf(call), Reason: "undecided: " + call.Reason}
	}
	return report.Cell{State: report.Unknown, Reason: g.unread}
}

// confined reports whether each process is under our profile of AppArmor, in enforce
// mode.
func confined(pids []int) bool {
	return len(pids) > 0 && !slices.ContainsFunc(pids, func(pid int) bool {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/attr/apparmor/current", pid))
		return err != nil || strings.TrimSpace(string(text)) != gen.DefaultProfile+" (enforce)"
	})
}

// verdict is the worst answer about a column, and the call that it is about. A
// process that was not asked is undecided.
func (g *group) verdict(c column) (word string, worst *report.Call) {
	word = report.Closed
	if g.unread != "" {
		word = report.Undecided
	}
	for _, s := range g.filters {
		for i := range s.Calls {
			call := &s.Calls[i]
			if !c.asks(*call) || call.Route == string(afalg.RouteSocketpair) {
				continue // that yields no descriptor
			}
			plainer := worst != nil && worst.Route == string(afalg.RouteIOUring) && call.Verdict == word // a witness that says more
			if concern(call.Verdict) > concern(word) || worst == nil && call.Verdict == word || plainer {
				word, worst = call.Verdict, call
			}
		}
	}
	return word, worst
}

var verdicts = []string{report.Closed, report.Listener, report.Undecided, report.Open}

// concern orders the answers. A word that nobody knows is as bad as any.
func concern(verdict string) int {
	if i := slices.Index(verdicts, verdict); i >= 0 {
		return i
	}
	return len(verdicts)
}

// remark says what a filter leaves that opens nothing.
func (g *group) remark(c column) string {
	for _, s := range g.filters {
		for _, call := range s.Calls {
			if c.typ != "" && call.Route == string(afalg.RouteSocketpair) {
				return "socketpair reaches AF_ALG, which loads the module and gives no socket"
			}
		}
	}
	return ""
}

func (g *group) unfiltered() string {
	for _, s := range g.filters {
		if s.Programs == 0 {
			return "under no filter"
		}
	}
	return ""
}

func witnessOf(c *report.Call) string {
	if c == nil {
		return ""
	}
	text := c.ABI + " " + c.Call
	if c.Witness != nil {
		text = c.Witness.String()
	}
	if c.Route != "" {
		text = c.Route + ": " + text
	}
	return text
}

// byRule decides where the kernel half does, or where the policy gives a subject what
// its filter lets through.
func (j *judge) byRule(g *group, c column) (cell report.Cell, decided bool) {
	enforced := j.enforces(c)
	allowed := report.Cell{}
	others := false // of whom nobody says that they may
	for i, pid := range g.pids {
		e, rule := g.places[i].Expected, j.rule(pid, c)
		switch {
		case rule != "":
			allowed = report.Cell{State: report.Allowed, Rule: rule}
		case e != "" && !enforced:
			allowed = report.Cell{State: report.Allowed, Reason: "the policy expects it to be open: " + e}
		default:
			others = true
		}
	}
	if allowed.State != "" && (enforced || !others) {
		return allowed, true
	}
	if rule := j.granted(g, c); rule != "" {
		return report.Cell{State: report.Allowed, Rule: rule}, true
	}
	if enforced {
		return report.Cell{State: report.UnprovedClosed, By: []string{layerKernelHalf}, Reason: "the kernel half decides, by policy " + j.half.State.Policy}, true
	}
	return cell, false
}

// enforces reports whether the kernel half decides about a column.
func (f *found) enforces(c column) bool {
	return f.half != nil && f.half.InForce() && (c.typ != "" || c.family != 0 && f.half.State.Families&(1<<c.family) != 0)
}

// rule is the one that allows a process algorithms of a type, "" if none does.
func (j *judge) rule(pid int, c column) string {
	if c.typ == "" || j.who == nil {
		return ""
	}
	r, seen := j.known[pid]
	if !seen {
		s := j.who.Look(pid)
		r = plan.Request{Binary: s.Binary, Claimed: s.Claimed, UID: s.UID, Capabilities: s.Capabilities, Unit: s.Unit, CleanExec: true}
		j.known[pid] = r
	}
	if !plan.Reaches(j.plan, r) {
		return ""
	}
	for _, rule := range j.plan.Rules {
		for _, a := range rule.Algorithms {
			if a.Type != c.typ {
				continue
			}
			r.Algorithm = a.Algorithm
			if d := plan.Decide(j.plan, r); d.Allowed {
				return d.Rule.Name
			}
		}
	}
	return ""
}

// granted is a rule that the kernel half gives a container.
func (j *judge) granted(g *group, c column) string {
	if c.typ == "" || g.Kind != "container" || j.half == nil || j.half.State == nil || j.plan == nil {
		return ""
	}
	for _, container := range j.half.State.Containers {
		if container.ID == "" || container.ID != path.Base(strings.ReplaceAll(g.Container, ":", "/")) {
			continue
		}
		for _, rule := range j.plan.Rules {
			if slices.Contains(container.Rules, rule.Name) && slices.ContainsFunc(rule.Algorithms, ofType(c.typ)) {
				return rule.Name
			}
		}
	}
	return ""
}

// whoText is for people: "/usr/bin/a, process 7".
func whoText(pid int, p person) string {
	return fmt.Sprintf("%s, process %d", cmp.Or(p.exe, p.command, "unknown"), pid)
}
