package oci

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/bounded"
	"github.com/afalg-policy/afalg-policy/internal/filter/seccomp"
	"github.com/afalg-policy/afalg-policy/internal/hosterr"
)

// A runtime may be a front, as NVIDIA's is: it changes the spec, looks up runc
// in PATH, and becomes it or starts it. Where PATH has the wrapper first, the
// wrapper comes once more, for the same container. It hardens each time: what
// the front changed is proved like the rest, and nothing that anybody says of
// an earlier time has to be believed.

// passedRuntimes is an environment variable: the runtimes that the wrapper
// became on the way to here. It chooses among real runtimes, and ends loops;
// nothing else depends on it, for others may set it.
const passedRuntimes = "AFALG_POLICY_RUNTIMES"

// maxPassed bounds the way through fronts.
const maxPassed = 8

// LoopError is a runtime that leads back to the wrapper again and again.
type LoopError struct{ By []string }

func (e *LoopError) Error() string {
	return fmt.Sprintf("leads back to this wrapper, by way of %s, again and again", strings.Join(e.By, " and "))
}

// RealRuntime finds the runtime to become: the one of that path or name, or
// without it the first of crun and runc in PATH. The error is a *LoopError or a
// *hosterr.Error.
func RealRuntime(path string) (string, error) {
	passed := filepath.SplitList(os.Getenv(passedRuntimes))
	if len(passed) >= maxPassed {
		slices.Sort(passed)
		return "", &LoopError{slices.Compact(passed)}
	}
	real, err := lookRuntime(path)
	if err == nil && slices.Contains(passed, real) {
		return behindWrapper(real), nil
	}
	return real, err
}

func lookRuntime(path string) (string, error) {
	names := []string{"crun", "runc"}
	if path != "" {
		names = []string{path}
	}
	var errs []error
	for _, name := range names {
		found, err := exec.LookPath(name)
		if err == nil {
			return filepath.Abs(found)
		}
		errs = append(errs, err)
	}
	return "", hosterr.Errorf("there is no runtime: %w", errors.Join(errs...))
}

// behindWrapper is the runtime that a front meant which looked in PATH and
// found a wrapper with that front behind it. Where PATH has no wrapper first,
// it is the front again.
func behindWrapper(front string) string {
	for _, name := range []string{"runc", "crun"} {
		wrappers := 0
		for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
			found, err := exec.LookPath(filepath.Join(dir, name))
			switch {
			case err != nil || !filepath.IsAbs(found):
			case isWrapper(found):
				wrappers++
			case wrappers > 0:
				return found
			}
		}
	}
	return front
}

// maxScript bounds what is read of a program to see whether it is a wrapper.
const maxScript = 64 << 10

// isWrapper reports whether a program is a script that runs this one.
func isWrapper(path string) bool {
	program, err := os.Executable()
	if err != nil {
		return false
	}
	text, err := bounded.ReadFile(path, maxScript) // programs are larger
	return err == nil && strings.HasPrefix(string(text), "#!") && strings.Contains(string(text), filepath.Base(program))
}

// Become replaces this process by a runtime. It returns only with an error, a
// *hosterr.Error.
func Become(real string, args []string) error {
	passed := append(filepath.SplitList(os.Getenv(passedRuntimes)), real)
	if err := os.Setenv(passedRuntimes, strings.Join(passed, string(filepath.ListSeparator))); err != nil {
		return err
	}
	err := seccomp.Exec(real, append([]string{real}, args...), os.Environ())
	return hosterr.Errorf("%s: %w", real, err)
}
