package host

import (
	"fmt"
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/hostfacts"
)

// Notes say what whoever sets this has to know: what it breaks, what it leaves
// open, and what is odd about the host; when it takes effect and how it is undone
// is said by the form.
func Notes(s Settings, f hostfacts.Facts) []string {
	var notes []string
	note := func(format string, args ...any) {
		if text := fmt.Sprintf(format, args...); !slices.Contains(notes, text) {
			notes = append(notes, text)
		}
	}
	for _, c := range f.Contradictions {
		note("facts disagree: %s", c)
	}
	for _, u := range f.Unread {
		note("not read: %s", u)
	}
	s.each(func(_ string, a About) {
		for _, b := range a.Breaks {
			note("breaks: %s: %s", strings.Join(a.Closes, ", "), strings.TrimSuffix(b, "."))
		}
	})
	s.each(func(_ string, a About) {
		for _, o := range a.Open {
			note("leaves open: %s", o)
		}
	})
	s.each(func(name string, a About) {
		if a.Now != "" {
			note("here: %s: %s", name, strings.TrimPrefix(a.Now, name+" "))
		}
	})
	return notes
}

// effects say when the files take effect, and how they are undone.
func effects(s Settings, f hostfacts.Facts) []string {
	var notes []string
	if len(s.Modules) > 0 {
		notes = append(notes, fmt.Sprintf("takes effect: modprobe.d at the next load of each module; then make the initramfs anew: %s", initramfsCommand(f.Initramfs)))
	}
	if len(s.Sysctls) > 0 {
		notes = append(notes, fmt.Sprintf("takes effect: sysctl.d at the next boot, or by sysctl -p /%s", SysctlPath))
	}
	if len(s.Arguments) > 0 {
		notes = append(notes, fmt.Sprintf("takes effect: %s after the boot loader has it, and a reboot; the file says how", strings.Join(s.CommandLine(), " ")))
	}
	return append(notes, "undo: remove the files, make the initramfs anew, take the arguments off, and boot again")
}

func initramfsCommand(tool string) string {
	commands := map[string]string{
		"dracut": "dracut -f --regenerate-all", "update-initramfs": "update-initramfs -u -k all",
		"mkinitcpio": "mkinitcpio -P", "booster": "/usr/lib/booster/regenerate_images",
	}
	if c, ok := commands[tool]; ok {
		return c
	}
	return "update-initramfs -u -k all, dracut -f --regenerate-all, mkinitcpio -P"
}
