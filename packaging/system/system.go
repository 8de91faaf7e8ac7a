// Package system writes the packages of distributions: deb and rpm.
package system

import (
	"embed"
	"fmt"
	"os"
	"path/filepath"

	"github.com/goreleaser/nfpm/v2"
	"github.com/goreleaser/nfpm/v2/deb"
	"github.com/goreleaser/nfpm/v2/files"
	"github.com/goreleaser/nfpm/v2/rpm"

	"github.com/afalg-policy/afalg-policy/packaging/contents"
	"github.com/afalg-policy/afalg-policy/packaging/release"
)

// format is a kind of package.
type format struct {
	packager nfpm.Packager
	contents func(r *release.Release, arch string) ([]contents.File, error)
	// kinds has nfpm's name of what is not plain.
	kinds map[contents.Kind]string
	// dirs are the package's own: dpkg removes what is empty, rpm what it owns.
	dirs []string
	// lead precedes the description: dpkg has the summary in its first line.
	lead string
	// scripts are named as in the folder scripts; in front of each stands the text
	// that they share.
	preremove, postinstall, postremove string
}

var formats = []format{
	{
		packager: deb.Default, contents: contents.Deb, lead: summary + "\n",
		kinds:     map[contents.Kind]string{contents.Config: files.TypeConfig},
		preremove: "deb.prerm", postinstall: "deb.postinst", postremove: "deb.postrm",
	},
	{
		packager: rpm.DefaultRPM, contents: contents.RPM,
		kinds: map[contents.Kind]string{
			contents.Config: files.TypeConfigNoReplace, contents.Doc: files.TypeRPMDoc, contents.Licence: files.TypeRPMLicense,
		},
		dirs: []string{
			"/etc/afalg-policy", "/usr/share/afalg-policy", "/usr/share/licenses/afalg-policy", "/usr/share/doc/afalg-policy",
			"/usr/share/doc/afalg-policy/docs", "/usr/share/doc/afalg-policy/docs/targets", "/usr/share/doc/afalg-policy/examples",
		},
		preremove: "rpm.preun", postinstall: "rpm.post", postremove: "rpm.postun",
	},
}

// Make writes each kind of package for each architecture.
func Make(r *release.Release) error {
	for _, f := range formats {
		for _, arch := range r.Archs() {
			if err := f.make(r, arch); err != nil {
				return fmt.Errorf("%s for %s: %w", f.preremove, arch, err)
			}
		}
	}
	return nil
}

func (f format) make(r *release.Release, arch string) error {
	stage, err := os.MkdirTemp("", "packaging")
	if err != nil {
		return err
	}
	defer os.RemoveAll(stage)
	info, err := f.info(r, arch, stage)
	if err != nil {
		return err
	}
	out, err := os.Create(filepath.Join(r.Out, f.packager.ConventionalFileName(info)))
	if err != nil {
		return err
	}
	defer out.Close()
	if err := f.packager.Package(info, out); err != nil {
		return err
	}
	return out.Close()
}

func (f format) info(r *release.Release, arch, stage string) (*nfpm.Info, error) {
	info := nfpm.WithDefaults(&nfpm.Info{
		Name: "afalg-policy", Arch: arch, Platform: "linux",
		Version: r.PackageVersion(), VersionSchema: "none", Release: "1",
		Section: "admin", Priority: "optional", Homepage: release.Homepage, Maintainer: release.Maintainer,
		License: "Apache-2.0 AND LGPL-2.1-only", Description: f.lead + description, MTime: r.Date,
	})
	info.DisableGlobbing = true // names are names
	info.RPM = nfpm.RPM{Summary: summary, BuildHost: "reproducible", Group: "System Environment/Base", Packager: release.Maintainer}
	for _, script := range []struct {
		name string
		to   *string
	}{{f.preremove, &info.Scripts.PreRemove}, {f.postinstall, &info.Scripts.PostInstall}, {f.postremove, &info.Scripts.PostRemove}} {
		text, err := scriptText(script.name)
		if err != nil {
			return nil, err
		}
		if *script.to, err = put(stage, script.name, text, 0o755); err != nil {
			return nil, err
		}
	}
	all, err := f.contents(r, arch)
	if err != nil {
		return nil, err
	}
	for _, file := range all {
		source, err := put(stage, filepath.Join("files", file.Path), file.Data, 0o600)
		if err != nil {
			return nil, err
		}
		info.Contents = append(info.Contents, &files.Content{
			Source: source, Destination: file.Path, Type: f.kinds[file.Kind],
			FileInfo: &files.ContentFileInfo{Owner: "root", Group: "root", Mode: file.Mode, MTime: r.Date, Size: int64(len(file.Data))},
		})
	}
	for _, dir := range f.dirs {
		info.Contents = append(info.Contents, &files.Content{
			Destination: dir, Type: files.TypeDir,
			FileInfo: &files.ContentFileInfo{Owner: "root", Group: "root", Mode: 0o755, MTime: r.Date},
		})
	}
	return info, nil
}

const (
	summary     = "one policy for the kernel's crypto sockets"
	description = `AF_ALG is the socket family that gives every program access to the kernel's
crypto code. afalg-policy makes everything that restricts it from one policy:
seccomp profiles, OCI specs, systemd drop-ins, AppArmor and SELinux policies,
and decides at run time for containers and, by BPF, for all processes. The
package puts nothing in force: "afalg-policy install" does.`
)

//go:embed scripts
var scripts embed.FS

// scriptText is a script of a package with what all share.
func scriptText(name string) ([]byte, error) {
	shared, err := scripts.ReadFile("scripts/shared.sh")
	if err != nil {
		return nil, err
	}
	text, err := scripts.ReadFile("scripts/" + name)
	return append(shared, text...), err
}

func put(dir, name string, data []byte, mode os.FileMode) (string, error) {
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", err
	}
	return path, os.WriteFile(path, data, mode)
}
