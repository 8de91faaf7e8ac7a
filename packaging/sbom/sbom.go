// Package sbom writes what a built program consists of, as SPDX 2.3.
package sbom

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spdx/tools-golang/spdx/v2/common"
	spdx "github.com/spdx/tools-golang/spdx/v2/v2_3"

	"github.com/afalg-policy/afalg-policy/internal/licences"
)

const homepage = "https://github.com/afalg-policy/afalg-policy"

// Subject is a program, and what it does not say of itself.
type Subject struct {
	Program   string // its path
	Arch      string // as Go names it
	Version   string
	Date      time.Time // of the commit
	Libraries []Library
}

// Text returns the document of a program. The modules and their checksums are
// those that Go's linker wrote into it. The same program has the same document.
func Text(s Subject) ([]byte, error) {
	program, err := os.ReadFile(s.Program)
	if err != nil {
		return nil, err
	}
	info, err := buildinfo.Read(bytes.NewReader(program))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.Program, err)
	}
	if arch := setting(info, "GOARCH"); arch != s.Arch {
		return nil, fmt.Errorf("describe %s: it is for %s, not for %s", s.Program, arch, s.Arch)
	}
	if s.Version == "" || s.Date.IsZero() {
		return nil, fmt.Errorf("describe %s: its version or date is not known", s.Program)
	}
	d := &document{version: s.Version}
	d.Document = spdx.Document{
		SPDXVersion: spdx.Version, DataLicense: spdx.DataLicense, SPDXIdentifier: "DOCUMENT",
		DocumentName: fmt.Sprintf("afalg-policy-%s-linux-%s", s.Version, s.Arch),
		CreationInfo: &spdx.CreationInfo{
			Creators: []common.Creator{{CreatorType: "Tool", Creator: "afalg-policy-packaging-" + s.Version}},
			Created:  s.Date.UTC().Format(time.RFC3339),
		},
	}
	if err := d.parts(info, s.Libraries, program); err != nil {
		return nil, fmt.Errorf("describe %s: %w", s.Program, err)
	}
	return d.text()
}

type document struct {
	spdx.Document
	version string
}

// parts adds the program and everything that is linked into it.
func (d *document) parts(info *debug.BuildInfo, libraries []Library, program []byte) error {
	digest := sha256.Sum256(program)
	own, err := d.add(licences.Own, info.Main.Path, d.version, "pkg:golang/"+info.Main.Path+"@"+d.version)
	if err != nil {
		return err
	}
	own.PackageName, own.PackageFileName, own.PrimaryPackagePurpose = "afalg-policy", "afalg-policy", "APPLICATION"
	own.PackageHomePage, own.PackageDownloadLocation = homepage, "git+"+homepage
	own.PackageChecksums = []common.Checksum{{Algorithm: common.SHA256, Value: hex.EncodeToString(digest[:])}}
	d.relate("DOCUMENT", "DESCRIBES", own)

	toolchain, err := d.add(licences.Toolchain, "Go", strings.TrimPrefix(info.GoVersion, "go"), "pkg:golang/stdlib@"+strings.TrimPrefix(info.GoVersion, "go"))
	if err != nil {
		return err
	}
	toolchain.PackageSummary = "Go's standard library and runtime"
	d.relate(own.PackageSPDXIdentifier, "STATIC_LINK", toolchain)

	for _, m := range info.Deps {
		if m.Replace != nil {
			return fmt.Errorf("the module %s was replaced by %s: nobody could get that", m.Path, m.Replace.Path)
		}
		p, err := d.add(licences.Module, m.Path, m.Version, "pkg:golang/"+m.Path+"@"+m.Version)
		if err != nil {
			return err
		}
		if p.PackageChecksums, err = checksum(m.Sum); err != nil {
			return fmt.Errorf("the module %s: %w", m.Path, err)
		}
		p.PackageComment = "The checksum is that of go.sum (" + m.Sum + "), of the files of the module, in hexadecimal."
		p.PackageDownloadLocation = "https://proxy.golang.org/" + escape(m.Path) + "/@v/" + escape(m.Version) + ".zip"
		d.relate(own.PackageSPDXIdentifier, "STATIC_LINK", p)
	}
	known := map[string]Library{}
	for _, l := range libraries {
		known[l.Name] = l
	}
	for _, c := range licences.Components() {
		l := known[c.Name]
		switch {
		case c.Kind == licences.Library && l.Version == "":
			return fmt.Errorf("%s is linked, and its version is not known", c.Name)
		case c.Kind == licences.Library:
			p, err := d.add(c.Kind, c.Name, l.Version, fmt.Sprintf("pkg:deb/debian/%s@%s?arch=source", l.Source, strings.ReplaceAll(l.Version, "+", "%2B")))
			if err != nil {
				return err
			}
			p.PackageSourceInfo = "built by Debian from its source package " + l.Source
			d.relate(own.PackageSPDXIdentifier, "STATIC_LINK", p)
		case c.Kind == licences.Copied:
			p, err := d.add(c.Kind, c.Name, "", "")
			if err != nil {
				return err
			}
			d.relate(own.PackageSPDXIdentifier, "CONTAINS", p)
		}
	}
	return nil
}

