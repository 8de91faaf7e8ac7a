package plan

import (
	"cmp"
	"maps"
	"slices"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// merge makes one plan of all files. It adds its errors to l.errs.
func (l *loader) merge(root *file) *Plan {
	p := &Plan{
		Name:        root.Name,
		SocketErrno: l.errno(root, "socket-errno", DefaultSocketErrno, func(p *policy.Policy) string { return p.Deny.SocketErrno }),
		BindErrno:   l.errno(root, "bind-errno", DefaultBindErrno, func(p *policy.Policy) string { return p.Deny.BindErrno }),
		ZeroCopy:    l.zeroCopy(root),
		Rules:       l.rules(),
		Unconfined:  l.unconfined(root),

		UnconfinedSaid: l.said(root, "unconfined", ownUnconfined) != "",
		Grants:         l.grants(),
		ExpectOpen:     l.expected(),
	}
	l.classes(p)
	l.warnIdle(p)
	p.Digest = digest(p)
	return p
}

// rules collects the rules of all files, each normal, by name.
func (l *loader) rules() []policy.Rule {
	byName := map[string]policy.Rule{}
	for _, f := range l.order {
		for _, rule := range f.Rules {
			if first, ok := byName[rule.Name]; ok {
				l.fail(rule.Pos, "rule %q is defined at %s already", rule.Name, first.Pos)
				continue
			}
			if len(byName) == policy.MaxRules {
				l.fail(rule.Pos, "more than %d rules in all", policy.MaxRules)
				return nil
			}
			byName[rule.Name] = normal(rule)
		}
	}
	return sortedBy(maps.Values(byName), func(a, b policy.Rule) int { return cmp.Compare(a.Name, b.Name) })
}

// expected unites the entries of all files.
func (l *loader) expected() []policy.Expected {
	var all []policy.Expected
	for _, f := range l.order {
		for _, e := range f.ExpectOpen {
			if len(all) == policy.MaxExpected {
				l.fail(e.Pos, "more than %d entries of expect-open in all", policy.MaxExpected)
				return nil
			}
			all = append(all, normal(e))
		}
	}
	return sortedBy(slices.Values(all), compareMeaning)
}

// errno returns the errno of a plan: the policy's own, else the one that all
// its includes with one agree on, else the default.
func (l *loader) errno(root *file, key, fallback string, own func(*policy.Policy) string) Errno {
	name := cmp.Or(l.said(root, key, own), fallback)
	number, ok := afalg.ErrnoByName(name)
	if !ok {
		l.fail(policy.Pos{File: root.File, Line: 1, Col: 1}, "%s: unknown errno %q", key, name)
	}
	return Errno{afalg.ErrnoName(number), number}
}

// zeroCopy follows the order of errno.
func (l *loader) zeroCopy(root *file) policy.Choice {
	return policy.Choice(l.said(root, "zero-copy", func(p *policy.Policy) string { return string(p.Deny.ZeroCopy) }))
}

// unconfined follows the order of errno.
func (l *loader) unconfined(root *file) Unconfined {
	return Unconfined(cmp.Or(l.said(root, "unconfined", ownUnconfined), string(Refuse)))
}

func ownUnconfined(p *policy.Policy) string { return p.Containers.Unconfined }

func (l *loader) said(f *file, key string, own func(*policy.Policy) string) string {
	if name := own(f.Policy); name != "" {
		return name
	}
	if name, ok := f.said[key]; ok {
		return name
	}
	var name, by string
	for i, sub := range f.includes {
		next := l.said(sub, key, own)
		switch {
		case next == "":
		case name == "":
			name, by = next, sub.File
		case next != name:
			l.fail(f.Include[i].Pos, "%s: %s says %s and %s says %s; say in %s which one holds",
				key, by, name, sub.File, next, f.File)
		}
	}
	f.said[key] = name
	return name
}

// sortedBy collects a sorted copy without equals; the first of equals stays.
// It is nil for nothing, so that equal plans are deeply equal.
func sortedBy[T any](seq func(yield func(T) bool), compare func(a, b T) int) []T {
	list := slices.SortedStableFunc(seq, compare)
	return slices.CompactFunc(list, func(a, b T) bool { return compare(a, b) == 0 })
}
