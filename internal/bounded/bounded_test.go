package bounded

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const limit = 1 << 20

func TestReadFile(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(at("full"), make([]byte, limit), 0o600))
	must(os.WriteFile(at("large"), make([]byte, limit+1), 0o600))
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
		{"/proc/kmsg", "it is on proc, whose files the kernel makes up: copy it to a file first"},
		{"/sys/kernel/uevent_seqnum", "it is on sysfs, whose files the kernel makes up: copy it to a file first"},
		{strings.Repeat("x", 5000), "file name too long"},
	}
	for _, tt := range tests {
		t.Run(filepath.Base(tt.path)[:min(8, len(filepath.Base(tt.path)))], func(t *testing.T) {
			src, err := inTime(t, tt.path)
			switch {
			case tt.want == "" && (err != nil || len(src) != limit):
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
		src, err = ReadFile(path, limit)
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(3 * time.Minute):
		t.Fatalf("reading %s hangs", path)
	}
	return src, err
}

// slow gives one byte at a time, and its error with the last.
type slow struct {
	text string
	err  error
}

func (s *slow) Read(p []byte) (int, error) {
	if s.text == "" {
		return 0, s.err
	}
	p[0], s.text = s.text[0], s.text[1:]
	if s.text == "" {
		return 1, s.err
	}
	return 1, nil
}

func TestReadAll(t *testing.T) {
	broken := errors.New("broken")
	for _, tt := range []struct {
		text string
		err  error
		want string
	}{
		{"", io.EOF, ""},
		{strings.Repeat("x", 1024), io.EOF, ""},
		{strings.Repeat("x", 1025), io.EOF, "larger than 1 KiB, the most that is read"},
		{strings.Repeat("x", 1024), broken, "broken"},
		{"x", broken, "broken"},
	} {
		got, err := ReadAll(&slow{tt.text, tt.err}, 1024)
		if tt.want == "" && (err != nil || string(got) != tt.text) || tt.want != "" && (err == nil || err.Error() != tt.want || got != nil) {
			t.Errorf("%d bytes and %v: %d bytes, %v; want %q", len(tt.text), tt.err, len(got), err, tt.want)
		}
	}
}

// A reader that has what it wants does not wait for the end of the stream.
func TestReaderStops(t *testing.T) {
	r, w := io.Pipe()
	go func() { _, _ = w.Write([]byte("four")) }() // and nothing after it
	got := make([]byte, 4)
	if _, err := io.ReadFull(Reader(r, 4), got); err != nil || string(got) != "four" {
		t.Errorf("%q, %v", got, err)
	}
}
