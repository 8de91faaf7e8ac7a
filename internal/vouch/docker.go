package vouch

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// Where Docker's daemon keeps its data unless told otherwise, where it is told
// so, and where a containerd of its own machine keeps images.
var (
	dockerRoot       = "/var/lib/docker"
	dockerConfigDir  = "/etc/docker"
	containerdImages = "/var/lib/containerd"
)

const (
	maxDockerFile   = 4 << 20  // config.v2.json, the configuration of an image, daemon.json
	maxRepositories = 16 << 20 // every tag and digest of every image
)

// docker reads what the daemon knows of a container. Annotations are those of
// docker run --annotation (Docker 24: HostConfig.Annotations); the daemon takes
// none from an image.
func docker(s Source, sp *spec, c *plan.Container) error {
	if s.ID == "" {
		return errNoID
	}
	st, src, err := dockerContainer(s.ID, sp.Root.Path)
	if err != nil {
		return err
	}
	defer st.close()
	config, err := parse(src)
	if err != nil {
		return fmt.Errorf("the configuration of container %s: %w", s.ID, err)
	}
	if id := config.text("/ID"); id != s.ID {
		return fmt.Errorf("the configuration of container %s is that of %.100q", s.ID, id)
	}
	c.Vouched.Name = strings.TrimPrefix(config.text("/Name"), "/")
	settleAnnotations(c, sp, func(string) bool { return false })
	all, err := config.texts("/Config/Labels")
	if err != nil {
		return fmt.Errorf("the configuration of container %s: %w", s.ID, err)
	}
	c.Claimed.Labels = all
	image, digests, err := dockerImage(st, config)
	c.Vouched.Images = digests
	if err != nil {
		return err
	}
	ofImage, err := image.texts("/config/Labels")
	if err != nil {
		return fmt.Errorf("the configuration of the image of container %s: %w", s.ID, err)
	}
	c.Vouched.Labels, c.Claimed.Labels = split(all, ofImage)
	return nil
}

// dockerContainer finds the data root of the daemon, and the container there.
func dockerContainer(id, root string) (*store, []byte, error) {
	// ROOT/overlay2/X/merged, ROOT/vfs/dir/X, ROOT/devicemapper/mnt/X/rootfs. A
	// directory nearer to the root, or in it, would be the container's.
	third := filepath.Dir(filepath.Dir(filepath.Dir(filepath.Clean(root))))
	candidates := []string{third, filepath.Dir(third)}
	configured, configErr := dockerConfigured()
	if configured != "" {
		candidates = append(candidates, configured)
	}
	for _, path := range append(candidates, dockerRoot) {
		if !filepath.IsAbs(path) {
			continue
		}
		st, err := openStore(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		src, err := st.read(maxDockerFile, "containers", id, "config.v2.json")
		if err == nil {
			return st, src, nil
		}
		st.close()
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, nil, err
		}
	}
	return nil, nil, errors.Join(fmt.Errorf("no data of Docker has a container %s: it may be a step of a build", id), configErr)
}

// dockerConfigured is the data root that the daemon is told, or "".
func dockerConfigured() (string, error) {
	st, err := openStore(dockerConfigDir)
	if err != nil {
		return "", absent(err)
	}
	defer st.close()
	src, err := st.read(maxDockerFile, "daemon.json")
	if err != nil {
		return "", absent(err)
	}
	config, err := parse(src)
	if err != nil {
		return "", fmt.Errorf("%s/daemon.json: %w", dockerConfigDir, err)
	}
	return config.text("/data-root"), nil
}

func absent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// dockerImage returns the configuration of an image, and the image's digests.
func dockerImage(st *store, config value) (image value, digests []string, err error) {
	id := config.text("/Image")
	if !digestForm.MatchString(id) {
		return value{}, nil, fmt.Errorf("image %.100q: not a digest", id)
	}
	digests = []string{id}
	driver := config.text("/Driver")
	src, err := st.read(maxDockerFile, "image", driver, "imagedb", "content", "sha256", strings.TrimPrefix(id, "sha256:"))
	if errors.Is(err, fs.ErrNotExist) {
		return containerdImage(st, config, digests)
	}
	if err != nil {
		return value{}, digests, err
	}
	if digestOf(src) != id {
		return value{}, digests, fmt.Errorf("the configuration of image %s has another digest", id)
	}
	if image, err = parse(src); err != nil {
		return value{}, digests, fmt.Errorf("the configuration of image %s: %w", id, err)
	}
	pulled, err := dockerManifests(st, driver, id)
	return image, sortedOnce(append(digests, pulled...)), err
}

// dockerManifests are the digests under which an image was pulled. Docker
// writes NAME@DIGEST there after it has compared the manifest with the digest;
// docker load cannot.
func dockerManifests(st *store, driver, id string) ([]string, error) {
	src, err := st.read(maxRepositories, "image", driver, "repositories.json")
	if err != nil {
		return nil, absent(err)
	}
	return references(src, id)
}

// containerdImage reads the image from containerd's store, as Docker keeps it
// there since 29 unless told otherwise. The ID is the digest of a manifest, or
// of an index, and the configuration's follows from ImageManifest. (From
// Docker's source, 28.5: container/container.go.)
func containerdImage(st *store, config value, digests []string) (value, []string, error) {
	manifestID := config.text("/ImageManifest/digest")
	if !digestForm.MatchString(manifestID) {
		return value{}, digests, fmt.Errorf("the configuration of image %s is not in %s", digests[0], st.path)
	}
	digests = sortedOnce(append(digests, manifestID))
	manifest, err := blob(st.path, manifestID)
	if err != nil {
		return value{}, digests, err
	}
	configID := manifest.text("/config/digest")
	image, err := blob(st.path, configID)
	if err != nil {
		return value{}, digests, err
	}
	return image, sortedOnce(append(digests, configID)), nil
}

// blob reads JSON from the content store of the daemon's own containerd, or of
// the machine's. The digest tells whether it is the right one.
func blob(root, digest string) (value, error) {
	if !digestForm.MatchString(digest) {
		return value{}, fmt.Errorf("%.100q: not a digest", digest)
	}
	var errs []error
	for _, path := range []string{filepath.Join(root, "containerd", "daemon"), containerdImages} {
		st, err := openStore(path)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		src, err := st.read(maxDockerFile, "io.containerd.content.v1.content", "blobs", "sha256", strings.TrimPrefix(digest, "sha256:"))
		st.close()
		switch {
		case err != nil:
			errs = append(errs, err)
		case digestOf(src) != digest:
			errs = append(errs, fmt.Errorf("%s: the content has another digest than %s", path, digest))
		default:
			return parse(src)
		}
	}
	return value{}, errors.Join(errs...)
}
