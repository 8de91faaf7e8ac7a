package report

import (
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/gen"
	"github.com/afalg-policy/afalg-policy/internal/policy"
	"github.com/afalg-policy/afalg-policy/internal/term"
	"github.com/afalg-policy/afalg-policy/policies"
)

// Item is one thing that list shows.
type Item struct {
	Name string `json:"name"`
	Text string `json:"text"`
	// Targets tells, for a route, what each target does to it.
	Targets map[string]string `json:"targets,omitempty"`
}

// List is the result of list.
type List struct {
	Header
	Lists map[string][]Item `json:"lists"` // by what is listed
}

// NewList is the report of lists, by what is listed.
func NewList(lists map[string][]Item) *List { return &List{NewHeader("list", ""), lists} }

// Section is one of the lists as people read it.
type Section struct {
	Name    string
	One     string // of its items, in the header of a table
	Items   []Item
	Targets []string // the columns of items that have targets
}

// Text writes the section. Where there are several, each line begins with
// the name of its list, so that scripts can select.
func (s Section) Text(t *term.Printer, several bool) {
	var rows [][]string
	for _, i := range s.Items {
		row := []string{i.Name, i.Text}
		if i.Targets != nil {
			row = row[:1]
			for _, target := range s.Targets {
				cell := i.Targets[target]
				if !t.Tables {
					cell = target + "=" + strings.ReplaceAll(cell, " ", "-")
				}
				row = append(row, cell)
			}
			row = append(row, i.Text)
		}
		if several && !t.Tables {
			row = append([]string{s.Name}, row...)
		}
		rows = append(rows, row)
	}
	header := []string{s.One, "what it is"}
	if len(s.Items) > 0 && s.Items[0].Targets != nil {
		header = append(append(header[:1:1], s.Targets...), header[1])
	}
	t.Table(header, rows)
}

// Policies lists the shipped policies, each with its first sentence.
func Policies() ([]Item, error) {
	var items []Item
	for _, name := range policies.Names() {
		text, err := policies.Summary(name)
		if err != nil {
			return nil, err
		}
		items = append(items, Item{Name: policy.BuiltinPrefix + name, Text: text})
	}
	return items, nil
}

// Presets lists the presets, each followed by its classes, and then the known
// classes that no preset has.
func Presets() ([]Item, error) {
	var items []Item
	for _, p := range policy.PresetInfos() {
		items = append(items, Item{Name: p.Name, Text: p.Summary})
		for _, c := range policy.ClassesOf(p.Name) {
			items = append(items, Item{Name: p.Name + ": " + c.String(), Text: aboutClass(c)})
		}
	}
	for _, c := range policy.Classes() {
		if len(c.Presets) == 0 {
			items = append(items, Item{Name: "no preset: " + c.String(), Text: aboutClass(c)})
		}
	}
	return items, nil
}

func aboutClass(c policy.Class) string {
	text := c.Why
	if c.Breaks != "" {
		text += " Closing it breaks: " + c.Breaks
	}
	return text + " (" + c.Source + ")"
}

// Routes lists the routes, with what each target does to them.
func Routes() ([]Item, error) {
	var items []Item
	for _, r := range afalg.Routes() {
		targets := map[string]string{}
		for _, name := range gen.Targets() {
			targets[name] = string(gen.CoverageOf(name, r.Route))
		}
		items = append(items, Item{Name: string(r.Route), Text: r.How, Targets: targets})
	}
	return items, nil
}
