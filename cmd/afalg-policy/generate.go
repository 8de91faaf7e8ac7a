package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/gen"
	"github.com/afalg-policy/afalg-policy/internal/output"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/report"
	"github.com/afalg-policy/afalg-policy/internal/report/source"
)

// generator renders a plan. It is called once the flags are parsed.
type generator func(p *plan.Plan, c gen.Common) ([]gen.File, []plan.Gap, error)

// target is a subcommand of generate. This file does what all of them
// share: the policy, --grant, --accept and --output, the gaps, the writing.
type target struct {
	name    string
	short   string
	long    string
	example string
	// directory is set where the output is a directory; else it is one file,
	// and standard output by default.
	directory bool
	// tells is set where the target itself tells whom the output breaks.
	tells bool
	// flags adds the flags of the target, and returns what renders it.
	flags func(cmd *cobra.Command) generator
}

// targets lists the targets by name.
func targets() []target {
	return []target{appArmorTarget(), hostTarget(), kubernetesTarget(), ociTarget(), seccompTarget(), selinuxTarget(), systemdTarget(), tetragonTarget()}
}

const generateLong = `Generate renders a policy to a target. Each target says on standard error what
it cannot express of the policy:

  stricter   it denies what the policy allows
  different  it denies as the policy does, with another errno
  wider      it allows what the policy denies
  breaking   it is stricter, and stops somebody who is here and needs what it
             closes

A wider or a breaking gap is an error, and nothing is written, unless --accept
names it. What was accepted is recorded in the output where its format has a
place for it.

Whom the policy is known to break, by the classes that it denies beside AF_ALG,
is said as a note.

Without --grant the output is for workloads that hold no rule of the policy.
With --json the gaps are a report on standard output.

An output is written completely or not at all. A path that is a link, a device
or of the wrong kind is refused.`

func newGenerate(t *tui) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "generate",
		Short: "Render a policy to a target: seccomp, systemd, AppArmor, host, …",
		Long:  generateLong,
		Example: `  afalg-policy generate seccomp builtin:fips -o seccomp.json
  afalg-policy generate systemd policy.yaml -o out`,
	}
	for _, target := range targets() {
		cmd.AddCommand(newTarget(t, target))
	}
	asGroup(cmd, "target")
	return cmd
}

func newTarget(t *tui, target target) *cobra.Command {
	cmd := &cobra.Command{
		Use:               target.name + " POLICY",
		Short:             target.short,
		Long:              target.long,
		Example:           target.example,
		Args:              onePolicy,
		ValidArgsFunction: completePolicy,
	}
	render := target.flags(cmd)
	f := cmd.Flags()
	grants := f.StringArray("grant", nil, "`RULE` of the policy that the workload holds; may be repeated")
	accept := f.StringArray("accept", nil, "`NAME` of a wider or breaking gap that you take on; may be repeated")
	usage := "`FILE` to write; standard output without it"
	if target.directory {
		usage = "`DIR` to write to; made if it is missing"
	}
	path := f.StringP("output", "o", "", usage)
	asJSON := f.Bool("json", false, "print the gaps as JSON; it takes -o")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		switch {
		case target.directory && *path == "":
			return usagef("-o DIR is missing: %s writes more than one file", target.name)
		case *asJSON && (*path == "" || *path == source.Standard):
			return usagef("--json takes -o FILE: standard output is for the gaps then")
		}
		endsSoon()
		p, err := loadPlan(t, args[0])
		if err != nil {
			return err
		}
		c := gen.Common{Tool: toolName(), Grants: unique(*grants), Accept: unique(*accept), Tell: t.Note}
		if err := checkGrants(p, c.Grants); err != nil {
			return err
		}
		files, gaps, err := render(p, c)
		if !*asJSON {
			if !target.tells {
				showBreaks(t, p)
			}
			showGaps(t, plan.Untold(gaps, err))
		}
		switch {
		case err != nil:
		case target.directory:
			err = written(output.Directory(*path, files))
		default:
			err = writeSingle(t, *path, files)
		}
		if *asJSON && exitStatus(err) <= exitNo {
			return errors.Join(t.JSON(report.NewGaps(target.name, *path, p, gaps, err)), err)
		}
		return err
	}
	return cmd
}

// toolName is the generator in the record that an output carries.
func toolName() string { return "afalg-policy " + buildInfo().Version }

func unique(names []string) []string {
	names = slices.Sorted(slices.Values(names))
	return slices.Compact(names)
}

func checkGrants(p *plan.Plan, grants []string) error {
	for _, grant := range grants {
		if err := checkRule(p, "--grant", grant); err != nil {
			return err
		}
	}
	return nil
}

// checkRule refuses a rule that the policy does not have.
func checkRule(p *plan.Plan, flag, name string) error {
	var names []string
	for _, r := range p.Rules {
		names = append(names, r.Name)
	}
	switch {
	case slices.Contains(names, name):
		return nil
	case len(names) == 0:
		return usagef("%s %s: policy %s has no rules", flag, name, p.Name)
	}
	return usagef("%s %s: policy %s has no such rule; it has %s", flag, name, p.Name, strings.Join(names, ", "))
}

// showBreaks writes whom a policy is known to break, by whatever closes its classes.
func showBreaks(t *tui, p *plan.Plan) {
	for _, b := range p.Breaks() {
		t.Notef("note: %s", b)
	}
}

// showGaps writes what the output cannot express, with the routes it is about.
func showGaps(t *tui, gaps []plan.Gap) {
	for _, g := range gaps {
		about := ""
		if len(g.Routes) > 0 {
			about = " [" + joinRoutes(g.Routes) + "]"
		}
		t.Notef("gap: %s: %s%s: %s", g.Kind, g.Name, about, g.Text)
	}
}

func joinRoutes(routes []afalg.Route) string {
	var names []string
	for _, r := range routes {
		names = append(names, string(r))
	}
	return strings.Join(names, ", ")
}

// writeSingle writes the one file of a target, to standard output if no path
// is given.
func writeSingle(t *tui, path string, files []gen.File) error {
	if len(files) != 1 {
		return fmt.Errorf("the target made %d files instead of one", len(files))
	}
	if path != "" && path != "-" {
		return written(output.File(path, files[0].Data))
	}
	_, err := t.out.Write(files[0].Data)
	return err
}

// readInput reads a further input that the command line names, within a limit
// of bytes; "-" is standard input.
func readInput(path string, limit int64) ([]byte, error) {
	data, err := source.ReadNamed(os.Stdin, path, limit)
	if err != nil {
		return nil, usagef("%s: %w", source.ShownName(path), err)
	}
	return data, nil
}
