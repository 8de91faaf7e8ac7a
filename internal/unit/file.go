package unit

import (
	"iter"
	"os"
	"slices"
	"strings"
)

// assignments yields the values that a unit file assigns to a key, in their
// order. A line that ends in a backslash goes on; comments in between are left
// out.
func assignments(text, section, key string) iter.Seq[string] {
	return func(yield func(string) bool) {
		in, begun := "", ""
		for line := range strings.Lines(text) {
			line = strings.TrimRight(line, "\n\r")
			if first := strings.TrimLeft(line, " \t"); first != "" && strings.ContainsRune("#;", rune(first[0])) {
				continue
			}
			if more, continued := strings.CutSuffix(line, `\`); continued {
				begun += more + " "
				continue
			}
			line, begun = strings.TrimSpace(begun+line), ""
			if strings.HasPrefix(line, "[") && strings.HasSuffix(line, "]") {
				in = line[1 : len(line)-1]
				continue
			}
			name, value, ok := strings.Cut(line, "=")
			if ok && in == section && strings.TrimSpace(name) == key && !yield(strings.TrimSpace(value)) {
				return
			}
		}
	}
}

// setting is a list that assignments add to.
type setting struct {
	Families
	begun bool // the first word since the last reset chose the kind of list
}

// assign works as systemd's config_parse_address_families: the first assignment
// makes the list one of allowed or of denied families; later ones add to it or
// remove from it.
func (s *setting) assign(value string) {
	switch value {
	case "":
		*s = setting{Families: Unrestricted()}
		return
	case "none":
		*s = setting{}
		return
	}
	value, inverted := strings.CutPrefix(value, "~")
	if !s.begun {
		s.Families, s.begun = Families{Inverted: inverted}, true
	}
	for name := range strings.FieldsSeq(value) {
		name = canonical(strings.Trim(name, `"'`))
		s.Names = slices.DeleteFunc(s.Names, func(n string) bool { return n == name })
		if isFamily(name) && inverted == s.Inverted {
			s.Names = append(s.Names, name)
		}
	}
}

// Assigned lists the values that files assign to a key. An unreadable file
// assigns none.
func Assigned(section, key string, files []string) []string {
	var values []string
	for _, file := range files {
		if text, err := os.ReadFile(file); err == nil {
			values = slices.AppendSeq(values, assignments(string(text), section, key))
		}
	}
	return values
}
