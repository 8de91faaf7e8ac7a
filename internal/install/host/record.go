package host

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/hosterr"
)

const (
	stateDir      = "/var/lib/afalg-policy"
	recordDir     = stateDir + "/installed"
	recordVersion = 1
	// maxRecord bounds a record in bytes: three times the files, in base64.
	maxRecord = 16 * maxFile
)

// Record says what was there before, and what was put there.
type Record struct {
	Version  int               `json:"version"`
	Platform string            `json:"platform"`
	Phase    Phase             `json:"phase"`
	Time     time.Time         `json:"time"`
	Moment   Moment            `json:"moment"`
	Program  string            `json:"program"` // its version
	Options  map[string]string `json:"options"`
	Files    []Entry           `json:"files"`
	Dirs     []string          `json:"dirs,omitempty"` // made by the installation, parents first
}

// Phase is the state of an installation. It is written before the first file is
// touched, and again after the last.
type Phase string

const (
	installing Phase = "installing"
	installed  Phase = "installed"
	removing   Phase = "removing"
)

// Entry is one path. While the installation runs, the file is as it was before,
// or as an earlier installation left it, or as this one does.
type Entry struct {
	Path    string `json:"path"`
	Before  node   `json:"before"`
	Earlier []node `json:"earlier,omitempty"`
	After   node   `json:"after"`
}

// RecordPath returns the path of an installation's record.
func RecordPath(name string) string { return path.Join(recordDir, name+".json") }

// NewRecord returns the record of an installation that begins now.
func NewRecord(platform, program string, options map[string]string) *Record {
	return &Record{
		Version: recordVersion, Platform: platform, Phase: installed,
		Time: time.Now().UTC(), Moment: Now(), Program: program, Options: options,
	}
}

// Interrupted reports whether an installation, or its removal, did not end.
func (r *Record) Interrupted() bool { return r != nil && r.Phase != installed }

// Entry returns the record's entry for a path, or nil.
func (r *Record) Entry(p string) *Entry {
	if r == nil {
		return nil
	}
	i := slices.IndexFunc(r.Files, func(e Entry) bool { return e.Path == p })
	if i < 0 {
		return nil
	}
	return &r.Files[i]
}

// Installed lists the files as the installation wrote them.
func (r *Record) Installed() []File {
	var all []File
	for _, e := range r.Files {
		all = append(all, File{Path: e.Path, Mode: e.After.Mode, Data: e.After.Data, Link: e.After.Link})
	}
	return all
}

// originals returns the files as they were before.
func (r *Record) originals() map[string]node {
	m := map[string]node{}
	if r != nil {
		for _, e := range r.Files {
			m[e.Path] = e.Before
		}
	}
	return m
}

// Before makes the host read the files of a record as they were before.
func (h *Host) Before(r *Record) { h.originals = r.originals() }

// known reports whether a file is in a state that the record has.
func (r *Record) known(e *Entry, now node) bool {
	if now.same(e.After) {
		return true
	}
	if r.Phase == installed {
		return false
	}
	return now.same(e.Before) || slices.ContainsFunc(e.Earlier, now.same)
}

// ReadRecord returns the record of a platform, or nil.
func (h *Host) ReadRecord(name string) (*Record, error) {
	n, err := h.recorded(RecordPath(name))
	if err != nil || n == nil {
		return nil, err
	}
	var r Record
	d := json.NewDecoder(bytes.NewReader(n))
	d.DisallowUnknownFields()
	err = d.Decode(&r)
	switch {
	case err != nil:
	case r.Version != recordVersion:
		err = fmt.Errorf("its version is %d, and this program knows %d", r.Version, recordVersion)
	case r.Platform != name:
		err = fmt.Errorf("it is about %q", r.Platform)
	case r.Phase != installing && r.Phase != installed && r.Phase != removing:
		err = fmt.Errorf("its phase is %q", r.Phase)
	case slices.ContainsFunc(r.Files, func(e Entry) bool { return !path.IsAbs(e.Path) || path.Clean(e.Path) != e.Path }):
		err = errors.New("it has a path that is not absolute")
	}
	if err != nil {
		return nil, fmt.Errorf("the record %s cannot be used: %w; use the program that wrote it, or restore the files by hand and remove it", h.Shown(RecordPath(name)), err)
	}
	return &r, nil
}

