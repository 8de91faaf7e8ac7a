// Package output writes what was made: whole, or not at all.
package output

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"

	"github.com/afalg-policy/afalg-policy/internal/bounded"
	"github.com/afalg-policy/afalg-policy/internal/gen"
)

// outputMode is what a new file gets; the umask applies, and an existing file
// keeps its own.
const outputMode = 0o644

// KindError is a path at which there is something that is not replaced.
type KindError struct {
	Path string
	Kind string // "a symbolic link"
}

func (e *KindError) Error() string {
	return fmt.Sprintf("output %s: %s, which is not replaced", e.Path, e.Kind)
}

// DirectoryError is a path that ends as one of a directory, where a file is meant.
type DirectoryError struct{ Path string }

func (e *DirectoryError) Error() string {
	return fmt.Sprintf("output %s: a directory, where a file is meant", e.Path)
}

// File replaces a file, or leaves it as it was. A path that is a link, a device
// or a directory is refused with a *KindError: replacing it would surprise, and
// writing through it is not atomic. One with a slash behind is refused with a
// *DirectoryError.
func File(path string, data []byte) error {
	if err := namesFile(path); err != nil {
		return err
	}
	dir, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return notWritten(path, err)
	}
	defer dir.Close()
	out, err := prepareFile(dir, filepath.Base(path), path, data)
	if err != nil {
		return err
	}
	defer out.Cleanup()
	return notWritten(path, out.CloseAtomicallyReplace())
}

// Directory writes files below a directory, which it makes if need be.
// All contents are on the disk before the first file takes its name, so a full
// disk leaves no file, new or half new.
func Directory(path string, files []gen.File) error {
	path = filepath.Clean(path) // lstat would follow a link with a slash behind it
	if err := replaceable(os.Lstat, path, path, fs.FileMode.IsDir); err != nil {
		return err
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return notWritten(path, err)
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return notWritten(path, err)
	}
	defer root.Close()
	var pending []*renameio.PendingFile
	defer func() {
		for _, out := range pending {
			out.Cleanup()
		}
	}()
	for _, f := range files {
		shown := filepath.Join(path, f.Path)
		if err := root.MkdirAll(filepath.Dir(f.Path), 0o755); err != nil {
			return notWritten(shown, err)
		}
		out, err := prepareFile(root, f.Path, shown, f.Data)
		if err != nil {
			return err
		}
		pending = append(pending, out)
	}
	for i, out := range pending {
		if err := out.CloseAtomicallyReplace(); err != nil {
			return notWritten(filepath.Join(path, files[i].Path), err)
		}
	}
	return nil
}

// prepareFile writes a temporary file, synced to the disk, that waits to
// become name. A link inside root cannot lead it out of root.
func prepareFile(root *os.Root, name, shown string, data []byte) (*renameio.PendingFile, error) {
	if err := replaceable(root.Lstat, name, shown, fs.FileMode.IsRegular); err != nil {
		return nil, err
	}
	out, err := renameio.NewPendingFile(name, renameio.WithRoot(root),
		renameio.WithPermissions(outputMode), renameio.WithExistingPermissions())
	if err != nil {
		return nil, notWritten(shown, err)
	}
	_, err = out.Write(data)
	if err == nil {
		err = out.Sync()
	}
	if err != nil {
		return nil, notWritten(shown, errors.Join(err, out.Cleanup()))
	}
	return out, nil
}

// namesFile refuses a path whose last part is empty: the file would get the name of
// its directory.
func namesFile(path string) error {
	if strings.HasSuffix(path, string(filepath.Separator)) {
		return &DirectoryError{path}
	}
	return nil
}

// Replaceable refuses a path at which File would write nothing.
func Replaceable(path string) error {
	if err := namesFile(path); err != nil {
		return err
	}
	return replaceable(os.Lstat, path, path, fs.FileMode.IsRegular)
}

// replaceable refuses what exists and is not of the kind that is wanted.
func replaceable(lstat func(string) (fs.FileInfo, error), name, shown string, wanted func(fs.FileMode) bool) error {
	info, err := lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return notWritten(shown, err)
	case wanted(info.Mode()):
		return nil
	default:
		return &KindError{shown, bounded.Kind(info.Mode())}
	}
}

// notWritten names the output instead of the temporary file.
func notWritten(shown string, err error) error {
	if err == nil {
		return nil
	}
	for {
		var pe *fs.PathError
		var le *os.LinkError
		switch {
		case errors.As(err, &pe):
			err = pe.Err
		case errors.As(err, &le):
			err = le.Err
		default:
			return fmt.Errorf("write %s: %w", shown, err)
		}
	}
}
