package report

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/afalg-policy/afalg-policy/internal/bounded"
	"github.com/afalg-policy/afalg-policy/internal/jsontext"
	"github.com/afalg-policy/afalg-policy/internal/parallel"
)

// hostSummary is what a merge keeps of a report.
type hostSummary struct {
	FleetHost
	asked   time.Time
	facts   []Fact // that hosts may differ in, each name once
	users   []Fact // names, and states
	columns []Fact // names, and the worst states
	steps   []Step
	canGo   []string
}

// MergeDoctor reads reports, and puts them into one. What cannot be read is said
// in it. The error is of reports that hold too much.
func MergeDoctor(files []string, tool Build, now time.Time) (*Fleet, error) {
	read := make([]*hostSummary, len(files))
	failed := make([]error, len(files))
	keep := &keeper{texts: map[string]string{}, room: maxKept}
	err := parallel.Each(len(files), func(i int) error {
		d, err := readDoctor(files[i])
		if err != nil {
			failed[i] = err
			return nil
		}
		read[i], err = keep.summary(files[i], d)
		return err
	})
	if err != nil {
		return nil, err
	}
	var unreadable []UnreadableFile
	for i, err := range failed {
		if err != nil {
			unreadable = append(unreadable, UnreadableFile{files[i], err.Error()})
		}
	}
	read = slices.DeleteFunc(read, func(h *hostSummary) bool { return h == nil })
	return newFleet(read, unreadable, tool, now), nil
}

func readDoctor(path string) (*Doctor, error) {
	text, err := bounded.ReadFile(path, jsontext.Max)
	if err != nil {
		return nil, err
	}
	d, err := ParseDoctor(text)
	if err != nil {
		return nil, err
	}
	if _, err := time.Parse(time.RFC3339, d.Host.Time); err != nil {
		return nil, fmt.Errorf("when the host was asked: %w", err)
	}
	return d, nil
}

// What a merge keeps. Reports of hosts that are alike share their texts.
const (
	maxKept = 256 << 20
	maxText = 1 << 10 // of one text; what is longer is cut
	perText = 64      // for a text that is kept already
)

var errTooMuch = errors.New("the reports hold more than one merge can keep: merge fewer at a time")

// keeper holds each text once, and no more than there is room for.
type keeper struct {
	sync.Mutex
	texts map[string]string
	room  int
}

// text is one of those that are kept. Without room it is empty.
func (k *keeper) text(s string) string {
	if len(s) > maxText {
		n := maxText
		for n > 0 && !utf8.RuneStart(s[n]) {
			n--
		}
		s = s[:n] + "…"
	}
	kept, there := k.texts[s]
	k.room -= perText
	if !there {
		k.room -= len(s)
		kept = string([]byte(s)) // s may be a part of the whole report
		if k.room > 0 {
			k.texts[kept] = kept
		}
	}
	return kept
}

func (k *keeper) list(texts []string) (list []string) {
	for _, t := range texts {
		list = append(list, k.text(t))
	}
	return list
}

// summary is what is kept of a report.
func (k *keeper) summary(file string, d *Doctor) (*hostSummary, error) {
	k.Lock()
	defer k.Unlock()
	asked, _ := time.Parse(time.RFC3339, d.Host.Time) // readDoctor has looked
	h := &hostSummary{
		FleetHost: FleetHost{
			Name: k.text(d.Host.Name), ID: k.text(d.Host.ID), File: k.text(file), Time: k.text(d.Host.Time), Verdict: k.text(d.Verdict),
			System: k.text(d.Host.System), Kernel: k.text(d.Host.Kernel), AFALG: k.text(d.Host.AFALG), Open: []string{},
		},
		asked: asked,
	}
	h.facts = k.facts(d)
	h.columns = k.columns(d)
	for _, c := range h.columns {
		if c.Value == Open {
			h.Open = append(h.Open, c.Name)
		}
	}
	h.users = k.users(d)
	for _, s := range d.Next {
		h.steps = append(h.steps, Step{Title: k.text(s.Title), Command: k.text(s.Command), Breaks: k.list(s.Breaks)})
	}
	for _, e := range d.CanGo {
		h.canGo = append(h.canGo, k.text(e.What))
	}
	if k.room < 0 {
		return nil, errTooMuch
	}
	return h, nil
}

// facts are those in which hosts may differ.
func (k *keeper) facts(d *Doctor) []Fact {
	all := []Fact{
		{Name: "system", Value: d.Host.System}, {Name: "kernel", Value: d.Host.Kernel}, {Name: "machine", Value: d.Host.Machine},
		{Name: "AF_ALG", Value: d.Host.AFALG}, {Name: "policy", Value: d.policyText()}, {Name: "afalg-policy", Value: d.Tool.Version},
	}
	for _, f := range d.Host.Facts {
		all = append(all, Fact{Name: f.Name, Value: f.Value})
	}
	for _, l := range d.Layers {
		all = append(all, Fact{Name: "layer " + l.Name, Value: l.force()})
	}
	return k.each(all, func(had, more string) string {
		if had != more {
			return "in part"
		}
		return had
	})
}

func (d *Doctor) policyText() string {
	if d.Policy == nil {
		return "none"
	}
	return d.Policy.Name + " " + d.Policy.Digest
}

func (l Layer) force() string {
	switch l.InForce {
	case Yes:
		return "in force"
	case No:
		return "not in force"
	}
	return Unknown
}

// columns are those of the matrix, each with the worst state of any subject.
func (k *keeper) columns(d *Doctor) []Fact {
	var all []Fact
	for _, r := range d.Matrix.Rows {
		for i, c := range r.Cells {
			all = append(all, Fact{Name: d.Matrix.Columns[i].Name, Value: c.State})
		}
	}
	return k.each(all, func(had, more string) string {
		if badness(more) > badness(had) {
			return more
		}
		return had
	})
}

// users are those of the report. One that stands there twice is used if either is.
func (k *keeper) users(d *Doctor) []Fact {
	var all []Fact
	for _, u := range d.Users {
		all = append(all, Fact{Name: u.Name, Value: u.State})
	}
	order := []string{Unused, Unknown, Used}
	return k.each(all, func(had, more string) string {
		return order[max(slices.Index(order, had), slices.Index(order, more))]
	})
}

// each keeps one value of each name: that of two is what join makes of them.
func (k *keeper) each(all []Fact, join func(had, more string) string) (kept []Fact) {
	at := map[string]int{}
	for _, f := range all {
		i, twice := at[f.Name]
		if !twice {
			at[f.Name] = len(kept)
			kept = append(kept, Fact{Name: k.text(f.Name), Value: k.text(f.Value)})
			continue
		}
		kept[i].Value = join(kept[i].Value, k.text(f.Value))
	}
	return kept
}
