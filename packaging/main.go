// Command packaging makes what a release consists of. Version and date are
// arguments, so that the same commit gives the same bytes in any place.
package main

import (
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/afalg-policy/afalg-policy/packaging/image"
	"github.com/afalg-policy/afalg-policy/packaging/program"
	"github.com/afalg-policy/afalg-policy/packaging/release"
	"github.com/afalg-policy/afalg-policy/packaging/sbom"
	"github.com/afalg-policy/afalg-policy/packaging/system"
	"github.com/afalg-policy/afalg-policy/packaging/tarball"
)

// steps make the artefacts of a release. Each one writes files into r.Out, and
// reads none that another one made.
var steps = []struct {
	name string
	make func(r *release.Release) error
}{
	{"packages", system.Make},
	{"tarballs", tarball.Make},
	{"SBOMs", sbom.Make},
	{"image", image.Make},
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "packaging: %v\n", err)
		os.Exit(1)
	}
}

type options struct {
	release.Release
	archs    string
	programs string
	// keepManual says that out/ has the manual of this tree.
	keepManual bool
	only       string
}

func run(args []string) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	// What is made has modes of its own; nothing of it depends on this.
	if err := os.MkdirAll(o.Out, 0o755); err != nil {
		return err
	}
	if there, err := os.ReadDir(o.Out); err != nil || len(there) > 0 {
		return errors.Join(err, fmt.Errorf("%s is not empty: artefacts of another version would be taken for this one's", o.Out))
	}
	programs, err := os.MkdirTemp("", "packaging")
	if err != nil {
		return err
	}
	defer os.RemoveAll(programs)
	if err := o.build(programs); err != nil {
		return err
	}
	if !o.keepManual {
		if err := program.Manual(o.Tree); err != nil {
			return err
		}
	}
	for _, step := range steps {
		if o.only != "" && o.only != step.name {
			continue
		}
		if err := step.make(&o.Release); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return checksums(o.Out)
}

func parse(args []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("packaging", flag.ContinueOnError)
	flags.StringVar(&o.Version, "version", "", "the version, as scripts/version prints it")
	flags.StringVar(&o.Tree, "tree", "..", "the repository")
	flags.StringVar(&o.Out, "o", "", "the directory for the artefacts; new, or empty")
	flags.StringVar(&o.archs, "arch", "amd64,arm64", "the architectures")
	flags.StringVar(&o.programs, "program", "", "a program that is built, for one architecture (for tests)")
	flags.StringVar(&o.only, "only", "", "one kind of artefact (for tests)")
	flags.BoolVar(&o.keepManual, "keep-manual", false, "the manual is in out/ of the tree (for tests)")
	epoch := flags.String("date", os.Getenv("SOURCE_DATE_EPOCH"), "the date of the commit, in seconds; SOURCE_DATE_EPOCH by default")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if o.Version == "" || o.Out == "" || flags.NArg() > 0 {
		return o, errors.New("give -version, -o, and no arguments")
	}
	if err := release.CheckVersion(o.Version); err != nil {
		return o, err
	}
	seconds, err := strconv.ParseInt(*epoch, 10, 64)
	if err != nil {
		return o, fmt.Errorf("-date %q: give the date of the commit in seconds, as `git log -1 --format=%%ct` prints it", *epoch)
	}
	o.Date = time.Unix(seconds, 0).UTC()
	o.Tree, err = filepath.Abs(o.Tree)
	return o, err
}

func (o *options) build(dir string) error {
	o.Programs = map[string]string{}
	for arch := range strings.SplitSeq(o.archs, ",") {
		path := o.programs
		if path == "" {
			var err error
			if path, err = program.Build(&o.Release, arch, dir); err != nil {
				return err
			}
		}
		o.Programs[arch] = path
	}
	return nil
}

// checksums lists what was made in the format of sha256sum -c.
func checksums(dir string) error {
	made, err := os.ReadDir(dir) // in the order of their names
	if err != nil {
		return err
	}
	var sums strings.Builder
	for _, f := range made {
		if f.IsDir() {
			continue // an image is checked by its own digests
		}
		data, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(data), f.Name())
	}
	return os.WriteFile(filepath.Join(dir, "SHA256SUMS"), []byte(sums.String()), 0o644)
}
