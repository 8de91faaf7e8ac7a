package main

import (
	"bytes"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/afalg-policy/afalg-policy/internal/gen"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// tree lists what is below a directory: names, kinds and contents.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		found[name] = d.Type().String()
		if d.Type().IsRegular() {
			data, err := os.ReadFile(path)
			found[name] = string(data)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestWriteFile(t *testing.T) {
	defer unix.Umask(unix.Umask(0o022))
	dir := t.TempDir()
	path := filepath.Join(dir, "out.json")
	must(t, writeFile(path, []byte("one")))
	info, err := os.Stat(path)
	must(t, err)
	if info.Mode() != 0o644 {
		t.Errorf("mode %v", info.Mode())
	}
	must(t, os.Chmod(path, 0o600))
	must(t, writeFile(path, []byte("two")))
	if info, err = os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v: an existing file keeps its own", info.Mode(), err)
	}
	if diff := cmp.Diff(map[string]string{"out.json": "two"}, tree(t, dir)); diff != "" {
		t.Error(diff)
	}
}

// A hard link shares the content of a file that is not ours to change.
func TestWriteFileLeavesHardLinks(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "theirs"), []byte("theirs"), 0o644))
	must(t, os.Link(filepath.Join(dir, "theirs"), filepath.Join(dir, "out")))
	must(t, writeFile(filepath.Join(dir, "out"), []byte("ours")))
	if diff := cmp.Diff(map[string]string{"out": "ours", "theirs": "theirs"}, tree(t, dir)); diff != "" {
		t.Error(diff)
	}
}

// odd makes one of each thing that is not a plain file.
func odd(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "target"), []byte("keep"), 0o644))
	must(t, os.Symlink("target", filepath.Join(dir, "link")))
	must(t, os.Symlink("nothing", filepath.Join(dir, "dangling")))
	must(t, os.Symlink(".", filepath.Join(dir, "dirlink")))
	must(t, os.Mkdir(filepath.Join(dir, "dir"), 0o755))
	must(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o644))
	socket, err := net.Listen("unix", filepath.Join(dir, "socket"))
	must(t, err)
	t.Cleanup(func() { socket.Close() })
	return dir
}

func TestWriteFileRefuses(t *testing.T) {
	dir := odd(t)
	before := tree(t, dir)
	tests := map[string]struct {
		path, want string
		status     int
	}{
		"link":             {dir + "/link", "output DIR/link: a symbolic link, which is not replaced; name another path", exitUsage},
		"dangling link":    {dir + "/dangling", "output DIR/dangling: a symbolic link, which is not replaced; name another path", exitUsage},
		"directory":        {dir + "/dir", "output DIR/dir: a directory, which is not replaced; name another path", exitUsage},
		"fifo":             {dir + "/fifo", "output DIR/fifo: a FIFO, which is not replaced; name another path", exitUsage},
		"socket":           {dir + "/socket", "output DIR/socket: a socket, which is not replaced; name another path", exitUsage},
		"device":           {"/dev/full", "output /dev/full: a device, which is not replaced; name another path", exitUsage},
		"no directory":     {dir + "/none/x", "write DIR/none/x: no such file or directory", exitHost},
		"below a file":     {dir + "/target/x", "write DIR/target/x: not a directory", exitHost},
		"a kernel's files": {"/proc/afalg-policy", "write /proc/afalg-policy: no such file or directory", exitHost},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := writeFile(tt.path, []byte("new"))
			checkError(t, err, dir, tt.want, tt.status)
		})
	}
	if diff := cmp.Diff(before, tree(t, dir)); diff != "" {
		t.Error(diff)
	}
}

func checkError(t *testing.T, err error, dir, want string, status int) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	got := string(bytes.ReplaceAll([]byte(err.Error()), []byte(dir), []byte("DIR")))
	if got != want || exitStatus(err) != status {
		t.Errorf("%s (status %d), want %s (status %d)", got, exitStatus(err), want, status)
	}
}

