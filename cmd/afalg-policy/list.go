package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/afalg-policy/afalg-policy/internal/gen"
	"github.com/afalg-policy/afalg-policy/internal/report"
)

// section is one of the lists.
type section struct {
	name  string
	one   string // of its items, in the header of a table
	items func() ([]report.Item, error)
}

// sections are in the order in which "list" alone shows them.
func sections() []section {
	return []section{
		{"policies", "policy", report.Policies},
		{"presets", "preset", report.Presets},
		{"targets", "target", listTargets},
		{"routes", "route", report.Routes},
	}
}

func newList(t *tui) *cobra.Command {
	var names []string
	for _, s := range sections() {
		names = append(names, s.name)
	}
	cmd := &cobra.Command{
		Use:   "list [" + strings.Join(names, "|") + "]",
		Short: "List the shipped policies, presets, targets and routes",
		Long: `List shows what there is: the policies that are shipped with the program, the
presets of classes that a policy may deny beside AF_ALG, each class with why,
whom it breaks and where that is known from, the targets that generate writes,
and the routes by which a program can obtain an AF_ALG socket, with what each
target does to them in a workload that holds no grant. Without an argument it
shows all of them.`,
		Example: `  afalg-policy list policies
  afalg-policy list presets
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
	found := map[string][]report.Item{}
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
			few := report.Section{Name: s.name, One: s.one, Items: items, Targets: gen.Targets()}
			few.Text(&t.Printer, len(wanted) == 0)
		}
	}
	if asJSON {
		return t.JSON(report.NewList(found))
	}
	return nil
}

func listTargets() ([]report.Item, error) {
	var items []report.Item
	for _, target := range targets() {
		items = append(items, report.Item{Name: target.name, Text: target.short})
	}
	return items, nil
}
