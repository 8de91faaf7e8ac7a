package report

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/afalg-policy/afalg-policy/internal/term"
)

// Fleet is the reports of doctor of many hosts in one.
type Fleet struct {
	Header                      // that of the worst host; undecided with a report that could not be read
	Time       string           `json:"time"`
	Tool       Build            `json:"tool"`
	Hosts      int              `json:"hosts"`
	Verdicts   []HostCount      `json:"verdicts"` // the worst first
	Columns    []FleetColumn    `json:"columns"`
	Users      []FleetUser      `json:"users"`   // those that most hosts have first
	Differs    []Difference     `json:"differs"` // what is not the same on all hosts
	Same       []Fact           `json:"same"`
	Next       []FleetStep      `json:"next"`
	CanGo      []FleetExpiry    `json:"can-go"`
	List       []FleetHost      `json:"list"` // the worst first
	Superseded []SupersededFile `json:"superseded"`
	Unreadable []UnreadableFile `json:"unreadable"`
	Notes      []string         `json:"notes"`
}

// HostCount counts hosts by a word.
type HostCount struct {
	Verdict string `json:"verdict"`
	Hosts   int    `json:"hosts"`
}

// FleetColumn counts hosts by the worst state of a column of their matrix.
type FleetColumn struct {
	Name     string `json:"name"`
	Open     int    `json:"open"`
	Unknown  int    `json:"unknown"`
	Allowed  int    `json:"allowed"`
	LeftOpen int    `json:"left-open"`
	Unproved int    `json:"closed-not-proved"`
	Proved   int    `json:"proved-closed"`
	Missing  int    `json:"missing"` // hosts whose report has no such column
}

// FleetUser counts hosts by what they say of a user of AF_ALG.
type FleetUser struct {
	Name    string   `json:"name"`
	Used    int      `json:"used"`
	Unused  int      `json:"unused"`
	Unknown int      `json:"unknown"`
	Hosts   []string `json:"hosts"` // some that use it
}

// Difference is something that hosts do not have alike.
type Difference struct {
	What   string       `json:"what"`
	Values []HostsAlike `json:"values"` // those of most hosts first
	More   int          `json:"more"`   // further values
}

// HostsAlike is how many hosts have a value.
type HostsAlike struct {
	Value string   `json:"value"` // NotReported where they say nothing
	Hosts int      `json:"hosts"`
	Some  []string `json:"some"` // of them
}

// NotReported stands for a value that a host's report does not have.
const NotReported = "not reported"

// FleetStep is something to do on some of the hosts.
type FleetStep struct {
	Title   string   `json:"title"`
	Command string   `json:"command"`
	Hosts   int      `json:"hosts"`
	Some    []string `json:"some"`
	Breaks  []string `json:"breaks"` // what any of the reports says
}

// FleetExpiry is something that some of the hosts need no more.
type FleetExpiry struct {
	What  string   `json:"what"`
	Hosts int      `json:"hosts"`
	Some  []string `json:"some"`
}

// FleetHost is a host in one line.
type FleetHost struct {
	Name    string   `json:"name"`
	ID      string   `json:"id,omitempty"`
	File    string   `json:"file"`
	Time    string   `json:"time"`
	Verdict string   `json:"verdict"`
	System  string   `json:"system"`
	Kernel  string   `json:"kernel"`
	AFALG   string   `json:"af-alg"`
	Open    []string `json:"open"` // names of columns
}

// SupersededFile is a report for which a newer one of the same host counts.
type SupersededFile struct {
	File string `json:"file"`
	By   string `json:"by"`
}

// UnreadableFile is one that could not be used.
type UnreadableFile struct {
	File string `json:"file"`
	Why  string `json:"why"`
}

const fleetCommand = "doctor --merge"

// newFleet puts the hosts that were read into one report. A report of the same
// host that is older does not count.
func newFleet(read []*hostSummary, unreadable []UnreadableFile, tool Build, now time.Time) *Fleet {
	f := &Fleet{
		Header: NewHeader(fleetCommand, Undecided), Time: now.UTC().Format(time.RFC3339), Tool: tool,
		Columns: []FleetColumn{}, Users: []FleetUser{}, Differs: []Difference{}, Same: []Fact{}, Next: []FleetStep{}, CanGo: []FleetExpiry{},
		List: []FleetHost{}, Superseded: []SupersededFile{}, Unreadable: append([]UnreadableFile{}, unreadable...), Notes: []string{},
	}
	hosts := f.newest(read)
	slices.SortStableFunc(hosts, func(a, b *hostSummary) int {
		return cmp.Or(verdictBadness(b.Verdict)-verdictBadness(a.Verdict), cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	f.Hosts = len(hosts)
	counts := map[string]int{}
	for _, h := range hosts {
		f.List = append(f.List, h.FleetHost)
		counts[h.Verdict]++
	}
	for _, verdict := range slices.Backward(doctorVerdicts) {
		f.Verdicts = append(f.Verdicts, HostCount{verdict, counts[verdict]})
	}
	f.conclude(counts)
	f.note(hosts, now)
	f.count(hosts)
	f.compare(hosts)
	return f
}

func (f *Fleet) conclude(counts map[string]int) {
	switch {
	case counts[Open] > 0:
		f.Verdict = Open
	case counts[Closed] > 0 && counts[Closed] == f.Hosts && len(f.Unreadable) == 0:
		f.Verdict = Closed
	}
}

// newest leaves the last report of each host. Two hosts of one name are two, if
// they say so by their IDs.
func (f *Fleet) newest(read []*hostSummary) (hosts []*hostSummary) {
	type key struct{ name, id string }
	at := map[key]int{}
	for _, h := range read {
		k := key{h.Name, h.ID}
		i, twice := at[k]
		if !twice {
			at[k] = len(hosts)
			hosts = append(hosts, h)
			continue
		}
		older, newer := hosts[i], h
		if !newer.after(older) {
			older, newer = newer, older
		}
		hosts[i] = newer
		f.Superseded = append(f.Superseded, SupersededFile{older.File, newer.File})
	}
	return hosts
}

// after reports whether a report counts before another of the host: the later one,
// and of two of one time the worse.
func (h *hostSummary) after(other *hostSummary) bool {
	if !h.asked.Equal(other.asked) {
		return h.asked.After(other.asked)
	}
	return verdictBadness(h.Verdict) > verdictBadness(other.Verdict)
}

// note says what is odd about the hosts. Clocks that differ by less than a day
// are not.
func (f *Fleet) note(hosts []*hostSummary, now time.Time) {
	var names, ids, future tally
	for _, h := range hosts {
		names.add(h.Name, h.File)
		if h.ID != "" {
			ids.add(h.ID, h.Name)
		}
		if h.asked.After(now.Add(24 * time.Hour)) {
			future.add("", h.Name)
		}
	}
	for _, c := range names.all {
		if c.hosts > 1 {
			f.notef("%d hosts have the name %s and differ in their IDs; all are counted: %s", c.hosts, c.name, c.line())
		}
	}
	for _, c := range ids.all {
		if c.hosts > 1 {
			f.notef("%d hosts have one ID: they are clones, or one was renamed; all are counted: %s", c.hosts, c.line())
		}
	}
	for _, c := range future.all {
		f.notef("%s of a time to come: a clock is wrong, and an older report may count as the newest: %s", term.Count(c.hosts, "report"), c.line())
	}
}

func (f *Fleet) notef(format string, args ...any) {
	f.Notes = append(f.Notes, fmt.Sprintf(format, args...))
}
