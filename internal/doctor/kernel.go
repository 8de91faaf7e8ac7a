package doctor

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/hostfacts"
	"github.com/afalg-policy/afalg-policy/internal/kernel"
)

// module is what sysfs shows of one that is loaded.
type module struct {
	references int // by modules above it, and by sockets; -1 if it does not say
	above      int // modules that use it
}

// used reports whether something besides other modules keeps it: of af_alg a socket,
// of a type one that is bound to it.
func (m module) used() bool { return m.references > m.above }

// readModules looks at the modules of columns.
func readModules(sys string, columns []column) map[string]module {
	all := map[string]module{}
	for _, c := range columns {
		for _, name := range c.modules {
			dir := filepath.Join(sys, "module", name)
			text, err := os.ReadFile(filepath.Join(dir, "refcnt")) // only a module that is no part of the kernel has one
			if err != nil {
				continue
			}
			m := module{references: -1}
			if n, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
				m.references = n
			}
			above, err := os.ReadDir(filepath.Join(dir, "holders"))
			if err != nil {
				m.references = -1
			}
			m.above = len(above)
			all[name] = m
		}
	}
	return all
}

// fix is one that a version of the kernel has, by upstream's numbers.
type fix struct {
	since kernel.Version
	what  string
}

var fixes = []fix{
	{kernel.Version{Major: 7, Minor: 0}, "CVE-2026-31431 (algif_aead works in place no more)"},
	{kernel.Version{Major: 7, Minor: 2}, "zero-copy into skcipher and aead removed"},
	{kernel.Version{Major: 7, Minor: 3}, "crypto.af_alg_restrict, an own restriction of AF_ALG"},
}

// by says what a version says about a fix, which is not much: distributions and stable
// kernels carry fixes under older numbers.
func (x fix) by(v kernel.Version) (value, why string) {
	switch {
	case v == (kernel.Version{}):
		return unknown, "the version is not known"
	case v.Major > x.since.Major || v.Major == x.since.Major && v.Minor >= x.since.Minor:
		return yes, fmt.Sprintf("part of Linux %s, by the version alone", x.since)
	}
	return unknown, fmt.Sprintf("part of Linux %s; stable kernels and distributions carry it under older versions, which the number does not tell", x.since)
}

// The settings that say who may use what on the whole host.
const (
	restrict      = "crypto.af_alg_restrict"
	maxNamespaces = "user.max_user_namespaces"
)

// closers are the layers of the host that close a column for everybody, with the
// reason of each.
func (f *found) closers(c column) (all []closer) {
	add := func(layer, format string, args ...any) {
		all = append(all, closer{layer, fmt.Sprintf(format, args...)})
	}
	if c.typ != "" && f.afalg.State == kernel.Absent {
		add("kernel", "AF_ALG is absent: %s", f.afalg.Why)
	}
	if f.lacks(c) {
		add("kernel", "it has no %s", cmp.Or(strings.Join(c.modules[max(0, len(c.modules)-1):], " "), "CONFIG_"+c.config))
	}
	for _, m := range c.modules {
		if f.facts.Presence(m) != hostfacts.Module || f.facts.Loaded == nil || f.isLoaded(m) {
			continue
		}
		if f.autoload != "" {
			add("kernel", "%s is not loaded, and nothing can load it: %s", m, f.autoload)
		}
		if where := f.blocked[m]; where != "" && f.facts.Modprobe == "kmod" {
			add(layerModprobe, "%s is not loaded, and stays so by %s", m, where)
		}
	}
	for _, a := range f.facts.Cmdline {
		list, ok := strings.CutPrefix(a, "initcall_blacklist=")
		listed := func(initcall string) bool { return slices.Contains(strings.Split(list, ","), initcall) }
		if ok && slices.ContainsFunc(c.initcalls, listed) && !slices.ContainsFunc(c.modules, f.isModule) {
			add(layerArguments, "%s", a)
		}
	}
	if c.typ != "" && f.facts.Sysctls[restrict] == "2" {
		add(restrict, "%s is 2: nobody gets a socket", restrict)
	}
	if c.Name == namespaces && f.facts.Sysctls[maxNamespaces] == "0" {
		add(maxNamespaces, "%s is 0", maxNamespaces)
	}
	return all
}

// closer is a layer that closes something, and the fact behind it.
type closer struct{ layer, why string }

// lacks reports whether the kernel is known not to have what a column needs. What is
// loaded is there, whatever the files of the kernel say.
func (f *found) lacks(c column) bool {
	if len(c.modules) == 0 {
		return f.facts.Config != nil && (f.facts.Config[c.config] == "n" || f.facts.Config[c.config] == "")
	}
	return slices.ContainsFunc(c.modules, func(m string) bool { return !f.isLoaded(m) && f.facts.Presence(m) == hostfacts.Absent })
}

// isModule reports whether a module is loaded from a file.
func (f *found) isModule(name string) bool {
	_, there := f.modules[name]
	return there || f.facts.IsLoaded(name)
}

func (f *found) isLoaded(name string) bool {
	return f.isModule(name) || name == "af_alg" && f.afalg.State == kernel.Loaded
}