// recorded reads a record, which may be larger than the files that it holds.
func (h *Host) recorded(p string) ([]byte, error) {
	info, err := h.root.Lstat(inRoot(p))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil && (!info.Mode().IsRegular() || info.Size() > maxRecord) {
		err = errors.New("it is not a record")
	}
	var data []byte
	if err == nil {
		err = h.rootOwned(p, info)
	}
	if err == nil {
		data, err = h.root.ReadFile(inRoot(p))
	}
	if err != nil {
		return nil, hosterr.Errorf("read the record %s: %w", h.Shown(p), reason(err))
	}
	return data, nil
}

// madeByOthers lists the directories that other installations made. They are
// treated as this one's: the last to leave removes them.
func (h *Host) madeByOthers(name string) ([]string, error) {
	records, err := h.List(recordDir, ".json")
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, p := range records {
		other := strings.TrimSuffix(path.Base(p), ".json")
		if other == name || strings.HasPrefix(other, ".") {
			continue
		}
		r, err := h.ReadRecord(other)
		if err != nil {
			return nil, err
		}
		if r != nil {
			dirs = append(dirs, r.Dirs...)
		}
	}
	return dirs, nil
}

// Lock keeps other installations out. The kernel drops the lock with the
// process, so a killed one holds none. The lock's directories are removed again
// if they are empty.
func (h *Host) Lock() (func(), error) {
	for { // again where the last holder removed the directory in between
		err := h.makeRecordDir()
		var dir *os.File
		if err == nil {
			dir, err = h.root.Open(inRoot(recordDir))
		}
		if errors.Is(err, fs.ErrNotExist) {
			time.Sleep(time.Millisecond)
			continue
		} else if err != nil {
			h.removeRecordDir()
			return nil, hosterr.Errorf("make %s: %w", h.Shown(recordDir), reason(err))
		}
		if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			dir.Close()
			return nil, ErrBusy
		}
		mine, err := dir.Stat()
		there, err2 := h.root.Lstat(inRoot(recordDir))
		if err == nil && err2 == nil && os.SameFile(mine, there) {
			return func() { h.removeRecordDir(); dir.Close() }, nil
		}
		dir.Close()
	}
}

// removeRecordDir removes the directories of the lock. Once the first is gone,
// the lock is another's, and nothing else may be touched.
func (h *Host) removeRecordDir() {
	dirs := parents(RecordPath("x"))
	for _, dir := range slices.Backward(dirs) {
		ours := dir == recordDir || dir == stateDir || slices.Contains(h.locked, dir)
		if !ours || h.root.Remove(inRoot(dir)) != nil { // it is not empty
			return
		}
	}
}

func (h *Host) makeRecordDir() error {
	for _, dir := range parents(RecordPath("x")) {
		mode := fs.FileMode(0o755)
		if dir == recordDir {
			mode = 0o700
		}
		err := h.makeDir(dir, mode)
		switch {
		case err == nil:
			h.locked = append(h.locked, dir)
		case !errors.Is(err, fs.ErrExist):
			return err
		}
	}
	return nil
}

// makeDir makes a directory with a mode, whatever the umask.
func (h *Host) makeDir(dir string, mode fs.FileMode) error {
	if err := h.root.Mkdir(inRoot(dir), mode); err != nil {
		return err
	}
	return h.root.Chmod(inRoot(dir), mode)
}

// RenameRecord renames an installation: its record, and nothing else. An
// existing record of that name is kept.
func (h *Host) RenameRecord(r *Record, name string) error {
	there, err := h.ReadRecord(name)
	if err != nil {
		return err
	}
	t := &transaction{Host: h}
	if there == nil {
		next := *r
		next.Platform = name
		if err := t.writeRecord(&next); err != nil {
			return err
		}
		if err := t.rename(newName(RecordPath(name)), RecordPath(name)); err != nil {
			return err
		}
	}
	if err := h.at("renamed"); err != nil {
		return err
	}
	former := RecordPath(r.Platform)
	t.removeBeside(former)
	if err := t.removeOne(former); err != nil {
		return err
	}
	return t.syncDir(recordDir)
}
