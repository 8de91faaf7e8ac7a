package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// someHosts is how many hosts are named where there are more, someValues how many
// values. mostThings is how many things of hosts are compared.
const (
	someHosts  = 5
	someValues = 50
	mostThings = 1000
)

// tally counts hosts by names, in the order in which these are met.
type tally struct {
	all []*tallied
	at  map[string]*tallied
}

type tallied struct {
	name  string
	hosts int
	some  []string // of the hosts
	by    map[string]int
	parts []string
}

// add counts a host; one is counted under a name as often as it is added.
func (t *tally) add(name, host string) *tallied {
	c := t.at[name]
	if c == nil {
		if t.at == nil {
			t.at = map[string]*tallied{}
		}
		c = &tallied{name: name, some: []string{}, by: map[string]int{}, parts: []string{}}
		t.at[name] = c
		t.all = append(t.all, c)
	}
	if c.hosts++; len(c.some) < someHosts {
		c.some = append(c.some, host)
	}
	return c
}

// mostFirst has those of most hosts first.
func (t *tally) mostFirst() []*tallied {
	slices.SortStableFunc(t.all, func(a, b *tallied) int { return b.hosts - a.hosts })
	return t.all
}

func (c *tallied) line() string { return strings.Join(c.some, ", ") + more(c.hosts-len(c.some)) }

func (c *tallied) remember(parts []string) {
	for _, p := range parts {
		if !slices.Contains(c.parts, p) && len(c.parts) < someValues {
			c.parts = append(c.parts, p)
		}
	}
}

// count counts hosts by columns, users, steps, and what can go.
func (f *Fleet) count(hosts []*hostSummary) {
	var columns, users, using, steps, expiries tally
	for _, h := range hosts {
		for _, c := range h.columns {
			columns.add(c.Name, h.Name).by[c.Value]++
		}
		for _, u := range h.users {
			users.add(u.Name, h.Name).by[u.Value]++
			if u.Value == Used {
				using.add(u.Name, h.Name)
			}
		}
		for _, s := range h.steps {
			steps.add(s.Title+"\x00"+s.Command, h.Name).remember(s.Breaks)
		}
		for _, what := range h.canGo {
			expiries.add(what, h.Name)
		}
	}
	for _, c := range columns.all {
		f.Columns = append(f.Columns, FleetColumn{c.name, c.by[Open], c.by[Unknown], c.by[Allowed], c.by[LeftOpen], c.by[UnprovedClosed], c.by[ProvedClosed], len(hosts) - c.hosts})
	}
	for _, c := range users.all {
		u := FleetUser{Name: c.name, Used: c.by[Used], Unused: c.by[Unused], Unknown: c.by[Unknown], Hosts: []string{}}
		if by := using.at[c.name]; by != nil {
			u.Hosts = by.some
		}
		f.Users = append(f.Users, u)
	}
	slices.SortStableFunc(f.Users, func(a, b FleetUser) int {
		return cmp.Or(b.Used-a.Used, b.Unknown-a.Unknown, b.Unused-a.Unused)
	})
	for _, c := range steps.mostFirst() {
		title, command, _ := strings.Cut(c.name, "\x00")
		f.Next = append(f.Next, FleetStep{title, command, c.hosts, c.some, c.parts})
	}
	for _, c := range expiries.mostFirst() {
		f.CanGo = append(f.CanGo, FleetExpiry{c.name, c.hosts, c.some})
	}
}

// compare finds what the hosts do not have alike. A host that says nothing of a
// thing differs from those that do.
func (f *Fleet) compare(hosts []*hostSummary) {
	var things tally
	values, have := map[string]*tally{}, map[string][]int{}
	for i, h := range hosts {
		for _, fact := range h.facts {
			things.add(fact.Name, h.Name)
			if values[fact.Name] == nil {
				values[fact.Name] = &tally{}
			}
			values[fact.Name].add(fact.Value, h.Name)
			have[fact.Name] = append(have[fact.Name], i)
		}
	}
	if n := len(things.all) - mostThings; n > 0 {
		f.notef("the hosts report %d further things, which were not compared", n)
		things.all = things.mostFirst()[:mostThings]
	}
	for _, thing := range things.all {
		v := values[thing.name]
		v.addMissing(hosts, have[thing.name])
		all := v.mostFirst()
		if len(all) == 1 {
			f.Same = append(f.Same, Fact{Name: thing.name, Value: all[0].name})
			continue
		}
		d := Difference{What: thing.name, Values: []HostsAlike{}, More: max(len(all)-someValues, 0)}
		for _, c := range all[:len(all)-d.More] {
			d.Values = append(d.Values, HostsAlike{c.name, c.hosts, c.some})
		}
		f.Differs = append(f.Differs, d)
	}
}

// addMissing adds the hosts that are not among those that have a value.
func (t *tally) addMissing(hosts []*hostSummary, have []int) {
	for i, h := range hosts {
		if len(have) > 0 && have[0] == i {
			have = have[1:]
			continue
		}
		t.add(NotReported, h.Name)
	}
}

// more counts what was not named.
func more(rest int) string {
	if rest <= 0 {
		return ""
	}
	return fmt.Sprintf(" and %d more", rest)
}
