package report

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/term"
)

// Text writes the report as four tables; each line begins with the name
// of its table where there is no terminal, so that scripts can select.
func (r *Host) Text(t *term.Printer) {
	section := func(name string, header []string, rows [][]string) {
		if len(rows) == 0 {
			return
		}
		if !t.Tables {
			for i := range rows {
				rows[i] = append([]string{name}, rows[i]...)
			}
		}
		t.Table(header, rows)
	}
	t.Notef("host %s, kernel %s, %s, %s, at %s", r.Host, r.Kernel, r.Machine, r.Tool, r.Time)
	t.Notef("%s with %s; distinct stacks of filters: %d", term.Count(r.Processes, "process"), term.Count(r.Threads, "thread"), len(r.Stacks))
	var rows [][]string
	for _, v := range r.Verdicts {
		rows = append(rows, []string{v.Verdict, strconv.Itoa(v.Processes)})
	}
	if len(r.Unread) > 0 {
		rows = append(rows, []string{"not asked", strconv.Itoa(len(r.Unread))})
	}
	if r.Expected > 0 {
		rows = append(rows, []string{Expected, strconv.Itoa(r.Expected)})
	}
	section("verdict", []string{"verdict", "processes"}, rows)
	rows = nil
	for _, route := range r.Routes {
		rows = append(rows, []string{route.Route, strconv.Itoa(route.Processes)})
	}
	section("route", []string{"route", "processes that it is not closed for"}, rows)
	rows = nil
	for _, s := range r.Stacks {
		rows = append(rows, []string{s.Verdict, s.ID[:min(shortID, len(s.ID))], fmt.Sprintf("%s, %s, %d instructions", s.Mode, term.Count(s.Programs, "program"), s.Instructions),
			term.Dash(strings.Join(s.routes(), " ")), processList(s.Processes)})
	}
	section("stack", []string{"verdict", "id", "filters", "not closed", "processes"}, rows)
	rows = nil
	for _, u := range r.Unread {
		rows = append(rows, []string{strconv.Itoa(u.PID), u.Command + u.where(), u.Error})
	}
	section("not-asked", []string{"pid", "command", "why it could not be asked"}, rows)
	text := term.Count(r.Processes, "process")
	if r.Only != "" {
		text += " of " + r.Only
	}
	if r.Expected > 0 {
		text += fmt.Sprintf(", of which %d are expected to be open", r.Expected)
	}
	conclude(t, r.Verdict, "%s", text)
}

// processList names some processes, first those that nobody expects there, and
// counts the rest.
func processList(list []Process) string {
	const most = 3
	list = slices.SortedStableFunc(slices.Values(list), func(a, b Process) int {
		return len(a.Expected) - len(b.Expected)
	})
	var texts []string
	for _, p := range list[:min(most, len(list))] {
		texts = append(texts, fmt.Sprintf("%d %s%s", p.PID, p.Command, p.where()))
	}
	text := strings.Join(texts, ", ")
	if rest := len(list) - most; rest > 0 {
		text += fmt.Sprintf(" and %d more", rest)
	}
	return text
}
