package host

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/diff"

	"github.com/afalg-policy/afalg-policy/internal/hosterr"
)

// File is a wanted file or link. An existing file keeps its owner, mode and
// extended attributes.
type File struct {
	Path string
	Mode fs.FileMode
	Data []byte
	Link string // target; makes it a link
}

// Modes of new files. A script becomes executable, whatever its mode was.
const (
	Plain  fs.FileMode = 0o644
	Script fs.FileMode = 0o755
)

// Change is a path that was changed, or would be.
type Change struct {
	Path string `json:"path"`
	What string `json:"what"` // "new", "changed", "restored" or "removed"
	Diff string `json:"diff"` // unified
}

// step takes one path from one state to another.
type step struct {
	path string
	from node
	to   node
}

// Changes are the steps between two records. Without a next record, the earlier
// files are restored.
type Changes struct {
	host      *Host
	name      string
	old, next *Record
	steps     []step
	stale     bool     // only the record has to change
	make      []string // directories, parents first
	remove    []string // directories, if they are empty by then, children first
	clean     []string // paths beside which an interrupted run may have left files
}

// ChangedError means that somebody changed a file after its installation.
type ChangedError struct {
	Diff string // from what was installed to what is there
	Err  error
}

func (e *ChangedError) Error() string { return e.Err.Error() }

// Plan compares the existing files with the wanted ones. It checks all of it
// before anything is changed.
func (h *Host) Plan(old *Record, wanted []File, next *Record) (*Changes, error) {
	c := &Changes{host: h, old: old, next: next}
	now, err := h.unchanged(old)
	if err != nil {
		return nil, err
	}
	for _, f := range wanted {
		n, seen := now[f.Path]
		if !seen {
			if n, err = h.newcomer(f.Path); err != nil {
				return nil, err
			}
		}
		before := n
		if e := old.Entry(f.Path); e != nil {
			before = e.Before
		}
		after := h.target(f, before)
		after.Xattrs = n.Xattrs // somebody may have relabelled it since
		next.Files = append(next.Files, Entry{Path: f.Path, Before: before, After: after})
		c.add(f.Path, n, after)
	}
	// Files that are not wanted any more are restored, the last first: a file
	// that refers to others goes before them.
	if old != nil {
		for _, e := range slices.Backward(old.Files) {
			c.clean = append(c.clean, e.Path)
			if next.Entry(e.Path) == nil {
				c.add(e.Path, now[e.Path], e.Before)
			}
		}
		c.name, c.stale = old.Platform, next == nil || old.Interrupted()
	}
	if next != nil {
		c.name = next.Platform
	}
	return c, h.planDirs(c)
}

func (c *Changes) add(p string, from, to node) {
	if !from.same(to) {
		c.steps = append(c.steps, step{path: p, from: from, to: to})
	}
}

// unchanged reads the files of a record, and refuses those that others changed.
func (h *Host) unchanged(r *Record) (map[string]node, error) {
	now := map[string]node{}
	if r == nil {
		return now, nil
	}
	var paths []string
	var diffs strings.Builder
	for i := range r.Files {
		e := &r.Files[i]
		n, err := h.now(e.Path)
		if err != nil {
			return nil, err
		}
		now[e.Path] = n
		if !r.known(e, n) && !n.same(e.Before) {
			paths = append(paths, h.Shown(e.Path))
			diffs.WriteString(diffNodes(h.Shown(e.Path), e.After, n))
		}
	}
	if paths != nil {
		return nil, &ChangedError{diffs.String(), fmt.Errorf("%s changed since %s was installed: take the change shown above back, run this again, and make the change after that", strings.Join(paths, ", "), r.Platform)}
	}
	return now, nil
}

// newcomer returns what is at a path that is replaced for the first time.
func (h *Host) newcomer(p string) (node, error) {
	if err := h.trustedDir(p); err != nil {
		return node{}, err
	}
	n, err := h.now(p)
	switch {
	case err != nil:
	case n.Kind == link:
		err = linkInTheWay(h, p, n)
	case n.Kind == regular: // it keeps its owner and its mode
		if _, err = h.walk(p, h.rootOwned); err != nil {
			err = fmt.Errorf("write %s: %w", h.Shown(p), err)
		}
	}
	return n, err
}

// trustedDir refuses a directory in which others could put another file in
// place.
func (h *Host) trustedDir(p string) error {
	dir := path.Dir(p)
	for !h.Exists(dir) {
		dir = path.Dir(dir)
	}
	target, err := h.walk(dir, h.rootOwned)
	if err != nil {
		return fmt.Errorf("write %s: %w", h.Shown(p), err)
	}
	if info, err := h.Stat(target); err == nil && !info.IsDir() {
		return hosterr.Errorf("write %s: %s is not a directory", h.Shown(p), h.Shown(dir))
	}
	return nil
}

