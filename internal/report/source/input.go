package source

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/bounded"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/jsontext"
	"github.com/afalg-policy/afalg-policy/internal/kube"
)

// Standard is a name in the place of a file: standard input, or output.
const Standard = "-"

// maxDir bounds the profiles in directories; there are not so many.
const maxDir = 10_000

// ReadNamed reads a file that a command line names, of up to limit bytes;
// Standard is stdin.
func ReadNamed(stdin io.Reader, name string, limit int64) ([]byte, error) {
	if name != Standard {
		return bounded.ReadFile(name, limit)
	}
	return bounded.ReadAll(stdin, limit)
}

// ShownName is how a report calls a file.
func ShownName(name string) string {
	switch name {
	case Standard:
		return "standard input"
	case "": // as of a variable that is not set
		return `""`
	}
	return name
}

// expand replaces directories by the profiles and manifests in them, except those
// that are named besides.
func (r *Reader) expand(names []string, looked *Looked) (files []file, broken []Broken) {
	known := map[string]bool{}
	for _, name := range names {
		known[name] = true
	}
	for _, name := range names {
		info, err := os.Stat(name)
		if name == Standard || err != nil || !info.IsDir() {
			files = append(files, file{name: name})
			looked.Files++
			continue
		}
		found, err := r.in(name, looked)
		if err != nil {
			broken = append(broken, newBroken(name, err))
		}
		for _, path := range found {
			if !known[path] {
				known[path] = true
				files = append(files, file{path, name})
			}
		}
	}
	return files, broken
}

// file is one to read, and the directory in which it was found; "" if it was named.
type file struct{ name, dir string }

func count(files []file, dir string) (n int) {
	for _, f := range files {
		if f.dir == dir {
			n++
		}
	}
	return n
}

// errNoFile is that of a directory in which there is nothing to verify: nothing was
// proved by that.
var errNoFile = errors.New("no profile and no pod is in the directory: no file that ends in .json, .yaml or .yml has one")

// in lists the profiles and the manifests below a directory. Links in it are not
// followed; it may be one itself.
func (r *Reader) in(dir string, looked *Looked) (files []string, err error) {
	err = filepath.WalkDir(dir+string(filepath.Separator), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && d.Name() == ".git" {
			return fs.SkipDir
		}
		if r.excludes(path) {
			looked.Excluded++
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() || !slices.Contains([]string{".json", ".yaml", ".yml"}, filepath.Ext(path)) {
			return nil
		}
		if len(files) == maxDir {
			return fmt.Errorf("more than %d profiles and manifests: name its directories", maxDir)
		}
		looked.Files++
		text, err := bounded.ReadFile(path, jsontext.Max)
		if err != nil || isProfile(text) || isManifest(text) {
			files = append(files, path) // whoever reads it meets the error again
		} else {
			looked.PassedOver++
		}
		return nil
	})
	if err == nil && len(files) == 0 {
		err = errNoFile
	}
	return files, err
}

func (r *Reader) excludes(path string) bool {
	return slices.ContainsFunc(r.Exclude, func(pattern string) bool { return Matches(pattern, path) })
}

// Matches reports whether a path fits a pattern: its name does, unless there is a
// slash in the pattern.
func Matches(pattern, file string) bool {
	if file == "" {
		return false
	}
	name := path.Clean(file)
	if !strings.Contains(pattern, "/") {
		name = path.Base(name)
	}
	ok, err := path.Match(path.Clean(pattern), name)
	return ok && err == nil
}

// isProfile reports whether a file in a directory is meant to be a profile. One
// that is broken is meant to be one as well.
func isProfile(text []byte) bool {
	for _, word := range []string{"SCMP_ACT_", `"defaultAction"`, "SeccompProfile"} {
		if bytes.Contains(text, []byte(word)) {
			return true
		}
	}
	return bytes.Contains(text, []byte(`"ociVersion"`)) && bytes.Contains(text, []byte(`"process"`))
}

// isManifest reports whether a text is meant to be a manifest that says something of
// containers: broken, as a template, or in UTF-16 as well. Keys may be written with escapes;
// then it is what is read.
func isManifest(text []byte) bool {
	plain := bytes.ReplaceAll(text, []byte{0}, nil)
	has := func(words ...string) bool {
		return slices.ContainsFunc(words, func(word string) bool { return bytes.Contains(plain, []byte(word)) })
	}
	if has("apiVersion") && has("kind") && has("ontainers", "eccompProfile", "ProfileBinding") {
		return true
	}
	if !has(`\u`, `\U`, `\x`) {
		return false
	}
	m, err := kube.Read(text)
	return err == nil && len(m.Workloads)+len(m.Bindings) > 0
}

// addManifest adds the pods of a text, and what is to be said of its objects.
func (in *Input) addManifest(file string, m *kube.Manifest) {
	for _, w := range m.Workloads {
		in.Pods = append(in.Pods, Pod{File: file, Workload: w})
	}
	in.addFindings(file, lintManifest(m))
	in.Looked.Objects += len(m.Others) - m.Profiles()
}

// Broken is a file that could not be used.
type Broken struct {
	File  string `json:"file"`
	Error string `json:"error"` // begins with the file
	Cause error  `json:"-"`
}

func newBroken(name string, err error) Broken {
	return Broken{ShownName(name), (&profile.NamedError{Name: ShownName(name), Err: err}).Error(), err}
}
