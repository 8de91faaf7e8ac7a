package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/afalg-policy/afalg-policy/internal/seccomp"
	"github.com/spf13/cobra"
)

// version is set by the linker: -ldflags "-X main.version=v1.0.0".
var version = ""

// build tells what this program was made from.
type build struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Modified bool   `json:"modified,omitempty"` // built from a tree with changes
	Go       string `json:"go"`
	Platform string `json:"platform"`
	// Libseccomp compiles the filters that are proved.
	Libseccomp string `json:"libseccomp"`
}

func buildInfo() build {
	b := build{Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH, Libseccomp: seccomp.Version()}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				b.Commit = s.Value
			case "vcs.modified":
				b.Modified = s.Value == "true"
			}
		}
	}
	if b.Version == "" {
		b.Version = "devel"
	}
	return b
}

func (b build) String() string {
	text := fmt.Sprintf("afalg-policy %s (%s, %s, libseccomp %s)", b.Version, b.Go, b.Platform, b.Libseccomp)
	if b.Commit != "" {
		text += " commit " + b.Commit
	}
	if b.Modified {
		text += " with changes"
	}
	return text
}

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
			return t.json(buildInfo())
		}
		t.printf("%s", buildInfo())
		return nil
	}
	return cmd
}
