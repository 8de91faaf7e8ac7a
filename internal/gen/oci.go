package gen

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tailscale/hujson"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/edit"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/profile"
)

// OCI hardens linux.seccomp of a config.json and changes nothing else in it, so
// that the output carries no record of what made it. A config without a
// profile gets the Docker default for its capabilities. The machine is that of
// o.Host.Arch; where it is empty, the one that the profile names, or x86-64.
func OCI(p *plan.Plan, config []byte, o SeccompOptions) ([]File, []Gap, error) {
	c, err := ReadConfig(config)
	if err != nil {
		return nil, nil, err
	}
	patched, gaps, err := c.Harden(p, o)
	if err != nil {
		return nil, gaps, err
	}
	return []File{{Path: "config.json", Data: patched}}, gaps, nil
}

// machineOf returns the first machine that a profile names.
func machineOf(base *specs.LinuxSeccomp) specs.Arch {
	if base != nil {
		for _, arch := range base.Architectures {
			if abi, ok := afalg.ABIOf(string(arch)); ok && abi.Kind == afalg.Native {
				return arch
			}
		}
	}
	return specs.ArchX86_64
}

// ConfigError is a fault of the config.json itself. Its text starts with
// line:col where it has a place.
type ConfigError struct{ Err error }

func (e *ConfigError) Error() string { return e.Err.Error() }

// Unwrap returns the fault.
func (e *ConfigError) Unwrap() error { return e.Err }

// Config is a config.json whose text was checked: JSON of bearable size, no key
// twice in an object, for Linux.
type Config struct {
	src      []byte
	document hujson.Value
	root     *hujson.Object
	linux    *hujson.ObjectMember
	seccomp  *hujson.ObjectMember // nil where missing
}

// ReadConfig checks a config.json. The error is a *ConfigError.
func ReadConfig(src []byte) (*Config, error) {
	c, err := readConfig(src)
	if err != nil {
		return nil, &ConfigError{err}
	}
	return c, nil
}

func readConfig(src []byte) (*Config, error) {
	v, err := profile.ReadJSON(src)
	if err != nil {
		return nil, err
	}
	// Annotations may differ by case alone.
	if err := profile.NoDuplicates(src, &v, strings.Clone); err != nil {
		return nil, err
	}
	c := &Config{src: src, document: v}
	if c.root, err = c.object(&c.document, "the config"); err != nil {
		return nil, err
	}
	if err := profile.FilterAnnotation(src, &c.document); err != nil {
		return nil, err
	}
	if err := c.findLinux(); err != nil {
		return nil, err
	}
	linux, err := c.object(&c.linux.Value, "linux")
	if err != nil {
		return nil, err
	}
	c.seccomp, err = c.member(linux, "seccomp")
	return c, err
}

// Seccomp reads linux.seccomp, nil if there is none, as all runtimes read it:
// what they would read in different ways is an error.
func (c *Config) Seccomp() (*specs.LinuxSeccomp, error) {
	p, err := c.profile()
	if err != nil {
		return nil, &ConfigError{err}
	}
	return p, nil
}

// Harden replaces linux.seccomp, and returns the text: OCI for one that was
// read already.
func (c *Config) Harden(p *plan.Plan, o SeccompOptions) ([]byte, []Gap, error) {
	return c.patch(func(base *specs.LinuxSeccomp, caps []string) (*specs.LinuxSeccomp, []Gap, error) {
		o.Host.Caps = caps
		if o.Host.Arch == "" {
			o.Host.Arch = machineOf(base)
		}
		return Harden(p, base, o)
	})
}

// hardenFunc hardens the profile of a container with that bounding set; a nil
// base means that it has none.
type hardenFunc func(base *specs.LinuxSeccomp, caps []string) (*specs.LinuxSeccomp, []Gap, error)

// patch replaces linux.seccomp. Every byte outside that value stays as it is; an
// inserted value brings its key along.
func (c *Config) patch(harden hardenFunc) ([]byte, []Gap, error) {
	base, err := c.base()
	var caps []string
	if err == nil {
		caps, err = c.bounding()
	}
	if err != nil {
		return nil, nil, &ConfigError{err}
	}
	hardened, gaps, err := harden(base, caps)
	if base == nil {
		gaps = append(gaps, Gap{Stricter, "default-profile", nil,
			"the config had no seccomp profile and gets the default one, which denies more than AF_ALG"})
	}
	if err != nil {
		return nil, gaps, err
	}
	patched, err := edit.Parsed(c.src, &c.document, []string{"linux", "seccomp"}, hardened)
	if err != nil {
		return nil, gaps, fmt.Errorf("writing linux.seccomp: %w", err)
	}
	return patched, gaps, nil
}

