package verify

import (
	"fmt"
	"reflect"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/filter/seccomp"
	"github.com/afalg-policy/afalg-policy/internal/jsontext"
)

// Kind is the format of a document.
type Kind string

const (
	KindOCI    Kind = "oci"    // the seccomp section of the OCI runtime specification
	KindDocker Kind = "docker" // with the conditions of Docker and containers/common
	KindConfig Kind = "config" // a whole config.json
)

// Kinds lists every format.
func Kinds() []Kind { return []Kind{KindOCI, KindDocker, KindConfig} }

// Document is a text with a seccomp profile in it.
type Document struct {
	Kind Kind
	// Profile is nil for a config.json without one: then nothing is filtered.
	Profile *profile.Profile
	// Object names the Kubernetes object of the profile; "" for others.
	Object string

	text *profile.Text
}

// ReadDocuments recognises the format and reads the profiles as runtimes do;
// only lists and streams of Kubernetes objects hold more than one. Unknown keys
// become findings. A text that runtimes would not load, or would read
// differently, is an error with line:col.
func ReadDocuments(src []byte) ([]*Document, error) {
	texts, err := profile.ReadTexts(src)
	if err != nil {
		return nil, err
	}
	var documents []*Document
	for _, t := range texts {
		d, err := readDocument(t)
		if err != nil {
			return nil, err
		}
		documents = append(documents, d)
	}
	return documents, nil
}

func readDocument(t *profile.Text) (d *Document, err error) {
	d = &Document{Kind: kindOf(t), Object: t.Object, text: t}
	if d.Kind == KindConfig {
		c, err := t.Config()
		if err != nil {
			return nil, err
		}
		d.text = c.Text()
		d.Profile, err = c.Profile()
		return d, err
	}
	d.Profile, err = t.Profile()
	return d, err
}

func kindOf(t *profile.Text) Kind {
	root := &t.Root
	if t.Prefix == "" && root.Find("/defaultAction") == nil && (root.Find("/ociVersion") != nil || root.Find("/linux") != nil || root.Find("/process") != nil) {
		return KindConfig
	}
	if hasDockerKeys(t) {
		return KindDocker
	}
	return KindOCI
}

// hasDockerKeys reports whether the text has a key that only the wider format
// knows.
func hasDockerKeys(t *profile.Text) bool {
	found := false
	t.Keys(reflect.TypeFor[profile.Profile](), func(k jsontext.Key) {
		found = found || slices.Contains(dockerKeys, k.Name)
	})
	return found
}

var dockerKeys = []string{"archMap", "name", "includes", "excludes", "defaultErrno", "errno", "comment"}

// profileType is what the profile is read into.
func (d *Document) profileType() reflect.Type {
	if d.Kind == KindConfig {
		return reflect.TypeFor[specs.LinuxSeccomp]()
	}
	return reflect.TypeFor[profile.Profile]()
}

// Unfiltered reports whether nothing is filtered: there is no profile, or one
// that runtimes treat as none.
func (d *Document) Unfiltered() bool { return d.Profile == nil || d.Profile.FiltersNothing() }

// Machines lists the machines that the document is for, at least one. A
// document that names none is for otherwise; one that names a single ABI is for
// its machine.
func (d *Document) Machines(otherwise specs.Arch) []specs.Arch {
	if d.Profile == nil {
		return []specs.Arch{otherwise}
	}
	if natives := d.Profile.Natives(); len(natives) > 0 {
		return natives
	}
	for _, a := range d.Profile.Architectures {
		if native, ok := machineOf(string(a)); ok {
			return []specs.Arch{specs.Arch(native.Arch)}
		}
	}
	return []specs.Arch{otherwise}
}

// Compile makes the program that a runtime loads for the document on a host.
// There must be a profile. It fails if no runtime, libseccomp or the kernel
// would accept it.
func (d *Document) Compile(h profile.Host, r seccomp.Runtime, level int) (*seccomp.Program, error) {
	if err := d.bounded(); err != nil {
		return nil, err
	}
	if err := d.Profile.Loadable(h); err != nil {
		return nil, err
	}
	resolved, err := d.Profile.Resolve(h)
	if err != nil {
		return nil, err
	}
	resolved.Syscalls = splitLong(resolved.Syscalls, r)
	p, err := seccomp.Compile(resolved, seccomp.Options{Runtime: r, Native: h.Arch, Level: level})
	if err != nil {
		return nil, fmt.Errorf("as %s compiles it on %s: %w", r, profile.ShortName(h.Arch), err)
	}
	return p, cbpf.Program(p.Insns).Check()
}

// bounded refuses profiles with more rules than any filter has room for.
func (d *Document) bounded() error {
	rules := 0
	for i, r := range d.Profile.Syscalls {
		if rules += len(r.Names) * max(1, len(r.Args)); rules > maxRules {
			return d.Profile.Errorf(fmt.Sprintf("/syscalls/%d", i), "more than %d rules up to here: a filter has %d instructions at most", maxRules, cbpf.MaxInstructions)
		}
	}
	return nil
}

// maxRules also bounds comparisons: each may become a rule.
const maxRules = seccomp.MaxRules

// maxComparisons is the number that crun reads of one rule.
const maxComparisons = 6

// splitLong treats rules with more comparisons than a call has arguments: some
// index then appears twice, so that runc makes each comparison a rule. crun
// drops those beyond the sixth.
func splitLong(rules []specs.LinuxSyscall, r seccomp.Runtime) []specs.LinuxSyscall {
	var out []specs.LinuxSyscall
	for _, rule := range rules {
		switch {
		case len(rule.Args) <= maxComparisons:
			out = append(out, rule)
		case r == seccomp.Crun:
			rule.Args = slices.Clone(rule.Args[:maxComparisons])
			out = append(out, rule)
		default:
			for _, a := range rule.Args {
				one := rule
				one.Args = []specs.LinuxSeccompArg{a}
				out = append(out, one)
			}
		}
	}
	return out
}
