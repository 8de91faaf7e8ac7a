package verify

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tailscale/hujson"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/bpf"
	"github.com/afalg-policy/afalg-policy/internal/profile"
	"github.com/afalg-policy/afalg-policy/internal/seccomp"
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

// Document is a JSON text with a seccomp profile in it.
type Document struct {
	Kind Kind
	// Profile is nil for a config.json without one: nothing is filtered then.
	Profile *profile.Profile

	src    []byte
	root   hujson.Value
	prefix string // of the profile in root, as a JSON pointer
}

// ReadDocument recognises the format and reads the profile as runtimes do.
// Keys that they do not know become findings; what they would not load, or
// would read in different ways, is an error with line:col.
func ReadDocument(src []byte) (*Document, error) {
	root, err := profile.ReadJSON(src)
	if err != nil {
		return nil, err
	}
	if err := profile.NoDuplicates(src, &root, func(key string) string { return key }); err != nil {
		return nil, err
	}
	if _, ok := root.Value.(*hujson.Object); !ok {
		return nil, errors.New("neither a seccomp profile nor a config.json: the JSON text is no object")
	}
	d := &Document{src: src, root: root, Kind: kindOf(&root)}
	if d.Kind == KindConfig {
		err = d.readConfig()
	} else {
		err = d.readProfile()
	}
	if err != nil {
		return nil, err
	}
	return d, d.sameKeys()
}

func kindOf(root *hujson.Value) Kind {
	if root.Find("/defaultAction") == nil && (root.Find("/ociVersion") != nil || root.Find("/linux") != nil || root.Find("/process") != nil) {
		return KindConfig
	}
	if hasDockerKeys(root) {
		return KindDocker
	}
	return KindOCI
}

// hasDockerKeys tells whether the text has a key that only the wider format
// knows.
func hasDockerKeys(root *hujson.Value) bool {
	found := false
	walkKeys(root, reflect.TypeFor[profile.Profile](), "", func(k key) {
		found = found || slices.Contains(dockerKeys, k.name)
	})
	return found
}

var dockerKeys = []string{"archMap", "name", "includes", "excludes", "defaultErrno", "errno", "comment"}

func (d *Document) readProfile() (err error) {
	d.Profile, err = profile.Read(d.src)
	return err
}

// readConfig reads linux.seccomp of a config.json, where no conditions are
// known.
func (d *Document) readConfig() error {
	d.prefix = "/linux/seccomp"
	if err := d.oneSpelling(); err != nil {
		return err
	}
	if err := profile.FilterAnnotation(d.src, &d.root); err != nil {
		return err
	}
	v := d.root.Find(d.prefix)
	if v == nil || v.Value.Kind() == 'n' {
		return nil
	}
	var section specs.LinuxSeccomp
	if err := json.Unmarshal(d.src[v.StartOffset:v.EndOffset], &section); err != nil {
		return fmt.Errorf("%s: reading linux.seccomp: %w", profile.Place(d.src, v.StartOffset), err)
	}
	d.Profile = &profile.Profile{
		DefaultAction: section.DefaultAction, DefaultErrnoRet: section.DefaultErrnoRet,
		Architectures: section.Architectures, Flags: section.Flags,
		ListenerPath: section.ListenerPath, ListenerMetadata: section.ListenerMetadata,
	}
	for _, s := range section.Syscalls {
		d.Profile.Syscalls = append(d.Profile.Syscalls, profile.Rule{Names: s.Names, Action: s.Action, ErrnoRet: s.ErrnoRet, Args: s.Args})
	}
	return nil
}

// oneSpelling refuses another spelling of the keys that lead to the profile.
func (d *Document) oneSpelling() (err error) {
	type linux struct {
		Seccomp struct{} `json:"seccomp"`
	}
	type config struct {
		Linux linux `json:"linux"`
	}
	walkKeys(&d.root, reflect.TypeFor[config](), "", func(k key) { err = cmp.Or(err, d.otherCase(k)) })
	return err
}

// profileValue is the profile's own object, nil if there is none.
func (d *Document) profileValue() *hujson.Value {
	if d.Profile == nil {
		return nil
	}
	return d.root.Find(d.prefix)
}

func (d *Document) profileType() reflect.Type {
	if d.Kind == KindConfig {
		return reflect.TypeFor[specs.LinuxSeccomp]()
	}
	return reflect.TypeFor[profile.Profile]()
}

