package host

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/hosterr"
)

// conf is the file of the fixture that has extended attributes.
func conf(dir string) string { return filepath.Join(dir, "etc/app/conf") }

// An attribute that cannot be kept stops the installation, and nothing is
// changed.
func TestXattrsThatCannotBeKept(t *testing.T) {
	for _, cause := range []error{unix.EPERM, unix.ENOTSUP, unix.ENOSPC} {
		for name := range confXattrs {
			dir := fixture(t)
			before := snapshot(t, dir)
			err := put(dir, wantedOnce, func(step string) error {
				if step == "attribute "+name {
					return cause
				}
				return nil
			})
			var host *hosterr.Error
			if want := "keep its extended attribute " + name + ": " + cause.Error(); !errors.As(err, &host) || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %s", err, want)
			}
			equal(t, name, before, snapshot(t, dir))
		}
	}
}

// An overlay whose upper layer knows no attributes shows one that it cannot
// hold.
func TestXattrsOfAnotherFileSystem(t *testing.T) {
	lower, upper, dir := fixture(t), t.TempDir(), t.TempDir()
	mount := func(source, target, kind, data string) {
		t.Helper()
		must(t, unix.Mount(source, target, kind, 0, data))
		t.Cleanup(func() { must(t, unix.Unmount(target, 0)) })
	}
	mount("ramfs", upper, "ramfs", "mode=755")
	for _, name := range []string{"upper", "work"} {
		must(t, os.Mkdir(filepath.Join(upper, name), 0o755))
	}
	mount("overlay", dir, "overlay", "lowerdir="+lower+",upperdir="+upper+"/upper,workdir="+upper+"/work")
	before := snapshot(t, dir)
	err := put(dir, wantedOnce, nil)
	if err == nil || !strings.Contains(err.Error(), "keep its extended attribute") || !strings.Contains(err.Error(), "not supported") {
		t.Errorf("%v", err)
	}
	equal(t, "an overlay without attributes", before, snapshot(t, dir))
}

// A relabelled file does not count as changed: it can be restored, with its
// first label.
func TestRelabelled(t *testing.T) {
	dir := fixture(t)
	before := snapshot(t, dir)
	must(t, put(dir, wantedOnce, nil))
	label := []byte("system_u:object_r:etc_t:s0\x00")
	must(t, unix.Setxattr(conf(dir), "security.selinux", label, 0))
	must(t, unix.Setxattr(filepath.Join(dir, "usr/local/lib/afalg-policy/x/runc"), "security.selinux", label, 0))
	relabelled := snapshot(t, dir)
	must(t, put(dir, wantedOnce, nil))
	equal(t, "the same again", relabelled, snapshot(t, dir))
	must(t, put(dir, wantedAgain, nil))
	if got := snapshot(t, dir)["etc/app/conf"]; !strings.Contains(got, "3\n") || strings.Contains(got, "container_config_t") {
		t.Errorf("other content has not the label of now: %s", got)
	}
	must(t, put(dir, nil, nil))
	equal(t, "uninstalled", before, snapshot(t, dir))
}

// An ACL that a directory passes on to new files does not reach a replaced
// file.
func TestInheritedACL(t *testing.T) {
	dir := fixture(t)
	must(t, unix.Setxattr(filepath.Join(dir, "etc/app"), "system.posix_acl_default", []byte(confXattrs[accessACL]), 0))
	before := snapshot(t, dir)
	must(t, put(dir, wantedOnce, nil))
	if got := snapshot(t, dir)["etc/app/script"]; strings.Contains(got, accessACL) {
		t.Errorf("a file got an ACL: %s", got)
	}
	must(t, put(dir, nil, nil))
	equal(t, "uninstalled", before, snapshot(t, dir))
}

// The kernel makes hashes of content again; it cannot make signatures.
func TestSigned(t *testing.T) {
	for value, want := range map[string]string{"\x01hash": "", "\x04\x04hash": "", "\x03\x02signature": "it is signed (security.ima)"} {
		dir := fixture(t)
		if err := unix.Setxattr(conf(dir), imaXattr, []byte(value), 0); err != nil {
			t.Fatalf("security.ima, which this test needs: %v", err)
		}
		before := snapshot(t, dir)
		err := put(dir, wantedOnce, nil)
		switch {
		case want == "":
			must(t, err)
			if got := snapshot(t, dir)["etc/app/conf"]; strings.Contains(got, imaXattr) {
				t.Errorf("the hash of another content: %s", got)
			}
		case err == nil || !strings.Contains(err.Error(), want):
			t.Errorf("%v, want %s", err, want)
		default:
			equal(t, "signed", before, snapshot(t, dir))
		}
	}
}
