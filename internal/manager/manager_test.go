package manager

import (
	"errors"
	"strings"
	"testing"

	"github.com/afalg-policy/afalg-policy/internal/hosterr"
)

func TestManager(t *testing.T) {
	if err := Manager("").Tell("READY=1"); err != nil {
		t.Error(err)
	}
	if err := Manager(t.TempDir() + "/none").Tell("READY=1"); err == nil || !strings.Contains(err.Error(), "tell the service manager at /") {
		t.Error(err)
	}
	t.Setenv("NOTIFY_SOCKET", "vsock:2:1")
	if _, _, err := Find(); err == nil || !strings.HasPrefix(err.Error(), `NOTIFY_SOCKET is "vsock:2:1"`) {
		t.Error(err)
	}
	t.Setenv("WATCHDOG_USEC", "x")
	var host *hosterr.Error
	if _, _, err := Find(); !errors.As(err, &host) {
		t.Error(err)
	}
	if !strings.HasPrefix(Monotonic(), "MONOTONIC_USEC=") || Monotonic() == "MONOTONIC_USEC=0" {
		t.Error(Monotonic())
	}
}
