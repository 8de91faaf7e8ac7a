package admit

import (
	"errors"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLogWithoutReader: no container waits for somebody who reads the log.
func TestLogWithoutReader(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if l, err := OpenLog(fifo); !errors.Is(err, unix.ENXIO) {
		t.Errorf("%v, %v", l, err)
	}
}
