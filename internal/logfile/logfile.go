// Package logfile opens the files that logs are written to. Whatever is logged
// goes on, whoever reads the log or does not.
package logfile

import (
	"errors"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a line waits for the reader of a FIFO.
const patience = time.Second

// File is a log. A line that cannot be written in time is an error.
type File struct{ file *os.File }

// Open opens a file to append to, and makes it with these permissions if need be.
// A FIFO that nobody reads is an error (ENXIO): opened in the usual way, it would
// hold up whatever is to be logged.
func Open(path string, perm fs.FileMode) (*File, error) {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY|unix.O_NONBLOCK, perm)
	if err != nil {
		return nil, err
	}
	return &File{f}, nil
}

// Write appends a line.
func (f *File) Write(line []byte) (int, error) {
	// Files never block, and have no deadline.
	if err := f.file.SetWriteDeadline(time.Now().Add(patience)); err != nil && !errors.Is(err, os.ErrNoDeadline) {
		return 0, err
	}
	return f.file.Write(line)
}

// Close closes the log.
func (f *File) Close() error { return f.file.Close() }
