package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	spec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/afalg-policy/afalg-policy/packaging/release"
)

// made returns the tar of an image for two architectures; what their programs are
// does not matter here.
func made(t *testing.T) []byte {
	t.Helper()
	dir := t.TempDir()
	r := &release.Release{Version: "1.2.3", Date: time.Unix(1764000000, 0).In(time.FixedZone("x", 60)), Programs: map[string]string{}}
	documents := map[string][]byte{}
	for _, arch := range []string{"arm64", "amd64"} {
		r.Programs[arch], documents[arch] = filepath.Join(dir, arch), []byte("about "+arch)
		if err := os.WriteFile(r.Programs[arch], []byte("for "+arch), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l := &layout{date: r.Date, blobs: map[digest.Digest][]byte{}}
	index, err := l.index(r, documents)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := l.write(&b, index); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

type entry struct {
	tar.Header
	data []byte
}

func entries(t *testing.T, r io.Reader) map[string]entry {
	t.Helper()
	all := map[string]entry{}
	for archive := tar.NewReader(r); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 || h.ModTime.Unix() != 1764000000 {
			t.Errorf("%s is of %d:%d, at %v", h.Name, h.Uid, h.Gid, h.ModTime)
		}
		all[h.Name] = entry{*h, data}
	}
}

// read gets a blob, checks it, and decodes it into v unless that is nil.
func read(t *testing.T, files map[string]entry, d spec.Descriptor, v any) []byte {
	t.Helper()
	name := "blobs/sha256/" + d.Digest.Encoded()
	blob, ok := files[name]
	if !ok || digest.FromBytes(blob.data) != d.Digest || int64(len(blob.data)) != d.Size {
		t.Fatalf("%v is not what %s has", d, name)
	}
	if v != nil {
		if err := json.Unmarshal(blob.data, v); err != nil {
			t.Fatal(err)
		}
	}
	return blob.data
}

// Every blob is what its descriptor says, and used; an image has one file, root's.
func TestLayout(t *testing.T) {
	files := entries(t, bytes.NewReader(made(t)))
	if got := string(files["oci-layout"].data); got != `{"imageLayoutVersion":"1.0.0"}` {
		t.Errorf("oci-layout is %s", got)
	}
	var top, index spec.Index
	if err := json.Unmarshal(files["index.json"].data, &top); err != nil || len(top.Manifests) != 1 {
		t.Fatalf("%v: %s", err, files["index.json"].data)
	}
	seen := map[digest.Digest]bool{}
	see := func(d spec.Descriptor, v any) []byte {
		t.Helper()
		seen[d.Digest] = true
		return read(t, files, d, v)
	}
	see(top.Manifests[0], &index)
	var platforms []string
	for i, d := range index.Manifests {
		platform := d.Platform.OS + "/" + d.Platform.Architecture
		platforms = append(platforms, platform)
		var m spec.Manifest
		see(d, &m)
		if m.Subject != nil {
			if about := index.Manifests[i-2]; m.ArtifactType != "application/spdx+json" || m.Subject.Digest != about.Digest ||
				string(see(m.Layers[0], nil)) != "about "+about.Platform.Architecture {
				t.Errorf("%s is about %v", platform, m.Subject)
			}
			see(m.Config, nil)
			continue
		}
		var config spec.Image
		see(m.Config, &config)
		if config.Architecture != d.Platform.Architecture || config.Config.User != "0:0" || !slices.Equal(config.Config.Entrypoint, []string{"/afalg-policy"}) ||
			config.Config.Labels[spec.AnnotationVersion] != "1.2.3" || len(m.Layers) != 1 {
			t.Errorf("%s: %+v", platform, config)
		}
		zipped, err := gzip.NewReader(bytes.NewReader(see(m.Layers[0], nil)))
		if err != nil {
			t.Fatal(err)
		}
		layer, err := io.ReadAll(zipped)
		if err != nil {
			t.Fatal(err)
		}
		if config.RootFS.DiffIDs[0] != digest.FromBytes(layer) {
			t.Errorf("%s: the layer is another than the configuration says", platform)
		}
		in := entries(t, bytes.NewReader(layer))
		if f := in["afalg-policy"]; len(in) != 1 || f.Mode != 0o755 || string(f.data) != "for "+d.Platform.Architecture {
			t.Errorf("%s has the files %v", platform, in)
		}
	}
	if want := []string{"linux/amd64", "linux/arm64", "unknown/unknown", "unknown/unknown"}; !slices.Equal(platforms, want) {
		t.Errorf("platforms %v, want %v", platforms, want)
	}
	for name := range files {
		if encoded, ok := strings.CutPrefix(name, "blobs/sha256/"); ok && !seen[digest.NewDigestFromEncoded(digest.SHA256, encoded)] {
			t.Errorf("nothing needs %s", name)
		}
	}
}

func TestReproducible(t *testing.T) {
	if !bytes.Equal(made(t), made(t)) {
		t.Error("two images of the same programs differ")
	}
}

// The licences of the image are those of all that is in it, each once.
func TestTerms(t *testing.T) {
	const want = "Apache-2.0 AND BSD-2-Clause AND BSD-3-Clause AND GPL-3.0-or-later WITH GCC-exception-3.1 AND LGPL-2.1-only AND LGPL-2.1-or-later AND MIT"
	if got := terms(); got != want {
		t.Errorf("got %s", got)
	}
}
