package plan

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/bounded"
	"github.com/afalg-policy/afalg-policy/internal/policy"
	"github.com/afalg-policy/afalg-policy/policies"
)

// ReadFunc returns the text of a policy, named by a path or as
// "builtin:NAME". Its errors need not repeat the name.
type ReadFunc func(name string) ([]byte, error)

// ReadError means that the named policy itself could not be read. A fault below
// it is an error of the policy, with its position.
type ReadError struct {
	Name string
	Err  error
}

func (e *ReadError) Error() string { return fmt.Sprintf("policy %s: %v", e.Name, e.Err) }

// Unwrap returns the reader's error.
func (e *ReadError) Unwrap() error { return e.Err }

// Load reads the named policy with everything that it includes, and merges
// them. The error is a *ReadError, or a policy.ErrorList of everything found.
func Load(name string, read ReadFunc) (*Plan, []policy.Warning, error) {
	l := &loader{read: read, files: map[string]*file{}}
	root, err := l.named(name)
	if err != nil {
		return nil, nil, err
	}
	if len(l.errs) > 0 {
		return nil, l.warnings, l.errs
	}
	p := l.merge(root)
	if len(l.errs) > 0 {
		return nil, l.warnings, l.errs
	}
	return p, l.warnings, nil
}

// ReadNamed is the usual ReadFunc: it returns the text of a policy that is
// shipped, or of a file.
func ReadNamed(name string) ([]byte, error) {
	if builtin, ok := strings.CutPrefix(name, policy.BuiltinPrefix); ok {
		return policies.Read(builtin)
	}
	return ReadFile(name)
}

// ReadFile returns the text of a policy file.
func ReadFile(path string) ([]byte, error) { return bounded.ReadFile(path, policy.MaxSize) }

// file is a policy with its includes in place.
type file struct {
	*policy.Policy
	includes []*file
	height   int               // of the longest chain of includes below it
	said     map[string]string // the values that its includes agree on, by key
}

type loader struct {
	read     ReadFunc
	files    map[string]*file // by identity; nil for a faulty one
	order    []*file          // each before its includes
	total    int              // bytes read so far
	warnings []policy.Warning
	errs     policy.ErrorList
}

func (l *loader) fail(pos policy.Pos, format string, args ...any) {
	l.errs = append(l.errs, &policy.Error{Pos: pos, Text: fmt.Sprintf(format, args...)})
}

// failAll adds the parser's errors.
func (l *loader) failAll(name string, err error) {
	var list policy.ErrorList
	if !errors.As(err, &list) {
		list = policy.ErrorList{{Pos: policy.Pos{File: name, Line: 1, Col: 1}, Text: err.Error()}}
	}
	l.errs = append(l.errs, list...)
}

// named loads the policy that the user named.
func (l *loader) named(name string) (*file, error) {
	src, err := l.text(name)
	if err != nil {
		return nil, &ReadError{name, err}
	}
	return l.parse(name, src, nil), nil
}

func (l *loader) text(name string) ([]byte, error) {
	src, err := l.read(name)
	if err == nil && len(src) > policy.MaxSize {
		err = &bounded.TooLargeError{Limit: policy.MaxSize}
	}
	if l.total += len(src); err == nil && l.total > maxTotal {
		err = fmt.Errorf("more than %d KiB in all files", maxTotal>>10)
	}
	return src, err
}

// parse reads a policy and then its includes. chain holds the names that led to
// it.
func (l *loader) parse(name string, src []byte, chain []string) *file {
	l.files[identity(name)] = nil
	parsed, warnings, err := policy.Parse(name, src)
	l.warnings = append(l.warnings, warnings...)
	if err != nil {
		l.failAll(name, err)
		return nil
	}
	f := &file{Policy: parsed, said: map[string]string{}}
	l.files[identity(name)] = f
	l.order = append(l.order, f)
	for _, inc := range parsed.Include {
		if sub := l.include(name, inc, append(slices.Clone(chain), name)); sub != nil {
			f.includes = append(f.includes, sub)
			f.height = max(f.height, 1+sub.height)
		}
	}
	return f
}

// include loads an included policy once; nil if it cannot.
func (l *loader) include(from string, inc policy.Include, chain []string) *file {
	name, err := resolve(from, inc.Name)
	if err != nil {
		l.fail(inc.Pos, "%v", err)
		return nil
	}
	if i := slices.IndexFunc(chain, func(n string) bool { return identity(n) == identity(name) }); i >= 0 {
		l.fail(inc.Pos, "include cycle: %s", strings.Join(append(chain[i:], name), " → "))
		return nil
	}
	f, seen := l.files[identity(name)]
	switch {
	case len(chain) > maxDepth || f != nil && len(chain)+f.height > maxDepth:
		l.fail(inc.Pos, "include %s: more than %d includes deep", inc.Name, maxDepth)
		return nil
	case seen:
		return f
	case len(l.files) >= maxFiles:
		l.fail(inc.Pos, "include %s: more than %d files in all", inc.Name, maxFiles)
		return nil
	}
	src, err := l.text(name)
	if err != nil {
		l.files[identity(name)] = nil
		l.fail(inc.Pos, "include %s: %v", inc.Name, err)
		return nil
	}
	return l.parse(name, src, chain)
}

// resolve returns the meaning of an include in the file that has it.
func resolve(from, name string) (string, error) {
	switch {
	case strings.HasPrefix(name, policy.BuiltinPrefix):
		return name, nil
	case strings.HasPrefix(from, policy.BuiltinPrefix):
		return "", fmt.Errorf("include %s: a shipped policy includes only shipped policies", name)
	case filepath.IsAbs(name):
		return filepath.Clean(name), nil
	default:
		return filepath.Join(filepath.Dir(from), name), nil
	}
}

// identity makes the spellings of one path equal. It does not follow links: a
// cycle through them ends at maxDepth.
func identity(name string) string {
	if strings.HasPrefix(name, policy.BuiltinPrefix) {
		return name
	}
	abs, err := filepath.Abs(name)
	if err != nil { // no working directory: the path as given
		return filepath.Clean(name)
	}
	return abs
}
