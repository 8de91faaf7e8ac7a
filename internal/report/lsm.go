package report

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/afalg-policy/afalg-policy/internal/lsm"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/term"
)

// KernelHalf is the result of lsm status, lsm load and lsm refresh: what is in
// force in the kernel.
type KernelHalf struct {
	Header                       // yes: the policy decides; of a load: it was done
	Mode       string            `json:"mode"` // "enforce", "audit", "none"; "unchanged" if a load was refused
	Policy     string            `json:"policy,omitempty"`
	Digest     string            `json:"digest,omitempty"`
	Since      string            `json:"since,omitempty"` // of the last load, RFC 3339
	Tool       string            `json:"tool,omitempty"`  // that loaded it
	Attachment lsm.Attachment    `json:"attachment,omitempty"`
	Why        string            `json:"why,omitempty"`    // the attachment is that one
	Faults     []string          `json:"faults,omitempty"` // why it is not in force as it was loaded
	Gaps       []Gap             `json:"gaps"`
	Accepted   []string          `json:"accepted,omitempty"`   // names of wider gaps
	Unresolved []string          `json:"unresolved,omitempty"` // executables of the policy that are not here; of a load
	Counters   map[string]uint64 `json:"counters,omitempty"`
	Missed     uint64            `json:"missed"` // calls that went by unasked
	Containers []lsm.Grantee     `json:"containers,omitempty"`
	Sockets    []lsm.Socket      `json:"sockets,omitempty"` // from before the load
	Ended      []lsm.Socket      `json:"ended,omitempty"`   // those whose holders a load ended
	Host       *lsm.Host         `json:"host,omitempty"`
	Reason     string            `json:"reason,omitempty"` // for a load that was refused
}

// Modes of the kernel half.
const (
	Enforce   = "enforce"
	Audit     = "audit"
	None      = "none"
	Unchanged = "unchanged"
)

// NewKernelHalf is the report of a command about what is in force.
func NewKernelHalf(command string, s *lsm.Status) *KernelHalf {
	host := s.Host
	host.LSMs = append([]string{}, host.LSMs...)
	r := &KernelHalf{
		Header: NewHeader(command, No), Mode: None, Faults: s.Faults, Gaps: []Gap{},
		Counters: s.Counters, Missed: s.Misses, Sockets: s.Old, Host: &host,
	}
	if s.InForce() {
		r.Verdict = Yes
	}
	loaded := s.State
	if loaded == nil {
		return r
	}
	r.Mode = Enforce
	if loaded.Audit {
		r.Mode = Audit
	}
	r.Policy, r.Digest, r.Tool, r.Since = loaded.Policy, loaded.Digest, loaded.Tool, loaded.Loaded.Format(time.RFC3339)
	r.Attachment, r.Why = loaded.Attachment, s.Host.Why(loaded.Attachment)
	r.Accepted, r.Containers = loaded.Accepted, loaded.Containers
	r.Gaps = GapsOf(loaded.Gaps)
	return r
}

// NewLoad is the report of a load that was done, or of a refresh. An audit is as
// good as any other.
func NewLoad(command string, p *plan.Plan, s *lsm.Status, ended []lsm.Socket) *KernelHalf {
	r := NewKernelHalf(command, s)
	if s.State != nil && len(s.Faults) == 0 {
		r.Verdict = Yes
	}
	r.Ended = ended
	if s.State != nil {
		r.Unresolved = unresolved(p, s.State.Binaries)
	}
	return r
}

// NewLoadRefused is the report of a load that changed nothing.
func NewLoadRefused(command, name string, p *plan.Plan, gaps []plan.Gap, err error) *KernelHalf {
	return &KernelHalf{Header: NewHeader(command, No), Mode: Unchanged, Policy: name, Digest: p.Digest, Gaps: GapsOf(gaps), Reason: err.Error()}
}

// unresolved lists the executables that the rules name and the host has not.
func unresolved(p *plan.Plan, found []string) (missing []string) {
	for _, r := range p.Rules {
		for _, b := range r.Binaries {
			if !slices.Contains(found, b.Path) {
				missing = append(missing, b.Path)
			}
		}
	}
	slices.Sort(missing)
	return slices.Compact(missing)
}

