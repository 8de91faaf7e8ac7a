package report

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/afalg-policy/afalg-policy/internal/term"
)

// Text writes the conclusion, in twenty lines of a terminal.
func (d *Doctor) Text(t *term.Printer) {
	all := shown(*d)
	all.text(t)
}

func (d *Doctor) text(t *term.Printer) {
	conclude(t, d.Verdict, "%s", d.headline())
	t.Printf("%s", short(t, d.Host.line()))
	t.Printf("%s", short(t, "AF_ALG: "+d.Host.AFALG+d.factsLine()))
	listed(t, "open: ", 3, d.openLines())
	named(t, "left open, as no policy closes it: ", d.Matrix.leftOpen())
	listed(t, "contradiction: ", 1, d.contradictionLines())
	named(t, "AF_ALG is used by: ", d.usersIn(Used))
	named(t, "AF_ALG is perhaps used by: ", d.usersIn(Unknown))
	named(t, "AF_ALG is not used by: ", d.usersIn(Unused))
	if names := d.inForce(); len(names) > 0 {
		named(t, "in force: ", names)
	} else {
		t.Printf("in force: nothing that is known")
	}
	listed(t, "can go: ", 1, d.expiryLines())
	listed(t, "not asked: ", 1, d.unaskedLines())
	const most = 2
	for i, s := range d.Next[:min(most, len(d.Next))] {
		t.Printf("%s", short(t, fmt.Sprintf("next %d: %s; %s", i+1, s.Title, s.breaksLine())))
		t.Printf("  %s", s.Command) // whole: it is there to be copied
	}
	text := "--verbose or --html FILE: the reasons, the matrix of who may use what"
	if rest := len(d.Next) - most; rest > 0 {
		text += ", " + term.Count(rest, "step")
	}
	t.Note(text)
}

// headline counts the subjects: "3 subjects: 1 closed, 1 allowed by rule, 1 open".
// They are closed as far as the policy asks; what it leaves open is said apart.
func (d *Doctor) headline() string {
	counts := d.Matrix.Counts()
	all := 0
	for _, n := range counts {
		all += n
	}
	text := term.Count(all, "subject")
	var parts []string
	add := func(n int, what string) {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, what))
		}
	}
	add(counts[ProvedClosed]+counts[UnprovedClosed], "closed")
	add(counts[LeftOpen], "left open")
	add(counts[Allowed], "allowed by rule")
	add(counts[Unknown], "unknown")
	add(counts[Open], "open")
	if len(parts) == 0 {
		return text
	}
	return text + ": " + strings.Join(parts, ", ")
}

func (h DoctorHost) line() string {
	text := fmt.Sprintf("host %s, %s, kernel %s, %s", h.Name, h.System, h.Kernel, h.Time)
	if !h.Root {
		text += ", not asked as root"
	}
	return text
}

// factsLine has the facts of the kernel that were read.
func (d *Doctor) factsLine() (text string) {
	for _, f := range d.Host.Facts {
		if f.Value != Unknown {
			text += "; " + f.Name + " " + f.Value
		}
	}
	return text
}

func (d *Doctor) openLines() (lines []string) {
	for _, r := range d.Matrix.Rows {
		for _, g := range r.groups(d.Matrix.Columns) {
			if g.State == Open {
				lines = append(lines, fmt.Sprintf("%s: %s: %s", r.names(1), strings.Join(g.Columns, ", "), g.why()))
				break // the first is enough here
			}
		}
	}
	return lines
}

func (d *Doctor) contradictionLines() (lines []string) {
	for _, c := range d.Contradictions {
		lines = append(lines, c.line())
	}
	return lines
}

func (c Contradiction) line() string {
	var claims []string
	for _, f := range c.Claims {
		claims = append(claims, fmt.Sprintf("%s says %s", f.Source, f.Value))
	}
	return fmt.Sprintf("%s: %s; taken: %s", c.About, strings.Join(claims, ", "), c.Taken)
}

func (d *Doctor) usersIn(state string) (names []string) {
	for _, u := range d.Users {
		if u.State == state {
			names = append(names, u.Name)
		}
	}
	return names
}

func (d *Doctor) inForce() (names []string) {
	for _, l := range d.Layers {
		if l.InForce == Yes {
			names = append(names, l.Name+" ("+l.Subject+")")
		}
	}
	return names
}

func (d *Doctor) expiryLines() (lines []string) {
	for _, e := range d.CanGo {
		lines = append(lines, e.What+": "+e.Why)
	}
	return lines
}

func (d *Doctor) unaskedLines() (lines []string) {
	for _, u := range d.Unasked {
		lines = append(lines, u.What+": "+u.Why)
	}
	return lines
}

func (s Step) breaksLine() string {
	if len(s.Breaks) == 0 {
		return "breaks nobody who is known"
	}
	return "breaks " + strings.Join(s.Breaks, ", ")
}

