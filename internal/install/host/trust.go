package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"
)

// CheckPath refuses what cannot be written into a script, a unit and a
// configuration file alike: quotes can be quoted, line ends cannot everywhere.
func CheckPath(flag, p string) error {
	switch {
	case !path.IsAbs(p):
		return Usage("%s %q: the path must be absolute: it is read in another directory", flag, p)
	case !utf8.ValidString(p) || strings.ContainsFunc(p, unicode.IsControl):
		return Usage("%s %q: the path has control characters, or is not UTF-8", flag, p)
	case path.Clean(p) != p:
		return Usage("%s %q: write it as %s", flag, p, path.Clean(p))
	}
	return nil
}

// Executable checks a program that will run as root.
func (h *Host) Executable(flag, p string) error {
	target, err := h.Trusted(flag, p)
	if err != nil {
		return err
	}
	info, err := h.root.Lstat(inRoot(target))
	if err != nil {
		return Usage("%s %s: %w", flag, p, reason(err))
	}
	if info.Mode()&0o111 == 0 {
		return Usage("%s %s: it is not executable", flag, p)
	}
	return nil
}

// Trusted refuses a file that others than root can change or replace, and
// returns where links lead.
func (h *Host) Trusted(flag, p string) (string, error) {
	target, err := h.walk(p, h.rootOwned)
	if err != nil {
		return "", Usage("%s %s: %w%s", flag, p, err, h.within())
	}
	info, err := h.root.Lstat(inRoot(target))
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is not a file")
	}
	if err != nil {
		return "", Usage("%s %s: %w", flag, p, reason(err))
	}
	return target, nil
}

// within reminds that paths are those of the root.
func (h *Host) within() string {
	if h.Dir == "/" {
		return ""
	}
	return " (paths are those below " + h.Dir + ")"
}

// rootOwned refuses what others than root may write. A directory where all may
// write, and the sticky bit protects what is there, is refused as well: such
// directories are emptied, and then anybody makes the next file.
func (h *Host) rootOwned(at string, info fs.FileInfo) error {
	uid := int(info.Sys().(*syscall.Stat_t).Uid)
	builder := h.Dir != "/" && uid == os.Geteuid() // of an image, where all will be root's
	if uid != 0 && !builder {
		return fmt.Errorf("%s belongs to user %d: whoever can change it decides for every container; chown root %s", h.Shown(at), uid, h.Shown(at))
	}
	if info.Mode()&fs.ModeSymlink == 0 && info.Mode()&0o022 != 0 {
		return fmt.Errorf("%s can be written by others than root (%v): whoever can change it decides for every container; chmod go-w %s, or name a file elsewhere", h.Shown(at), info.Mode(), h.Shown(at))
	}
	return nil
}
