package report

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/term"
)

// Text writes the conclusion, then tables; each line of these begins with the name
// of its table where there is no terminal.
func (f *Fleet) Text(t *term.Printer) {
	all := shown(*f)
	all.text(t)
}

func (f *Fleet) text(t *term.Printer) {
	conclude(t, f.Verdict, "%s", f.headline())
	for _, u := range f.Unreadable {
		t.Notef("could not be read: %s: %s", u.File, u.Why)
	}
	for _, s := range f.Superseded {
		t.Notef("older than %s, of the same host: %s", s.By, s.File)
	}
	for _, note := range f.Notes {
		t.Notef("remark: %s", note)
	}
	var open []FleetHost
	for _, h := range f.List {
		if h.Verdict != Closed {
			open = append(open, h)
		}
	}
	var rows [][]string
	for _, h := range first(t, open, "host that is not closed", "hosts that are not closed") {
		rows = append(rows, []string{h.Name, h.Verdict, term.Dash(strings.Join(h.Open, " ")), h.Kernel, h.Time})
	}
	section(t, "host", []string{"host", "verdict", "open", "kernel", "asked"}, rows)
	rows = nil
	for _, c := range f.Columns {
		rows = append(rows, append([]string{c.Name}, numbers(c.Open, c.Unknown, c.Allowed, c.LeftOpen, c.Unproved, c.Proved, c.Missing)...))
	}
	section(t, "column", []string{"what", Open, Unknown, Allowed, LeftOpen, UnprovedClosed, ProvedClosed, NotReported}, rows)
	rows = nil
	for _, u := range first(t, f.Users, "user", "users") {
		rows = append(rows, append(append([]string{u.Name}, numbers(u.Used, u.Unknown, u.Unused)...), term.Dash(strings.Join(u.Hosts, " "))))
	}
	section(t, "user", []string{"user of AF_ALG", Used, Unknown, Unused, "used on, for instance"}, rows)
	rows = nil
	for _, d := range first(t, f.Differs, "thing that differs", "things that differ") {
		for _, v := range first(t, d.Values, "value of "+d.What, "values of "+d.What) {
			rows = append(rows, []string{d.What, v.Value, strconv.Itoa(v.Hosts), v.line()})
		}
	}
	section(t, "differs", []string{"what differs", "value", "hosts", "for instance"}, rows)
	rows = nil
	for _, e := range first(t, f.CanGo, "thing that can go", "things that can go") {
		rows = append(rows, []string{e.What, strconv.Itoa(e.Hosts), strings.Join(e.Some, " ")})
	}
	section(t, "can-go", []string{"can go", "hosts", "for instance"}, rows)
	if len(f.Next) > 0 {
		t.Notef("what to do next, as the reports of the hosts say: read a command before you run it")
	}
	for i, s := range first(t, f.Next, "step", "steps") {
		on := fmt.Sprintf(", on %s: %s", term.Count(s.Hosts, "host"), strings.Join(s.Some, ", ")+more(s.Hosts-len(s.Some)))
		Step{Title: s.Title + on, Command: s.Command, Breaks: s.Breaks}.text(t, i+1)
	}
}

// first are those of a list that people read.
func first[T any](t *term.Printer, list []T, one, many string) []T {
	const most = 20
	switch rest := len(list) - most; {
	case rest == 1:
		t.Notef("further: 1 %s: --json has it", one)
	case rest > 1:
		t.Notef("further: %d %s: --json has them", rest, many)
	}
	return list[:min(most, len(list))]
}

// headline counts the hosts: "5 hosts: 1 open, 1 undecided, 3 closed".
func (f *Fleet) headline() string {
	text := term.Count(f.Hosts, "host")
	var parts []string
	for _, v := range f.Verdicts {
		if v.Hosts > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", v.Hosts, v.Verdict))
		}
	}
	if len(parts) > 0 {
		text += ": " + strings.Join(parts, ", ")
	}
	if n := len(f.Unreadable); n > 0 {
		text += "; " + term.Count(n, "report") + " could not be read"
	}
	return text
}

func (h HostsAlike) line() string { return strings.Join(h.Some, ", ") + more(h.Hosts-len(h.Some)) }

func numbers(list ...int) (texts []string) {
	for _, n := range list {
		texts = append(texts, strconv.Itoa(n))
	}
	return texts
}
