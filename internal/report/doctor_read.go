package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/afalg-policy/afalg-policy/internal/jsontext"
	"github.com/afalg-policy/afalg-policy/internal/term"
)

const doctorCommand = "doctor"

// ParseDoctor reads the report of another host, which anybody may have written.
// What it says is checked against itself; whether it is true, nobody can tell.
func ParseDoctor(text []byte) (*Doctor, error) {
	document, err := jsontext.Parse(text)
	if err != nil {
		return nil, err
	}
	var d Doctor
	err = json.Unmarshal(text, &d)
	if err != nil { // perhaps of a version with other types
		d = Doctor{}
		if err := json.Unmarshal(text, &d.Header); err != nil {
			return nil, fmt.Errorf("not a report: %w", err)
		}
	}
	switch {
	case d.Report != doctorCommand:
		return nil, fmt.Errorf("a report of %q: give what `afalg-policy doctor --json` prints", d.Report)
	case d.Version > Version:
		return nil, fmt.Errorf("version %d of the form, and this program reads up to %d: merge with the newest afalg-policy of the fleet", d.Version, Version)
	case d.Version < Version:
		return nil, fmt.Errorf("version %d of the form, which was never written: make the report again", d.Version)
	case err != nil:
		return nil, fmt.Errorf("not a report of doctor: %w", err)
	}
	if err := likeOurs(document); err != nil {
		return nil, err
	}
	return &d, d.check()
}

// likeOurs refuses a key that differs from ours by case alone: some decoders take
// it for ours.
func likeOurs(document *jsontext.Document) (err error) {
	jsontext.WalkKeys(&document.Root, reflect.TypeFor[Doctor](), "", func(k jsontext.Key) {
		if err != nil || k.Known() {
			return
		}
		for name := range k.Fields {
			if jsontext.FoldKey(name) == jsontext.FoldKey(k.Name) {
				err = fmt.Errorf("%s: key %q is written %q", jsontext.Place(document.Src, k.Offset), k.Name, name)
			}
		}
	})
	return err
}

// check refuses a report that contradicts itself, or leaves out what it answers.
func (d *Doctor) check() error {
	if d.Host.Name == "" {
		return errors.New("the host has no name")
	}
	for _, u := range d.Users {
		if !slices.Contains([]string{Used, Unused, Unknown}, u.State) {
			return fmt.Errorf("user %q: %q is no state of a user", u.Name, u.State)
		}
	}
	for _, l := range d.Layers {
		if !slices.Contains([]string{Yes, No, Unknown}, l.InForce) {
			return fmt.Errorf("layer %q: in force is %q", l.Name, l.InForce)
		}
	}
	for i, r := range d.Matrix.Rows {
		if len(r.Cells) != len(d.Matrix.Columns) {
			return fmt.Errorf("row %d: there are %s for %s", i+1, term.Count(len(r.Cells), "cell"), term.Count(len(d.Matrix.Columns), "column"))
		}
		for j, c := range r.Cells {
			if err := c.check(); err != nil {
				return fmt.Errorf("row %d: column %q: %w", i+1, d.Matrix.Columns[j].Name, err)
			}
		}
	}
	shown := d.Matrix.verdict()
	switch {
	case verdictBadness(d.Verdict) < 0:
		return fmt.Errorf("%q is no verdict of doctor", d.Verdict)
	case verdictBadness(d.Verdict) < verdictBadness(shown):
		return fmt.Errorf("the verdict is %s, and the matrix says %s", d.Verdict, shown)
	}
	return nil
}

// doctorVerdicts are in the order of concern, the worst last.
var doctorVerdicts = []string{Closed, Undecided, Open}

func verdictBadness(verdict string) int { return slices.Index(doctorVerdicts, verdict) }
