package profile

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tailscale/hujson"

	"github.com/afalg-policy/afalg-policy/internal/jsontext"
)

// Config is what is looked at of a config.json, read once. Whoever starts
// containers otherwise may fill it in.
type Config struct {
	Version     string            // ociVersion; "" where it is no text
	Root        string            // root.path
	Env         []string          // process.env
	Bounding    []string          // process.capabilities.bounding
	Mounts      []Mount           // mounts
	Annotations map[string]string // annotations
	Namespaces  []Namespace       // linux.namespaces

	document *jsontext.Document
	text     *Text // of linux.seccomp
}

// Mount is a part of a mount.
type Mount struct {
	Destination string   `json:"destination"`
	Source      string   `json:"source"`
	Type        string   `json:"type"`
	Options     []string `json:"options"`
}

// Namespace is one that the container does not share with its runtime.
type Namespace struct {
	Type string `json:"type"`
	Path string `json:"path"` // of an existing one; "" for a new one
}

// configKeys are the keys that lead to what is looked at.
type configKeys struct {
	Version string `json:"ociVersion"`
	Root    struct {
		Path string `json:"path"`
	} `json:"root"`
	Process struct {
		Env          []string `json:"env"`
		Capabilities struct {
			Bounding []string `json:"bounding"`
		} `json:"capabilities"`
	} `json:"process"`
	Mounts      []Mount           `json:"mounts"`
	Annotations map[string]string `json:"annotations"`
	Linux       struct {
		Seccomp    struct{}    `json:"seccomp"`
		Namespaces []Namespace `json:"namespaces"`
	} `json:"linux"`
}

// ReadConfig reads a config.json: plain JSON, no key twice in an object, and
// none that runtimes would read in different ways. Errors begin with line:col
// where they have a place.
func ReadConfig(src []byte) (*Config, error) {
	d, err := jsontext.Parse(src)
	if err != nil {
		return nil, explainSyntax(src, err)
	}
	return configOf(d.Src, d.Root)
}

// configOf reads a text that was found to have no key twice.
func configOf(src []byte, root hujson.Value) (*Config, error) {
	c := &Config{
		document: &jsontext.Document{Src: src, Root: root},
		text:     &Text{JSON: src, Root: root, Prefix: seccompPath, src: src},
	}
	if err := c.onePath(); err != nil {
		return nil, err
	}
	c.Version = c.document.Text("/ociVersion")
	for _, part := range []struct {
		path string
		into any
	}{
		{"/root/path", &c.Root}, {"/process/env", &c.Env}, {"/process/capabilities/bounding", &c.Bounding},
		{"/mounts", &c.Mounts}, {"/annotations", &c.Annotations},
		{"/linux/namespaces", &c.Namespaces},
	} {
		v := root.Find(part.path)
		if v == nil {
			continue
		}
		if err := json.Unmarshal(src[v.StartOffset:v.EndOffset], part.into); err != nil {
			return nil, c.text.fail(v.StartOffset, "%s: %w", dotted(part.path), err)
		}
	}
	return c, c.filterAnnotation()
}

const seccompPath = "/linux/seccomp"

func dotted(path string) string { return strings.ReplaceAll(strings.TrimPrefix(path, "/"), "/", ".") }

// onePath refuses another spelling of the keys that lead to what is looked at,
// and anything but objects on the way.
func (c *Config) onePath() (err error) {
	root := &c.document.Root
	jsontext.WalkKeys(root, reflect.TypeFor[configKeys](), "", func(k jsontext.Key) { err = cmp.Or(err, c.text.otherCase(k)) })
	for _, path := range []string{"", "/root", "/process", "/process/capabilities", "/annotations", "/linux"} {
		v := root.Find(path)
		if v == nil || path != "" && jsontext.IsNull(v) {
			continue
		}
		if _, ok := v.Value.(*hujson.Object); !ok {
			err = cmp.Or(err, c.text.fail(v.StartOffset, "%s is no JSON object", cmp.Or(dotted(path), "the config")))
		}
	}
	return err
}

