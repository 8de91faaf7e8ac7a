package plan

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/afalg-policy/afalg-policy/internal/policy"
	"golang.org/x/sys/unix"
)

func TestReadFile(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(at("full"), make([]byte, policy.MaxSize), 0o600))
	must(os.WriteFile(at("large"), make([]byte, policy.MaxSize+1), 0o600))
	must(os.WriteFile(at("sparse"), nil, 0o600))
	must(os.Truncate(at("sparse"), 100<<20))
	must(unix.Mkfifo(at("fifo"), 0o600))
	must(os.Symlink(at("full"), at("link")))
	must(os.Symlink(at("fifo"), at("fifolink")))
	must(os.Symlink(at("loop"), at("loop")))
	socket, err := net.Listen("unix", at("socket"))
	must(err)
	defer socket.Close()

	tests := []struct{ path, want string }{
		{at("full"), ""},
		{at("link"), ""},
		{at("large"), "larger than 1024 KiB, the most that is read"},
		{at("sparse"), "larger than 1024 KiB, the most that is read"},
		{at("missing"), "no such file or directory"},
		{at("full") + "/x", "not a directory"},
		{at("loop"), "too many levels of symbolic links"},
		{at("fifo"), "it is a FIFO"},
		{at("fifolink"), "it is a FIFO"},
		{at("socket"), "it is a socket"},
		{dir, "it is a directory"},
		{"/dev/zero", "it is a device"},
		{strings.Repeat("x", 5000), "file name too long"},
	}
	for _, tt := range tests {
		t.Run(filepath.Base(tt.path)[:min(8, len(filepath.Base(tt.path)))], func(t *testing.T) {
			src, err := inTime(t, tt.path)
			switch {
			case tt.want == "" && (err != nil || len(src) != policy.MaxSize):
				t.Errorf("%d bytes, %v", len(src), err)
			case tt.want != "" && (err == nil || err.Error() != tt.want || src != nil):
				t.Errorf("%d bytes, %v, want %s", len(src), err, tt.want)
			}
		})
	}
}

// inTime fails the test if the reader hangs.
func inTime(t *testing.T, path string) (src []byte, err error) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		src, err = ReadFile(path)
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatalf("reading %s hangs", path)
	}
	return src, err
}
