package host

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"syscall"
	"time"

	"github.com/afalg-policy/afalg-policy/internal/hosterr"
)

// Apply carries out the changes, all or none. It may be killed anywhere, since
// it goes in this order:
//
//  1. The record says what is about to happen. From then on each file may be old
//     or new, and the next run can go on from there.
//  2. All new files are on the disk, under other names. A full disk shows here.
//  3. Each existing file gets a second name, so that going back needs no space.
//  4. The new files take their names, one after the other.
//  5. The record says that it is done.
func (c *Changes) Apply() (err error) {
	if len(c.steps) == 0 && !c.stale {
		return nil
	}
	t := &transaction{Host: c.host, c: c}
	defer func() {
		if err != nil && !t.final {
			err = t.rollBack(err)
		}
	}()
	if err := t.announce(); err != nil {
		return err
	}
	if err := t.makeDirs(); err != nil {
		return err
	}
	if err := t.prepare(); err != nil {
		return err
	}
	if err := t.replace(); err != nil {
		return err
	}
	return t.conclude()
}

// transaction remembers the steps of Apply, to undo them.
type transaction struct {
	*Host
	c         *Changes
	recordWas node // the file of the record before
	announced bool
	final     bool // no way back
	made      []string
	replaced  []step
}

// The names beside a file are fixed, so that the next run finds what a killed
// one left. No platform reads such a file: each looks at the ending.
func newName(p string) string { return path.Join(path.Dir(p), "."+path.Base(p)+".afalg-policy-new") }
func oldName(p string) string { return path.Join(path.Dir(p), "."+path.Base(p)+".afalg-policy-old") }

// announce writes a record that covers the state before and after.
func (t *transaction) announce() error {
	p := RecordPath(t.c.name)
	var err error
	if t.recordWas, err = t.recordNode(); err != nil {
		return err
	}
	if err := t.at("announce"); err != nil {
		return err
	}
	if err := t.writeRecord(t.c.interim()); err != nil {
		return err
	}
	t.announced = true
	for _, p := range t.c.clean {
		t.removeBeside(p)
	}
	if err := t.rename(newName(p), p); err != nil {
		return err
	}
	if err := t.syncDir(recordDir); err != nil {
		return err
	}
	return t.at("announced")
}

// interim is the record during the changes. It has all paths and directories of
// the records before and after.
func (c *Changes) interim() *Record {
	var r Record
	if c.next != nil {
		r = *c.next
		r.Phase = installing
	} else {
		r = *c.old
		r.Phase = removing
	}
	r.Files, r.Dirs = slices.Clone(r.Files), slices.Clone(r.Dirs)
	if c.old == nil {
		return &r
	}
	for _, e := range c.old.Files {
		mine := r.Entry(e.Path)
		if mine == nil {
			r.Files = append(r.Files, Entry{Path: e.Path, Before: e.Before, After: e.Before})
			mine = r.Entry(e.Path)
		}
		if !e.After.same(mine.After) {
			mine.Earlier = append(mine.Earlier, e.After)
		}
		if c.next != nil { // otherwise before has it already
			mine.Earlier = append(mine.Earlier, e.Earlier...)
		}
	}
	r.Dirs = append(r.Dirs, c.old.Dirs...)
	slices.Sort(r.Dirs) // parents first
	r.Dirs = slices.Compact(r.Dirs)
	return &r
}

func (t *transaction) recordNode() (node, error) {
	p := RecordPath(t.c.name)
	data, err := t.recorded(p)
	if err != nil || data == nil {
		return node{}, err
	}
	info, err := t.root.Lstat(inRoot(p))
	if err != nil {
		return node{}, hosterr.Errorf("read %s: %w", t.Shown(p), reason(err))
	}
	n := recordFile(data)
	n.Time = info.ModTime()
	return n, nil
}

func recordFile(data []byte) node {
	return node{Kind: regular, Mode: 0o600, UID: os.Geteuid(), GID: os.Getegid(), Data: data}
}

// writeRecord leaves a record beside its place.
func (t *transaction) writeRecord(r *Record) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("write the record: %w", err)
	}
	return t.writeBeside(RecordPath(r.Platform), recordFile(append(data, '\n')))
}

func (t *transaction) makeDirs() error {
	for _, dir := range t.c.make {
		if err := t.at("make " + dir); err != nil {
			return err
		}
		real, err := t.real(dir)
		if err == nil {
			err = t.makeDir(real, 0o755)
		}
		if err != nil {
			return hosterr.Errorf("make %s: %w", t.Shown(dir), reason(err))
		}
		t.made = append(t.made, dir)
	}
	return nil
}

func (t *transaction) prepare() error {
	for _, s := range t.c.steps {
		if err := t.at("write " + s.path); err != nil {
			return err
		}
		if s.to.Kind != absent {
			if err := t.writeBeside(s.path, s.to); err != nil {
				return err
			}
		}
		if s.from.Kind != absent {
			if err := t.linkBeside(s.path); err != nil {
				return err
			}
		}
	}
	if t.c.next != nil {
		return t.writeRecord(t.c.next)
	}
	return nil
}

// writeBeside writes a node to the name beside its place, and to the disk.
func (t *transaction) writeBeside(p string, n node) error {
	tmp, err := t.real(newName(p))
	if err == nil {
		t.root.Remove(inRoot(tmp)) // left by a killed run
		if n.Kind == link {
			err = t.root.Symlink(n.Link, inRoot(tmp))
			if err == nil {
				err = t.root.Lchown(inRoot(tmp), n.UID, n.GID)
			}
		} else {
			err = t.writeNew(inRoot(tmp), n)
		}
	}
	if err != nil {
		return hosterr.Errorf("write %s: %w", t.Shown(p), reason(err))
	}
	return nil
}

