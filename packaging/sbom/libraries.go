package sbom

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// Library is a library of C that is linked statically: its name, and the source
// package of Debian that it was built from.
type Library struct{ Name, Source, Version string }

// archives has for each library an archive of it, the package in which Debian has
// that, and its source package there.
var archives = []struct{ name, archive, in, source string }{
	{"libseccomp", "libseccomp.a", "libseccomp-dev", `libseccomp`},
	{"glibc", "libc.a", "libc6-dev", `glibc`},
	{"libgcc", "libgcc.a", "libgcc-dev", `gcc-\d+`},
}

// Libraries finds where the libraries of C are from that a compiler links. Where
// Debian's packages for another architecture are unpacked and not installed, root
// has them, and what is there is linked before anything else; else it is "".
func Libraries(cc, root string) ([]Library, error) {
	var all []Library
	for _, a := range archives {
		source, version, err := unpacked(root, a.archive, a.in)
		if err == nil && source == "" {
			source, version, err = installed(cc, a.archive, a.source)
		}
		if err != nil {
			return nil, fmt.Errorf("find the source of %s, which is linked: %w", a.name, err)
		}
		if !regexp.MustCompile(`^` + a.source + `$`).MatchString(source) {
			return nil, fmt.Errorf("find the source of %s, which is linked: %s is of Debian's source package %s, want %s", a.name, a.archive, source, a.source)
		}
		all = append(all, Library{a.name, source, version})
	}
	return all, nil
}

var changelogHead = regexp.MustCompile(`^([a-z0-9][a-z0-9.+-]+) \(([^ ()]+)\)`)

// unpacked reads the changelog of a package in root. Without the archive there it
// returns nothing.
func unpacked(root, archive, in string) (source, version string, err error) {
	if root == "" {
		return "", "", nil
	}
	found, err := filepath.Glob(filepath.Join(root, "usr/lib/*", archive))
	if err != nil || len(found) == 0 {
		return "", "", err
	}
	file, err := os.Open(filepath.Join(root, "usr/share/doc", in, "changelog.Debian.gz"))
	if err != nil {
		return "", "", err
	}
	defer file.Close()
	text, err := gzip.NewReader(file)
	if err != nil {
		return "", "", fmt.Errorf("%s: %w", file.Name(), err)
	}
	line, err := bufio.NewReader(text).ReadString('\n')
	if err != nil {
		return "", "", fmt.Errorf("%s: %w", file.Name(), err)
	}
	m := changelogHead.FindStringSubmatch(line)
	if m == nil {
		return "", "", fmt.Errorf("%s begins with %q, which names no version", file.Name(), line)
	}
	return m[1], m[2], nil
}

// installed asks dpkg. A package for cross-compiling names the source that it was
// built from as what it was built using.
func installed(cc, archive, want string) (source, version string, err error) {
	out, err := exec.Command(cc, "-print-file-name="+archive).Output()
	if err != nil {
		return "", "", fmt.Errorf("%s -print-file-name=%s: %w", cc, archive, err)
	}
	path, err := filepath.EvalSymlinks(strings.TrimSpace(string(out)))
	if err != nil {
		return "", "", fmt.Errorf("%s has no %s: %w", cc, archive, err)
	}
	owner, err := dpkgQuery("-S", path)
	if err != nil {
		return "", "", err
	}
	name, _, ok := strings.Cut(owner, ": ")
	if !ok {
		return "", "", fmt.Errorf("dpkg-query -S %s says %q", path, owner)
	}
	about, err := dpkgQuery("-W", "-f", "${source:Package}\n${source:Version}\n${Built-Using}\n", name)
	if err != nil {
		return "", "", err
	}
	lines := append(strings.Split(about, "\n"), "", "", "")
	if used := regexp.MustCompile(`(?:^|, )(` + want + `) \(= ([^ ()]+)\)`).FindStringSubmatch(lines[2]); used != nil {
		return used[1], used[2], nil
	}
	return lines[0], lines[1], nil
}

func dpkgQuery(args ...string) (string, error) {
	out, err := exec.Command("dpkg-query", args...).Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return "", fmt.Errorf("dpkg-query %s: %s", strings.Join(args, " "), strings.TrimSpace(string(exit.Stderr)))
	}
	return strings.TrimSuffix(string(out), "\n"), err
}
