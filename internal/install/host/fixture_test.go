package host

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/testing/hosttest"
)

var (
	must     = hosttest.Must
	snapshot = hosttest.Snapshot
	without  = hosttest.Without
	equal    = hosttest.Equal
	write    = hosttest.Write
	smallFS  = hosttest.SmallDisk
)

// fixture is a root with some files.
func fixture(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	must(t, os.Chmod(dir, 0o755))
	fill(t, dir)
	return dir
}

func fill(t *testing.T, dir string) {
	t.Helper()
	write(t, dir, "etc/app/conf", "one\ntwo\nthree\n", 0o640)
	write(t, dir, "etc/app/script", "#!/bin/sh\n", 0o700)
	write(t, dir, "etc/other", "other\n", 0o644)
	must(t, os.MkdirAll(filepath.Join(dir, "var/lib"), 0o755))
	must(t, os.Chown(filepath.Join(dir, "etc/app/conf"), 0, 34))
	for name, value := range confXattrs {
		must(t, unix.Setxattr(filepath.Join(dir, "etc/app/conf"), name, []byte(value), 0))
	}
}

// confXattrs are the attributes of etc/app/conf: a label, a note, and an ACL
// (linux/posix_acl_xattr.h) by which user 1000 may read it. shownXattrs is how
// a snapshot shows them.
var (
	confXattrs = map[string]string{
		"security.selinux": "system_u:object_r:container_config_t:s0\x00",
		"user.note":        "kept",
		accessACL: "\x02\x00\x00\x00" +
			"\x01\x00\x06\x00\xff\xff\xff\xff" + // the owner: rw
			"\x02\x00\x04\x00\xe8\x03\x00\x00" + // user 1000: r
			"\x04\x00\x04\x00\xff\xff\xff\xff" + // the group: r
			"\x10\x00\x04\x00\xff\xff\xff\xff" + // at most: r
			"\x20\x00\x00\x00\xff\xff\xff\xff", // others: nothing
	}
	shownXattrs = fmt.Sprintf(",security.selinux=%x,%s=%x,user.note=%x",
		confXattrs["security.selinux"], accessACL, confXattrs[accessACL], confXattrs["user.note"])
)

// wantedOnce and wantedAgain are the files that a platform might want, with
// other options the second time.
var (
	wantedOnce = []File{
		{Path: "/usr/local/lib/afalg-policy/x/runc", Mode: Script, Data: []byte("#!/bin/sh\nexec true\n")},
		{Path: "/etc/app/script", Mode: Script, Data: []byte("#!/bin/sh\nexec true\n")},
		{Path: "/etc/made/here/new.conf", Mode: Plain, Data: []byte("new\n")},
		{Path: "/etc/wants/unit", Link: "/etc/unit"},
		{Path: "/etc/app/conf", Mode: Plain, Data: []byte("one\n2\nthree\n")},
	}
	wantedAgain = []File{
		{Path: "/usr/local/lib/afalg-policy/y/crun", Mode: Script, Data: []byte("#!/bin/sh\nexec false\n")},
		{Path: "/etc/made/here/new.conf", Mode: Plain, Data: []byte("newer\n")},
		{Path: "/etc/wants/unit", Link: "/etc/unit2"},
		{Path: "/etc/app/conf", Mode: Plain, Data: []byte("one\n2\n3\n")},
	}
)

// put installs files as if they were docker's; nil uninstalls.
func put(dir string, files []File, at func(string) error) error {
	h, err := Open(dir)
	if err != nil {
		return err
	}
	defer h.Close()
	unlock, err := h.Lock()
	if err != nil {
		return err
	}
	defer unlock()
	if at != nil {
		h.at = at
	}
	old, err := h.ReadRecord("docker")
	if err != nil {
		return err
	}
	if old == nil && files == nil {
		return nil
	}
	var next *Record
	if files != nil {
		next = NewRecord("docker", "test", nil)
	}
	c, err := h.Plan(old, files, next)
	if err != nil {
		return err
	}
	return c.Apply()
}
