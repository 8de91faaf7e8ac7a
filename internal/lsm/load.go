package lsm

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"time"

	"github.com/cilium/ebpf"

	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/lsm/guard"
	"github.com/afalg-policy/afalg-policy/internal/lsm/table"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// Options of a load.
type Options struct {
	Audit  bool
	Accept []string // names of wider gaps, whether this host has them or not: the next kernel may
	Policy string   // what the user calls it; a path is absolute
	Tool   string   // name and version of this program

	refresh bool // the table alone; the programs must stand as they were loaded
}

// Load puts a plan in force for the whole host, in place of what was. It is all
// or nothing: where the programs do not decide as they should, what was in force
// before is again.
func Load(ctx context.Context, p *plan.Plan, o Options) (*State, []plan.Gap, error) {
	unlock, err := lock()
	if err != nil {
		return nil, nil, err
	}
	defer unlock()
	return load(ctx, p, o)
}

// Refresh looks the names of the loaded policy up again, after an upgrade. The
// plan must be the one that is loaded, and its programs must be attached: it
// replaces nothing but the table, so that whoever holds the links besides the
// pins holds the right ones. It goes on until nothing changes meanwhile.
func Refresh(ctx context.Context, p *plan.Plan, tool string) (*State, []plan.Gap, error) {
	unlock, err := lock()
	if err != nil {
		return nil, nil, err
	}
	defer unlock()
	before, err := ReadState()
	if err != nil {
		return nil, nil, err
	}
	if p.Digest != before.Digest {
		return nil, nil, fmt.Errorf("%s has changed since it was loaded: load it with `afalg-policy lsm load`", before.Policy)
	}
	o := Options{Audit: before.Audit, Accept: before.Accepted, Policy: before.Policy, Tool: tool, refresh: true}
	for range maxRefreshes {
		names, err := ask(p)
		if err != nil {
			return nil, nil, err
		}
		s, gaps, err := load(ctx, p, o)
		if err != nil {
			return nil, nil, err
		}
		if now, err := ask(p); err != nil || reflect.DeepEqual(now, names) {
			return s, gaps, err
		}
	}
	return nil, nil, fmt.Errorf("the files that %s lists go on changing: refresh again", before.Policy)
}

// maxRefreshes bounds how long a refresh follows changes.
const maxRefreshes = 5

var errReload = errors.New("the programs that were loaded are not attached any more, or this version has others: load the policy again")

func load(ctx context.Context, p *plan.Plan, o Options) (*State, []plan.Gap, error) {
	h, err := Look()
	if err != nil {
		return nil, nil, err
	}
	attachment, err := h.Choose()
	if err != nil {
		return nil, nil, err
	}
	names, err := ask(p)
	if err != nil {
		return nil, nil, err
	}
	generation, err := newGeneration()
	if err != nil {
		return nil, nil, err
	}
	t, gaps, err := table.Compile(p, names, table.Options{Generation: generation, Audit: o.Audit})
	if err != nil {
		return nil, nil, err
	}
	n := needsOf(p, h, attachment, o)
	gaps = slices.Concat(gaps, hostGaps(p, h, n), classGaps(p))
	if err := plan.Settle(gaps, nil, o.Accept); err != nil {
		return nil, gaps, err
	}
	before, err := ReadState()
	if err != nil && !errors.Is(err, ErrNotLoaded) {
		return nil, nil, err
	}
	s := &State{
		Tool: o.Tool, Policy: o.Policy, Digest: p.Digest, Audit: o.Audit, Attachment: attachment, Generation: generation,
		Families: familyBits(p), Programs: programsFor(n), Objects: guard.Digest(), Loaded: time.Now().UTC(),
		Gaps: gaps, Binaries: slices.Sorted(maps.Keys(names.Files)), Accepted: o.Accept,
	}
	if before != nil {
		s.Containers = living(before.Containers)
	}
	c := change{plan: p, names: names, state: s, before: before, table: t, needs: n, refresh: o.refresh}
	return s, gaps, c.make(ctx)
}

func needsOf(p *plan.Plan, h Host, a Attachment, o Options) needs {
	n := needs{attachment: a, splices: h.Splices, zeroCopy: p.RefusesZeroCopy() && !o.Audit}
	for _, r := range p.Rules {
		n.binaries = n.binaries || len(r.Binaries) > 0
		n.strict = n.strict || r.StrictExec
	}
	return n
}

// hostGaps are those of the host, not of the table.
func hostGaps(p *plan.Plan, h Host, n needs) []plan.Gap {
	var gaps []plan.Gap
	for _, r := range p.Rules {
		if !r.OpensAlgorithms() {
			continue
		}
		if r.StrictExec && n.attachment != LSM {
			gaps = append(gaps, plan.Stricter.Gap(r.Name, nil, "strict-exec needs bpf among the active LSMs; the rule holds for nobody here"))
		}
		if len(r.Units) > 0 && !h.Unified {
			gaps = append(gaps, plan.Stricter.Gap(r.Name, nil, "systemd keeps units in another cgroup hierarchy than the unified one here; the rule holds for no unit"))
		}
	}
	if n.zeroCopy && !n.splices && !h.Preemption.Never() && p.ZeroCopy == policy.Yes {
		gaps = append(gaps, plan.Wider.Gap(policy.GapZeroCopy, nil,
			"before Linux 6.5 the program that sees pages of files is skipped now and then by a kernel with preemption ("+string(h.Preemption)+"); what is skipped is let through"))
	}
	return gaps
}

