// Package table compiles a plan into the table from which the programs of
// package guard decide. It does no I/O: what a host says of files and users is
// an input.
//
// Each rule is one bit. An entry of the table says which rules name an
// algorithm, an executable, a user, a unit or a set of capabilities. What has
// no entry leaves the rules without such a condition. A request is allowed if
// one rule is left by all of them, which is what plan.Decide says.
package table

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/lsm/guard"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// Host is what a host says of the names in a plan.
type Host struct {
	Users map[string]uint32 // names of users; a missing one holds for nobody
	Files map[string]File   // by path; a missing one holds for nobody
}

// File is an executable at a path.
type File struct {
	Binary      guard.Binary
	ChangedSec  int64 // the time of the last change of its inode
	ChangedNsec uint32
	SHA256      string // in lower-case hex; empty if no rule asks for it, or if it cannot be computed
}

// Options are about a whole table.
type Options struct {
	Generation uint64
	Audit      bool // deny nothing
	// Probe is an executable that a further rule lists, for an algorithm that no
	// kernel has: by it a load shows that what is allowed is let through.
	Probe *File
}

// ProbeAlgorithm is what the rule of Options.Probe allows.
var ProbeAlgorithm = afalg.Algorithm{Type: "hash", Name: "afalg-policy-probe"}

// Table is the content of one map.
type Table struct {
	Generation uint64
	Entries    map[guard.Key]Value
}

// Value is the text of a guard.Meta, guard.Rules, guard.BinaryRules or
// guard.CapabilityRules.
type Value [guard.ValueSize]byte

func valueOf[T any](v T) (out Value) {
	*(*T)(unsafe.Pointer(&out)) = v
	return out
}

func at[T any](v *Value) *T { return (*T)(unsafe.Pointer(v)) }

// Compile makes the table of a plan, and says what it cannot tell. All gaps are
// stricter. It fails if the plan does not fit.
func Compile(p *plan.Plan, h Host, o Options) (*Table, []plan.Gap, error) {
	rules := p.Rules
	if o.Probe != nil {
		rules = append(slices.Clone(rules), policy.Rule{Anyone: true, Algorithms: policy.Algorithms{{Algorithm: ProbeAlgorithm}}})
	}
	if len(p.Rules) >= guard.MaxRules {
		return nil, nil, fmt.Errorf("the policy has %d rules, and the kernel half holds %d: join rules that have the same conditions", len(p.Rules), guard.MaxRules-1)
	}
	c := &compiler{host: h, entries: map[guard.Key]Value{}}
	c.meta = guard.Meta{
		Generation:   o.Generation,
		SocketAnswer: -int64(p.SocketErrno.Number),
		BindAnswer:   -int64(p.BindErrno.Number),
	}
	if o.Audit {
		c.meta.Flags |= guard.FlagAudit
	}
	if p.RefusesZeroCopy() && !o.Audit {
		c.meta.Flags |= guard.FlagZeroCopy
	}
	for i := range rules {
		c.rule(i, &rules[i])
	}
	if o.Probe != nil {
		last := len(rules) - 1
		c.file(last, *o.Probe, false)
		clear(&c.meta.NoBinary, last)
	}
	if c.meta.CapabilitySets > guard.MaxCapabilitySets {
		return nil, nil, fmt.Errorf("the rules ask for %d different sets of capabilities, and the kernel half holds %d: ask for the same ones", c.meta.CapabilitySets, guard.MaxCapabilitySets)
	}
	c.entries[guard.Key{Kind: guard.KindMeta}] = valueOf(c.meta)
	return &Table{o.Generation, c.entries}, c.gaps, nil
}

type compiler struct {
	host    Host
	entries map[guard.Key]Value
	meta    guard.Meta
	gaps    []plan.Gap
}

func (c *compiler) stricter(rule *policy.Rule, format string, args ...any) {
	c.gaps = append(c.gaps, plan.Stricter.Gap(rule.Name, nil, fmt.Sprintf(format, args...)))
}

func set(r *guard.Rules, i int)   { r.Word[i/64] |= 1 << (i % 64) }
func clear(r *guard.Rules, i int) { r.Word[i/64] &^= 1 << (i % 64) }

// name adds a rule to those that an entry of rules alone has.
func (c *compiler) name(k guard.Key, i int) {
	v := c.entries[k]
	set(at[guard.Rules](&v), i)
	c.entries[k] = v
}

func (c *compiler) rule(i int, r *policy.Rule) {
	if !r.Anyone && len(r.Binaries)+len(r.Users)+len(r.Capabilities)+len(r.Units) == 0 {
		return // it names nobody
	}
	if !r.OpensAlgorithms() {
		return
	}
	c.algorithms(i, r)
	c.binaries(i, r)
	c.users(i, r)
	c.units(i, r)
	c.capabilities(i, r)
	if r.StrictExec {
		set(&c.meta.Strict, i)
	}
}