// target is the node that a wanted file becomes.
func (h *Host) target(f File, before node) node {
	n := node{Kind: regular, Mode: f.Mode, UID: os.Geteuid(), GID: os.Getegid(), Data: f.Data}
	if f.Link != "" {
		return node{Kind: link, UID: n.UID, GID: n.GID, Link: f.Link}
	}
	if before.Kind == regular {
		n.UID, n.GID = before.UID, before.GID
		n.Mode = before.Mode
		if f.Mode == Script {
			n.Mode = Script
		}
	}
	return n
}

// planDirs finds the directories that are missing, and those that nothing needs
// any more.
func (h *Host) planDirs(c *Changes) error {
	others, err := h.madeByOthers(c.name)
	if err != nil {
		return err
	}
	var mine []string
	if c.old != nil {
		mine = c.old.Dirs
	}
	for _, dir := range c.needed() {
		missing := !h.dirExists(dir)
		if missing {
			c.make = append(c.make, dir)
		}
		if missing || slices.Contains(mine, dir) || slices.Contains(others, dir) || slices.Contains(h.locked, dir) {
			c.next.Dirs = append(c.next.Dirs, dir)
		}
	}
	for _, dir := range slices.Backward(mine) {
		if c.next == nil || !slices.Contains(c.next.Dirs, dir) {
			c.remove = append(c.remove, dir)
		}
	}
	return nil
}

// needed lists the directories of all wanted files, parents first.
func (c *Changes) needed() []string {
	if c.next == nil {
		return nil
	}
	dirs := parents(RecordPath(c.name))
	for _, e := range c.next.Files {
		dirs = append(dirs, parents(e.Path)...)
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

func (h *Host) dirExists(dir string) bool {
	info, err := h.Stat(dir)
	return err == nil && info.IsDir()
}

// parents lists the directories that lead to a path, without the root.
func parents(p string) []string {
	var dirs []string
	for dir := path.Dir(p); dir != "/"; dir = path.Dir(dir) {
		dirs = append(dirs, dir)
	}
	slices.Reverse(dirs)
	return dirs
}

// Show returns what happens to each path.
func (c *Changes) Show() []Change {
	var shown []Change
	for _, s := range c.steps {
		what := "changed"
		switch {
		case s.from.Kind == absent:
			what = "new"
		case s.to.Kind == absent:
			what = "removed"
		case c.next == nil || c.next.Entry(s.path) == nil:
			what = "restored"
		}
		shown = append(shown, Change{c.host.Shown(s.path), what, diffNodes(c.host.Shown(s.path), s.from, s.to)})
	}
	return shown
}

// diffNodes returns the change of a path as a unified diff.
func diffNodes(p string, from, to node) string {
	var b strings.Builder
	oldName, newName := p, p
	if from.Kind == absent {
		oldName = "/dev/null"
	}
	if to.Kind == absent {
		newName = "/dev/null"
	}
	// As in git's diffs, the attributes stand before the names of the files.
	for _, line := range attributes(from, to) {
		fmt.Fprintln(&b, line)
	}
	d := diff.Diff(oldName, from.text(), newName, to.text())
	if _, body, differ := bytes.Cut(d, []byte("\n")); differ {
		b.Write(body)
	} else {
		fmt.Fprintf(&b, "--- %s\n+++ %s\n", oldName, newName)
	}
	return b.String()
}

func (n node) text() []byte {
	if n.Kind == link {
		return []byte("link to " + n.Link + "\n")
	}
	return n.Data
}

func attributes(from, to node) []string {
	var lines []string
	switch {
	case from.Kind == absent && to.Kind == regular:
		lines = append(lines, fmt.Sprintf("new file mode %04o", to.Mode.Perm()))
	case from.Kind == absent && to.Kind == link:
		lines = append(lines, "new link")
	case to.Kind == absent && from.Kind != absent:
		lines = append(lines, "deleted "+string(from.Kind))
	case from.Mode != to.Mode:
		lines = append(lines, fmt.Sprintf("old mode %04o", from.Mode.Perm()), fmt.Sprintf("new mode %04o", to.Mode.Perm()))
	}
	if from.Kind != absent && to.Kind != absent && (from.UID != to.UID || from.GID != to.GID) {
		lines = append(lines, fmt.Sprintf("owner %d:%d, then %d:%d", from.UID, from.GID, to.UID, to.GID))
	}
	return lines
}
