package report

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/filter/verify"
	"github.com/afalg-policy/afalg-policy/internal/policy"
	"github.com/afalg-policy/afalg-policy/internal/report/source"
	"github.com/afalg-policy/afalg-policy/internal/yamltext"
)

// IgnoreFile lists what is known and accepted. Its zero value accepts
// nothing.
type IgnoreFile struct{ entries []*ignored }

// ignored is an entry of an ignore file.
type ignored struct {
	rule    string
	files   []string
	reason  string
	expires string

	line int
	last time.Time // zero: it does not expire
	used bool
}

// ReadIgnore reads an ignore file, where source.Standard is stdin; warnings name
// the entries that hold no more today. The error is a *profile.NamedError.
func ReadIgnore(stdin io.Reader, name string, today time.Time) (list IgnoreFile, warnings []string, err error) {
	text, err := source.ReadNamed(stdin, name, policy.MaxSize)
	if err == nil {
		list, err = parseIgnore(text)
	}
	if err != nil {
		return IgnoreFile{}, nil, &profile.NamedError{Name: "ignore file " + source.ShownName(name), Err: err}
	}
	list.entries = slices.DeleteFunc(list.entries, func(i *ignored) bool {
		expired := !i.last.IsZero() && today.After(i.last)
		if expired {
			warnings = append(warnings, fmt.Sprintf("%s:%d: the entry for %s expired on %s, and holds no more", source.ShownName(name), i.line, i.rule, i.expires))
		}
		return expired
	})
	return list, warnings, nil
}

func parseIgnore(text []byte) (list IgnoreFile, err error) {
	root, err := oneDocument(text)
	if err != nil {
		return list, err
	}
	var version string
	err = keysOf(root, "the file", map[string]func(*yaml.Node) error{
		"version": scalar(&version),
		"ignore": func(n *yaml.Node) error {
			if n.Kind != yaml.SequenceNode {
				return placed(n, "ignore is a list")
			}
			var errs []error
			for _, c := range n.Content {
				i, err := entryOf(c)
				list.entries, errs = append(list.entries, i), append(errs, err)
			}
			return errors.Join(errs...)
		},
	})
	if err == nil && version != "1" {
		err = fmt.Errorf("1:1: version %q: this program knows version 1", version)
	}
	return list, err
}

// oneDocument reads the only document of a text.
func oneDocument(text []byte) (*yaml.Node, error) {
	const depth = 4 // an entry's list
	documents, err := yamltext.Documents(text, "ignore file", depth, 2)
	switch {
	case err == yamltext.ErrTooManyParts:
		return nil, fmt.Errorf("the file has %w", err)
	case err != nil:
		return nil, notYAML(err)
	case len(documents) == 0:
		return nil, errors.New(`1:1: the file is empty; it begins with "version: 1"`)
	case len(documents) > 1:
		return nil, errors.New("more than one document")
	}
	return documents[0].Content[0], nil
}

// notYAML puts the place first, as all errors have it.
func notYAML(err error) error {
	line, column, why := 1, 1, err.Error()
	if e, ok := errors.AsType[*yaml.LoadError](err); ok {
		line, column, why = max(e.Mark.Line, 1), max(e.Mark.Column, 1), e.Message
	}
	return fmt.Errorf("%d:%d: not YAML: %s", line, column, why)
}

func entryOf(n *yaml.Node) (*ignored, error) {
	i := &ignored{line: n.Line}
	err := keysOf(n, "an entry", map[string]func(*yaml.Node) error{
		"rule": scalar(&i.rule), "reason": scalar(&i.reason), "expires": scalar(&i.expires),
		"files": func(n *yaml.Node) error {
			if n.Kind != yaml.SequenceNode || len(n.Content) == 0 {
				return placed(n, "files is a list of patterns")
			}
			for _, c := range n.Content {
				var pattern string
				if err := scalar(&pattern)(c); err != nil {
					return err
				}
				i.files = append(i.files, pattern)
			}
			return nil
		},
	})
	if err == nil {
		if err = i.check(); err != nil {
			err = placed(n, "%w", err)
		}
	}
	return i, err
}

// keysOf reads a mapping strictly.
func keysOf(n *yaml.Node, what string, read map[string]func(*yaml.Node) error) error {
	words := slices.Sorted(maps.Keys(read))
	if n.Kind != yaml.MappingNode {
		return placed(n, "%s is a mapping with %s", what, strings.Join(words, ", "))
	}
	var errs []error
	seen := map[string]bool{}
	for k := 0; k+1 < len(n.Content); k += 2 {
		key, value := n.Content[k], n.Content[k+1]
		switch f := read[key.Value]; {
		case f == nil:
			errs = append(errs, placed(key, "unknown key %q in %s: write %s", key.Value, what, strings.Join(words, ", ")))
		case seen[key.Value]:
			errs = append(errs, placed(key, "the key %q stands twice", key.Value))
		default:
			errs = append(errs, f(value))
		}
		seen[key.Value] = true
	}
	return errors.Join(errs...)
}

func scalar(into *string) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		if n.Kind != yaml.ScalarNode {
			return placed(n, "a word is meant here")
		}
		*into = n.Value
		return nil
	}
}

func placed(n *yaml.Node, format string, args ...any) error {
	return fmt.Errorf("%d:%d: %w", n.Line, n.Column, fmt.Errorf(format, args...))
}

// check refuses what would ignore more than its author can have meant.
func (i *ignored) check() error {
	rules := []string{ruleOpen}
	for _, c := range slices.Concat(verify.Checks(), manifestChecks()) {
		rules = append(rules, c.ID)
	}
	if !slices.Contains(rules, i.rule) {
		if near, ok := policy.Near(i.rule, rules); ok {
			return fmt.Errorf("unknown rule %q; did you mean %q?", i.rule, near)
		}
		return fmt.Errorf("unknown rule %q; docs/findings.md lists them", i.rule)
	}
	if strings.TrimSpace(i.reason) == "" {
		return errors.New("the entry has no reason: say why it is accepted")
	}
	for _, pattern := range i.files {
		if _, err := path.Match(pattern, ""); err != nil || pattern == "" {
			return fmt.Errorf("files: %q is no pattern", pattern)
		}
	}
	verdict := i.rule == ruleOpen || slices.ContainsFunc(containerChecks(), func(c verify.Check) bool { return c.ID == i.rule })
	if verdict && (len(i.files) == 0 || i.expires == "") {
		return fmt.Errorf("an entry for %q names its files, and the day on which it expires", i.rule)
	}
	if i.expires == "" {
		return nil
	}
	day, err := time.Parse(time.DateOnly, i.expires)
	if err != nil {
		return fmt.Errorf("expires %q: write a day, as in 2027-01-31", i.expires)
	}
	i.last = day.Add(24*time.Hour - time.Nanosecond)
	return nil
}

// reason tells why a rule is ignored in a file, or nothing. A pattern without a
// slash is for the name alone.
func (l IgnoreFile) reason(rule, file string) string {
	for _, i := range l.entries {
		if i.rule == rule && (len(i.files) == 0 || slices.ContainsFunc(i.files, func(pattern string) bool { return source.Matches(pattern, file) })) {
			i.used = true
			return i.reason
		}
	}
	return ""
}

// unused lists the entries that ignore nothing.
func (l IgnoreFile) unused() (rules []string) {
	for _, i := range l.entries {
		if !i.used {
			rules = append(rules, fmt.Sprintf("%s (line %d)", i.rule, i.line))
		}
	}
	return rules
}