// sameKeys refuses keys that differ from a known one in case alone: Go takes
// them for it, crun does not.
func (d *Document) sameKeys() (err error) {
	v := d.profileValue()
	if v == nil {
		return nil
	}
	walkKeys(v, d.profileType(), d.prefix, func(k key) { err = cmp.Or(err, d.otherCase(k)) })
	return err
}

func (d *Document) otherCase(k key) error {
	if _, ok := k.fields[k.name]; ok {
		return nil
	}
	for known := range k.fields {
		if profile.FoldKey(known) == profile.FoldKey(k.name) {
			return fmt.Errorf("%s: key %q: runc reads it as %q, and crun ignores it", profile.Place(d.src, k.offset), k.name, known)
		}
	}
	return nil
}

// key is a key of the text, with the fields that are known at its place.
type key struct {
	name   string
	path   string // of the object, as a JSON pointer
	offset int
	fields map[string]reflect.Type
}

// walkKeys visits the keys of a value that is read into a type.
func walkKeys(v *hujson.Value, t reflect.Type, path string, visit func(key)) {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch value := v.Value.(type) {
	case *hujson.Object:
		if t.Kind() != reflect.Struct {
			return
		}
		fields := fieldsOf(t)
		for i := range value.Members {
			m := &value.Members[i]
			name := m.Name.Value.(hujson.Literal).String()
			visit(key{name, path, m.Name.StartOffset, fields})
			if inner, ok := fields[name]; ok {
				walkKeys(&m.Value, inner, path+"/"+name, visit)
			}
		}
	case *hujson.Array:
		if t.Kind() != reflect.Slice {
			return
		}
		for i := range value.Elements {
			walkKeys(&value.Elements[i], t.Elem(), fmt.Sprintf("%s/%d", path, i), visit)
		}
	}
}

func fieldsOf(t reflect.Type) map[string]reflect.Type {
	fields := map[string]reflect.Type{}
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		fields[name] = t.Field(i).Type
	}
	return fields
}

// Machines lists the machines that the document is for, at least one:
// otherwise, if it names none, and that of an ABI which it names alone.
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
// would take it.
func (d *Document) Compile(h profile.Host, r seccomp.Runtime, level int) (*seccomp.Program, error) {
	if err := d.loadable(h); err != nil {
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
	return p, bpf.Program(p.Insns).Check()
}

// loadable finds what makes every runtime refuse the profile on that host.
func (d *Document) loadable(h profile.Host) error {
	p := d.Profile
	fail := func(path, format string, args ...any) error {
		line, column := d.at(path)
		return fmt.Errorf("%d:%d: %s", line, column, fmt.Sprintf(format, args...))
	}
	if permissiveness(normal(p.DefaultAction)) < 0 {
		return fail("/defaultAction", "unknown action %q", p.DefaultAction)
	}
	for i, a := range p.Architectures {
		if _, ok := afalg.ABIOf(string(a)); !ok {
			return fail(fmt.Sprintf("/architectures/%d", i), "unknown architecture %q", a)
		}
	}
	rules := 0
	for i, r := range p.Syscalls {
		path := fmt.Sprintf("/syscalls/%d", i)
		if rules += len(r.Names) * max(1, len(r.Args)); rules > maxRules {
			return fail(path, "more than %d rules up to here: a filter has %d instructions at most", maxRules, bpf.MaxInstructions)
		}
		holds, err := r.Applies(h)
		if err != nil {
			return fail(path, "%v", err)
		}
		if !holds {
			continue
		}
		if permissiveness(normal(r.Action)) < 0 {
			return fail(path+"/action", "unknown action %q", r.Action)
		}
		for j, a := range r.Args {
			arg := fmt.Sprintf("%s/args/%d", path, j)
			if !slices.Contains(operators, a.Op) {
				return fail(arg+"/op", "unknown operator %q", a.Op)
			}
			if a.Index > 5 {
				return fail(arg+"/index", "argument %d: a call has arguments 0 to 5", a.Index)
			}
		}
	}
	return nil
}

// maxRules bounds what is given to libseccomp, whose time grows with the
// square. Each rule that says something takes an instruction or more.
const maxRules = 2 * bpf.MaxInstructions

var operators = []specs.LinuxSeccompOperator{
	specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo,
	specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpMaskedEqual,
}

// maxComparisons is what crun reads of one rule.
const maxComparisons = 6

// splitLong treats rules with more comparisons than a call has arguments: some
// index stands twice then, so that runc makes each comparison a rule. crun
// drops what is beyond the sixth.
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
