// Package contents says which files packages have, and where. Owner and group are
// root's, and times the release's.
package contents

import (
	"bytes"
	"cmp"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/afalg-policy/afalg-policy/packaging/archive"
	"github.com/afalg-policy/afalg-policy/packaging/release"
)

// Kind is what a package manager has to know of a file.
type Kind int

// Of a plain file it has to know nothing. A Config file is kept if the host changed
// it. Rpm sets Licence and Doc apart.
const (
	Plain Kind = iota
	Config
	Doc
	Licence
)

// File is one file of a package.
type File struct {
	Path string // on the host, or below the directory of the tarball
	Mode fs.FileMode
	Kind Kind
	Data []byte
}

// The program, and who has a place of its own for it.
const (
	program = "afalg-policy"
	docDir  = "/usr/share/doc/" + program
	unitDir = "/usr/lib/systemd/system"
	// madeFor is where units expect the program until install, or a package,
	// sets another path.
	madeFor = "/usr/local/bin/" + program
	bin     = "/usr/bin/" + program
)

// piece is a file of the repository, or all that match.
type piece struct {
	from string // below the tree, a pattern
	to   string // a directory
	name string // the new one; "" keeps the old
	kind Kind
	unit bool // it names the program by its path
	gz   bool // Debian wants it compressed
}

// shared is what every package has.
var shared = []piece{
	{from: "out/man/*.1", to: "/usr/share/man/man1", gz: true},
	{from: "out/completions/bash", to: "/usr/share/bash-completion/completions", name: program},
	{from: "out/completions/fish", to: "/usr/share/fish/vendor_completions.d", name: program + ".fish"},
	{from: "dist/*.service", to: unitDir, unit: true},
	{from: "dist/*.socket", to: unitDir, unit: true},
	{from: "dist/*.timer", to: unitDir, unit: true},
	{from: "dist/*.conf", to: docDir + "/examples", kind: Doc},
	{from: "policies/*.schema.json", to: "/usr/share/" + program},
	{from: "packaging/contents/policy.yaml", to: "/etc/" + program, kind: Config},
	{from: "packaging/contents/logrotate", to: "/etc/logrotate.d", name: program, kind: Config},
	{from: "README.md", to: docDir, kind: Doc},
	{from: "SECURITY.md", to: docDir, kind: Doc},
	{from: "docs/*.md", to: docDir + "/docs", kind: Doc},
	{from: "docs/targets/*.md", to: docDir + "/docs/targets", kind: Doc},
}

// Deb returns the files of a Debian package.
func Deb(r *release.Release, arch string) ([]File, error) {
	changelog, err := debianChangelog(r)
	if err != nil {
		return nil, err
	}
	return collect(r, arch, append([]piece{
		{from: "out/completions/zsh", to: "/usr/share/zsh/vendor-completions", name: "_" + program},
		{from: "packaging/contents/copyright", to: docDir, kind: Licence},
		{from: "internal/licences/licences.txt", to: docDir, kind: Licence, gz: true},
		{from: "CHANGELOG.md", to: docDir, name: "changelog", kind: Doc, gz: true},
		{from: "packaging/contents/lintian-overrides", to: "/usr/share/lintian/overrides", name: program},
	}, shared...), File{docDir + "/changelog.Debian.gz", 0o644, Doc, changelog})
}

// RPM returns the files of an rpm.
func RPM(r *release.Release, arch string) ([]File, error) {
	return collect(r, arch, append([]piece{
		{from: "out/completions/zsh", to: "/usr/share/zsh/site-functions", name: "_" + program},
		{from: "LICENSE", to: "/usr/share/licenses/" + program, kind: Licence},
		{from: "internal/licences/licences.txt", to: "/usr/share/licenses/" + program, kind: Licence},
		{from: "CHANGELOG.md", to: docDir, kind: Doc},
	}, shared...))
}

// Tarball returns the files of the static tarball, below one directory. Units are
// as they are in the repository: the program is meant for /usr/local/bin.
func Tarball(r *release.Release, arch string) ([]File, error) {
	files, err := read(r.Tree, []piece{
		{from: "out/man/*.1", to: "man/man1"},
		{from: "out/completions/*", to: "completions"},
		{from: "dist/*.service", to: "systemd"},
		{from: "dist/*.socket", to: "systemd"},
		{from: "dist/*.timer", to: "systemd"},
		{from: "dist/*.conf", to: "systemd"},
		{from: "policies/*.schema.json", to: "schemas"},
		{from: "packaging/contents/policy.yaml", to: "etc"},
		{from: "packaging/contents/logrotate", to: "etc"},
		{from: "LICENSE", to: "."},
		{from: "internal/licences/licences.txt", to: "."},
		{from: "CHANGELOG.md", to: "."},
		{from: "README.md", to: "."},
		{from: "SECURITY.md", to: "."},
		{from: "docs/*.md", to: "docs"},
		{from: "docs/targets/*.md", to: "docs/targets"},
	})
	if err != nil {
		return nil, err
	}
	return withProgram(r, arch, "bin/"+program, files)
}

func collect(r *release.Release, arch string, pieces []piece, more ...File) ([]File, error) {
	files, err := read(r.Tree, pieces)
	if err != nil {
		return nil, err
	}
	return withProgram(r, arch, bin, append(files, more...))
}

func withProgram(r *release.Release, arch, at string, files []File) ([]File, error) {
	data, err := os.ReadFile(r.Programs[arch])
	return append(files, File{Path: at, Mode: 0o755, Data: data}), err
}

// read reads the files of the pieces, in the order of their names.
func read(tree string, pieces []piece) ([]File, error) {
	var files []File
	for _, p := range pieces {
		found, err := filepath.Glob(filepath.Join(tree, p.from))
		if err != nil {
			return nil, err
		}
		if len(found) == 0 {
			return nil, fmt.Errorf("%s: there is no such file in %s", p.from, tree)
		}
		for _, from := range found {
			f, err := p.read(from)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", from, err)
			}
			files = append(files, f)
		}
	}
	return files, nil
}

func (p piece) read(from string) (File, error) {
	data, err := os.ReadFile(from)
	if err != nil {
		return File{}, err
	}
	f := File{Path: path.Join(p.to, cmp.Or(p.name, filepath.Base(from))), Mode: 0o644, Kind: p.kind, Data: data}
	if p.unit {
		f.Data = bytes.ReplaceAll(data, []byte(madeFor), []byte(bin))
	}
	if p.gz {
		f.Path += ".gz"
		f.Data, err = archive.Gzip(data)
	}
	return f, err
}

// debianChangelog has one entry, which names the changelog that people read.
func debianChangelog(r *release.Release) ([]byte, error) {
	return archive.Gzip(fmt.Appendf(nil, "%s (%s) unstable; urgency=medium\n\n  * Version %s. CHANGELOG.md says what changed.\n\n -- %s  %s\n",
		program, r.DebianVersion(), r.Version, release.Maintainer, r.Date.Format("Mon, 02 Jan 2006 15:04:05 -0700")))
}