var notInID = regexp.MustCompile(`[^a-zA-Z0-9.-]+`)

// add adds a package. One whose licence nobody looked up is an error.
func (d *document) add(kind licences.Kind, name, version, purl string) (*spdx.Package, error) {
	c, ok := licences.Of(kind, name)
	if !ok {
		return nil, fmt.Errorf("%s is linked into the program, and internal/licences does not have it", name)
	}
	p := &spdx.Package{
		PackageName: name, PackageVersion: version,
		PackageSPDXIdentifier:   common.ElementID("Package-" + notInID.ReplaceAllString(name, "-")),
		PackageDownloadLocation: "NOASSERTION", IsFilesAnalyzedTagPresent: true, PrimaryPackagePurpose: "LIBRARY",
		PackageLicenseConcluded: c.Licence, PackageLicenseDeclared: c.Licence, PackageCopyrightText: "NOASSERTION",
	}
	if purl != "" {
		p.PackageExternalReferences = []*spdx.PackageExternalReference{{Category: common.CategoryPackageManager, RefType: common.TypePackageManagerPURL, Locator: purl}}
	}
	d.Packages = append(d.Packages, p)
	return p, nil
}

func (d *document) relate(from common.ElementID, how string, to *spdx.Package) {
	d.Relationships = append(d.Relationships, &spdx.Relationship{
		RefA: common.DocElementID{ElementRefID: from}, Relationship: how, RefB: common.DocElementID{ElementRefID: to.PackageSPDXIdentifier},
	})
}

// text gives the document a name that nothing else has: one of its content.
func (d *document) text() ([]byte, error) {
	unnamed, err := json.Marshal(d.Document)
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256(unnamed)
	d.DocumentNamespace = fmt.Sprintf("%s/spdx/%s-%x", homepage, d.DocumentName, digest[:16])
	text, err := json.MarshalIndent(d.Document, "", "  ")
	return append(text, '\n'), err
}

// checksum turns one of go.sum into one of SPDX: both are SHA-256.
func checksum(sum string) ([]common.Checksum, error) {
	encoded, ok := strings.CutPrefix(sum, "h1:")
	digest, err := base64.StdEncoding.DecodeString(encoded)
	if !ok || err != nil || len(digest) != sha256.Size {
		return nil, fmt.Errorf("its checksum is %q, want h1: and 32 bytes", sum)
	}
	return []common.Checksum{{Algorithm: common.SHA256, Value: hex.EncodeToString(digest)}}, nil
}

// escape writes capitals as the module proxy does.
func escape(s string) string {
	return regexp.MustCompile(`[A-Z]`).ReplaceAllStringFunc(s, func(c string) string { return "!" + strings.ToLower(c) })
}

func setting(info *debug.BuildInfo, key string) string {
	for _, s := range info.Settings {
		if s.Key == key {
			return s.Value
		}
	}
	return ""
}
