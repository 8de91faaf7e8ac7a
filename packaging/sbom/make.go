package sbom

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/afalg-policy/afalg-policy/packaging/program"
	"github.com/afalg-policy/afalg-policy/packaging/release"
)

// Make writes the document of each program of a release.
func Make(r *release.Release) error {
	for _, arch := range r.Archs() {
		text, err := Of(r, arch)
		if err != nil {
			return err
		}
		name := fmt.Sprintf("afalg-policy-%s-linux-%s.spdx.json", r.Version, arch)
		if err := os.WriteFile(filepath.Join(r.Out, name), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Of returns the document of the program for one architecture.
func Of(r *release.Release, arch string) ([]byte, error) {
	cc, root, err := program.Toolchain(arch)
	if err != nil {
		return nil, err
	}
	libraries, err := Libraries(cc, root)
	if err != nil {
		return nil, err
	}
	return Text(Subject{Program: r.Programs[arch], Arch: arch, Version: r.Version, Date: r.Date, Libraries: libraries})
}
