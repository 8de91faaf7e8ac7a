package source

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/afalg-policy/afalg-policy/internal/bounded"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/jsontext"
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

// expand replaces directories by the profiles in them, except those that are
// named besides.
func expand(names []string) (files []string, broken []Broken) {
	for _, name := range names {
		info, err := os.Stat(name)
		if name == Standard || err != nil || !info.IsDir() {
			files = append(files, name)
			continue
		}
		found, err := profilesIn(name)
		if err != nil {
			broken = append(broken, newBroken(name, err))
		}
		for _, file := range found {
			if !slices.Contains(names, file) && !slices.Contains(files, file) {
				files = append(files, file)
			}
		}
	}
	return files, broken
}

// profilesIn lists the profiles below a directory. Links in it are not followed;
// it may be one itself.
func profilesIn(dir string) (files []string, err error) {
	err = filepath.WalkDir(dir+string(filepath.Separator), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !d.Type().IsRegular() || !slices.Contains([]string{".json", ".yaml", ".yml"}, filepath.Ext(path)) {
			return nil
		}
		if len(files) == maxDir {
			return fmt.Errorf("more than %d profiles: name its directories", maxDir)
		}
		text, err := bounded.ReadFile(path, jsontext.Max)
		if err != nil || isProfile(text) {
			files = append(files, path) // whoever reads it meets the error again
		}
		return nil
	})
	if err == nil && len(files) == 0 {
		err = errors.New("no profile is in the directory: no file that ends in .json, .yaml or .yml has one")
	}
	return files, err
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

// Broken is a file that could not be used.
type Broken struct {
	File  string `json:"file"`
	Error string `json:"error"` // begins with the file
	Cause error  `json:"-"`
}

func newBroken(name string, err error) Broken {
	return Broken{ShownName(name), (&profile.NamedError{Name: ShownName(name), Err: err}).Error(), err}
}
