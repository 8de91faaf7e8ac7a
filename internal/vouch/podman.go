package vouch

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/jsontext"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// podmanGraph is Podman's default store of containers and images.
var podmanGraph = "/var/lib/containers/storage"

const (
	maxStore    = 64 << 20 // containers.json, images.json; about 600 bytes a container
	maxManifest = 4 << 20  // the limit of registries
)

// podman finds the container in its store: by the layer that is its root, by
// the ID in the path of the file that libpod mounts at /run/.containerenv, and
// by the ID that the runtime is given. All that are known must agree.
func podman(s Source, c *plan.Container) error {
	at, err := podmanTrace(s)
	if err != nil {
		return err
	}
	st, err := openStore(at.graph)
	if err != nil {
		return err
	}
	defer st.close()
	entry, err := at.find(st)
	if err != nil {
		return err
	}
	c.ID = entry.Text("/id")
	names := entry.List("/names")
	if len(names) != 1 {
		return fmt.Errorf("container %s has %d names in %s", c.ID, len(names), at.graph)
	}
	c.Vouched.Name = names[0] // podman rename changes it here, and not in the metadata
	image := entry.Text("/image")
	if image == "" { // --rootfs
		splitAnnotations(c, s.Spec, func(string) bool { return false })
		return nil
	}
	return podmanImage(st, at.driver, image, s.Spec, c)
}

// trace is the place of a container in a store, as far as a spec shows it.
type trace struct {
	graph, run string // directories; run may be ""
	driver     string
	id, layer  string // "" if not known; not both
}

// roots are the root file systems of containers/storage, by driver.
var roots = lazily(`^(/.+)/(?:(overlay)/([0-9a-f]{64})/merged|(vfs)/dir/([0-9a-f]{64})|(btrfs)/subvolumes/([0-9a-f]{64})|(zfs)/graph/([0-9a-f]{64}))$`)

// files are those that libpod keeps for a container, outside its root.
var files = lazily(`^(/.+)/([a-z0-9]+)-containers/([0-9a-f]{64})/userdata/(shm|\.containerenv)$`)

// podmanTrace reads the paths that libpod puts into the spec. The user can
// choose the root with --rootfs and mount what they like; an image can choose
// neither.
func podmanTrace(s Source) (trace, error) {
	at := trace{graph: podmanGraph, id: s.ID}
	if m := files().FindStringSubmatch(sourceOf(s.Spec, "/run/.containerenv")); m != nil {
		at.run, at.driver = m[1], m[2]
		if at.id != "" && at.id != m[3] {
			return trace{}, fmt.Errorf("the spec is of container %s, and the runtime is given %s", m[3], at.id)
		}
		at.id = m[3]
	}
	// The container's own, or that of its pod, in the same store.
	if m := files().FindStringSubmatch(sourceOf(s.Spec, "/dev/shm")); m != nil {
		at.graph, at.driver = m[1], m[2]
	}
	if m := roots().FindStringSubmatch(filepath.Clean(s.Spec.Root)); m != nil {
		at.graph = m[1]
		at.driver = m[2] + m[4] + m[6] + m[8]
		at.layer = m[3] + m[5] + m[7] + m[9]
	}
	if at.driver == "" || at.id == "" && at.layer == "" {
		return trace{}, errors.New("the spec tells neither a root nor a /run/.containerenv in a store of Podman")
	}
	return at, nil
}

// find returns the one entry of the store that the trace leads to. Containers
// that end with the machine (--rm) stand in a file of their own since Podman
// 4.4, which lies in the run directory if the store is transient.
func (at trace) find(st *store) (*jsontext.Document, error) {
	dir := at.driver + "-containers"
	lists := []func() ([]byte, error){
		func() ([]byte, error) { return st.read(maxStore, dir, "containers.json") },
		func() ([]byte, error) { return st.read(maxStore, dir, "volatile-containers.json") },
		func() ([]byte, error) {
			run, err := openStore(at.run)
			if err != nil {
				return nil, err
			}
			defer run.close()
			return run.read(maxStore, dir, "volatile-containers.json")
		},
	}
	if at.run == "" {
		lists = lists[:2]
	}
	var found []*jsontext.Document
	for _, read := range lists {
		src, err := read()
		if errors.Is(err, fs.ErrNotExist) || err == nil && len(src) == 0 { // none yet
			continue
		}
		if err != nil {
			return nil, err
		}
		here, err := entries(src, at.id, at.layer)
		if err != nil {
			return nil, fmt.Errorf("the containers of %s: %w", at.graph, err)
		}
		found = append(found, here...)
	}
	if len(found) != 1 {
		return nil, fmt.Errorf("%d containers of %s have the ID %q or the root %q: it must be one", len(found), at.graph, at.id, at.layer)
	}
	return found[0], at.agrees(found[0])
}

