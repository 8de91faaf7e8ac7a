package unit

import (
	"fmt"
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
)

// Families is a RestrictAddressFamilies setting as systemctl shows it: the
// allowed families, or behind ~ the denied ones. The zero value denies
// everything.
type Families struct {
	Inverted bool
	Names    []string
}

// Unrestricted is the setting of a unit that sets nothing.
func Unrestricted() Families { return Families{Inverted: true} }

// Unset reports whether the unit restricts nothing.
func (f Families) Unset() bool { return f.Inverted && len(f.Names) == 0 }

// Lists reports whether the unit itself allows a family by its name.
func (f Families) Lists(name string) bool { return !f.Inverted && slices.Contains(f.Names, name) }

// Allowed returns the setting as a list of allowed families.
func (f Families) Allowed() []string {
	if !f.Inverted {
		return slices.Clone(f.Names)
	}
	return slices.DeleteFunc(KnownFamilies(), func(name string) bool { return slices.Contains(f.Names, name) })
}

func (f Families) String() string {
	text := strings.Join(f.Names, " ")
	if f.Inverted {
		return "~" + text
	}
	return text
}

// lastKnown is the last family that systemd 252 knows: AF_MCTP.
const lastKnown = 45

// KnownFamilies lists every family that systemd 252 knows, without AF_UNSPEC.
func KnownFamilies() []string {
	var names []string
	for n := uint32(1); n <= lastKnown; n++ {
		names = append(names, afalg.FamilyName(n))
	}
	return names
}

func parseFamilies(shown string) (Families, error) {
	names, inverted := strings.CutPrefix(shown, "~")
	f := Families{Inverted: inverted}
	for name := range strings.FieldsSeq(names) {
		if !isFamily(name) {
			return f, fmt.Errorf("RestrictAddressFamilies: %q is no address family", name)
		}
		f.Names = append(f.Names, canonical(name))
	}
	return f, nil
}

// canonical is the one name of a family that has two.
func canonical(name string) string {
	if n, known := afalg.FamilyByName(name); known {
		return afalg.FamilyName(n)
	}
	return name
}

// isFamily accepts names that this version does not know: a later systemd shows
// them.
func isFamily(name string) bool {
	rest, ok := strings.CutPrefix(name, "AF_")
	return ok && rest != "" && !strings.ContainsFunc(rest, func(r rune) bool {
		return !('0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || r == '_')
	})
}