// listed writes a line for each of the first ones, and counts the rest.
func listed(t *term.Printer, label string, most int, lines []string) {
	most = min(most, len(lines))
	for i, line := range lines[:most] {
		tail := ""
		if i == most-1 {
			tail = more(len(lines) - most)
		}
		t.Printf("%s%s", shortTo(t, label+line, columns(t)-len(tail)), tail)
	}
}

// named writes as many names as a line takes, and counts the rest.
func named(t *term.Printer, label string, names []string) {
	if len(names) == 0 {
		return
	}
	n := len(names)
	for n > 1 && utf8.RuneCountInString(label+few(names, n)) > columns(t) {
		n--
	}
	t.Printf("%s", short(t, label+few(names, n)))
}

// few names the first ones, and counts the rest.
func few(names []string, most int) string {
	most = min(most, len(names))
	return strings.Join(names[:most], ", ") + more(len(names)-most)
}

// columns is the width to write for.
func columns(t *term.Printer) int {
	if t.Width > 0 {
		return t.Width
	}
	return 80
}

// short cuts a text to a line of the terminal; --verbose has all of it.
func short(t *term.Printer, text string) string { return shortTo(t, text, columns(t)) }

func shortTo(t *term.Printer, text string, limit int) string {
	runes := []rune(text)
	ellipsis := "…"
	if t.ASCII {
		ellipsis = "..."
	}
	if len(runes) > limit {
		return string(runes[:max(limit-utf8.RuneCountInString(ellipsis), 0)]) + ellipsis
	}
	return string(runes)
}

// names lists subjects of a row, with what they are.
func (r Row) names(most int) string {
	var names []string
	for _, s := range r.Subjects {
		names = append(names, s.String())
	}
	return few(names, most)
}

// String is for people: "container web-0".
func (s Subject) String() string {
	if s.Kind == "" {
		return s.Name
	}
	return s.Kind + " " + s.Name
}

// group is columns of a row with one answer.
type group struct {
	Cell
	Columns []string
}

// groups joins the columns that are answered alike, the worst first.
func (r Row) groups(all []Column) (list []group) {
	for i, c := range r.Cells {
		same := func(g group) bool {
			return g.State == c.State && g.Rule == c.Rule && g.Witness == c.Witness && g.Reason == c.Reason && slices.Equal(g.By, c.By)
		}
		n := slices.IndexFunc(list, same)
		if n < 0 {
			n = len(list)
			list = append(list, group{Cell: c})
		}
		list[n].Columns = append(list[n].Columns, all[i].Name)
	}
	slices.SortStableFunc(list, func(a, b group) int { return badness(b.State) - badness(a.State) })
	return list
}

// why says what a state was concluded from.
func (c Cell) why() string {
	var parts []string
	if c.Rule != "" {
		parts = append(parts, "rule "+c.Rule)
	}
	if len(c.By) > 0 {
		parts = append(parts, "by "+strings.Join(c.By, ", "))
	}
	if c.Witness != "" {
		parts = append(parts, c.Witness)
	}
	if c.Reason != "" {
		parts = append(parts, c.Reason)
	}
	if len(parts) == 0 {
		return "no reason was recorded"
	}
	return strings.Join(parts, "; ")
}

// Reasons writes everything: what --verbose adds to the conclusion.
func (d *Doctor) Reasons(t *term.Printer) {
	all := shown(*d)
	all.reasons(t)
}

func (d *Doctor) reasons(t *term.Printer) {
	section(t, "fact", []string{"fact", "value", "read from"}, d.factRows())
	section(t, "user", []string{"user", "state", "algorithms", "evidence"}, d.userRows())
	section(t, "layer", []string{"layer", "whom it is for", "in force", "closes", "why"}, d.layerRows())
	d.matrixText(t)
	var rows [][]string
	for i, r := range d.Matrix.Rows {
		for _, g := range r.groups(d.Matrix.Columns) {
			rows = append(rows, []string{strconv.Itoa(i + 1), r.names(3), g.State, strings.Join(g.Columns, " "), g.why()})
		}
	}
	section(t, "reason", []string{"row", "subjects", "state", "what", "why"}, rows)
	section(t, "contradiction", []string{"contradiction"}, one(d.contradictionLines()))
	section(t, "not-asked", []string{"not asked"}, one(d.unaskedLines()))
	rows = nil
	for _, e := range d.CanGo {
		rows = append(rows, []string{e.What, e.Why})
	}
	section(t, "can-go", []string{"can go", "why"}, rows)
	for _, e := range d.CanGo {
		if e.Command != "" {
			t.Printf("can go: %s: %s", e.What, e.Command)
		}
	}
	for i, s := range d.Next {
		s.text(t, i+1)
	}
}