// entries are those whose ID or layer is one of these.
func entries(src []byte, id, layer string) ([]*jsontext.Document, error) {
	var found []*jsontext.Document
	var bad error
	err := eachObject(src, func(object []byte) {
		if !mentions(object, id) && !mentions(object, layer) {
			return
		}
		v, err := jsontext.Parse(object)
		if err != nil {
			bad = errors.Join(bad, err)
			return
		}
		if id != "" && v.Text("/id") == id || layer != "" && v.Text("/layer") == layer {
			found = append(found, v)
		}
	})
	return found, errors.Join(err, bad)
}

func mentions(object []byte, s string) bool { return s != "" && bytes.Contains(object, []byte(s)) }

// agrees refuses a root that is another container's, as --rootfs can have it,
// and containers that libpod did not make: those of a build have the image of
// their base, and run what the build file says.
func (at trace) agrees(entry *jsontext.Document) error {
	id, layer := entry.Text("/id"), entry.Text("/layer")
	if at.id != "" && id != at.id || at.layer != "" && layer != at.layer {
		return fmt.Errorf("the root of container %q is that of %s", at.id, id)
	}
	if at.layer == "" && entry.Text("/image") != "" {
		return fmt.Errorf("container %s has an image, and its root is not in %s", id, at.graph)
	}
	metadata, err := jsontext.Parse([]byte(entry.Text("/metadata")))
	if err != nil || metadata.Text("/name") == "" {
		return fmt.Errorf("container %s was not made by podman create or run", id)
	}
	return nil
}

// podmanImage reads the digests of an image, and which annotations of the spec
// come from its manifest: Podman before 4.6 copies them, and lets the user's
// replace them.
func podmanImage(st *store, driver, id string, spec *profile.Config, c *plan.Container) error {
	if !hex64().MatchString(id) {
		return fmt.Errorf("image %.100q: not an ID of an image", id)
	}
	c.Vouched.Images = imageID(id)
	dir := driver + "-images"
	src, err := st.read(maxStore, dir, "images.json")
	if err != nil {
		return err
	}
	images, err := entries(src, id, "")
	if err != nil {
		return fmt.Errorf("the images of %s: %w", st.path, err)
	}
	if len(images) != 1 {
		return fmt.Errorf("%d images of %s have the ID %s: it must be one", len(images), st.path, id)
	}
	data, err := images[0].Texts("/big-data-digests")
	if err != nil {
		return err
	}
	var manifests []string
	for name, digest := range data {
		switch {
		case !digestForm().MatchString(digest):
			return fmt.Errorf("image %s: %q has the digest %.100q", id, name, digest)
		case strings.HasPrefix(name, "manifest"):
			manifests = append(manifests, name)
		case !digestForm().MatchString(name): // the configuration's digest is its name
			continue
		}
		c.Vouched.Images = append(c.Vouched.Images, digest)
	}
	c.Vouched.Images = sortedOnce(c.Vouched.Images)
	if len(manifests) == 0 {
		return fmt.Errorf("image %s: no manifest in %s", id, st.path)
	}
	// Several manifests may have had this configuration, and the annotations of
	// any of them may have been copied.
	ofImage := map[string]string{}
	for _, name := range manifests {
		if err := manifestAnnotations(st, dir, id, name, data[name], ofImage); err != nil {
			return err
		}
	}
	splitAnnotations(c, spec, func(key string) bool { _, ok := ofImage[key]; return ok })
	return nil
}

func manifestAnnotations(st *store, dir, id, name, digest string, into map[string]string) error {
	src, err := st.read(maxManifest, dir, id, bigDataName(name))
	if err != nil {
		return err
	}
	if digestOf(src) != digest {
		return fmt.Errorf("image %s: %q has not the digest %s", id, name, digest)
	}
	manifest, err := jsontext.Parse(src)
	if err != nil {
		return fmt.Errorf("image %s: %q: %w", id, name, err)
	}
	annotations, err := manifest.Texts("/annotations")
	if err != nil {
		return fmt.Errorf("image %s: %q: %w", id, name, err)
	}
	for k, v := range annotations {
		into[k] = v
	}
	return nil
}

func digestOf(src []byte) string {
	sum := sha256.Sum256(src)
	return "sha256:" + hex.EncodeToString(sum[:])
}

var plainName = lazily(`^[.0-9a-z]+$`)

// bigDataName is the name of a file of containers/storage
// (makeBigDataBaseName).
func bigDataName(key string) string {
	if plainName().MatchString(key) {
		return key
	}
	return "=" + base64.StdEncoding.EncodeToString([]byte(key))
}
