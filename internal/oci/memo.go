package oci

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"
)

// maxKept is how many results a memo holds. Profiles differ by the
// capabilities and the grants of containers; a host has a few dozen.
const maxKept = 512

// Forget removes what other builds kept in a directory: nobody asks for it.
func Forget(dir, build string) error {
	kept, err := os.ReadDir(dir)
	for _, d := range kept {
		if d.Name() != nameOf(build) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, d.Name())))
		}
	}
	return err
}

func nameOf(build string) string {
	sum := sha256.Sum256([]byte(build))
	return hex.EncodeToString(sum[:8])
}

// Memo keeps results in the files of a directory that nobody but this user can
// write to. A file carries the digest of its content, so that one that a crash
// left torn is none.
type Memo struct{ root *os.Root }

// OpenMemo opens the memo of one build of this program below a directory, and
// makes what is missing. Whatever is wrong is an error, and the caller does
// without.
func OpenMemo(dir, build string) (*Memo, error) {
	path := filepath.Join(dir, nameOf(build))
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	for _, p := range []string{filepath.Dir(dir), dir, path} {
		if err := Private(p); err != nil {
			return nil, err
		}
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	return &Memo{root}, nil
}

// Private reports whether a directory belongs to this user, and nobody else can
// write to it.
func Private(dir string) error {
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || st.Uid != uint32(unix.Geteuid()) || st.Mode&0o022 != 0 {
		return fmt.Errorf("%s is no directory that only this user can write to (mode %04o, user %d)", dir, st.Mode&0o7777, st.Uid)
	}
	return nil
}

// Get implements harden.Memo.
func (m *Memo) Get(key string) ([]byte, bool) {
	data, err := m.root.ReadFile(key)
	if err != nil || len(data) < sha256.Size {
		return nil, false
	}
	value := data[sha256.Size:]
	if sha256.Sum256(value) != [sha256.Size]byte(data[:sha256.Size]) {
		return nil, false
	}
	return value, true
}

// Put implements harden.Memo. A result that cannot be kept is computed again.
func (m *Memo) Put(key string, value []byte) {
	m.makeRoom()
	sum := sha256.Sum256(value)
	out, err := renameio.NewPendingFile(key, renameio.WithRoot(m.root), renameio.WithPermissions(0o600))
	if err != nil {
		return
	}
	defer out.Cleanup()
	if _, err := out.Write(append(sum[:], value...)); err == nil {
		out.CloseAtomicallyReplace()
	}
}

// makeRoom empties a full memo.
func (m *Memo) makeRoom() {
	d, err := m.root.Open(".")
	if err != nil {
		return
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil || len(names) < maxKept {
		return
	}
	for _, name := range names {
		m.root.Remove(name)
	}
}

// Close lets go of the directory.
func (m *Memo) Close() error { return m.root.Close() }

// All lists the results that are kept.
func (m *Memo) All() (values [][]byte) {
	d, err := m.root.Open(".")
	if err != nil {
		return nil
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil
	}
	slices.Sort(names)
	for _, name := range names {
		if value, ok := m.Get(name); ok {
			values = append(values, value)
		}
	}
	return values
}
