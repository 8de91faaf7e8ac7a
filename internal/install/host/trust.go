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

// CheckPath refuses a path that cannot be written into a script, a unit and a
// configuration file alike. Quotes can be quoted; line ends cannot everywhere.
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
// returns the target of its links.
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

// within is the part of an error that says in which root a path lies.
func (h *Host) within() string {
	if h.Dir == "/" {
		return ""
	}
	return " (paths are those below " + h.Dir + ")"
}

// rootOwned refuses a file or directory that others than root may write. It
// refuses a sticky directory for all as well: such a directory is emptied now
// and then, and then anybody can make the next file.
func (h *Host) rootOwned(at string, info fs.FileInfo) error {
	uid := int(info.Sys().(*syscall.Stat_t).Uid)
	builder := h.Dir != "/" && uid == os.Geteuid() // of an image, whose files will all be root's
	if uid != 0 && !builder {
		return fmt.Errorf("%s belongs to user %d: whoever can change it decides for every container; %s", h.Shown(at), uid, h.remedy(at, info, "chown root"))
	}
	if info.Mode()&fs.ModeSymlink == 0 && info.Mode()&0o022 != 0 {
		return fmt.Errorf("%s can be written by others than root (%v): whoever can change it decides for every container; %s", h.Shown(at), info.Mode(), h.remedy(at, info, "chmod go-w"))
	}
	return nil
}

// remedy says what to do about a file that others can change. Where the
// directory is theirs, as /tmp and a home are, the file has to move; the
// directory has not to change.
func (h *Host) remedy(at string, info fs.FileInfo, command string) string {
	const elsewhere = "move the file to where only root can write, as below /etc/afalg-policy or in /usr/local/bin"
	if !info.Mode().IsRegular() {
		return elsewhere
	}
	return command + " " + h.Shown(at) + ", or " + elsewhere
}