func TestWriteDirectory(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "a", "out")
	files := []gen.File{{Path: "x.conf", Data: []byte("x")}, {Path: "u.service.d/y.conf", Data: []byte("y")}}
	for range 2 {
		must(t, writeDirectory(out, files))
	}
	must(t, os.WriteFile(filepath.Join(out, "other"), []byte("stays"), 0o644))
	must(t, writeDirectory(out+"/", files))
	want := map[string]string{"u.service.d": "d---------", "u.service.d/y.conf": "y", "x.conf": "x", "other": "stays"}
	if diff := cmp.Diff(want, tree(t, out)); diff != "" {
		t.Error(diff)
	}
}

func TestWriteDirectoryRefuses(t *testing.T) {
	dir := odd(t)
	must(t, os.Symlink("/tmp", filepath.Join(dir, "dir", "away")))
	must(t, os.Symlink("../target", filepath.Join(dir, "dir", "link")))
	before := tree(t, dir)
	tests := map[string]struct {
		path   string
		file   string
		want   string
		status int
	}{
		"a link to a directory":     {dir + "/dirlink", "b", "output DIR/dirlink: a symbolic link, which is not replaced; name another path", exitUsage},
		"with a slash behind":       {dir + "/dirlink/", "b", "output DIR/dirlink: a symbolic link, which is not replaced; name another path", exitUsage},
		"a file":                    {dir + "/target", "b", "output DIR/target: a file, which is not replaced; name another path", exitUsage},
		"a device":                  {"/dev/full", "b", "output /dev/full: a device, which is not replaced; name another path", exitUsage},
		"a link inside":             {dir + "/dir", "link", "output DIR/dir/link: a symbolic link, which is not replaced; name another path", exitUsage},
		"a link that leads outside": {dir + "/dir", "away/b", "write DIR/dir/away/b: path escapes from parent", exitHost},
		"a path that leads outside": {dir + "/dir", "../b", "write DIR/b: path escapes from parent", exitHost},
		"an absolute path":          {dir + "/dir", "/tmp/b", "write DIR/dir/tmp/b: path escapes from parent", exitHost},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			// The first file must not appear when the second is refused.
			err := writeDirectory(tt.path, []gen.File{{Path: "first", Data: []byte("1")}, {Path: tt.file, Data: []byte("2")}})
			checkError(t, err, dir, tt.want, tt.status)
		})
	}
	if diff := cmp.Diff(before, tree(t, dir)); diff != "" {
		t.Error(diff)
	}
}

// fullDisk mounts a file system of 64 KiB.
func fullDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); errors.Is(err, unix.EPERM) {
		t.Skip("mounting a small disk needs CAP_SYS_ADMIN")
	} else {
		must(t, err)
	}
	t.Cleanup(func() { must(t, unix.Unmount(dir, 0)) })
	return dir
}

func TestWriteToFullDisk(t *testing.T) {
	dir := fullDisk(t)
	out := filepath.Join(dir, "out")
	must(t, writeFile(out, []byte("old")))
	want := map[string]string{"out": "old"}

	checkError(t, writeFile(out, make([]byte, 100<<10)), dir, "write DIR/out: no space left on device", exitHost)
	if diff := cmp.Diff(want, tree(t, dir)); diff != "" {
		t.Error(diff)
	}

	err := writeDirectory(dir, []gen.File{{Path: "out", Data: []byte("new")}, {Path: "large", Data: make([]byte, 100<<10)}})
	checkError(t, err, dir, "write DIR/large: no space left on device", exitHost)
	if diff := cmp.Diff(want, tree(t, dir)); diff != "" {
		t.Error(diff)
	}
}

func TestWriteToReadOnlyDisk(t *testing.T) {
	dir := fullDisk(t)
	must(t, unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	checkError(t, writeFile(filepath.Join(dir, "out"), []byte("x")), dir, "write DIR/out: read-only file system", exitHost)
	err := writeDirectory(filepath.Join(dir, "sub"), []gen.File{{Path: "out"}})
	checkError(t, err, dir, "write DIR/sub: read-only file system", exitHost)
}
