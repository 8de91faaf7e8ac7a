package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	spec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/afalg-policy/afalg-policy/packaging/archive"
)

// layout is an image layout in memory: its blobs, by digest.
type layout struct {
	date  time.Time
	blobs map[digest.Digest][]byte
}

// add keeps a blob, and describes it.
func (l *layout) add(mediaType string, blob []byte) spec.Descriptor {
	d := digest.FromBytes(blob)
	l.blobs[d] = blob
	return spec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(blob))}
}

func (l *layout) addJSON(mediaType string, v any) (spec.Descriptor, error) {
	text, err := json.Marshal(v)
	return l.add(mediaType, text), err
}

// addLayer keeps files as a compressed layer, and returns the digest of the tar in
// it besides.
func (l *layout) addLayer(files []file) (d spec.Descriptor, inside digest.Digest, err error) {
	var layer bytes.Buffer
	if err := l.tar(&layer, files); err != nil {
		return d, "", err
	}
	zipped, err := archive.Gzip(layer.Bytes())
	if err != nil {
		return d, "", err
	}
	return l.add(spec.MediaTypeImageLayerGzip, zipped), digest.FromBytes(layer.Bytes()), nil
}

// write writes the layout as a tar, which podman, ctr, skopeo and docker read.
func (l *layout) write(w io.Writer, images ...spec.Descriptor) error {
	version, err := json.Marshal(spec.ImageLayout{Version: spec.ImageLayoutVersion})
	if err != nil {
		return err
	}
	index, err := json.Marshal(spec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: spec.MediaTypeImageIndex, Manifests: images})
	if err != nil {
		return err
	}
	files := []file{{spec.ImageLayoutFile, 0o644, version}, {spec.ImageIndexFile, 0o644, index}}
	for _, d := range slices.Sorted(maps.Keys(l.blobs)) {
		files = append(files, file{spec.ImageBlobsDir + "/" + d.Algorithm().String() + "/" + d.Encoded(), 0o644, l.blobs[d]})
	}
	return l.tar(w, files)
}

type file struct {
	name string
	mode int64
	data []byte
}

// tar writes files as root's, at the date of the release.
func (l *layout) tar(w io.Writer, files []file) error {
	out := tar.NewWriter(w)
	for _, f := range files {
		header := &tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: f.mode, Size: int64(len(f.data)), ModTime: l.date, Format: tar.FormatPAX}
		if err := out.WriteHeader(header); err != nil {
			return err
		}
		if _, err := out.Write(f.data); err != nil {
			return err
		}
	}
	return out.Close()
}
