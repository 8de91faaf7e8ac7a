// Package vouch identifies a container that is about to start. It keeps what
// its platform says of it apart from what the container or its image says of
// itself.
//
// A platform speaks in files that only root writes, and in the parts of the OCI
// spec that it fills in by itself. An image speaks in labels and in the
// annotations of its manifest. Some platforms merge these into the same maps;
// package vouch reads the image to tell them apart.
package vouch

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// Source is the input of a hook or a wrapper runtime about a container.
type Source struct {
	Platform string // one of Platforms
	ID       string // "" where the platform gives none: Podman's precreate hook gets the spec alone
	Bundle   string // directory; "" if not known
	Spec     *profile.Config
}

// platforms has one reader each. A reader adds what it can establish, and its
// error says what it could not.
var platforms = map[string]func(Source, *plan.Container) error{
	"containerd": containerd,
	"crio":       crio,
	"docker":     docker,
	"oci":        oci,
	"podman":     podman,
}

// Platforms lists the names that Source.Platform may have, sorted.
func Platforms() []string { return slices.Sorted(maps.Keys(platforms)) }

// Container identifies a container. An error means that facts could not be
// established; the Container that comes with it is still usable, and has fewer
// vouched facts.
func Container(s Source) (plan.Container, error) {
	c := plan.Container{Platform: s.Platform, ID: s.ID}
	read, ok := platforms[s.Platform]
	if !ok {
		return c, fmt.Errorf("platform %.100q: it must be one of %s", s.Platform, strings.Join(Platforms(), ", "))
	}
	if s.ID != "" {
		if err := checkID(s.ID); err != nil {
			return c, err
		}
	}
	if s.Spec == nil {
		return c, errors.New("the spec of the container is not known")
	}
	// Nothing counts for the container until its reader says so.
	c.Claimed.Annotations = s.Spec.Annotations
	err := read(s, &c)
	c.Asks = asks(s.Spec, &c)
	if err != nil {
		return c, fmt.Errorf("%s: identify the container: %w", s.Platform, err)
	}
	return c, nil
}

// oci is a runtime that is called by hand. The caller chooses the ID, and may
// have got the bundle from anywhere.
func oci(s Source, c *plan.Container) error {
	if s.ID == "" {
		return errNoID
	}
	c.Vouched.Name = s.ID
	return nil
}

// sourceOf is that of the first mount at a destination.
func sourceOf(spec *profile.Config, destination string) string {
	for _, m := range spec.Mounts {
		if m.Destination == destination {
			return m.Source
		}
	}
	return ""
}

var errNoID = errors.New("the ID of the container is not known")

// idForm matches the IDs that runc and crun accept. No ID is a path.
var idForm = lazily(`^[A-Za-z0-9][A-Za-z0-9_.+-]*$`)

const maxID = 1024

func checkID(id string) error {
	if len(id) > maxID || !idForm().MatchString(id) {
		return fmt.Errorf("container ID %.100q: letters, digits and _.+- may stand in it, a letter or a digit first", id)
	}
	return nil
}

// lazily compiles a pattern at its first use: most containers start without any
// of them.
func lazily(pattern string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(pattern) })
}
