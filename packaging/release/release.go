// Package release says what a release is made of. Every artefact is derived from
// these values, and from nothing of the machine that makes it.
package release

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Release is one version of the program, built.
type Release struct {
	Version string    // as scripts/version prints it: 1.2.3, or 1.2.3-dev+0123456789ab
	Date    time.Time // of the commit; every file in every artefact has it
	Tree    string    // the repository
	Out     string    // where artefacts go
	// Programs has the path of the static binary for each architecture, by Go's
	// name of that.
	Programs map[string]string
}

// Archs lists the architectures of the release, in order.
func (r *Release) Archs() []string { return slices.Sorted(maps.Keys(r.Programs)) }

var version = regexp.MustCompile(`^(\d+\.\d+\.\d+)(?:-([0-9A-Za-z.]+))?(?:\+([0-9A-Za-z.]+))?$`)

// CheckVersion refuses what package managers would not sort.
func CheckVersion(v string) error {
	if !version.MatchString(v) {
		return fmt.Errorf("-version %q: want 1.2.3, or 1.2.3-dev+0123456789ab as scripts/version prints it", v)
	}
	return nil
}

// Maintainer is nobody by name: SECURITY.md and the repository say where to turn.
const Maintainer = "The afalg-policy authors <afalg-policy@users.noreply.github.com>"

// Homepage is that of the repository.
const Homepage = "https://github.com/afalg-policy/afalg-policy"

// PackageVersion is the version as dpkg and rpm sort it: what precedes 1.2.3 has a
// tilde where semantic versions have a hyphen.
func (r *Release) PackageVersion() string { return strings.Replace(r.Version, "-", "~", 1) }

// DebianVersion is that with the revision of the package.
func (r *Release) DebianVersion() string { return r.PackageVersion() + "-1" }
