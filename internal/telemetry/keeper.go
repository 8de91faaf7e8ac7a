package telemetry

import (
	"cmp"
	"container/list"
	"hash/maphash"
	"slices"
	"strings"
	"time"

	"golang.org/x/time/rate"
)

// Limits of the sources remembered, of a group and of all. The one that was
// quiet for longest makes room.
const (
	maxGroup   = 32
	maxSources = 4096
)

// A flood is over when nothing was dropped for as long as quiet. A flood that
// goes on is reported after patience.
const (
	quiet    = 5 * time.Second
	patience = time.Minute
)

// kind is what a line reports. Each kind has limits of its own: many allowed
// requests must not hide a denied one.
type kind uint8

const (
	allowed kind = iota
	denied
	failed
	kinds
)

func (k kind) String() string { return [...]string{"allowed", "denied", "error"}[k] }

// source is the origin of lines: a subject with a verdict, or a kind of
// failure. A workload can make up any number, by executables and namespaces of
// its own: hence the group.
type source struct {
	key     sourceKey
	name    string // of the executable or the failure, shortened
	limiter *rate.Limiter
	dropped uint64 // and not reported
	all, of *list.Element
}

type sourceKey struct {
	group *group
	uid   int64  // -1 if not known
	name  uint64 // a hash with a secret seed, in place of up to 4 KiB
}

// group is the sources of one container and kind.
type group struct {
	key         groupKey
	limiter     *rate.Limiter
	sources     list.List // of *source, the latest first
	dropped     uint64    // and not reported, of sources that made room
	first, last time.Time // drop since the last report
}

type groupKey struct {
	container string
	kind      kind
}

// keeper keeps the sources. It forgets quiet ones.
type keeper struct {
	subject, container Limit
	seed               maphash.Seed
	groups             map[groupKey]*group
	sources            map[sourceKey]*source
	latest             list.List // of *source, the latest first
	// elsewhere counts the dropped lines of groups that made room.
	elsewhere [kinds]uint64
}

func newKeeper(subject, container Limit) keeper {
	return keeper{
		subject: subject, container: container, seed: maphash.MakeSeed(),
		groups: map[groupKey]*group{}, sources: map[sourceKey]*source{},
	}
}

func (l Limit) limiter() *rate.Limiter { return rate.NewLimiter(rate.Every(l.Every), l.Burst) }

// find returns the source of a line, and makes it the latest.
func (k *keeper) find(e *entry) *source {
	name, uid := e.record.Executable, int64(-1)
	if e.kind == failed {
		name = e.what
	}
	if e.record.UID != nil {
		uid = int64(*e.record.UID)
	}
	g := k.groups[groupKey{e.record.Workload, e.kind}]
	if g != nil {
		if s := k.sources[sourceKey{g, uid, maphash.String(k.seed, name)}]; s != nil {
			k.latest.MoveToFront(s.all)
			g.sources.MoveToFront(s.of)
			return s
		}
	}
	return k.add(e, name, uid)
}

func (k *keeper) add(e *entry, name string, uid int64) *source {
	if len(k.sources) == maxSources {
		k.makeRoom(k.latest.Back().Value.(*source))
	}
	key := groupKey{e.record.Workload, e.kind}
	g := k.groups[key]
	if g == nil {
		key.container = strings.Clone(key.container)
		g = &group{key: key, limiter: k.container.limiter()}
		k.groups[key] = g
	}
	if g.sources.Len() == maxGroup {
		k.makeRoom(g.sources.Back().Value.(*source))
	}
	s := &source{
		key:  sourceKey{g, uid, maphash.String(k.seed, name)},
		name: strings.Clone(shorten(name, maxText)), limiter: k.subject.limiter(),
	}
	s.all, s.of = k.latest.PushFront(s), g.sources.PushFront(s)
	k.sources[s.key] = s
	return s
}

// makeRoom forgets a source, and keeps its count.
func (k *keeper) makeRoom(s *source) {
	g := s.key.group
	g.dropped += s.dropped
	k.forget(s)
	if g.sources.Len() == 0 {
		k.elsewhere[g.key.kind] += g.dropped
		delete(k.groups, g.key)
	}
}

func (k *keeper) forget(s *source) {
	k.latest.Remove(s.all)
	s.key.group.sources.Remove(s.of)
	delete(k.sources, s.key)
}

func (s *source) admit(now time.Time) bool {
	return s.limiter.AllowN(now, 1) && s.key.group.limiter.AllowN(now, 1)
}

func (s *source) drop(now time.Time) {
	s.dropped++
	g := s.key.group
	if g.last = now; g.first.IsZero() {
		g.first = now
	}
}

// summary is a line about dropped lines.
type summary struct {
	groupKey
	dropped uint64
	sources int    // that it covers, if known
	name    string // of the only source
	uid     int64
	err     error // why they were dropped, if not by a limit
}

// sweep takes the counts of the floods that are over, or of all, in the order
// of the containers, and forgets the sources that have their full burst again.
func (k *keeper) sweep(now time.Time, all bool) []summary {
	var list []summary
	for i, n := range k.elsewhere {
		if n > 0 {
			list = append(list, summary{groupKey: groupKey{kind: kind(i)}, dropped: n, uid: -1})
			k.elsewhere[i] = 0
		}
	}
	for _, g := range k.groups {
		if all || now.Sub(g.last) >= quiet || now.Sub(g.first) >= patience {
			if s := g.take(); s.dropped > 0 {
				list = append(list, s)
			}
		}
		k.rest(g, now)
	}
	slices.SortStableFunc(list, func(a, b summary) int {
		return cmp.Or(strings.Compare(a.container, b.container), cmp.Compare(a.kind, b.kind))
	})
	return list
}

// take returns the counts of a group, and starts them again.
func (g *group) take() summary {
	sum := summary{groupKey: g.key, dropped: g.dropped, uid: -1}
	known := g.dropped == 0
	for e := g.sources.Front(); e != nil; e = e.Next() {
		if s := e.Value.(*source); s.dropped > 0 {
			sum.dropped += s.dropped
			sum.sources++
			sum.name, sum.uid = s.name, s.key.uid
			s.dropped = 0
		}
	}
	if !known {
		sum.sources = 0
	}
	if sum.sources != 1 {
		sum.name, sum.uid = "", -1
	}
	g.dropped, g.first, g.last = 0, time.Time{}, time.Time{}
	return sum
}

// rest forgets the sources of a group that have nothing to report and their
// full burst again, and then the group.
func (k *keeper) rest(g *group, now time.Time) {
	for e := g.sources.Back(); e != nil; {
		s := e.Value.(*source)
		e = e.Prev()
		if s.dropped == 0 && s.limiter.TokensAt(now) >= float64(k.subject.Burst) {
			k.forget(s)
		}
	}
	if g.sources.Len() == 0 && g.dropped == 0 && g.limiter.TokensAt(now) >= float64(k.container.Burst) {
		delete(k.groups, g.key)
	}
}
