// Package vouch tells who a container is that is about to start: what its
// platform says of it, apart from what the container or its image says of
// itself.
//
// A platform says it in files that root alone writes, and in the parts of the
// OCI spec that it fills in by itself. An image says it in labels and in the
// annotations of its manifest, which some platforms merge into the same maps;
// they are told apart by reading the image.
package vouch

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// Source is what a hook or a wrapper runtime is given about a container.
type Source struct {
	Platform string // one of Platforms
	ID       string // "" where the platform does not tell: Podman's precreate hook gets the spec alone
	Bundle   string // directory; "" if not known
	Spec     []byte // config.json, already checked to be JSON of bearable size without duplicate keys
}

// platforms has one reader each. A reader adds what it can establish, and its
// error says what it could not.
var platforms = map[string]func(Source, *spec, *plan.Container) error{
	"containerd": containerd,
	"crio":       crio,
	"docker":     docker,
	"oci":        oci,
	"podman":     podman,
}

// Platforms lists the names that Source.Platform may have, sorted.
func Platforms() []string { return slices.Sorted(maps.Keys(platforms)) }

// Container tells who a container is. An error means that facts could not be
// established; the Container that comes with it is still usable, and vouches
// for less.
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
	sp, err := parseSpec(s.Spec)
	if err != nil {
		return c, err
	}
	// Nothing counts for the container until its reader says so.
	c.Claimed.Annotations = sp.Annotations
	err = read(s, sp, &c)
	c.Asks = asks(sp, &c)
	if err != nil {
		return c, fmt.Errorf("%s: who the container is: %w", s.Platform, err)
	}
	return c, nil
}

// oci is a runtime that is called by hand. The caller chooses the ID, and may
// have got the bundle from anywhere.
func oci(s Source, _ *spec, c *plan.Container) error {
	if s.ID == "" {
		return errNoID
	}
	c.Vouched.Name = s.ID
	return nil
}

// spec is the part of config.json that is looked at.
type spec struct {
	Root struct {
		Path string `json:"path"`
	} `json:"root"`
	Process struct {
		Env []string `json:"env"`
	} `json:"process"`
	Mounts []struct {
		Destination string `json:"destination"`
		Source      string `json:"source"`
	} `json:"mounts"`
	Annotations map[string]string `json:"annotations"`
	Linux       struct {
		Seccomp struct {
			ListenerMetadata string `json:"listenerMetadata"`
		} `json:"seccomp"`
	} `json:"linux"`
}

func parseSpec(src []byte) (*spec, error) {
	var sp spec
	if err := json.Unmarshal(src, &sp); err != nil {
		return nil, fmt.Errorf("reading the spec: %w", err)
	}
	return &sp, nil
}

// source of the first mount at a destination.
func (sp *spec) source(destination string) string {
	for _, m := range sp.Mounts {
		if m.Destination == destination {
			return m.Source
		}
	}
	return ""
}

var errNoID = errors.New("the ID of the container is not known")

// idForm is what runc and crun take. No ID is a path.
var idForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.+-]*$`)

const maxID = 1024

func checkID(id string) error {
	if len(id) > maxID || !idForm.MatchString(id) {
		return fmt.Errorf("container ID %.100q: letters, digits and _.+- may stand in it, a letter or a digit first", id)
	}
	return nil
}
