package report

import (
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/live"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/subject"
)

// Place is where a process runs, and whether AF_ALG may be open there.
type Place struct {
	Unit      string `json:"unit,omitempty"`
	Container string `json:"container,omitempty"` // "docker:ID", or the ID
	Contained bool   `json:"contained"`           // in a container, or in a PID namespace of its own
	Expected  string `json:"expected,omitempty"`  // why the policy expects it to be open
}

// shortID is how much of a container's ID people read.
const shortID = 12

// where is for people: " (cron.service)".
func (p Place) where() string {
	var words []string
	switch {
	case p.Container != "":
		engine, id, named := strings.Cut(p.Container, ":")
		if !named {
			engine, id = "container", engine
		}
		words = append(words, engine+" "+id[:min(shortID, len(id))])
	case p.Contained:
		words = append(words, "in a PID namespace")
	case p.Unit != "":
		words = append(words, p.Unit)
	}
	if p.Expected != "" {
		words = append(words, Expected)
	}
	if words == nil {
		return ""
	}
	return " (" + strings.Join(words, ", ") + ")"
}

// placesOf looks where each process of the host runs. Those that have ended
// since their filters were read are not in it.
func placesOf(h live.Snapshot, p *plan.Plan) map[int]Place {
	places := map[int]Place{}
	look := func(pid int) {
		if seen := live.PlaceOf(pid); !seen.Gone {
			places[pid] = newPlace(seen, p)
		}
	}
	for _, process := range h.Processes {
		look(process.PID)
	}
	for _, process := range h.Unread {
		look(process.PID)
	}
	return places
}

// PlaceOf looks where a process of this host runs.
func PlaceOf(pid int) Place { return newPlace(live.PlaceOf(pid), nil) }

func newPlace(seen live.Place, p *plan.Plan) Place {
	id, engine := live.ContainerOf(seen.Cgroups)
	at := Place{Container: id, Contained: id != "" || !seen.SamePIDs}
	if engine != "" {
		at.Container = engine + ":" + id
	}
	if unit, err := subject.UnitOf(seen.Cgroups); err == nil {
		at.Unit = unit
	}
	if e := p.Expects(plan.Seen{Contained: at.Contained, Unit: at.Unit, Binary: seen.Binary}); e != nil {
		at.Expected = e.Reason
	}
	return at
}

// keep leaves the processes of which wanted holds.
func keep(h live.Snapshot, wanted func(pid int) bool) live.Snapshot {
	h.Processes = slices.DeleteFunc(slices.Clone(h.Processes), func(p live.Process) bool { return !wanted(p.PID) })
	h.Unread = slices.DeleteFunc(slices.Clone(h.Unread), func(u live.Unread) bool { return !wanted(u.PID) })
	return h
}