// otherPlatforms are the sections of the OCI runtime specification for configs
// that no seccomp filter reaches.
var otherPlatforms = []string{"windows", "solaris", "vm", "zos", "freebsd"}

// ForLinux refuses a config without the section that a profile stands in.
func (c *Config) ForLinux() error {
	root := &c.document.Root
	if linux := root.Find("/linux"); linux != nil {
		if jsontext.IsNull(linux) {
			return c.text.fail(linux.StartOffset, "linux is no JSON object")
		}
		return nil
	}
	for _, m := range root.Value.(*hujson.Object).Members {
		if name := m.Name.Value.(hujson.Literal).String(); slices.Contains(otherPlatforms, name) {
			return c.text.fail(m.Name.StartOffset, "a config for %s, without linux: seccomp does not reach it", name)
		}
	}
	return fmt.Errorf("the config has no linux section, which holds the seccomp profile")
}

// Profile reads linux.seccomp as runtimes do, where no conditions are known; nil
// if there is none, or one that filters nothing.
func (c *Config) Profile() (*Profile, error) { return c.text.section() }

// StrictProfile is Profile for those who write it again: a key that is not
// understood cannot be carried over.
func (c *Config) StrictProfile() (*Profile, error) {
	if err := c.text.knownKeys(reflect.TypeFor[specs.LinuxSeccomp]()); err != nil {
		return nil, err
	}
	return c.text.section()
}

// ListenerMetadata is what linux.seccomp hands to a listener, whoever wrote it.
func (c *Config) ListenerMetadata() string {
	if c.document == nil {
		return ""
	}
	return c.document.Text(seccompPath + "/listenerMetadata")
}

// Text is the text of linux.seccomp, for findings.
func (c *Config) Text() *Text { return c.text }

// Document is the whole text.
func (c *Config) Document() *jsontext.Document { return c.document }

// Set gives the change that puts another profile in the place of linux.seccomp.
func (c *Config) Set(p *Profile) (jsontext.Change, error) {
	resolved, err := p.Resolve(Host{})
	if err != nil {
		return jsontext.Change{}, err
	}
	change, err := c.document.Set([]string{"linux", "seccomp"}, resolved)
	if err != nil {
		return change, fmt.Errorf("writing linux.seccomp: %w", err)
	}
	return change, nil
}

// By annotations that begin so crun takes another filter than linux.seccomp
// says, or hands its listener to somebody else (crun(1)).
const filterAnnotations = "run.oci.seccomp"

// stricter is the one among them that only has crun fail more often.
const stricter = "run.oci.seccomp_fail_unknown_syscall"

// filterAnnotation refuses a config by whose annotations a runtime may install
// another filter than linux.seccomp describes: nothing can be proved of it.
func (c *Config) filterAnnotation() error {
	annotations := c.document.Root.Find("/annotations")
	if annotations == nil || jsontext.IsNull(annotations) {
		return nil
	}
	for _, m := range annotations.Value.(*hujson.Object).Members {
		if err := ownFilter(m.Name.Value.(hujson.Literal).String()); err != nil {
			return c.text.fail(m.Name.StartOffset, "%w", err)
		}
	}
	return nil
}

// OwnFilter is what reading a config.json refuses as well, for one that somebody
// filled in: an annotation by which a runtime installs another filter.
func (c *Config) OwnFilter() error {
	for _, name := range slices.Sorted(maps.Keys(c.Annotations)) {
		if err := ownFilter(name); err != nil {
			return err
		}
	}
	return nil
}

func ownFilter(annotation string) error {
	if !strings.HasPrefix(annotation, filterAnnotations) || annotation == stricter {
		return nil
	}
	return fmt.Errorf("the annotation %q has crun take another filter than linux.seccomp says, or hands its listener to others, so that nothing can be proved: remove it", annotation)
}
