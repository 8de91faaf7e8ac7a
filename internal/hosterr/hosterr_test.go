package hosterr

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

func TestErrorf(t *testing.T) {
	err := Errorf("do it: %w", unix.EPERM)
	var host *Error
	if !errors.As(err, &host) || !errors.Is(err, unix.EPERM) || err.Error() != "do it: operation not permitted" {
		t.Errorf("%v", err)
	}
}
