// Package tarball writes the static program with its files as a tar archive.
package tarball

import (
	"archive/tar"
	"bytes"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/afalg-policy/afalg-policy/packaging/archive"
	"github.com/afalg-policy/afalg-policy/packaging/contents"
	"github.com/afalg-policy/afalg-policy/packaging/release"
)

// Make writes a tarball for each architecture.
func Make(r *release.Release) error {
	for _, arch := range r.Archs() {
		files, err := contents.Tarball(r, arch)
		if err != nil {
			return err
		}
		name := fmt.Sprintf("afalg-policy-%s-linux-%s", r.Version, arch)
		if err := write(r, name, files); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func write(r *release.Release, name string, files []contents.File) error {
	slices.SortFunc(files, func(a, b contents.File) int { return cmp.Compare(a.Path, b.Path) })
	var text bytes.Buffer
	out := tar.NewWriter(&text)
	for _, f := range files {
		header := &tar.Header{
			Typeflag: tar.TypeReg, Name: name + "/" + f.Path, Size: int64(len(f.Data)), Mode: int64(f.Mode),
			ModTime: r.Date, Uname: "root", Gname: "root", Format: tar.FormatPAX,
		}
		if err := out.WriteHeader(header); err != nil {
			return err
		}
		if _, err := out.Write(f.Data); err != nil {
			return err
		}
	}
	if err := out.Close(); err != nil {
		return err
	}
	zipped, err := archive.Gzip(text.Bytes())
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(r.Out, name+".tar.gz"), zipped, 0o644)
}
