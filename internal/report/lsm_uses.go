package report

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/bounded"
	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/learn"
	"github.com/afalg-policy/afalg-policy/internal/lsm"
	"github.com/afalg-policy/afalg-policy/internal/term"
)

// Uses is the result of lsm learn: who asked the kernel for what.
type Uses struct {
	Header
	Host    string `json:"host"`
	Time    string `json:"time"` // when it was asked, RFC 3339
	Audit   bool   `json:"audit"`
	Lost    uint64 `json:"lost"`    // records for which there was no room
	Unknown uint64 `json:"unknown"` // accepts on sockets from before the load, or bound to several algorithms
	Uses    []Use  `json:"uses"`
}

// Use is what somebody asked for, and how often.
type Use struct {
	Call      string `json:"call"`                // "socket", "bind" or "accept"
	Algorithm string `json:"algorithm,omitempty"` // none for a socket
	Binary    string `json:"binary,omitempty"`    // the file that asked, if it is still there
	SHA256    string `json:"sha256,omitempty"`
	Shown     string `json:"shown"` // what its path was said to be
	UID       uint32 `json:"uid"`
	Unit      string `json:"unit,omitempty"`
	Contained bool   `json:"contained"`
	Allowed   bool   `json:"allowed"` // by the policy; in an audit the call was carried out all the same
	Count     uint64 `json:"count"`
	First     string `json:"first"`
	Last      string `json:"last"`
}

const usesCommand = "lsm learn"

// NewUses is the report of what the kernel recorded.
func NewUses(s *lsm.Status, all []lsm.Use) (*Uses, error) {
	host, err := os.Hostname()
	if err != nil {
		return nil, hosterr.Errorf("the name of this host: %w", err)
	}
	r := &Uses{
		Header: NewHeader(usesCommand, ""), Host: host, Time: time.Now().UTC().Format(time.RFC3339),
		Audit: s.State != nil && s.State.Audit, Lost: s.Counters["lost-records"], Unknown: s.Counters["denied-old-socket"], Uses: []Use{},
	}
	for _, u := range all {
		r.Uses = append(r.Uses, newUse(u))
	}
	slices.SortFunc(r.Uses, compareUses)
	return r, nil
}

func newUse(u lsm.Use) Use {
	one := Use{
		Call: u.Call, Binary: u.Binary, SHA256: u.SHA256, Shown: u.Shown, UID: u.UID, Unit: u.Unit,
		Contained: u.Contained, Allowed: u.Allowed, Count: u.Count,
		First: u.First.Format(time.RFC3339), Last: u.Last.Format(time.RFC3339),
	}
	if u.Algorithm != (afalg.Algorithm{}) {
		one.Algorithm = u.Algorithm.String()
	}
	return one
}

func compareUses(a, b Use) int {
	return cmp.Or(
		cmp.Compare(a.Binary, b.Binary), cmp.Compare(a.Shown, b.Shown), cmp.Compare(a.Unit, b.Unit), cmp.Compare(a.UID, b.UID),
		cmp.Compare(a.Algorithm, b.Algorithm), cmp.Compare(a.Call, b.Call), cmp.Compare(a.SHA256, b.SHA256), cmp.Compare(a.First, b.First),
	)
}

// maxUses bounds a report that is read. The kernel records 8,192 uses, of some
// hundred bytes each.
const maxUses = 32 << 20

// ReadUses reads a report back, as of another host.
func ReadUses(path string) (*Uses, error) {
	text, err := bounded.ReadFile(path, maxUses)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var r Uses
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if r.Report != usesCommand || r.Version != Version {
		return nil, fmt.Errorf("%s: not what `afalg-policy lsm learn --json` prints, in version %d", path, Version)
	}
	return &r, nil
}

// Learn gives the uses to a recorder, and returns what it cannot learn, as lines
// for people. An accept is a use; a bind is one that may only show what the
// kernel has.
func (r *Uses) Learn(to *learn.Recorder) (notes []string) {
	for _, u := range r.Uses {
		if u.Algorithm == "" {
			continue
		}
		if why := u.unlearnable(); why != "" {
			notes = append(notes, fmt.Sprintf("not learned: %s by %s, uid %d%s on %s: %s", u.Algorithm, u.Shown, u.UID, u.in(), r.Host, why))
			continue
		}
		use := learn.Use{Binary: u.Binary, SHA256: u.SHA256, Algorithm: algorithmOf(u.Algorithm)}
		if u.Call == "accept" && (u.Allowed || r.Audit) {
			to.Used(use)
		} else {
			to.Bound(use)
		}
	}
	slices.Sort(notes)
	notes = slices.Compact(notes)
	if r.Lost > 0 {
		notes = append(notes, fmt.Sprintf("incomplete: %s of %s found no room; unload and load the policy, and learn again", term.Count(int(r.Lost), "record"), r.Host))
	}
	if r.Unknown > 0 {
		notes = append(notes, fmt.Sprintf("incomplete: %s on %s of which the algorithm is not known, as on sockets from before the load: start those programs again, and learn again", term.Count(int(r.Unknown), "accept"), r.Host))
	}
	return notes
}

// Incomplete reports whether there were more uses than the report has.
func (r *Uses) Incomplete() bool { return r.Lost+r.Unknown > 0 }

func (u Use) in() string {
	if u.Unit == "" {
		return ""
	}
	return " in " + u.Unit
}

// unlearnable says why no rule of a host can stand for a use.
func (u Use) unlearnable() string {
	switch {
	case u.Contained:
		return "it is in a container, which holds rules by a grant of the policy"
	case u.Binary == "":
		return "that executable is not found any more; was it upgraded?"
	}
	return ""
}

// algorithmOf splits without a check: a recorder lists what no rule can have.
func algorithmOf(text string) afalg.Algorithm {
	kind, name, _ := strings.Cut(text, ":")
	return afalg.Algorithm{Type: afalg.Type(kind), Name: name}
}
