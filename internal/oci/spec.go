// Package oci puts a policy into containers as their runtimes start them: it
// hardens the spec of a container for the rules that it holds, proves that a
// spec is closed, and makes the bundles of the wrapper runtime.
package oci

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/gen"
	"github.com/afalg-policy/afalg-policy/internal/profile"
)

// MaxSpec bounds a spec and a state, in bytes.
const MaxSpec = profile.MaxJSON

// Spec is a config.json whose text was checked: JSON of bearable size, no key
// twice in an object, of a version that this program knows.
type Spec struct {
	Text    []byte
	Seccomp *specs.LinuxSeccomp // nil for an unconfined container
	config  *gen.Config
}

// document is what tells specs and states apart.
type document struct {
	Version string `json:"ociVersion"`
	Status  string `json:"status"`
	Bundle  string `json:"bundle"`
}

// ReadSpec checks a config.json. Errors begin with line:col where they have a
// place.
func ReadSpec(text []byte) (s *Spec, err error) {
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, errors.New("it is empty")
	}
	d := peek(text)
	if d.isState() {
		return nil, errors.New("this is the state of a container, where its spec (config.json) is meant")
	}
	s = &Spec{Text: text}
	if s.config, err = gen.ReadConfig(text); err != nil {
		return nil, err
	}
	if err := checkVersion(d.Version); err != nil {
		return nil, err
	}
	if s.Seccomp, err = s.config.Seccomp(); err != nil {
		return nil, err
	}
	return s, nil
}

// peek reads what specs and states have in common; nothing where a text is
// neither.
func peek(text []byte) document {
	var d document
	if len(text) > MaxSpec || json.Unmarshal(text, &d) != nil {
		return document{}
	}
	return d
}

func (d document) isState() bool { return d.Bundle != "" || d.Status != "" }

// checkVersion refuses another major version, whose keys may mean anything.
// What a later minor version adds is left as it stands, but for seccomp, where
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
