package main

import (
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/gen"
	"github.com/afalg-policy/afalg-policy/internal/policy"
	"github.com/afalg-policy/afalg-policy/policies"
	"github.com/spf13/cobra"
)

// item is one thing that list shows.
type item struct {
	Name string `json:"name"`
	Text string `json:"text"`
	// Targets tells, for a route, what each target does to it.
	Targets map[string]gen.Coverage `json:"targets,omitempty"`
}

// section is one of the lists.
type section struct {
	name  string
	one   string // of its items, in the header of a table
	items func() ([]item, error)
}

// sections are in the order in which "list" alone shows them.
func sections() []section {
	return []section{
		{"policies", "policy", listPolicies},
		{"targets", "target", listTargets},
		{"routes", "route", listRoutes},
	}
}

func newList(t *tui) *cobra.Command {
	var names []string
	for _, s := range sections() {
		names = append(names, s.name)
	}
	cmd := &cobra.Command{
		Use:   "list [" + strings.Join(names, "|") + "]",
		Short: "List the shipped policies, the targets and the routes",
		Long: `List shows what there is: the policies that are shipped with the program, the
targets that generate writes, and the routes by which a program can obtain an
AF_ALG socket, with what each target does to them in a workload that holds no
grant. Without an argument it shows all three.`,
		Example: `  afalg-policy list policies
  afalg-policy list routes --json`,
		ValidArgs: names,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 || len(args) == 1 && !slices.Contains(names, args[0]) {
				return usagef("list one of %s, or all: not %q", strings.Join(names, ", "), strings.Join(args, " "))
			}
			return nil
		},
	}
	wantJSON := addFormat(cmd)
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		return list(t, args, wantJSON())
	}
	return cmd
}

func list(t *tui, wanted []string, asJSON bool) error {
	found := map[string][]item{}
	for _, s := range sections() {
		if len(wanted) > 0 && !slices.Contains(wanted, s.name) {
			continue
		}
		items, err := s.items()
		if err != nil {
			return err
		}
		found[s.name] = items
		if !asJSON {
			showItems(t, s, items, len(wanted) == 0)
		}
	}
	if asJSON {
		return t.json(found)
	}
	return nil
}

// showItems writes one list. Where there are several, each line begins with
// the name of its list, so that scripts can select.
func showItems(t *tui, s section, items []item, several bool) {
	var rows [][]string
	for _, i := range items {
		row := []string{i.Name, i.Text}
		if i.Targets != nil {
			row = row[:1]
			for _, target := range gen.Targets() {
				cell := string(i.Targets[target])
				if !t.tables {
					cell = target + "=" + strings.ReplaceAll(cell, " ", "-")
				}
				row = append(row, cell)
			}
			row = append(row, i.Text)
		}
		if several && !t.tables {
			row = append([]string{s.name}, row...)
		}
		rows = append(rows, row)
	}
	header := []string{s.one, "what it is"}
	if len(items) > 0 && items[0].Targets != nil {
		header = append(append(header[:1:1], gen.Targets()...), header[1])
	}
	t.table(header, rows)
}

func listPolicies() ([]item, error) {
	var items []item
	for _, name := range policies.Names() {
		text, err := policies.Summary(name)
		if err != nil {
			return nil, err
		}
		items = append(items, item{Name: policy.BuiltinPrefix + name, Text: text})
	}
	return items, nil
}

func listTargets() ([]item, error) {
	var items []item
	for _, target := range targets() {
		items = append(items, item{Name: target.name, Text: target.short})
	}
	return items, nil
}

func listRoutes() ([]item, error) {
	var items []item
	for _, r := range afalg.Routes() {
		targets := map[string]gen.Coverage{}
		for _, name := range gen.Targets() {
			targets[name] = gen.CoverageOf(name, r.Route)
		}
		items = append(items, item{string(r.Route), r.How, targets})
	}
	return items, nil
}