// text writes a step with what it does. Its command stands in a line of its own: it
// is there to be copied.
func (s Step) text(t *term.Printer, n int) {
	t.Printf("next %d: %s", n, s.Title)
	for _, line := range []struct{ label, text string }{
		{"", s.breaksLine()}, {"closes ", strings.Join(s.Closes, ", ")}, {"takes effect: ", s.When}, {"undo: ", s.Undo},
	} {
		if line.text != "" {
			t.Printf("  %s%s", line.label, line.text)
		}
	}
	t.Printf("  %s", s.Command)
}

// section writes a table, if there is anything in it. Where there is no terminal
// each line begins with its name, so that scripts can select.
func section(t *term.Printer, name string, header []string, rows [][]string) {
	if len(rows) == 0 {
		return
	}
	if !t.Tables {
		for i := range rows {
			rows[i] = slices.Concat([]string{name}, rows[i])
		}
	}
	t.Table(header, rows)
}

func one(lines []string) (rows [][]string) {
	for _, line := range lines {
		rows = append(rows, []string{line})
	}
	return rows
}

func (d *Doctor) factRows() (rows [][]string) {
	h := d.Host
	rows = [][]string{{"AF_ALG", h.AFALG, ""}, {"kernel", h.Kernel, ""}, {"machine", h.Machine, ""}}
	for _, f := range h.Facts {
		rows = append(rows, []string{f.Name, f.Value, f.Source})
	}
	for _, row := range rows {
		row[2] = term.Dash(row[2])
	}
	return rows
}

func (d *Doctor) userRows() (rows [][]string) {
	for _, u := range d.Users {
		rows = append(rows, []string{u.Name + u.where(), u.State, term.Dash(strings.Join(u.Algorithms, " ")), u.evidence()})
	}
	return rows
}

// where is for people: " (iwd.service)".
func (u User) where() string {
	var words []string
	for _, w := range []string{u.Executable, u.Unit, u.Container} {
		if w != "" && w != u.Name {
			words = append(words, w)
		}
	}
	if words == nil {
		return ""
	}
	return " (" + strings.Join(words, ", ") + ")"
}

func (u User) evidence() string {
	var texts []string
	for _, e := range u.Evidence {
		texts = append(texts, e.Kind+": "+e.Text)
	}
	if u.Seen != "" {
		texts = append(texts, "seen last "+u.Seen)
	}
	return term.Dash(strings.Join(texts, "; "))
}

func (d *Doctor) layerRows() (rows [][]string) {
	for _, l := range d.Layers {
		rows = append(rows, []string{l.Name, l.Subject, l.InForce, term.Dash(strings.Join(l.Closes, " ")), term.Dash(l.Reason)})
	}
	return rows
}

// symbols of the states, and those for a locale without UTF-8: characters that no
// rule's name can be.
var symbols = map[string][2]string{
	ProvedClosed:   {"●", "#"},
	UnprovedClosed: {"◐", "+"},
	LeftOpen:       {"◌", "."},
	Open:           {"○", "!"},
	Unknown:        {"?", "?"},
}

// symbol shows a cell: of one that is allowed, the name of the rule.
func (c Cell) symbol(ascii bool) string {
	if c.State == Allowed {
		return cmp.Or(c.Rule, Expected)
	}
	s, known := symbols[c.State]
	switch {
	case !known:
		return "?"
	case ascii:
		return s[1]
	}
	return s[0]
}

// matrixText writes the matrix and its legend. Columns whose names find no room
// are named by letters.
func (d *Doctor) matrixText(t *term.Printer) {
	if len(d.Matrix.Rows) == 0 {
		return
	}
	header := []string{"row", "who may use what"}
	const first, padding = 30, 3
	width := first
	for _, c := range d.Matrix.Columns {
		width += len(c.Name) + padding
	}
	letters := t.Tables && width > columns(t)
	var keys []string
	for i, c := range d.Matrix.Columns {
		name := c.Name
		if letters {
			name = letter(i)
			keys = append(keys, name+" "+c.Name)
		}
		header = append(header, name)
	}
	var rows [][]string
	for i, r := range d.Matrix.Rows {
		row := []string{strconv.Itoa(i + 1), r.names(2)}
		for _, c := range r.Cells {
			row = append(row, c.symbol(t.ASCII))
		}
		rows = append(rows, row)
	}
	if !t.Tables {
		rows = slices.Insert(rows, 0, header) // which a table without lines leaves out
	}
	section(t, "matrix", header, rows)
	if keys != nil {
		t.Notef("columns: %s", strings.Join(keys, ", "))
	}
	n := 0
	if t.ASCII {
		n = 1
	}
	t.Notef("%s proved closed, %s closed by what was not proved, %s open, %s left open: no policy closes it, %s unknown, a name: allowed by that rule",
		symbols[ProvedClosed][n], symbols[UnprovedClosed][n], symbols[Open][n], symbols[LeftOpen][n], symbols[Unknown][n])
}

// letter names a column: A to Z, then A1.
func letter(i int) string {
	const n = 26
	name := string(rune('A' + i%n))
	if i >= n {
		name += strconv.Itoa(i / n)
	}
	return name
}
