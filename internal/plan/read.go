package plan

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/afalg-policy/afalg-policy/internal/policy"
	"golang.org/x/sys/unix"
)

// ReadFile returns the text of a policy file.
func ReadFile(path string) ([]byte, error) { return ReadRegular(path, policy.MaxSize) }

func tooLarge(limit int64) error {
	return fmt.Errorf("larger than %d KiB, the most that is read", limit>>10)
}

// ReadRegular returns the content of a regular file of up to limit bytes, a
// whole number of KiB. It never blocks on anything else. Errors do not repeat
// the path.
func ReadRegular(path string, limit int64) ([]byte, error) {
	// Asked before the open, because opening a device can act on it.
	info, err := os.Stat(path)
	if err != nil {
		return nil, reason(err)
	}
	if err := regular(info); err != nil {
		return nil, err
	}
	// Without O_NONBLOCK, a FIFO that took the file's place would block.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, reason(err)
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return nil, reason(err)
	}
	if err := regular(info); err != nil {
		return nil, err
	}
	src, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, reason(err)
	}
	if int64(len(src)) > limit {
		return nil, tooLarge(limit)
	}
	return src, nil
}

func regular(info fs.FileInfo) error {
	mode := info.Mode()
	switch {
	case mode.IsRegular():
		return nil
	case mode.IsDir():
		return errors.New("it is a directory")
	case mode&fs.ModeNamedPipe != 0:
		return errors.New("it is a FIFO")
	case mode&fs.ModeSocket != 0:
		return errors.New("it is a socket")
	default:
		return errors.New("it is a device")
	}
}

// reason drops the path, which the caller shows as the user wrote it.
func reason(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
