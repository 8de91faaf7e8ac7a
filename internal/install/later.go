package install

import (
	"fmt"
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/edit"
	"github.com/afalg-policy/afalg-policy/internal/install/host"
)

// Others edit the files after us: a registry mirror in daemon.json, a handler
// in config.toml. Uninstall removes only our keys from such a file, and a
// further installation starts from the rest.

// formatOf is the format of a file in which others have keys of their own;
// empty for a file that is wholly ours.
func formatOf(p string) edit.Format {
	switch {
	case p == daemonJSON:
		return edit.FormatJSON
	case strings.HasSuffix(p, ".toml"), slices.Contains([]string{containersDropIn, crioDropIn}, p):
		return edit.FormatTOML
	}
	return ""
}

// rebase changes the record of each file that somebody changed since: the file
// as it is now counts as installed, and without our keys it counts as the file
// before. It returns notes on what stays. A file that cannot be parsed keeps
// its entry, and is refused later.
func rebase(h *host.Host, r *host.Record) (notes []string, err error) {
	if r == nil || r.Interrupted() {
		return nil, nil
	}
	for i := range r.Files {
		e := &r.Files[i]
		format := formatOf(e.Path)
		l, _, err := h.Later(r, e)
		if err != nil {
			return nil, err
		}
		if l == nil || format == "" {
			continue
		}
		rest, stays, err := edit.TakeBack(format, l.Before, l.After, l.Now)
		if err != nil {
			continue
		}
		if l.Before == nil && format.Empty(rest) {
			rest = nil
		}
		if err := h.Rebase(e, rest); err != nil {
			return nil, err
		}
		note := fmt.Sprintf("%s was changed since %s was installed: the keys that were installed are taken back, and the rest remains", h.Shown(e.Path), r.Platform)
		if stays != nil {
			note += fmt.Sprintf("; so does %s, which has another value than it was given", strings.Join(stays, " and "))
		}
		notes = append(notes, note)
	}
	return notes, nil
}

// intact reports whether what was installed holds, whatever else was changed.
func intact(h *host.Host, r *host.Record) (bool, error) {
	for i := range r.Files {
		e := &r.Files[i]
		l, same, err := h.Later(r, e)
		if err != nil {
			return false, err
		}
		format := formatOf(e.Path)
		if same || l != nil && l.Content && format != "" && edit.Holds(format, l.Before, l.After, l.Now) {
			continue
		}
		return false, nil
	}
	return true, nil
}
