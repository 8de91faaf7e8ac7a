// Package host replaces files of a host, all of them or none, and can restore
// the earlier ones byte for byte.
//
// It compares the existing files with the wanted ones, shows the difference,
// and keeps a record. After a kill at any point, the next run can go on or go
// back. It writes only where nobody but root could put something else in place.
package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/afalg-policy/afalg-policy/internal/bounded"
	"github.com/afalg-policy/afalg-policy/internal/hosterr"
)

// SystemPath is the PATH that systemd gives to services. Programs are looked
// for there.
const SystemPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// maxFile bounds a configuration file in bytes.
const maxFile = 16 << 20

// Host is the file system below a root. Paths are absolute in it, and links are
// followed as if the root were "/".
type Host struct {
	Dir  string // absolute
	root *os.Root
	// originals has the recorded files as they were before they were installed:
	// the platforms compute from those, never from their own output.
	originals map[string]node
	locked    []string // go with the lock, if they are empty
	// at is called before each step of apply; tests fail or die there.
	at func(step string) error
}

// Open opens the file system below a directory.
func Open(dir string) (*Host, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, hosterr.Errorf("root %s: %w", dir, err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, Usage("root %s: %w", dir, reason(err))
	}
	return &Host{Dir: dir, root: root, at: func(string) error { return nil }}, nil
}

func (h *Host) Close() { h.root.Close() }

// Shown returns a path as the user sees it.
func (h *Host) Shown(p string) string { return filepath.Join(h.Dir, p) }

// inRoot returns a path as os.Root takes it.
func inRoot(p string) string { return path.Join(".", p) }

// node is a file, a link, or nothing. The zero value is nothing.
type node struct {
	Kind kind        `json:"kind"`
	Mode fs.FileMode `json:"mode,omitempty"`
	UID  int         `json:"uid,omitempty"`
	GID  int         `json:"gid,omitempty"`
	Time time.Time   `json:"time,omitzero"` // of the last change; not compared
	Data []byte      `json:"data,omitempty"`
	Link string      `json:"link,omitempty"`
	// Xattrs are restored but not compared: a relabelled file does not count as
	// changed.
	Xattrs map[string][]byte `json:"xattrs,omitempty"`
}

type kind string

const (
	absent  kind = ""
	regular kind = "file"
	link    kind = "link"
)

func (n node) same(m node) bool {
	return n.Kind == m.Kind && n.Mode == m.Mode && n.UID == m.UID && n.GID == m.GID && string(n.Data) == string(m.Data) && n.Link == m.Link
}

// read returns what is at a path, or was there before the installation.
func (h *Host) read(p string) (node, error) {
	if n, recorded := h.originals[p]; recorded {
		return n, nil
	}
	return h.now(p)
}

// now returns what is at a path. Anything but a file or a link is an error.
func (h *Host) now(p string) (node, error) {
	p, err := h.real(p)
	if errors.Is(err, fs.ErrNotExist) {
		return node{}, nil
	} else if err != nil {
		return node{}, err
	}
	info, err := h.root.Lstat(inRoot(p))
	if errors.Is(err, fs.ErrNotExist) {
		return node{}, nil
	} else if err != nil {
		return node{}, hosterr.Errorf("read %s: %w", h.Shown(p), reason(err))
	}
	owner := info.Sys().(*syscall.Stat_t)
	n := node{Mode: info.Mode() &^ fs.ModeType, UID: int(owner.Uid), GID: int(owner.Gid), Time: info.ModTime()}
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		n.Kind, n.Mode = link, 0
		n.Link, err = h.root.Readlink(inRoot(p))
	case info.Mode().IsRegular():
		n.Kind = regular
		n.Data, n.Xattrs, err = h.contentOf(p)
	default:
		err = errors.New("it is neither a file nor a link; move it away")
	}
	if err != nil {
		return node{}, hosterr.Errorf("read %s: %w", h.Shown(p), reason(err))
	}
	return n, nil
}

func (h *Host) content(p string) ([]byte, error) {
	f, err := h.open(p)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return bounded.ReadAll(f, maxFile)
}

// contentOf reads a file with its extended attributes.
func (h *Host) contentOf(p string) ([]byte, map[string][]byte, error) {
	f, err := h.open(p)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	data, err := bounded.ReadAll(f, maxFile)
	if err != nil {
		return nil, nil, err
	}
	xattrs, err := readXattrs(f)
	return data, xattrs, err
}

