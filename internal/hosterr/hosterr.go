// Package hosterr has the error of whatever the host cannot do, in any layer:
// nothing is wrong with the input, and the answer is neither yes nor no.
package hosterr

import "fmt"

// Error is something that the host cannot do, or the death of a process that
// the work depends on.
type Error struct{ err error }

func (e *Error) Error() string { return e.err.Error() }
func (e *Error) Unwrap() error { return e.err }

// Errorf makes an Error.
func Errorf(format string, args ...any) error { return &Error{fmt.Errorf(format, args...)} }
