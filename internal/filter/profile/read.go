package profile

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/jsontext"
)

// Read reads a profile as the runtimes do, which leave out keys that they do
// not know. A text that they would read in different ways, or that none would
// take, is an error that begins with line:col.
func Read(src []byte) (*Profile, error) {
	t, err := ReadText(src)
	if err != nil {
		return nil, err
	}
	return t.Profile()
}

// Parse is Read for those who write the profile again: a key that is not
// understood cannot be carried over, and is an error, except for remarks.
func Parse(src []byte) (*Profile, error) {
	t, err := ReadText(src)
	if err != nil {
		return nil, err
	}
	if err := t.knownKeys(reflect.TypeFor[Profile]()); err != nil {
		return nil, err
	}
	return t.Profile()
}

// Profile reads the profile of a text.
func (t *Text) Profile() (*Profile, error) {
	p := &Profile{text: t}
	if err := t.decode(p); err != nil {
		return nil, err
	}
	return p, p.normalize()
}

// Config reads a text as a config.json.
func (t *Text) Config() (*Config, error) { return configOf(t.JSON, t.Root) }

// section reads the profile of a text as linux.seccomp of a config.json, where
// no conditions are known; nil if there is none, or if it filters nothing.
func (t *Text) section() (*Profile, error) {
	if v := t.Value(); v == nil || jsontext.IsNull(v) {
		return nil, nil
	}
	var section specs.LinuxSeccomp
	if err := t.decode(&section); err != nil {
		return nil, err
	}
	p := ofSpec(&section)
	p.text = t
	if p.FiltersNothing() {
		return nil, nil
	}
	return p, p.normalize()
}

// decode reads the profile's value into what into points at.
func (t *Text) decode(into any) error {
	v := t.Value()
	if err := t.sameKeys(reflect.TypeOf(into).Elem()); err != nil {
		return err
	}
	if err := json.Unmarshal(t.JSON[v.StartOffset:v.EndOffset], into); err != nil {
		return t.typeError(err, v.StartOffset)
	}
	return nil
}

// Errorf makes an error about a value of the profile, named by a JSON pointer.
// It begins with line:col where the profile was read from a text.
func (p *Profile) Errorf(path, format string, args ...any) error {
	if p.text == nil {
		return fmt.Errorf("%s: %w", path, fmt.Errorf(format, args...))
	}
	return p.text.Errorf(path, format, args...)
}

// FiltersNothing reports whether runc, Docker and Podman take the profile for
// none, and load no filter.
func (p *Profile) FiltersNothing() bool { return p.DefaultAction == "" && len(p.Syscalls) == 0 }

// Idle lists the rules without a call, which runtimes load and which do
// nothing.
func (p *Profile) Idle() []int {
	var idle []int
	for i, r := range p.Syscalls {
		if len(r.Names) == 0 {
			idle = append(idle, i)
		}
	}
	return idle
}

// normalize brings the spellings of the formats together and checks what no
// runtime would load.
func (p *Profile) normalize() error {
	if p.FiltersNothing() {
		return nil
	}
	if p.DefaultAction == "" {
		return p.Errorf("", "the profile has no defaultAction")
	}
	if err := p.checkArches(); err != nil {
		return err
	}
	if len(p.Architectures) > 0 && len(p.ArchMap) > 0 {
		return p.Errorf("/archMap", "the profile has both architectures and archMap: use one")
	}
	if err := setErrno(&p.DefaultErrnoRet, p.DefaultErrno); err != nil {
		return p.Errorf("/defaultErrno", "%w", err)
	}
	for i := range p.Syscalls {
		if err := p.normalizeRule(i); err != nil {
			return err
		}
	}
	return nil
}

func (p *Profile) normalizeRule(i int) error {
	r, path := &p.Syscalls[i], fmt.Sprintf("/syscalls/%d", i)
	if r.Name != "" {
		if len(r.Names) > 0 {
			return p.Errorf(path+"/name", "both name and names: use names")
		}
		r.Name, r.Names = "", []string{r.Name}
	}
	// An empty list is loaded; without one, crun misses it.
	if r.Names == nil {
		return p.Errorf(path, "a rule without a system call name: give names")
	}
	if empty := slices.Index(r.Names, ""); empty >= 0 {
		return p.Errorf(fmt.Sprintf("%s/names/%d", path, empty), "a system call without a name, which no runtime loads: remove it")
	}
	if err := setErrno(&r.ErrnoRet, r.Errno); err != nil {
		return p.Errorf(path+"/errno", "%w", err)
	}
	for _, at := range []struct {
		key string
		*Condition
	}{{"includes", r.Includes}, {"excludes", r.Excludes}} {
		if at.Condition != nil && at.MinKernel != "" {
			if _, err := parseKernel(at.MinKernel); err != nil {
				return p.Errorf(path+"/"+at.key+"/minKernel", "%w", err)
			}
		}
	}
	return nil
}
