package main

import (
	"github.com/spf13/cobra"

	"github.com/afalg-policy/afalg-policy/internal/licences"
	"github.com/afalg-policy/afalg-policy/internal/report"
)

// version is set by the linker to what scripts/version prints.
var version = ""

func buildInfo() report.Build { return report.ReadBuild(version) }

func newVersion(t *tui) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Tell the version and what it was built from",
		Long: `Version prints the version, the Go version, the platform, the libseccomp that
filters are proved with, and the commit where it is known.

With --licenses it prints the terms of this program and of everything that is
linked into it.`,
		Example: `  afalg-policy version
  afalg-policy version --json
  afalg-policy version --licenses`,
		Args: cobra.NoArgs,
	}
	wantJSON := addFormat(cmd)
	terms := cmd.Flags().Bool("licenses", false, "print the licences of the program and of what is linked into it")
	alone(cmd, "licenses")
	cmd.RunE = func(*cobra.Command, []string) error {
		if *terms {
			t.Printf("%s", licences.Text())
			return nil
		}
		if wantJSON() {
			return t.JSON(report.NewAbout(buildInfo()))
		}
		t.Printf("%s", buildInfo())
		return nil
	}
	return cmd
}
