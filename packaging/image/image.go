// Package image writes the OCI image: one program for each architecture, from
// scratch, with what it consists of.
package image

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	spec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/afalg-policy/afalg-policy/internal/licences"
	"github.com/afalg-policy/afalg-policy/packaging/release"
	"github.com/afalg-policy/afalg-policy/packaging/sbom"
)

const (
	program = "afalg-policy"
	// Name is the image in its registry, without a tag.
	Name = "ghcr.io/afalg-policy/afalg-policy"
	// nameInContainerd is what containerd calls an image as it imports one.
	nameInContainerd = "io.containerd.image.name"
	mediaTypeSPDX    = "application/spdx+json"
)

// Make writes the image of a release, as a tar of its layout.
func Make(r *release.Release) error {
	documents := map[string][]byte{}
	for _, arch := range r.Archs() {
		text, err := sbom.Of(r, arch)
		if err != nil {
			return err
		}
		documents[arch] = text
	}
	l := &layout{date: r.Date, blobs: map[digest.Digest][]byte{}}
	index, err := l.index(r, documents)
	if err != nil {
		return err
	}
	// A tag has no plus sign.
	name := Name + ":" + strings.ReplaceAll(r.Version, "+", "-")
	index.Annotations = map[string]string{spec.AnnotationRefName: name, nameInContainerd: name}
	out, err := os.Create(filepath.Join(r.Out, fmt.Sprintf("afalg-policy-%s-image.tar", r.Version)))
	if err != nil {
		return err
	}
	defer out.Close()
	if err := l.write(out, index); err != nil {
		return fmt.Errorf("%s: %w", out.Name(), err)
	}
	return out.Close()
}

// index adds the image of each architecture, and beside it its document, which a
// registry then finds by what it is about.
func (l *layout) index(r *release.Release, documents map[string][]byte) (spec.Descriptor, error) {
	about := annotations(r)
	index := spec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: spec.MediaTypeImageIndex, Annotations: about}
	var attached []spec.Descriptor
	for _, arch := range r.Archs() {
		image, err := l.image(r, arch, about)
		if err != nil {
			return image, err
		}
		document, err := l.attach(documents[arch], image, about)
		if err != nil {
			return image, err
		}
		image.Platform = &spec.Platform{OS: "linux", Architecture: arch}
		// No machine is of this platform, so none takes it for the image.
		document.Platform = &spec.Platform{OS: "unknown", Architecture: "unknown"}
		index.Manifests, attached = append(index.Manifests, image), append(attached, document)
	}
	index.Manifests = append(index.Manifests, attached...)
	return l.addJSON(spec.MediaTypeImageIndex, index)
}

// image adds an image: a layer with the program, and how it is started.
func (l *layout) image(r *release.Release, arch string, about map[string]string) (spec.Descriptor, error) {
	data, err := os.ReadFile(r.Programs[arch])
	if err != nil {
		return spec.Descriptor{}, err
	}
	layer, inside, err := l.addLayer([]file{{program, 0o755, data}})
	if err != nil {
		return layer, err
	}
	created := r.Date.UTC()
	config, err := l.addJSON(spec.MediaTypeImageConfig, spec.Image{
		Created:  &created,
		Platform: spec.Platform{OS: "linux", Architecture: arch},
		// The agent has to be root, with the capabilities that are left to it: under
		// another user a container's capabilities are in no effective set, and it
		// would refuse every workload. What needs no privilege runs under any --user.
		Config:  spec.ImageConfig{User: "0:0", Entrypoint: []string{"/" + program}, WorkingDir: "/", Labels: about},
		RootFS:  spec.RootFS{Type: "layers", DiffIDs: []digest.Digest{inside}},
		History: []spec.History{{Created: &created, CreatedBy: "make packages", Comment: "the static program, from scratch"}},
	})
	if err != nil {
		return config, err
	}
	return l.addJSON(spec.MediaTypeImageManifest, spec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: spec.MediaTypeImageManifest,
		Config: config, Layers: []spec.Descriptor{layer}, Annotations: about,
	})
}

// attach adds a document as an artifact about an image.
func (l *layout) attach(document []byte, image spec.Descriptor, about map[string]string) (spec.Descriptor, error) {
	l.add(spec.MediaTypeEmptyJSON, spec.DescriptorEmptyJSON.Data)
	empty := spec.DescriptorEmptyJSON
	empty.Data = nil
	d, err := l.addJSON(spec.MediaTypeImageManifest, spec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: spec.MediaTypeImageManifest, ArtifactType: mediaTypeSPDX,
		Config: empty, Layers: []spec.Descriptor{l.add(mediaTypeSPDX, document)}, Subject: &image,
		Annotations: map[string]string{spec.AnnotationCreated: about[spec.AnnotationCreated]},
	})
	d.ArtifactType = mediaTypeSPDX
	return d, err
}

// annotations say what the image is, in the words of the OCI.
func annotations(r *release.Release) map[string]string {
	return map[string]string{
		spec.AnnotationTitle:         program,
		spec.AnnotationDescription:   "One policy for AF_ALG, and everything that enforces it",
		spec.AnnotationVersion:       r.Version,
		spec.AnnotationCreated:       r.Date.UTC().Format(time.RFC3339),
		spec.AnnotationURL:           release.Homepage,
		spec.AnnotationSource:        release.Homepage,
		spec.AnnotationDocumentation: release.Homepage + "/tree/main/docs",
		spec.AnnotationVendor:        "The afalg-policy authors",
		spec.AnnotationLicenses:      terms(),
	}
}

// terms is the licence of all that is in the program.
func terms() string {
	var all []string
	for _, c := range licences.Components() {
		all = append(all, strings.Split(c.Licence, " AND ")...)
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), " AND ")
}
