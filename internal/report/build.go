package report

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/afalg-policy/afalg-policy/internal/filter/seccomp"
)

// About is the result of version.
type About struct {
	Header
	Build Build `json:"build"`
}

// NewAbout is the report of a build.
func NewAbout(b Build) *About { return &About{NewHeader("version", ""), b} }

// Build names the version and the sources of a program.
type Build struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Modified bool   `json:"modified,omitempty"` // built from a tree with changes
	Go       string `json:"go"`
	Platform string `json:"platform"`
	// Libseccomp compiles the filters that are proved.
	Libseccomp string `json:"libseccomp"`
}

// String is one line for people.
func (b Build) String() string {
	text := fmt.Sprintf("afalg-policy %s (%s, %s, libseccomp %s)", b.Version, b.Go, b.Platform, b.Libseccomp)
	if b.Commit != "" {
		text += " commit " + b.Commit
	}
	if b.Modified {
		text += " with changes"
	}
	return text
}

// ReadBuild returns those of this program. The version is the linker's; "" is
// "devel".
func ReadBuild(version string) Build {
	b := Build{Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH, Libseccomp: seccomp.Version()}
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
