package host

import (
	"fmt"

	"github.com/afalg-policy/afalg-policy/internal/hosterr"
)

// ErrBusy means that another process installs or uninstalls.
var ErrBusy = hosterr.Errorf("another install or uninstall is at work; wait for it")

// OptionError is an option that cannot be used as it is.
type OptionError struct{ err error }

func (e *OptionError) Error() string { return e.err.Error() }
func (e *OptionError) Unwrap() error { return e.err }

// Usage makes an OptionError.
func Usage(format string, args ...any) error { return &OptionError{fmt.Errorf(format, args...)} }
