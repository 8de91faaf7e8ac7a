package vouch

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/jsontext"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// dockerRoot is the default data directory of Docker's daemon. dockerConfigDir
// may name another. containerdImages has the images of a containerd that the
// machine runs.
var (
	dockerRoot       = "/var/lib/docker"
	dockerConfigDir  = "/etc/docker"
	containerdImages = "/var/lib/containerd"
)

const (
	maxDockerFile   = 4 << 20  // config.v2.json, the configuration of an image, daemon.json
	maxRepositories = 16 << 20 // every tag and digest of every image
)

// docker reads the daemon's record of a container. Annotations are those of
// docker run --annotation (Docker 24: HostConfig.Annotations); the daemon takes
// none from an image.
func docker(s Source, c *plan.Container) error {
	if s.ID == "" {
		return errNoID
	}
	st, src, err := dockerContainer(s.ID, s.Spec.Root)
	if err != nil {
		if c.Vouched.Build = dockerBuild(s); c.Vouched.Build {
			return nil
		}
		return err
	}
	defer st.close()
	config, err := jsontext.Parse(src)
	if err != nil {
		return fmt.Errorf("the configuration of container %s: %w", s.ID, err)
	}
	if id := config.Text("/ID"); id != s.ID {
		return fmt.Errorf("the configuration of container %s is that of %.100q", s.ID, id)
	}
	c.Vouched.Name = strings.TrimPrefix(config.Text("/Name"), "/")
	splitAnnotations(c, s.Spec, func(string) bool { return false })
	all, err := config.Texts("/Config/Labels")
	if err != nil {
		return fmt.Errorf("the configuration of container %s: %w", s.ID, err)
	}
	c.Claimed.Labels = all
	image, digests, err := dockerImage(st, config)
	c.Vouched.Images = digests
	if err != nil {
		return err
	}
	ofImage, err := image.Texts("/config/Labels")
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

// dockerBuild reports whether the bundle of a container is a step of a build.
// BuildKit makes ROOT/buildkit/executor/ID, where nobody but root can write.
// Neither an image nor a build file chooses that place.
func dockerBuild(s Source) bool {
	executor := filepath.Dir(filepath.Clean(s.Bundle))
	root, isExecutor := strings.CutSuffix(executor, "/buildkit/executor")
	configured, _ := dockerConfigured()
	if s.Bundle == "" || !isExecutor || root != dockerRoot && root != configured || filepath.Base(s.Bundle) != s.ID {
		return false
	}
	st, err := openStore(executor)
	if err != nil {
		return false
	}
	defer st.close()
	_, err = st.read(maxDockerFile, s.ID, "config.json")
	return err == nil
}

// dockerConfigured returns the data root in the daemon's configuration, or "".
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
	config, err := jsontext.Parse(src)
	if err != nil {
		return "", fmt.Errorf("%s/daemon.json: %w", dockerConfigDir, err)
	}
	return config.Text("/data-root"), nil
}

func absent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// dockerImage returns the configuration of an image, and the image's digests.
func dockerImage(st *store, config *jsontext.Document) (image *jsontext.Document, digests []string, err error) {
	id := config.Text("/Image")
	if !digestForm().MatchString(id) {
		return nil, nil, fmt.Errorf("image %.100q: not a digest", id)
	}
	digests = []string{id}
	driver := config.Text("/Driver")
	src, err := st.read(maxDockerFile, "image", driver, "imagedb", "content", "sha256", strings.TrimPrefix(id, "sha256:"))
	if errors.Is(err, fs.ErrNotExist) {
		return containerdImage(st, config, digests)
	}
	if err != nil {
		return nil, digests, err
	}
	if digestOf(src) != id {
		return nil, digests, fmt.Errorf("the configuration of image %s has another digest", id)
	}
	if image, err = jsontext.Parse(src); err != nil {
		return nil, digests, fmt.Errorf("the configuration of image %s: %w", id, err)
	}
	pulled, err := dockerManifests(st, driver, id)
	return image, sortedOnce(append(digests, pulled...)), err
}

// dockerManifests returns the digests under which an image was pulled. Docker
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
func containerdImage(st *store, config *jsontext.Document, digests []string) (*jsontext.Document, []string, error) {
	manifestID := config.Text("/ImageManifest/digest")
	if !digestForm().MatchString(manifestID) {
		return nil, digests, fmt.Errorf("the configuration of image %s is not in %s", digests[0], st.path)
	}
	digests = sortedOnce(append(digests, manifestID))
	manifest, err := blob(st.path, manifestID)
	if err != nil {
		return nil, digests, err
	}
	configID := manifest.Text("/config/digest")
	image, err := blob(st.path, configID)
	if err != nil {
		return nil, digests, err
	}
	return image, sortedOnce(append(digests, configID)), nil
}

// blob reads JSON from the content store of the daemon's own containerd, or of
// the machine's. The digest reports whether it is the right one.
func blob(root, digest string) (*jsontext.Document, error) {
	if !digestForm().MatchString(digest) {
		return nil, fmt.Errorf("%.100q: not a digest", digest)
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
			return jsontext.Parse(src)
		}
	}
	return nil, errors.Join(errs...)
}
