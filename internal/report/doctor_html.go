package report

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
	"strconv"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/term"
)

//go:embed page/page.css
var pageStyle string

//go:embed page
var pageFiles embed.FS

// pages are the templates. They escape what they show by its place; that nothing in
// it turns the order of the letters around is for shown.
var pages = template.Must(template.New("").Funcs(template.FuncMap{
	"policy": func() string { return contentPolicy(pageStyle) },
	"style":  func() template.CSS { return template.CSS(pageStyle) }, // a text of this program
	"class":  class,
	"symbol": func(c Cell) string { return c.symbol(false) },
	"mark":   func(state string) string { return Cell{State: state, Rule: "◆"}.symbol(false) },
	"join":   func(texts []string) string { return strings.Join(texts, ", ") },
	"few":    func(some []string, all int) string { return strings.Join(some, ", ") + more(all-len(some)) },
	"count":  term.Count,
	"inc":    func(i int) int { return i + 1 },
	"short":  func(digest string) string { return digest[:min(len(digest), len("sha256:")+shortID)] },
}).ParseFS(pageFiles, "page/*.html"))

// contentPolicy allows a page its own style and nothing else, so that even a fault
// in the escaping could not run, load or send anything.
func contentPolicy(style string) string {
	sum := sha256.Sum256([]byte(style))
	return fmt.Sprintf("default-src 'none'; style-src 'sha256-%s'; base-uri 'none'; form-action 'none'", base64.StdEncoding.EncodeToString(sum[:]))
}

// HTML writes the report as one page, which loads nothing.
func (d *Doctor) HTML(w io.Writer) error {
	all := shown(*d)
	counts := d.Matrix.Counts()
	return writePage(w, "doctor.html", struct {
		Title  string
		Report Doctor
		Bar    bar
	}{
		"afalg-policy doctor: " + all.Host.Name,
		all,
		newBar(d.headline(), []part{
			{"open", counts[Open]}, {"unknown", counts[Unknown]}, {"allowed", counts[Allowed]}, {"left", counts[LeftOpen]},
			{"closed", counts[UnprovedClosed]}, {"proved", counts[ProvedClosed]},
		}),
	})
}

// HTML writes the report as one page, which loads nothing.
func (f *Fleet) HTML(w io.Writer) error {
	all := shown(*f)
	groups := map[string]*hostGroup{}
	var list []*hostGroup
	var parts []part
	for i, v := range all.Verdicts {
		groups[v.Verdict] = &hostGroup{Verdict: v.Verdict, Shown: i == 0}
		list = append(list, groups[v.Verdict])
		parts = append(parts, part{map[string]string{Closed: "proved"}[v.Verdict], v.Hosts})
		if parts[i].class == "" {
			parts[i].class = v.Verdict
		}
	}
	for _, h := range all.List {
		groups[h.Verdict].Hosts = append(groups[h.Verdict].Hosts, h)
	}
	further := append(cut(&all.Next, "steps"), cut(&all.Users, "users")...)
	further = append(further, cut(&all.Differs, "what differs")...)
	further = append(further, cut(&all.CanGo, "what can go")...)
	return writePage(w, "fleet.html", struct {
		Title   string
		Report  Fleet
		Bar     bar
		Groups  []*hostGroup
		Further []string
	}{"afalg-policy doctor: " + term.Count(f.Hosts, "host"), all, newBar(f.headline(), parts), list, further})
}

// cut leaves what a page can show of a list, and says what it leaves out.
func cut[T any](list *[]T, what string) []string {
	const most = 100
	if len(*list) <= most {
		return nil
	}
	all := len(*list)
	*list = (*list)[:most]
	return []string{fmt.Sprintf("The first %d of %d are shown: %s.", most, all, what)}
}

// hostGroup is the hosts of one verdict.
type hostGroup struct {
	Verdict string
	Shown   bool
	Hosts   []FleetHost
}

func writePage(w io.Writer, name string, data any) error {
	var page bytes.Buffer // a template that fails leaves no half of a page
	if err := pages.ExecuteTemplate(&page, name, data); err != nil {
		return fmt.Errorf("making the page: %w", err)
	}
	_, err := w.Write(page.Bytes())
	return err
}

// class is the style of a state.
func class(state string) string {
	switch state {
	case ProvedClosed:
		return "proved"
	case UnprovedClosed:
		return "closed"
	case LeftOpen:
		return "left"
	case Open, Allowed:
		return state
	}
	return Unknown
}

// bar is a picture of shares.
type bar struct {
	Label string
	Parts []segment
}

type part struct {
	class string
	n     int
}

type segment struct{ Class, From, Width string }

func newBar(label string, parts []part) bar {
	b := bar{Label: label}
	all := 0
	for _, p := range parts {
		all += p.n
	}
	const least = 1.0 // percent: one of thousands is seen too
	x := 0.0
	percent := func(f float64) string { return strconv.FormatFloat(f, 'f', 2, 64) }
	for _, p := range parts {
		if p.n == 0 {
			continue
		}
		width := max(100*float64(p.n)/float64(all), least)
		b.Parts = append(b.Parts, segment{p.class, percent(x), percent(min(width, 100-x))})
		x += width
	}
	return b
}

// What templates ask for.

func (d Doctor) Headline() string             { return d.headline() }
func (f Fleet) Headline() string              { return f.headline() }
func (r Row) Names(most int) string           { return r.names(most) }
func (r Row) Groups(columns []Column) []group { return r.groups(columns) }
func (c Cell) Why() string                    { return c.why() }

// Where says where a user runs.
func (u User) Where() string { return strings.Trim(u.where(), " ()") }

// Summary is the values in one line.
func (d Difference) Summary() string {
	var texts []string
	for _, v := range d.Values[:min(3, len(d.Values))] {
		texts = append(texts, fmt.Sprintf("%s on %d", v.Value, v.Hosts))
	}
	return strings.Join(texts, ", ") + more(len(d.Values)-len(texts)+d.More)
}
