package host

import (
	"errors"
	"fmt"
)

// ErrBusy means that another process installs or uninstalls.
var ErrBusy error = &HostError{errors.New("another install or uninstall is at work; wait for it")}

// HostError is something that the host cannot do.
type HostError struct{ err error }

func (e *HostError) Error() string { return e.err.Error() }
func (e *HostError) Unwrap() error { return e.err }

// Unable makes a HostError.
func Unable(format string, args ...any) error { return &HostError{fmt.Errorf(format, args...)} }

// OptionError is an option that cannot be used as it is.
type OptionError struct{ err error }

func (e *OptionError) Error() string { return e.err.Error() }
func (e *OptionError) Unwrap() error { return e.err }

// Usage makes an OptionError.
func Usage(format string, args ...any) error { return &OptionError{fmt.Errorf(format, args...)} }
