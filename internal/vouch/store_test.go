package vouch

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const nobody = 65534

func chmod(t *testing.T, path string, mode uint32) {
	t.Helper()
	if err := unix.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func try(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestStore asks who else could have written a file. These tests run as root.
func TestStore(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(t *testing.T, root string)
		want  string
	}{
		{"as it should be", func(t *testing.T, root string) {}, ""},
		{"the file is another's", func(t *testing.T, root string) { try(t, os.Chown(root+"/a/b/f", nobody, -1)) }, "belongs to user 65534"},
		{"the file is the group's to write", func(t *testing.T, root string) { chmod(t, root+"/a/b/f", 0o620) }, "others can write there (mode 0620)"},
		{"the file is anybody's to write", func(t *testing.T, root string) { chmod(t, root+"/a/b/f", 0o602) }, "others can write there"},
		{"the directory is another's", func(t *testing.T, root string) { try(t, os.Chown(root+"/a/b", nobody, -1)) }, "belongs to user"},
		{"the directory above is another's", func(t *testing.T, root string) { try(t, os.Chown(root+"/a", nobody, -1)) }, "belongs to user"},
		{"the directory is anybody's to write", func(t *testing.T, root string) { chmod(t, root+"/a", 0o777) }, "others can write there"},
		{"the directory is sticky", func(t *testing.T, root string) { chmod(t, root+"/a", 0o1777) }, "others can write there"},
		{"the root is sticky", func(t *testing.T, root string) { chmod(t, root, 0o1777) }, "others can write there"},
		{"the root is another's", func(t *testing.T, root string) { try(t, os.Chown(root, nobody, -1)) }, "belongs to user"},
		{"above the root anybody writes", func(t *testing.T, root string) { chmod(t, filepath.Dir(root), 0o777) }, "others can write there"},
		{"above the root is another's", func(t *testing.T, root string) { try(t, os.Chown(filepath.Dir(root), nobody, -1)) }, "belongs to user"},
		{"above the root it is sticky", func(t *testing.T, root string) { chmod(t, filepath.Dir(root), 0o1777) }, ""},
		{"the file is a link", func(t *testing.T, root string) {
			try(t, os.Rename(root+"/a/b/f", root+"/a/b/g"))
			try(t, os.Symlink("g", root+"/a/b/f"))
		}, "a symbolic link; it is not followed"},
		{"the directory is a link", func(t *testing.T, root string) {
			try(t, os.Rename(root+"/a/b", root+"/a/c"))
			try(t, os.Symlink("c", root+"/a/b"))
		}, "not a directory"},
		{"the root is a link to a good one", func(t *testing.T, root string) {
			try(t, os.Rename(root, root+"x"))
			try(t, os.Symlink(root+"x", root))
		}, ""},
		{"the file is a FIFO", func(t *testing.T, root string) {
			try(t, os.Remove(root+"/a/b/f"))
			try(t, unix.Mkfifo(root+"/a/b/f", 0o600))
		}, "not a regular file"},
		{"the file is a directory", func(t *testing.T, root string) {
			try(t, os.Remove(root+"/a/b/f"))
			try(t, os.Mkdir(root+"/a/b/f", 0o700))
		}, "not a regular file"},
		{"the file is too large", func(t *testing.T, root string) { put(t, root+"/a/b/f", "123456789") }, "9 bytes; at most 8 are read"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := filepath.Join(t.TempDir(), "above", "root")
			put(t, root+"/a/b/f", "12345678")
			tt.spoil(t, root)
			got, err := readFrom(root)
			switch {
			case tt.want == "" && (err != nil || string(got) != "12345678"):
				t.Errorf("%q, %v", got, err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

func readFrom(root string) ([]byte, error) {
	st, err := openStore(root)
	if err != nil {
		return nil, err
	}
	defer st.close()
	return st.read(8, "a", "b", "f")
}

// Elements of a path come from files and from callers.
func TestStoreElements(t *testing.T) {
	root := t.TempDir()
	put(t, root+"/a/f", "x")
	st, err := openStore(root + "/a")
	if err != nil {
		t.Fatal(err)
	}
	defer st.close()
	for _, elem := range []string{"", ".", "..", "../a", "a/f", "/etc", "a\x00"} {
		if err := st.dir(elem); err == nil || !strings.Contains(err.Error(), "no name of a file") {
			t.Errorf("directory %q: %v", elem, err)
		}
		if _, err := st.read(8, elem); err == nil || !strings.Contains(err.Error(), "no name of a file") {
			t.Errorf("file %q: %v", elem, err)
		}
	}
	if _, err := st.read(8, "missing"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is missing: %v", err)
	}
}

// No descriptor is left open, whatever goes wrong.
func TestStoreDescriptors(t *testing.T) {
	dir := unpack(t, "podman")
	count := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		try(t, err)
		return len(list)
	}
	good, bad := source(t, dir, "podman", "", "web"), source(t, dir, "podman", podmanRf, "web")
	before := count()
	for range 20 {
		if _, err := Container(good); err != nil {
			t.Fatal(err)
		}
		if _, err := Container(bad); err == nil {
			t.Fatal("no error")
		}
		if _, err := readFrom("/tmp"); err == nil {
			t.Fatal("no error")
		}
	}
	if after := count(); after != before {
		t.Errorf("%d descriptors, and %d before", after, before)
	}
}
