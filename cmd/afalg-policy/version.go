package main

import (
	"github.com/spf13/cobra"

	"github.com/afalg-policy/afalg-policy/internal/report"
)

// version is set by the linker: -ldflags "-X main.version=v1.0.0".
var version = ""

func buildInfo() report.Build { return report.ReadBuild(version) }

func newVersion(t *tui) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Tell the version and what it was built from",
		Long:  "Version prints the version, the Go version, the platform, the libseccomp that\nfilters are proved with, and the commit where it is known.",
		Example: `  afalg-policy version
  afalg-policy version --json`,
		Args: cobra.NoArgs,
	}
	wantJSON := addFormat(cmd)
	cmd.RunE = func(*cobra.Command, []string) error {
		if wantJSON() {
			return t.JSON(report.NewAbout(buildInfo()))
		}
		t.Printf("%s", buildInfo())
		return nil
	}
	return cmd
}
