package host

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Extended attributes hold the label of a file (security.selinux), its ACL, and
// others' notes on it. A file that takes the place of another gets the same.

const (
	accessACL = "system.posix_acl_access"
	imaXattr  = "security.ima"
	evmXattr  = "security.evm"
	// imaSigned is the first byte of a signature, in place of a hash
	// (EVM_IMA_XATTR_DIGSIG of the kernel's integrity.h).
	imaSigned = 3
)

// readXattrs reads the extended attributes of a file, without the hashes of its
// content: the kernel makes new ones. A signature is an error, since nobody
// else could make it again.
func readXattrs(f *os.File) (map[string][]byte, error) {
	names, err := xattrNames(f)
	if err != nil {
		return nil, fmt.Errorf("its extended attributes: %w", err)
	}
	var found map[string][]byte
	for _, name := range names {
		value, err := grown(func(buf []byte) (int, error) { return unix.Fgetxattr(int(f.Fd()), name, buf) })
		switch {
		case errors.Is(err, unix.ENODATA): // removed meanwhile
			continue
		case err != nil:
			return nil, fmt.Errorf("its extended attribute %s: %w", name, err)
		case name == imaXattr && len(value) > 0 && value[0] == imaSigned:
			return nil, fmt.Errorf("it is signed (%s), and once it is changed it would not be: make the change by hand, and sign it", imaXattr)
		case name == imaXattr || name == evmXattr:
			continue
		}
		if found == nil {
			found = map[string][]byte{}
		}
		found[name] = value
	}
	return found, nil
}

// xattrNames is empty for a file system that has no extended attributes.
func xattrNames(f *os.File) ([]string, error) {
	list, err := grown(func(buf []byte) (int, error) { return unix.Flistxattr(int(f.Fd()), buf) })
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	return strings.FieldsFunc(string(list), func(r rune) bool { return r == 0 }), err
}

// grown calls read for a value that may become longer between two calls.
func grown(read func(buf []byte) (int, error)) ([]byte, error) {
	for {
		size, err := read(nil)
		if err != nil || size == 0 {
			return []byte{}, err
		}
		buf := make([]byte, size)
		n, err := read(buf)
		if errors.Is(err, unix.ERANGE) {
			continue
		}
		return buf[:max(n, 0)], err
	}
}

// writeXattrs gives a new file the attributes of the one whose place it takes.
// It removes those that the directory passes on to new files, except labels:
// the kernel's policy decides those.
func (t *transaction) writeXattrs(f *os.File, wanted map[string][]byte) error {
	if wanted[accessACL] == nil {
		err := unix.Fremovexattr(int(f.Fd()), accessACL)
		if err != nil && err != unix.ENODATA && err != unix.ENOTSUP {
			return fmt.Errorf("remove the ACL that the directory gave it: %w", err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		err := t.at("attribute " + name)
		if err == nil {
			err = unix.Fsetxattr(int(f.Fd()), name, wanted[name], 0)
		}
		if err != nil {
			return fmt.Errorf("keep its extended attribute %s: %w; remove it (setfattr -x), if nothing needs it", name, err)
		}
	}
	return nil
}