func (t *transaction) writeNew(tmp string, n node) error {
	f, err := t.root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(n.Data)
	err = errors.Join(err, f.Chown(n.UID, n.GID))
	err = errors.Join(err, t.writeXattrs(f, n.Xattrs)) // chown takes capabilities away
	err = errors.Join(err, f.Chmod(n.Mode))            // and setuid
	if !n.Time.IsZero() {
		err = errors.Join(err, t.root.Chtimes(tmp, time.Time{}, n.Time))
	}
	return errors.Join(err, f.Sync(), f.Close())
}

// linkBeside gives an existing file a second name.
func (t *transaction) linkBeside(p string) error {
	from, err := t.real(p)
	if err == nil {
		to := oldName(from)
		t.root.Remove(inRoot(to))
		err = t.root.Link(inRoot(from), inRoot(to))
	}
	if err != nil {
		return hosterr.Errorf("keep %s: %w", t.Shown(p), reason(err))
	}
	return nil
}

func (t *transaction) replace() error {
	for _, s := range t.c.steps {
		if err := t.at("replace " + s.path); err != nil {
			return err
		}
		// A path is replaced only while it is as it was planned.
		if n, err := t.now(s.path); err != nil {
			return err
		} else if !n.same(s.from) || !maps.EqualFunc(n.Xattrs, s.from.Xattrs, bytes.Equal) {
			return fmt.Errorf("%s was changed just now; run this again", t.Shown(s.path))
		}
		var err error
		if s.to.Kind == absent {
			err = t.removeOne(s.path)
		} else {
			err = t.rename(newName(s.path), s.path)
		}
		if err != nil {
			return err
		}
		t.replaced = append(t.replaced, s)
	}
	return t.syncDirs()
}

// conclude makes the changes final. The record goes last: until then the next
// run knows what to clean up.
func (t *transaction) conclude() error {
	if err := t.at("conclude"); err != nil {
		return err
	}
	t.final = true
	for _, s := range t.c.steps {
		t.removeBeside(s.path)
	}
	t.removeDirs(t.c.remove)
	t.locked = append(t.locked, t.c.remove...) // directories that lead to the record go with the lock
	p := RecordPath(t.c.name)
	var err error
	if t.c.next != nil {
		err = t.rename(newName(p), p)
	} else {
		err = t.removeOne(p)
	}
	if err != nil {
		return fmt.Errorf("all files are in place, but the record says that it was interrupted; run this again: %w", err)
	}
	return t.syncDir(recordDir)
}

// rollBack undoes all steps, and adds those that it could not undo to the
// error.
func (t *transaction) rollBack(cause error) error {
	var failed []error
	for _, s := range slices.Backward(t.replaced) {
		var err error
		if s.from.Kind == absent {
			err = t.removeOne(s.path)
		} else {
			err = t.rename(oldName(s.path), s.path)
		}
		if err != nil {
			failed = append(failed, err)
		}
	}
	if failed != nil {
		return fmt.Errorf("%w\nand the changes could not be undone: %w\nrun install or uninstall again once that is fixed: the record has the earlier files", cause, errors.Join(failed...))
	}
	for _, s := range t.c.steps {
		t.removeBeside(s.path)
	}
	p := RecordPath(t.c.name)
	if t.announced {
		slices.Reverse(t.made)
		t.removeDirs(t.made)
		if err := t.restoreRecord(p); err != nil {
			return fmt.Errorf("%w\nall files are as before, but the record %s says that this was interrupted: %w", cause, t.Shown(p), err)
		}
	}
	t.removeBeside(p)
	return cause
}

func (t *transaction) restoreRecord(p string) error {
	if t.recordWas.Kind == absent {
		return t.removeOne(p)
	}
	if err := t.writeBeside(p, t.recordWas); err != nil {
		return err
	}
	return t.rename(newName(p), p)
}

func (t *transaction) rename(from, to string) error {
	realFrom, err := t.real(from)
	realTo, err2 := t.real(to)
	if err = errors.Join(err, err2); err == nil {
		err = t.root.Rename(inRoot(realFrom), inRoot(realTo))
	}
	if err != nil {
		return hosterr.Errorf("replace %s: %w", t.Shown(to), reason(err))
	}
	return nil
}

func (t *transaction) removeOne(p string) error {
	real, err := t.real(p)
	if err == nil {
		err = t.root.Remove(inRoot(real))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return hosterr.Errorf("remove %s: %w", t.Shown(p), reason(err))
	}
	return nil
}

func (t *transaction) removeBeside(p string) {
	for _, name := range []string{newName(p), oldName(p)} {
		if real, err := t.real(name); err == nil {
			t.root.Remove(inRoot(real))
		}
	}
}

// removeDirs removes the directories that are empty.
func (t *transaction) removeDirs(dirs []string) {
	for _, dir := range dirs {
		if real, err := t.real(dir); err == nil {
			t.root.Remove(inRoot(real))
		}
	}
}

// syncDirs puts the new names on the disk before the record says so.
func (t *transaction) syncDirs() error {
	done := map[string]bool{}
	for _, s := range t.c.steps {
		dir := path.Dir(s.path)
		if done[dir] {
			continue
		}
		done[dir] = true
		if err := t.syncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

func (t *transaction) syncDir(dir string) error {
	real, err := t.walk(dir, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // removed meanwhile, with the file to be removed
	}
	var f *os.File
	if err == nil {
		f, err = t.root.Open(inRoot(real))
	}
	if err == nil {
		err = errors.Join(f.Sync(), f.Close())
	}
	if err != nil {
		return hosterr.Errorf("write %s: %w", t.Shown(dir), reason(err))
	}
	return nil
}