// otherPlatforms are the sections of the OCI runtime specification for configs
// that no seccomp filter reaches.
var otherPlatforms = []string{"windows", "solaris", "vm", "zos", "freebsd"}

func (c *Config) findLinux() (err error) {
	if c.linux, err = c.member(c.root, "linux"); err != nil || c.linux != nil {
		return err
	}
	for _, platform := range otherPlatforms {
		other, err := c.member(c.root, platform)
		if err != nil {
			return err
		}
		if other != nil {
			return c.fail(other.Name.StartOffset, "a config for %s, without linux: seccomp does not reach it", platform)
		}
	}
	return fmt.Errorf("the config has no linux section, which holds the seccomp profile")
}

// profile decodes the profile of the config; nil if it has none.
func (c *Config) profile() (*specs.LinuxSeccomp, error) {
	if c.seccomp == nil || isNull(&c.seccomp.Value) {
		return nil, nil
	}
	if err := c.exactKeys(&c.seccomp.Value); err != nil {
		return nil, err
	}
	var p specs.LinuxSeccomp
	if err := c.decode(&c.seccomp.Value, &p); err != nil {
		return nil, c.fail(c.seccomp.Value.StartOffset, "linux.seccomp: %w", err)
	}
	return &p, nil
}

// base is the profile to harden; nil if there is none.
func (c *Config) base() (*specs.LinuxSeccomp, error) {
	base, err := c.profile()
	if err != nil || base == nil {
		return nil, err
	}
	if base.ListenerPath != "" {
		return nil, c.fail(c.seccomp.Value.StartOffset,
			"linux.seccomp has a listener, %s: what it answers cannot be proved", base.ListenerPath)
	}
	return base, nil
}

// bounding reads process.capabilities.bounding, on which the default profile
// depends.
func (c *Config) bounding() ([]string, error) {
	at := c.root
	for _, key := range []string{"process", "capabilities"} {
		m, err := c.member(at, key)
		if err != nil || m == nil || isNull(&m.Value) {
			return nil, err
		}
		if at, err = c.object(&m.Value, key); err != nil {
			return nil, err
		}
	}
	m, err := c.member(at, "bounding")
	if err != nil || m == nil {
		return nil, err
	}
	var caps []string
	if err := c.decode(&m.Value, &caps); err != nil {
		return nil, c.fail(m.Value.StartOffset, "process.capabilities.bounding: %w", err)
	}
	return caps, nil
}

// member finds a key. Runtimes disagree about a key in another case: those in
// Go take it, and the last one counts; crun passes over it. So it is refused.
func (c *Config) member(o *hujson.Object, key string) (*hujson.ObjectMember, error) {
	exact, other := edit.Find(o, key)
	if other != nil {
		return nil, c.fail(other.Name.StartOffset, "key %q: some runtimes read it as %q and others do not", keyOf(other), key)
	}
	return exact, nil
}

// profileKeys are the keys of a seccomp profile in an OCI config.
var profileKeys = []string{
	"defaultAction", "defaultErrnoRet", "architectures", "flags", "listenerPath", "listenerMetadata", "syscalls",
	"names", "action", "errnoRet", "args", "index", "value", "valueTwo", "op",
}

// exactKeys refuses what another version of the format may mean: the whole
// value is written again, and an unknown key would be lost.
func (c *Config) exactKeys(v *hujson.Value) error {
	switch t := v.Value.(type) {
	case *hujson.Object:
		for i := range t.Members {
			m := &t.Members[i]
			if name := keyOf(m); !slices.Contains(profileKeys, name) {
				return c.fail(m.Name.StartOffset, "linux.seccomp: unknown key %q", name)
			}
			if err := c.exactKeys(&m.Value); err != nil {
				return err
			}
		}
	case *hujson.Array:
		for i := range t.Elements {
			if err := c.exactKeys(&t.Elements[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *Config) object(v *hujson.Value, what string) (*hujson.Object, error) {
	o, ok := v.Value.(*hujson.Object)
	if !ok {
		return nil, c.fail(v.StartOffset, "%s is no JSON object", what)
	}
	return o, nil
}

func (c *Config) decode(v *hujson.Value, into any) error {
	d := json.NewDecoder(bytes.NewReader(c.src[v.StartOffset:v.EndOffset]))
	d.DisallowUnknownFields()
	return d.Decode(into)
}

func (c *Config) fail(offset int, format string, args ...any) error {
	return fmt.Errorf("%s: %w", profile.Place(c.src, offset), fmt.Errorf(format, args...))
}

func keyOf(m *hujson.ObjectMember) string {
	name, _ := m.Name.Value.(hujson.Literal)
	return name.String()
}

func isNull(v *hujson.Value) bool {
	l, ok := v.Value.(hujson.Literal)
	return ok && l.Kind() == 'n'
}