// classGaps are those of any host: the programs close whole families, to everybody.
func classGaps(p *plan.Plan) []plan.Gap {
	return append(p.HeldBack(plan.Breaking), p.ClassGaps(p.HookClosing())...)
}

func familyBits(p *plan.Plan) (bits uint64) {
	for _, f := range p.Families {
		if f.Number < 64 {
			bits |= 1 << f.Number
		}
	}
	return bits
}

// change is one load on its way.
type change struct {
	plan   *plan.Plan
	names  table.Host
	state  *State
	before *State
	table  *table.Table
	needs  needs

	refresh bool
}

// make attaches first and pins then, so that at no moment less decides than
// before.
func (c *change) make(ctx context.Context) (err error) {
	s, err := spec(c.state.Attachment)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(Dir, 0o700); err != nil {
		return hosterr.Errorf("make the directory of pins: %w", err)
	}
	decided, err := pins()
	if err != nil {
		return err
	}
	m := openMaps(s)
	fresh := m == nil
	replace := fresh || !c.attachedAlready()
	if c.refresh && replace {
		m.close()
		return errReload
	}
	if fresh {
		if m, err = makeMaps(s); err != nil {
			return err
		}
	}
	defer m.close()
	if err := c.grant(m); err != nil {
		return err
	}
	undo, err := c.swap(s, m, c.table)
	if err != nil {
		return err
	}
	defer func() {
		switch {
		case err == nil:
		case len(decided) == 0:
			err = errors.Join(err, os.RemoveAll(Dir)) // nothing decided, and nothing is to stay
		default:
			err = errors.Join(err, undo())
		}
	}()
	var links attached
	if replace {
		if links, err = attach(s, m, c.needs, c.state.Families); err != nil {
			return err
		}
		defer links.close() // those that are not pinned end here
	}
	if err := c.probe(ctx, s, m); err != nil {
		return err
	}
	if replace { // the programs stand otherwise, and so did their answer
		if err := checkLayout(); err != nil {
			return err
		}
	}
	if fresh {
		if err := m.pin(); err != nil {
			return err
		}
	}
	if replace {
		if err := links.pin(); err != nil {
			return err
		}
	}
	if err := c.state.write(); err != nil {
		return err
	}
	return errors.Join(sweepGrants(m, c.state.Generation), sweepMarks(m))
}

// attachedAlready reports whether the very programs that are needed are attached
// and pinned.
func (c *change) attachedAlready() bool {
	if c.before == nil || c.before.Attachment != c.state.Attachment || c.before.Families != c.state.Families ||
		c.before.Objects != c.state.Objects || !slices.Equal(c.before.Programs, c.state.Programs) {
		return false
	}
	for _, name := range c.state.Programs {
		if _, err := linkInfo(name); err != nil {
			return false
		}
	}
	return true
}

// swap puts a table into the slot. What it returns puts back the one before.
func (c *change) swap(s *ebpf.CollectionSpec, m pinned, t *table.Table) (undo func() error, err error) {
	next, err := fill(s.Maps["slot"].InnerMap, t)
	if err != nil {
		return nil, err
	}
	defer next.Close()
	old := inSlot(m["slot"])
	if err := m["slot"].Put(uint32(0), next); err != nil {
		return nil, errors.Join(hosterr.Errorf("put the table in force: %w", err), closeMap(old))
	}
	return func() error {
		if old == nil { // as it was: everything is denied
			return m["slot"].Delete(uint32(0))
		}
		defer old.Close()
		return m["slot"].Put(uint32(0), old)
	}, nil
}

func closeMap(m *ebpf.Map) error {
	if m == nil {
		return nil
	}
	return m.Close()
}

// inSlot returns the table in force, or nil.
func inSlot(slot *ebpf.Map) *ebpf.Map {
	var m *ebpf.Map
	if slot.Lookup(uint32(0), &m) != nil {
		return nil
	}
	return m
}

// fill makes the map of a table, which nobody changes any more.
func fill(inner *ebpf.MapSpec, t *table.Table) (*ebpf.Map, error) {
	s := inner.Copy()
	s.MaxEntries = uint32(len(t.Entries))
	m, err := ebpf.NewMap(s)
	if err != nil {
		return nil, hosterr.Errorf("make the table: %w", err)
	}
	for k, v := range t.Entries {
		if err := m.Put(k, v[:]); err != nil {
			m.Close()
			return nil, hosterr.Errorf("fill the table: %w", err)
		}
	}
	if err := m.Freeze(); err != nil {
		m.Close()
		return nil, hosterr.Errorf("freeze the table: %w", err)
	}
	return m, nil
}

func newGeneration() (uint64, error) {
	var b [8]byte
	_, err := rand.Read(b[:])
	return binary.NativeEndian.Uint64(b[:]), err
}

// grant gives the containers of a load their rules in the table that is about to
// be in force, as far as the plan still has them.
func (c *change) grant(m pinned) error {
	for _, g := range c.state.Containers {
		if err := grantTo(m["containers"], c.plan, c.state.Generation, g); err != nil {
			return err
		}
	}
	return nil
}

func grantTo(containers *ebpf.Map, p *plan.Plan, generation uint64, g Grantee) error {
	granted, _ := p.GrantedKnown(g.Rules)
	var names []string
	for _, r := range granted.Rules {
		names = append(names, r.Name)
	}
	rules, err := table.Granted(p, names)
	if err != nil {
		return err
	}
	if err := containers.Put(guard.Container{Generation: generation, Cgroup: g.Cgroup}, rules); err != nil {
		return hosterr.Errorf("register the container %s: %w", g.ID, err)
	}
	return nil
}
