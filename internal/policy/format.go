package policy

import (
	"bytes"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
)

// Format prints a policy as a file: what Parse reads from it is p again, but
// for positions. The text depends on nothing else, so a digest of it is one of
// the policy.
func Format(p *Policy) []byte {
	f := &formatter{}
	f.line(0, "version: 1")
	f.line(0, "name: %s", plain(p.Name))
	f.list(0, "include", names(p.Include, func(i Include) string { return i.Name }))
	f.deny(p.Deny)
	if len(p.Rules) > 0 {
		f.line(0, "allow:")
	}
	for _, r := range p.Rules {
		f.rule(r)
	}
	f.containers(p.Containers)
	return f.Bytes()
}

type formatter struct{ bytes.Buffer }

func (f *formatter) line(indent int, format string, args ...any) {
	f.WriteString(strings.Repeat(" ", indent))
	fmt.Fprintf(f, format, args...)
	f.WriteByte('\n')
}

// list prints a key with a list, and nothing for an empty one.
func (f *formatter) list(indent int, key string, items []string) {
	if len(items) > 0 {
		f.line(indent, "%s: [%s]", key, strings.Join(names(items, plain), ", "))
	}
}

func (f *formatter) deny(d Deny) {
	if d.SocketErrno == "" && d.BindErrno == "" && len(d.Families) == 0 {
		return
	}
	f.line(0, "deny:")
	if d.SocketErrno != "" {
		f.line(2, "socket-errno: %s", plain(d.SocketErrno))
	}
	if d.BindErrno != "" {
		f.line(2, "bind-errno: %s", plain(d.BindErrno))
	}
	f.list(2, "families", names(d.Families, func(f Family) string { return f.Name }))
}

func (f *formatter) rule(r Rule) {
	f.line(2, "- rule: %s", plain(r.Name))
	if r.Anyone {
		f.line(4, "anyone: true")
	}
	if len(r.Binaries) > 0 {
		f.line(4, "binaries:")
	}
	for _, b := range r.Binaries {
		f.line(6, "- path: %s", plain(b.Path))
		if b.SHA256 != "" {
			f.line(8, "sha256: %s", strconv.Quote(b.SHA256))
		}
	}
	f.list(4, "users", r.Users)
	f.list(4, "capabilities", r.Capabilities)
	f.list(4, "units", r.Units)
	f.line(4, "algorithms:")
	for _, t := range afalg.Types() {
		ofType := slices.DeleteFunc(slices.Clone(r.Algorithms), func(a Algorithm) bool { return a.Type != t })
		f.list(6, string(t), names(ofType, func(a Algorithm) string { return a.Name }))
	}
}

func (f *formatter) containers(c Containers) {
	if c.Unconfined == "" && len(c.Grants) == 0 {
		return
	}
	f.line(0, "containers:")
	if c.Unconfined != "" {
		f.line(2, "unconfined: %s", plain(c.Unconfined))
	}
	if len(c.Grants) > 0 {
		f.line(2, "grants:")
	}
	for _, g := range c.Grants {
		f.grant(g)
	}
}

func (f *formatter) grant(g Grant) {
	rules := names(g.Rules, func(r GrantedRule) string { return plain(r.Name) })
	f.line(4, "- rules: [%s]", strings.Join(rules, ", "))
	f.list(6, "platforms", g.Platforms)
	f.list(6, "names", g.Names)
	f.list(6, "images", g.Images)
	f.list(6, "namespaces", g.Namespaces)
	f.list(6, "pods", g.Pods)
	f.pairs(6, "labels", g.Labels)
	f.pairs(6, "annotations", g.Annotations)
}

// pairs prints a key with a mapping, sorted, and nothing for an empty one.
func (f *formatter) pairs(indent int, key string, pairs map[string]string) {
	if len(pairs) > 0 {
		f.line(indent, "%s:", key)
	}
	for _, k := range slices.Sorted(maps.Keys(pairs)) {
		f.line(indent+2, "%s: %s", plain(k), plain(pairs[k]))
	}
}

func names[T any](items []T, name func(T) string) []string {
	all := make([]string, len(items))
	for i, item := range items {
		all[i] = name(item)
	}
	return all
}

// plainText matches what YAML reads as text without quotes, the words apart
// that a version of YAML takes for something else.
var (
	plainText = regexp.MustCompile(`^[A-Za-z_/][A-Za-z0-9_/.@+-]*$`)
	yamlWord  = regexp.MustCompile(`^(?i:true|false|yes|no|on|off|y|n|null)$`)
)

// plain prints a string as YAML. The escapes of Go are among those of YAML.
func plain(s string) string {
	if plainText.MatchString(s) && !yamlWord.MatchString(s) {
		return s
	}
	return strconv.Quote(s)
}
