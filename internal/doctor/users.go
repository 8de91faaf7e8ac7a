package doctor

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/kernel"
	"github.com/afalg-policy/afalg-policy/internal/policy"
	"github.com/afalg-policy/afalg-policy/internal/report"
	"github.com/afalg-policy/afalg-policy/internal/term"
)

// unusedAfter is for how long everybody must have been recorded until nobody is
// called a user.
const unusedAfter = 30 * 24 * time.Hour

// users lists who uses AF_ALG, and who is known to do so elsewhere.
func (f *found) users() []report.User {
	u := users{f: f, byKey: map[string]*report.User{}}
	for _, h := range f.holding.holders {
		p := f.people[h.pid]
		one := u.of(cmp.Or(p.exe, p.command), p.place.Unit, p.place.Container)
		u.uses(one, f.now, "socket", fmt.Sprintf("%s holds %s", whoText(h.pid, p), term.Count(h.sockets, "open socket")))
	}
	for _, use := range f.uses {
		one := u.of(cmp.Or(use.Binary, use.Shown), use.Unit, contained(use.Contained))
		if use.Algorithm != (afalg.Algorithm{}) {
			one.Algorithms = union(one.Algorithms, []string{use.Algorithm.String()})
		}
		u.uses(one, use.Last, "log", fmt.Sprintf("the kernel half recorded %s of %s, %s, last at %s", term.Count(int(use.Count), use.Call), cmp.Or(use.Algorithm.Name, "a socket"), word(use.Allowed), stamp(use.Last)))
	}
	for _, line := range f.log.lines {
		one := u.of(line.Executable, line.Unit, line.Container)
		if line.Algorithm != "" {
			one.Algorithms = union(one.Algorithms, []string{line.Algorithm})
		}
		u.uses(one, line.Time, "log", fmt.Sprintf("a log has %s of %s, %s, last at %s", line.Call, cmp.Or(line.Algorithm, "a socket"), line.Verdict, stamp(line.Time)))
	}
	for _, k := range f.known {
		one := u.of(k.path, "", "")
		one.Name = path.Base(k.path)
		kind := "binary"
		if k.pkg != "" {
			kind = "package"
		}
		u.add(one, kind, k.evidence())
	}
	for _, name := range f.listing {
		u.add(u.unit(name), "unit", name+" lists AF_ALG in RestrictAddressFamilies=")
	}
	return u.settled()
}

func contained(is bool) string {
	if is {
		return "in a container"
	}
	return ""
}

func word(allowed bool) string {
	if allowed {
		return report.Allowed
	}
	return report.Denied
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// users collects users by who they are.
type users struct {
	f     *found
	byKey map[string]*report.User
}

// of is the user with an executable. A container is somebody else, whatever it calls
// its programs.
func (u *users) of(exe, unit, container string) *report.User {
	key := container + "\x00" + exe
	one := u.byKey[key]
	if one == nil {
		one = &report.User{Name: cmp.Or(exe, "unknown"), State: unknown, Executable: exe, Container: container, Evidence: []report.Evidence{}}
		u.byKey[key] = one
	}
	if one.Unit == "" {
		one.Unit = unit
	}
	return one
}

// unit is the user that is known by its unit: one that runs in it, or that a shipped
// policy has in it.
func (u *users) unit(name string) *report.User {
	for _, key := range slices.Sorted(maps.Keys(u.byKey)) {
		if one := u.byKey[key]; one.Unit == name && one.Container == "" {
			return one
		}
	}
	for _, k := range u.f.known {
		if slices.Contains(k.units, name) {
			one := u.of(k.path, name, "")
			one.Unit = name
			return one
		}
	}
	one := u.of("", name, "unit "+name)
	one.Name, one.Container, one.Unit = name, "", name
	return one
}

// mostEvidence bounds what is said of one user: a log may have thousands of names.
const mostEvidence = 20

func (u *users) add(one *report.User, kind, text string) {
	if len(one.Evidence) < mostEvidence {
		one.Evidence = append(one.Evidence, report.Evidence{Kind: kind, Text: text})
	}
}

func (u *users) uses(one *report.User, at time.Time, kind, text string) {
	one.State = report.Used
	if seen := stamp(at); seen > one.Seen {
		one.Seen = seen
	}
	u.add(one, kind, text)
}

// settled says of everybody who was not seen whether somebody looked.
func (u *users) settled() []report.User {
	why, sure := u.f.unusedBy()
	all := []report.User{}
	for _, key := range slices.Sorted(maps.Keys(u.byKey)) {
		one := *u.byKey[key]
		if one.State == unknown {
			if sure {
				one.State = report.Unused
			}
			u.add(&one, "record", why)
		}
		all = append(all, one)
	}
	order := []string{report.Used, unknown, report.Unused}
	slices.SortStableFunc(all, func(a, b report.User) int {
		return cmp.Or(cmp.Compare(slices.Index(order, a.State), slices.Index(order, b.State)), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Executable, b.Executable))
	})
	return all
}

// unusedBy says what is known of those that were not seen using AF_ALG. Only a kernel
// without it, or a record of every call for long enough, makes them unused.
func (f *found) unusedBy() (why string, sure bool) {
	if f.afalg.State == kernel.Absent && len(f.holding.holders) == 0 && f.has() == report.HasNone {
		return "this kernel has no AF_ALG: " + f.afalg.Why, true
	}
	since, lost, recorded := f.recorded()
	switch {
	case !recorded:
		return "nothing recorded who uses AF_ALG: unused is not known", false
	case lost:
		return "the record of the kernel half is not complete", false
	case f.now.Sub(since) < unusedAfter:
		return fmt.Sprintf("the kernel half recorded no use since %s, which is not long enough to tell", stamp(since)), false
	}
	return fmt.Sprintf("the kernel half recorded no use since %s", stamp(since)), true
}

// recorded says since when every use of the host was recorded, as only the kernel
// half does.
func (f *found) recorded() (since time.Time, lost, ok bool) {
	if f.half == nil || f.half.State == nil || len(f.half.Faults) > 0 || f.uses == nil && f.half.Counters["allowed"]+f.half.Counters["denied"] > 0 {
		return since, false, false
	}
	return f.half.State.Loaded, f.half.Counters["lost-records"] > 0 || f.half.Misses > 0, true
}

func ofType(t afalg.Type) func(policy.Algorithm) bool {
	return func(a policy.Algorithm) bool { return a.Type == t }
}

// preset is the shipped policy with a rule for a user, "" if there is none.
func (f *found) preset(u report.User) string {
	for _, k := range f.known {
		if k.path == u.Executable && u.Container == "" {
			return k.preset
		}
	}
	for _, k := range f.known {
		if u.Container == "" && u.Executable != "" && path.Base(k.path) == path.Base(u.Executable) && strings.HasPrefix(u.Executable, "/") && sameProgram(f.root, k.path, u.Executable) {
			return k.preset
		}
	}
	return ""
}