// open does not wait for the other side of a FIFO that took a file's place.
func (h *Host) open(p string) (*os.File, error) {
	return h.root.OpenFile(inRoot(p), os.O_RDONLY|syscall.O_NONBLOCK, 0)
}

// Config returns the text of a configuration file that is to be edited, or
// nothing if there is none. A link is refused: replacing it would surprise,
// and what it leads to may belong to another program.
func (h *Host) Config(p string) ([]byte, error) {
	n, err := h.read(p)
	if err == nil && n.Kind == link {
		err = linkInTheWay(h, p, n)
	}
	return n.Data, err
}

func linkInTheWay(h *Host, p string, n node) error {
	return fmt.Errorf("%s is a link to %s, which is neither replaced nor followed; put a file there", h.Shown(p), n.Link)
}

// Follow returns the text of a file that is only read, through links.
func (h *Host) Follow(p string) ([]byte, error) {
	if n, recorded := h.originals[p]; recorded {
		if n.Kind == absent {
			return nil, fs.ErrNotExist
		}
		return n.Data, nil
	}
	target, err := h.walk(p, nil)
	if err != nil {
		return nil, err
	}
	data, err := h.content(target)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", h.Shown(p), reason(err))
	}
	return data, nil
}

// Stat follows links inside the root.
func (h *Host) Stat(p string) (fs.FileInfo, error) {
	target, err := h.walk(p, nil)
	if err != nil {
		return nil, err
	}
	return h.root.Lstat(inRoot(target))
}

// Exists reports whether something is at a path, or was there before the
// installation.
func (h *Host) Exists(p string) bool {
	if n, recorded := h.originals[p]; recorded {
		return n.Kind != absent
	}
	_, err := h.Stat(p)
	return err == nil
}

// LookPath finds a program as a service would. It skips what this program
// installed.
func (h *Host) LookPath(name string) (string, error) {
	for dir := range strings.SplitSeq(SystemPath, ":") {
		p := path.Join(dir, name)
		info, err := h.Stat(p)
		if err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return p, nil
		}
	}
	return "", hosterr.Errorf("%s was not found in %s", name, SystemPath)
}

// List returns the paths of the files in a directory with that ending, sorted
// by name, as they were before the installation.
func (h *Host) List(dir, ending string) ([]string, error) {
	target, err := h.walk(dir, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	entries, err := fs.ReadDir(h.root.FS(), inRoot(target))
	if err != nil {
		return nil, hosterr.Errorf("read %s: %w", h.Shown(dir), reason(err))
	}
	var paths []string
	for _, e := range entries {
		p := path.Join(dir, e.Name())
		if strings.HasSuffix(e.Name(), ending) && h.Exists(p) {
			paths = append(paths, p)
		}
	}
	return paths, nil
}

// real resolves the links of the directory that holds p.
func (h *Host) real(p string) (string, error) {
	dir, err := h.walk(path.Dir(p), nil)
	return path.Join(dir, path.Base(p)), err
}

// maxLinks bounds a chain of links, as the kernel does.
const maxLinks = 40

// walk resolves a path, and shows visit each directory, link and file on the
// way.
func (h *Host) walk(p string, visit func(at string, info fs.FileInfo) error) (string, error) {
	at, rest, links := "/", path.Clean(p), 0
	for {
		if visit != nil && (at != "/" || h.Dir == "/") {
			info, err := h.root.Lstat(inRoot(at))
			if err == nil {
				err = visit(at, info)
			}
			if err != nil {
				return "", err
			}
		}
		rest = strings.TrimLeft(rest, "/")
		if rest == "" {
			return at, nil
		}
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		next := path.Join(at, name)
		info, err := h.root.Lstat(inRoot(next))
		if err != nil {
			return "", fmt.Errorf("%s: %w", h.Shown(p), reason(err))
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			at = next
			continue
		}
		if links++; links > maxLinks {
			return "", hosterr.Errorf("%s: too many links", h.Shown(p))
		}
		if visit != nil {
			if err := visit(next, info); err != nil {
				return "", err
			}
		}
		target, err := h.root.Readlink(inRoot(next))
		if err != nil {
			return "", hosterr.Errorf("%s: %w", h.Shown(p), reason(err))
		}
		if path.IsAbs(target) {
			at = "/"
		}
		rest = target + "/" + rest
	}
}

// reason drops the path that an error repeats.
func reason(err error) error {
	var pe *fs.PathError
	var le *os.LinkError
	switch {
	case errors.As(err, &pe):
		return pe.Err
	case errors.As(err, &le):
		return le.Err
	}
	return err
}
