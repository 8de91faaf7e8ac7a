// Package oci puts a policy into containers as their runtimes start them: it
// hardens the spec of a container for the rules that it holds, proves that a
// spec is closed, and makes the bundles of the wrapper runtime.
package oci

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/jsontext"
)

// MaxSpec bounds a spec and a state, in bytes.
const MaxSpec = jsontext.Max

// Spec is a config.json of a version that this program knows, read once.
type Spec struct {
	Config  *profile.Config
	Seccomp *profile.Profile // nil for an unconfined container; as it is after the changes
	changes []jsontext.Change
}

// Text is the spec with what was changed in it. Every other byte is as it was
// read.
func (s *Spec) Text() []byte { return jsontext.Apply(s.Config.Document().Src, s.changes...) }

// SpecOf is the spec of a container whose runtime says what it is by values, as it
// says it to plugins. Such a spec has no text.
func SpecOf(seccomp *specs.LinuxSeccomp, config profile.Config) (*Spec, error) {
	if err := config.OwnFilter(); err != nil {
		return nil, err
	}
	s := &Spec{Config: &config}
	if seccomp == nil {
		return s, nil
	}
	p, err := profile.OfSpec(seccomp)
	if err != nil || p.FiltersNothing() {
		return s, err
	}
	s.Seccomp = p
	return s, nil
}

// under is the spec with another profile.
func (s *Spec) under(p *profile.Profile) (*Spec, error) {
	if s.Config.Document() == nil {
		return &Spec{Config: s.Config, Seccomp: p}, nil
	}
	change, err := s.Config.Set(p)
	if err != nil {
		return nil, err
	}
	hardened := s.with(change)
	hardened.Seccomp = p
	return hardened, nil
}

// with is the spec with further changes.
func (s *Spec) with(changes ...jsontext.Change) *Spec {
	changed := *s
	changed.changes = slices.Concat(s.changes, changes)
	return &changed
}

// ReadSpec reads a config.json. Errors begin with line:col where they have a
// place.
func ReadSpec(text []byte) (*Spec, error) {
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, errors.New("it is empty")
	}
	c, err := profile.ReadConfig(text)
	if err != nil {
		return nil, err
	}
	if isState(c.Document()) {
		return nil, errors.New("this is the state of a container, where its spec (config.json) is meant")
	}
	if err := c.ForLinux(); err != nil {
		return nil, err
	}
	if err := checkVersion(c.Version); err != nil {
		return nil, err
	}
	seccomp, err := c.StrictProfile()
	if err != nil {
		return nil, err
	}
	return &Spec{Config: c, Seccomp: seccomp}, nil
}

// isState tells the state of a container from a spec.
func isState(d *jsontext.Document) bool { return d.Text("/bundle") != "" || d.Text("/status") != "" }

// checkVersion refuses another major version, whose keys may mean anything.
// Keys that a later minor version adds stay as they are, except for seccomp, where
// unknown keys are refused.
func checkVersion(version string) error {
	if version == "" {
		return errors.New("ociVersion is missing, or no text")
	}
	major, _, _ := strings.Cut(version, ".")
	if n, err := strconv.Atoi(major); err != nil || n > specs.VersionMajor {
		return fmt.Errorf("ociVersion %.40q: this program knows version %d of the runtime specification", version, specs.VersionMajor)
	}
	return nil
}
