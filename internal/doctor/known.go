package doctor

import (
	"cmp"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/afalg-policy/afalg-policy/internal/bounded"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
	"github.com/afalg-policy/afalg-policy/policies"
)

// known is a program on this host that is known to use AF_ALG, there or elsewhere.
type known struct {
	preset string // the shipped policy that has a rule for it
	path   string // on the host
	pkg    string // that it belongs to; "" if that is not known
	units  []string
}

// besides are shipped policies whose program is on nearly every host, and uses AF_ALG
// only with something else.
var besides = map[string]func(root string) bool{
	"openssl-afalg":      anyFile("usr/lib*/engines-*/afalg.so", "usr/lib*/*/engines-*/afalg.so"),
	"strongswan":         anyFile("usr/lib*/ipsec/plugins/libstrongswan-af-alg.so", "usr/lib*/strongswan/plugins/libstrongswan-af-alg.so"),
	"systemd-before-250": oldSystemd,
	"qemu":               anyFile("etc/oracle-release"), // others build it without
}

func anyFile(patterns ...string) func(root string) bool {
	return func(root string) bool {
		return slices.ContainsFunc(patterns, func(pattern string) bool {
			found, err := filepath.Glob(filepath.Join(root, pattern))
			return err == nil && len(found) > 0
		})
	}
}

var sharedSystemd = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^libsystemd-shared-([0-9]{1,4})\b.*\.so$`) })

// oldSystemd knows the version by the library that all its programs load.
func oldSystemd(root string) bool {
	for _, pattern := range []string{"usr/lib*/systemd/libsystemd-shared-*.so", "lib/systemd/libsystemd-shared-*.so", "usr/lib*/*/systemd/libsystemd-shared-*.so"} {
		found, _ := filepath.Glob(filepath.Join(root, pattern)) // the pattern is a constant
		for _, path := range found {
			if m := sharedSystemd().FindStringSubmatch(filepath.Base(path)); m != nil {
				version, err := strconv.Atoi(m[1])
				return err == nil && version < 250
			}
		}
	}
	return false
}

// general are shipped policies that are about no program in particular.
var general = []string{"acvp", "baseline", "desktop", "linux-7.3"}

// knownHere lists the programs of the shipped policies that the host has.
func knownHere(root string) (all []known, err error) {
	for _, preset := range policies.Names() {
		if slices.Contains(general, preset) {
			continue
		}
		if there := besides[preset]; there != nil && !there(root) {
			continue
		}
		p, _, err := plan.Load(policy.BuiltinPrefix+preset, plan.ReadNamed)
		if err != nil {
			return nil, err
		}
		for _, rule := range p.Rules {
			for _, b := range rule.Binaries {
				all = addKnown(all, root, preset, rule, b.Path)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b known) int { return cmp.Or(cmp.Compare(a.preset, b.preset), cmp.Compare(a.path, b.path)) })
	owners := ownersOf(root, all)
	for i := range all {
		all[i].pkg = owners[all[i].path]
	}
	return all, nil
}

// addKnown adds the program if it is there. Two paths may be one file, by a link of a
// directory: the first counts.
func addKnown(all []known, root, preset string, rule policy.Rule, path string) []known {
	info, err := os.Stat(filepath.Join(root, path))
	if err != nil || !info.Mode().IsRegular() {
		return all
	}
	for i, k := range all {
		if other, err := os.Stat(filepath.Join(root, k.path)); err == nil && os.SameFile(info, other) && k.preset == preset {
			all[i].units = union(k.units, rule.Units)
			return all
		}
	}
	return append(all, known{preset: preset, path: path, units: rule.Units})
}

func union(a, b []string) []string {
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}

// dpkgInfo has a list of files for each package of Debian's.
const (
	dpkgInfo = "var/lib/dpkg/info"
	maxList  = 8 << 20 // bytes of a list
)

// ownersOf looks up which package of Debian's a program belongs to, as far as there is
// time. The databases of other distributions are not read: that takes their own
// programs.
func ownersOf(root string, all []known) map[string]string {
	owners := map[string]string{}
	if len(all) == 0 {
		return owners
	}
	wanted := map[string]string{} // a line of a list, to the path
	for _, k := range all {
		for _, line := range []string{k.path, strings.TrimPrefix(k.path, "/usr"), "/usr" + k.path} { // whatever is merged
			wanted[line] = k.path
		}
	}
	entries, err := fs.Glob(os.DirFS(filepath.Join(root, dpkgInfo)), "*.list")
	if err != nil {
		return owners
	}
	for deadline := time.Now().Add(packageTime); len(entries) > 0 && time.Now().Before(deadline); entries = entries[1:] {
		name := entries[0]
		text, err := bounded.ReadFile(filepath.Join(root, dpkgInfo, name), maxList)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			if path := wanted[strings.TrimSuffix(line, "\n")]; path != "" {
				owners[path], _, _ = strings.Cut(strings.TrimSuffix(name, ".list"), ":")
			}
		}
	}
	return owners
}

// evidence says how the program was found.
func (k known) evidence() string {
	if k.pkg != "" {
		return fmt.Sprintf("%s, of package %s, is a user by builtin:%s", k.path, k.pkg, k.preset)
	}
	return fmt.Sprintf("%s is a user by builtin:%s", k.path, k.preset)
}
