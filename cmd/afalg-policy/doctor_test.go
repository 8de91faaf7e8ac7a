package main

import (
	"strings"
	"testing"

	"github.com/afalg-policy/afalg-policy/internal/doctor"
)

// What doctor proposes for this host are commands that this program takes.
func TestDoctorProposes(t *testing.T) {
	d, err := doctor.Examine(t.Context(), doctor.Options{Root: "/"})
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	for _, s := range d.Next {
		for _, command := range []string{s.Command, s.Undo} {
			if words, operators := shellWords(command); operators == "" && len(words) > 0 && words[0] == "afalg-policy" {
				checked++
				if err := accepts(words[1:]); err != nil {
					t.Errorf("%s: %v", command, err)
				}
			}
		}
	}
	for _, e := range d.CanGo {
		if words, ours := ourWords(e.Command); ours {
			if err := accepts(words); err != nil {
				t.Errorf("%s: %v", e.Command, err)
			}
		}
	}
	if checked == 0 && len(d.Next) > 0 && strings.Contains(d.Next[0].Command, "afalg-policy") {
		t.Error("nothing was checked")
	}
}