// Text writes it as one page: two tables, then what is wrong and what is missing
// as notes.
func (r *KernelHalf) Text(t *term.Printer) {
	if r.Mode != None {
		t.Table([]string{"what", "value"}, r.rows())
		var sockets [][]string
		for _, s := range r.Sockets {
			sockets = append(sockets, socketRow(t, "socket", s))
		}
		for _, s := range r.Ended {
			sockets = append(sockets, socketRow(t, "ended", s))
		}
		if len(sockets) > 0 {
			t.Table([]string{"from before the load", "pid", "fd", "kind", "executable"}, sockets)
		}
	}
	for _, fault := range r.Faults {
		t.Notef("fault: %s", fault)
	}
	for _, g := range r.Gaps {
		t.Notef("gap: %s: %s: %s", g.Kind, g.Name, g.Text)
	}
	conclude(t, r.Verdict, "%s", r.answer())
}

func (r *KernelHalf) rows() [][]string {
	rows := [][]string{
		{"mode", r.Mode},
		{"policy", fmt.Sprintf("%s (%s)", r.Policy, r.Digest)},
		{"since", fmt.Sprintf("%s, by %s", r.Since, r.Tool)},
		{"attachment", fmt.Sprintf("%s: %s", r.Attachment, r.Why)},
		{"containers", strconv.Itoa(len(r.Containers))},
		{"missed", strconv.FormatUint(r.Missed, 10)},
	}
	for _, name := range slices.Sorted(maps.Keys(r.Counters)) {
		rows = append(rows, []string{name, strconv.FormatUint(r.Counters[name], 10)})
	}
	return rows
}

func socketRow(t *term.Printer, word string, s lsm.Socket) []string {
	kind := "parent: refused at bind and accept"
	if s.Operation {
		kind = "operation: it works on"
	}
	if word == "ended" {
		kind = "operation: its holder was ended"
	}
	return []string{word, strconv.Itoa(s.PID), strconv.Itoa(s.FD), kind, term.Dash(s.Shown)}
}

// answer is the verdict in words.
func (r *KernelHalf) answer() string {
	switch {
	case len(r.Faults) > 0:
		return term.Count(len(r.Faults), "fault")
	case r.Mode == None:
		return "no policy is loaded in the kernel"
	case r.Mode == Audit:
		return "the policy is loaded for an audit: it denies nothing, and records what it would deny"
	}
	return "the policy decides for every process of this host"
}

// KernelGaps is the result of explain --lsm: the gaps of a policy in the kernel.
type KernelGaps struct {
	Header         // yes: it can be loaded
	Policy  string `json:"policy"`
	Digest  string `json:"digest"`
	Unasked string `json:"unasked,omitempty"` // why this host was not asked
	Gaps    []Gap  `json:"gaps"`
	Reason  string `json:"reason,omitempty"` // for a no
}

// NewKernelGaps is the report of a policy that was compiled and not loaded; the
// error is that of a policy which cannot be.
func NewKernelGaps(p *plan.Plan, gaps []plan.Gap, unasked, err error) *KernelGaps {
	r := &KernelGaps{Header: NewHeader("explain lsm", Yes), Policy: p.Name, Digest: p.Digest, Gaps: GapsOf(gaps)}
	if unasked != nil {
		r.Unasked = unasked.Error()
	}
	if err != nil {
		r.Verdict, r.Reason = No, err.Error()
	}
	return r
}

// Text writes a line for each gap.
func (r *KernelGaps) Text(t *term.Printer) {
	for _, g := range r.Gaps {
		t.Printf("gap: %s: %s: %s", g.Kind, g.Name, g.Text)
	}
	if r.Unasked != "" {
		t.Notef("not looked up: users, executables, and what this kernel has: %s", r.Unasked)
	}
	switch {
	case r.Reason != "":
		conclude(t, r.Verdict, "%s", r.Reason)
	case len(r.Gaps) == 0:
		conclude(t, r.Verdict, "the kernel half can express all of policy %s", r.Policy)
	default:
		conclude(t, r.Verdict, "policy %s can be loaded, with %s%s", r.Policy, term.Count(len(r.Gaps), "gap"), r.accepting())
	}
}

// accepting says what a load takes besides.
func (r *KernelGaps) accepting() (flags string) {
	for _, g := range r.Gaps {
		if g.Kind.MustAccept() {
			flags += " and --accept " + g.Name
		}
	}
	return flags
}