func (c *compiler) algorithms(i int, r *policy.Rule) {
	for _, a := range r.Algorithms {
		k := guard.Key{Kind: guard.KindAlgorithm}
		if a.Name != afalg.AnyName && !guard.SetText(k.Algorithm.Name[:], a.Name) || !guard.SetText(k.Algorithm.Type[:14], string(a.Type)) {
			c.stricter(r, "%s: a bind cannot carry so long a name", a.Algorithm)
			continue
		}
		if a.Type == "" || a.Name == "" {
			continue
		}
		c.name(k, i)
		set(&c.meta.Reach, i)
	}
}

func (c *compiler) binaries(i int, r *policy.Rule) {
	if len(r.Binaries) == 0 {
		set(&c.meta.NoBinary, i)
	}
	for _, b := range r.Binaries {
		f, ok := c.host.Files[b.Path]
		switch {
		case !ok:
			c.stricter(r, "%s is not on this host; run `afalg-policy lsm refresh` once it is", b.Path)
		case b.SHA256 == "":
			c.file(i, f, false)
		case f.SHA256 == "":
			c.stricter(r, "%s cannot be read, or changes while it is: its sha256 is not known", b.Path)
		case b.SHA256 != f.SHA256:
			c.stricter(r, "%s has the sha256 %s, and the rule asks for %s", b.Path, f.SHA256, b.SHA256)
		default:
			c.file(i, f, true)
		}
	}
}

func binaryKey(b guard.Binary) guard.Key {
	k := guard.Key{Kind: guard.KindBinary}
	*(*guard.Binary)(unsafe.Pointer(&k.Algorithm)) = b
	return k
}

// file adds a rule about a file, or about its content. Where a file system gives
// its inodes no generation, as overlayfs, the number of a removed file comes
// again: the time of the last change tells them apart.
func (c *compiler) file(i int, f File, content bool) {
	k := binaryKey(f.Binary)
	v := c.entries[k]
	b := at[guard.BinaryRules](&v)
	if content {
		set(&b.Content, i)
	} else {
		set(&b.Any, i)
	}
	b.ChangedSec, b.ChangedNsec = f.ChangedSec, f.ChangedNsec
	if f.Binary.Generation == 0 {
		b.Exact = 1
	}
	c.entries[k] = v
}

func (c *compiler) users(i int, r *policy.Rule) {
	if len(r.Users) == 0 {
		set(&c.meta.NoUser, i)
	}
	for _, name := range r.Users {
		uid, ok := plan.UserID(name)
		if !ok {
			uid, ok = c.host.Users[name]
		}
		if !ok {
			c.stricter(r, "this host has no user %s", name)
			continue
		}
		k := guard.Key{Kind: guard.KindUser}
		*(*uint32)(unsafe.Pointer(&k.Algorithm)) = uid
		c.name(k, i)
	}
}

func (c *compiler) units(i int, r *policy.Rule) {
	if len(r.Units) == 0 {
		set(&c.meta.NoUnit, i)
	}
	for _, unit := range r.Units {
		k, ok := unitKey(unit)
		if !ok {
			c.stricter(r, "the name of %s is too long for the kernel half, which holds %d characters", unit, guard.MaxUnit)
			continue
		}
		c.name(k, i)
	}
}

// unitKey makes the key of a unit or of a template. Every instance has the
// template's entry.
func unitKey(unit string) (guard.Key, bool) {
	at, dot := strings.IndexByte(unit, '@'), strings.LastIndexByte(unit, '.')
	if template := at > 0 && dot == at+1; !template {
		k := guard.Key{Kind: guard.KindUnit}
		b := (*[120]int8)(unsafe.Pointer(&k.Algorithm))
		return k, len(unit) <= guard.MaxUnit && guard.SetText(b[:], unit)
	}
	k := guard.Key{Kind: guard.KindTemplate}
	t := (*guard.Template)(unsafe.Pointer(&k.Algorithm))
	return k, guard.SetText(t.Prefix[:], unit[:dot]) && guard.SetText(t.Type[:], unit[dot+1:])
}

// capabilities gives equal sets one entry.
func (c *compiler) capabilities(i int, r *policy.Rule) {
	if len(r.Capabilities) == 0 {
		set(&c.meta.NoCapability, i)
		return
	}
	var bits uint64
	for _, name := range r.Capabilities {
		if n := slices.Index(afalg.Capabilities(), name); n >= 0 {
			bits |= 1 << n
		}
	}
	k := guard.Key{Kind: guard.KindCapabilities}
	for ; k.Index < c.meta.CapabilitySets; k.Index++ {
		v := c.entries[k]
		if at[guard.CapabilityRules](&v).Set == bits {
			break
		}
	}
	c.meta.CapabilitySets = max(c.meta.CapabilitySets, k.Index+1)
	v := c.entries[k]
	entry := at[guard.CapabilityRules](&v)
	entry.Set = bits
	set(&entry.Rules, i)
	c.entries[k] = v
}

// Granted makes the set of the rules that a container holds.
func Granted(p *plan.Plan, names []string) (guard.Rules, error) {
	var held guard.Rules
	for _, name := range names {
		i := slices.IndexFunc(p.Rules, func(r policy.Rule) bool { return r.Name == name })
		if i < 0 {
			return guard.Rules{}, fmt.Errorf("the policy has no rule %s", strconv.Quote(name))
		}
		set(&held, i)
	}
	return held, nil
}
