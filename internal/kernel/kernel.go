// Package kernel reports features of the running kernel: its release, the state
// of AF_ALG, whether io_uring was built in. It only reads, and makes the kernel
// load no module.
package kernel

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Version is the part of a release by which features are known.
type Version struct{ Major, Minor int }

func (v Version) String() string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }

// Compare is negative if v is older than another version, and positive if newer.
func (v Version) Compare(other Version) int {
	return cmp.Or(cmp.Compare(v.Major, other.Major), cmp.Compare(v.Minor, other.Minor))
}

// ParseRelease reads the version at the start of a release such as
// "6.12.0-rc1-amd64" or "6.1".
func ParseRelease(release string) (Version, error) {
	major, rest, ok := strings.Cut(release, ".")
	if !ok {
		return Version{}, fmt.Errorf("kernel release %q: no version at its start", release)
	}
	minor := rest[:len(rest)-len(strings.TrimLeft(rest, "0123456789"))]
	var v Version
	var err1, err2 error
	v.Major, err1 = strconv.Atoi(major)
	v.Minor, err2 = strconv.Atoi(minor)
	if err1 != nil || err2 != nil {
		return Version{}, fmt.Errorf("kernel release %q: no version at its start", release)
	}
	return v, nil
}

// Release returns the release of the running kernel, as uname -r prints it.
func Release() (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", fmt.Errorf("uname: %w", err)
	}
	return unix.ByteSliceToString(u.Release[:]), nil
}

// Require returns an error unless the running kernel is min or newer.
func Require(feature string, min Version) error {
	release, err := Release()
	if err != nil {
		return err
	}
	return require(feature, min, release)
}

func require(feature string, min Version, release string) error {
	have, err := ParseRelease(release)
	if err != nil {
		return err
	}
	if have.Compare(min) < 0 {
		return fmt.Errorf("%s: not supported by this kernel: it has been there since Linux %s, this is %s", feature, min, release)
	}
	return nil
}
