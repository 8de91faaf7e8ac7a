package output

import (
	"bytes"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/gen"
	"github.com/afalg-policy/afalg-policy/internal/testing/hosttest"
)

var (
	must = hosttest.Must
	tree = hosttest.Tree
)

func TestWriteFile(t *testing.T) {
	defer unix.Umask(unix.Umask(0o022))
	dir := t.TempDir()
	path := filepath.Join(dir, "out.json")
	must(t, File(path, []byte("one")))
	info, err := os.Stat(path)
	must(t, err)
	if info.Mode() != 0o644 {
		t.Errorf("mode %v", info.Mode())
	}
	must(t, os.Chmod(path, 0o600))
	must(t, File(path, []byte("two")))
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
	must(t, File(filepath.Join(dir, "out"), []byte("ours")))
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
		kind       bool // whether it is a *KindError
	}{
		"link":             {dir + "/link", "output DIR/link: a symbolic link, which is not replaced", true},
		"dangling link":    {dir + "/dangling", "output DIR/dangling: a symbolic link, which is not replaced", true},
		"directory":        {dir + "/dir", "output DIR/dir: a directory, which is not replaced", true},
		"slash behind":     {dir + "/dir/", "output DIR/dir/: a directory, where a file is meant", false},
		"fifo":             {dir + "/fifo", "output DIR/fifo: a FIFO, which is not replaced", true},
		"socket":           {dir + "/socket", "output DIR/socket: a socket, which is not replaced", true},
		"device":           {"/dev/full", "output /dev/full: a device, which is not replaced", true},
		"no directory":     {dir + "/none/x", "write DIR/none/x: no such file or directory", false},
		"below a file":     {dir + "/target/x", "write DIR/target/x: not a directory", false},
		"a kernel's files": {"/proc/afalg-policy", "write /proc/afalg-policy: no such file or directory", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := File(tt.path, []byte("new"))
			checkError(t, err, dir, tt.want, tt.kind)
		})
	}
	if diff := cmp.Diff(before, tree(t, dir)); diff != "" {
		t.Error(diff)
	}
}

func checkError(t *testing.T, err error, dir, want string, kind bool) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	got := string(bytes.ReplaceAll([]byte(err.Error()), []byte(dir), []byte("DIR")))
	var refused *KindError
	if got != want || errors.As(err, &refused) != kind {
		t.Errorf("%s, want %s; of a kind that is refused: %t, want %t", got, want, !kind, kind)
	}
}

func TestWriteDirectory(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "a", "out")
	files := []gen.File{{Path: "x.conf", Data: []byte("x")}, {Path: "u.service.d/y.conf", Data: []byte("y")}}
	for range 2 {
		must(t, Directory(out, files))
	}
	must(t, os.WriteFile(filepath.Join(out, "other"), []byte("stays"), 0o644))
	must(t, Directory(out+"/", files))
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
		path string
		file string
		want string
		kind bool // whether it is a *KindError
	}{
		"a link to a directory":     {dir + "/dirlink", "b", "output DIR/dirlink: a symbolic link, which is not replaced", true},
		"with a slash behind":       {dir + "/dirlink/", "b", "output DIR/dirlink: a symbolic link, which is not replaced", true},
		"a file":                    {dir + "/target", "b", "output DIR/target: a file, which is not replaced", true},
		"a device":                  {"/dev/full", "b", "output /dev/full: a device, which is not replaced", true},
		"a link inside":             {dir + "/dir", "link", "output DIR/dir/link: a symbolic link, which is not replaced", true},
		"a link that leads outside": {dir + "/dir", "away/b", "write DIR/dir/away/b: path escapes from parent", false},
		"a path that leads outside": {dir + "/dir", "../b", "write DIR/b: path escapes from parent", false},
		"an absolute path":          {dir + "/dir", "/tmp/b", "write DIR/dir/tmp/b: path escapes from parent", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			// The first file must not appear when the second is refused.
			err := Directory(tt.path, []gen.File{{Path: "first", Data: []byte("1")}, {Path: tt.file, Data: []byte("2")}})
			checkError(t, err, dir, tt.want, tt.kind)
		})
	}
	if diff := cmp.Diff(before, tree(t, dir)); diff != "" {
		t.Error(diff)
	}
}

func TestWriteToFullDisk(t *testing.T) {
	dir := hosttest.SmallDisk(t, "64k")
	out := filepath.Join(dir, "out")
	must(t, File(out, []byte("old")))
	want := map[string]string{"out": "old"}

	checkError(t, File(out, make([]byte, 100<<10)), dir, "write DIR/out: no space left on device", false)
	if diff := cmp.Diff(want, tree(t, dir)); diff != "" {
		t.Error(diff)
	}

	err := Directory(dir, []gen.File{{Path: "out", Data: []byte("new")}, {Path: "large", Data: make([]byte, 100<<10)}})
	checkError(t, err, dir, "write DIR/large: no space left on device", false)
	if diff := cmp.Diff(want, tree(t, dir)); diff != "" {
		t.Error(diff)
	}
}

func TestWriteToReadOnlyDisk(t *testing.T) {
	dir := hosttest.SmallDisk(t, "64k")
	must(t, unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	checkError(t, File(filepath.Join(dir, "out"), []byte("x")), dir, "write DIR/out: read-only file system", false)
	err := Directory(filepath.Join(dir, "sub"), []gen.File{{Path: "out"}})
	checkError(t, err, dir, "write DIR/sub: read-only file system", false)
}
