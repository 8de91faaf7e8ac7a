package oci

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/tailscale/hujson"

	"github.com/afalg-policy/afalg-policy/internal/jsontext"
)

// Bundles are the wrapper runtime's own: each holds the hardened spec of one
// container. The bundle that a caller brought is only read.
// So it may lie on a read-only medium, be shared by two containers, or be
// changed by others, and the runtime still gets the spec that was proved.
//
//	DIR/KEY/state               link to the directory where the runtime keeps the container
//	DIR/KEY/RANDOM/config.json  the hardened spec
//	DIR/KEY/RANDOM/origin       link to the bundle that the caller brought
//
// KEY stands for that directory. A bundle is needed as long as its container is
// there; Make removes those of containers that are gone.
type Bundles struct {
	Dir string // absolute; made if it is missing, and then for this user alone
}

const (
	stateLink  = "state"
	originLink = "origin"
	// startLimit is how long a runtime may take from its start until it has made
	// the directory of the container.
	startLimit = 10 * time.Minute
	// sweptAtOnce bounds what a container's start pays for others. It makes one
	// home, so that they do not add up.
	sweptAtOnce = 16
)

// Make writes a bundle for the spec of a container, whose own bundle is origin,
// and returns its directory. The runtime will keep the container in state; ""
// if that is not known, and the bundle is never removed then.
func (b Bundles) Make(spec *Spec, origin, state string) (string, error) {
	text, err := spec.detached(origin)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(b.Dir, 0o700); err != nil {
		return "", err
	}
	if err := Private(b.Dir); err != nil {
		return "", err
	}
	b.sweep()
	home := filepath.Join(b.Dir, keyOf(state))
	dir, err := b.newDirectory(home, state)
	if err != nil {
		return "", err
	}
	err = os.Symlink(b.Origin(origin), filepath.Join(dir, originLink))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, ConfigName), text, 0o600)
	}
	if err != nil {
		return "", errors.Join(fmt.Errorf("write a bundle: %w", reason(err)), os.RemoveAll(dir))
	}
	return dir, nil
}

// Origin is the bundle that a caller brought, by which platforms know a
// container. It is another than dir where that is one of these: a runtime that
// Make's bundle was given to has called the wrapper again.
func (b Bundles) Origin(dir string) string {
	if !b.Hold(dir) {
		return dir
	}
	origin, err := os.Readlink(filepath.Join(dir, originLink))
	if err != nil {
		return dir
	}
	return origin
}

// Hold reports whether a directory is a bundle that Make may have made: nobody
// else can put one there.
func (b Bundles) Hold(dir string) bool {
	return filepath.Dir(filepath.Dir(filepath.Clean(dir))) == b.Dir && Private(b.Dir) == nil
}

// newDirectory makes a directory in the home of a container's bundles. It
// removes whatever an earlier container of that name left there.
func (b Bundles) newDirectory(home, state string) (dir string, err error) {
	if state != "" && gone(state) {
		b.clear(home)
	}
	for range 8 { // another process may remove the home, as empty
		if err := os.Mkdir(home, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return "", err
		}
		if dir, err = os.MkdirTemp(home, ""); !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if err != nil || state == "" {
		return dir, err
	}
	if err := os.Symlink(state, filepath.Join(home, stateLink)); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	return dir, nil
}

func keyOf(state string) string {
	sum := sha256.Sum256([]byte(state))
	return hex.EncodeToString(sum[:16])
}

// gone reports whether there is nothing at a path. In doubt there is something.
func gone(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// sweep removes the bundles of containers that are gone, of some homes at a
// time. Whatever it cannot remove stays for another time.
func (b Bundles) sweep() {
	homes, err := os.ReadDir(b.Dir)
	if err != nil || len(homes) == 0 {
		return
	}
	first := rand.IntN(len(homes))
	homes = slices.Concat(homes[first:], homes[:first])
	for _, e := range homes[:min(len(homes), sweptAtOnce)] {
		info, err := e.Info()
		if err != nil || time.Since(info.ModTime()) < startLimit {
			continue // a bundle came into it, and is to stay
		}
		home := filepath.Join(b.Dir, e.Name())
		link := filepath.Join(home, stateLink)
		if !gone(link) {
			continue
		}
		if _, err := os.Readlink(link); err == nil {
			b.clear(home)
		}
	}
}

// clear removes a home's bundles and then the home. Young bundles, whose
// container may yet come, stay.
func (b Bundles) clear(home string) {
	entries, err := os.ReadDir(home)
	if err != nil {
		return
	}
	left := false
	for _, e := range entries {
		info, err := e.Info()
		switch {
		case err != nil || !e.IsDir():
		case time.Since(info.ModTime()) < startLimit:
			left = true
		default:
			os.RemoveAll(filepath.Join(home, e.Name()))
		}
	}
	if !left {
		os.Remove(filepath.Join(home, stateLink))
		os.Remove(home) // fails if another container came meanwhile
	}
}

// detached is the text of a spec that is independent of the directory where it
// lay: the root file system and the sources of bind mounts may be relative to
// it.
func (s *Spec) detached(origin string) ([]byte, error) {
	// Runtimes take the directory that the kernel shows, without links.
	dir, err := filepath.EvalSymlinks(origin)
	if err != nil {
		return nil, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	var changes []jsontext.Change
	for _, path := range relativePaths(&s.Config.Document().Root) {
		literal, ok := path.Value.(hujson.Literal)
		if !ok || literal.Kind() != '"' {
			return nil, errors.New("root.path, or the source of a mount, is no text")
		}
		if name := literal.String(); !filepath.IsAbs(name) {
			changes = append(changes, jsontext.Change{
				Start: path.StartOffset, End: path.EndOffset, Text: string(hujson.String(filepath.Join(dir, name))),
			})
		}
	}
	return s.with(changes...).Text(), nil
}

// relativePaths finds the values that runtimes take relative to the bundle.
func relativePaths(v *hujson.Value) (paths []*hujson.Value) {
	if path := v.Find("/root/path"); path != nil {
		paths = append(paths, path)
	}
	mounts := v.Find("/mounts")
	if mounts == nil {
		return paths
	}
	list, ok := mounts.Value.(*hujson.Array)
	if !ok {
		return paths
	}
	for i := range list.Elements {
		m := &list.Elements[i]
		if source := m.Find("/source"); source != nil && isBind(m) {
			paths = append(paths, source)
		}
	}
	return paths
}

func isBind(mount *hujson.Value) bool {
	binds := func(v *hujson.Value) bool {
		l, ok := v.Value.(hujson.Literal)
		return ok && l.Kind() == '"' && (l.String() == "bind" || l.String() == "rbind")
	}
	if kind := mount.Find("/type"); kind != nil && binds(kind) {
		return true
	}
	options := mount.Find("/options")
	if options == nil {
		return false
	}
	list, ok := options.Value.(*hujson.Array)
	return ok && slices.ContainsFunc(list.Elements, func(v hujson.Value) bool { return binds(&v) })
}

// reason drops the name of a temporary file, which says nothing to anybody.
func reason(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
