package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/afalg-policy/afalg-policy/internal/learn"
	"github.com/afalg-policy/afalg-policy/internal/lsm"
	"github.com/afalg-policy/afalg-policy/internal/output"
	"github.com/afalg-policy/afalg-policy/internal/report"
)

const lsmLearnLong = `Learn writes the least policy that allows what was used on this host since the
policy was loaded, best with --audit. The kernel recorded it; no daemon had to
live.

An algorithm is used once an operation socket is accepted. What was bound and
never used is a comment: programs bind names to see what the kernel has. A rule
names an executable by its path and its digest, with --paths by its path alone:
for hosts of several versions, and for upgrades.

Standard error lists what cannot be learned: executables that are not found any
more, and containers, which hold rules by a grant. It says where the record is
incomplete: the kernel keeps 8,192 uses.

With --json the uses themselves are printed, with user, unit, verdict and times.
Such REPORTs, of other hosts too, are what is learned from if they are named:
then nothing is asked of this host, and root is not needed.`

func newLSMLearn(t *tui) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "learn [REPORT]...",
		Short: "Write the least policy for what the kernel recorded",
		Long:  lsmLearnLong,
		Example: `  afalg-policy lsm learn -o learned.yaml
  afalg-policy lsm learn --json > web01.json
  afalg-policy lsm learn --paths -o learned.yaml web01.json web02.json`,
	}
	f := cmd.Flags()
	path := f.StringP("output", "o", "", "`FILE` to write; standard output without it")
	paths := f.Bool("paths", false, "name executables by their paths alone")
	asJSON := f.Bool("json", false, "print the uses as JSON; a policy takes -o then")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		if *asJSON && len(args) > 0 {
			return usagef("--json prints the uses of this host: leave the reports out")
		}
		all, err := usesOf(args)
		if err != nil {
			return err
		}
		if *asJSON {
			if err := t.JSON(all[0]); err != nil || *path == "" {
				return err
			}
		}
		return learnFrom(t, all, *paths, *path)
	}
	return cmd
}

// usesOf reads reports, or asks the kernel if none is named.
func usesOf(names []string) (all []*report.Uses, err error) {
	for _, name := range names {
		r, err := report.ReadUses(name)
		if err != nil {
			return nil, usagef("%w", err)
		}
		all = append(all, r)
	}
	if len(all) > 0 {
		return all, nil
	}
	uses, err := lsm.Uses()
	if err != nil {
		return nil, err
	}
	s, err := lsm.ReadStatus()
	if err != nil {
		return nil, err
	}
	r, err := report.NewUses(s, uses)
	return []*report.Uses{r}, err
}

// learnFrom writes the policy, to standard output if no path is given.
func learnFrom(t *tui, all []*report.Uses, paths bool, path string) error {
	to := learn.Recorder{Paths: paths}
	var hosts []string
	incomplete := ""
	for _, r := range all {
		for _, note := range r.Learn(&to) {
			t.Notef("%s", note)
		}
		hosts = append(hosts, r.Host)
		if r.Incomplete() {
			incomplete = "; INCOMPLETE: more was used than was recorded"
		}
	}
	made := fmt.Sprintf("made by %s from what was used on %s%s", toolName(), strings.Join(unique(hosts), ", "), incomplete)
	text := to.File("learned", made)
	if path != "" {
		return written(output.File(path, text))
	}
	_, err := t.out.Write(text)
	return err
}
