package admit

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestInTime has a decision that never comes, and takes all of a processor.
func TestInTime(t *testing.T) {
	before := mostTime
	mostTime = 100 * time.Millisecond
	t.Cleanup(func() { mostTime = before })
	var stop atomic.Bool
	defer stop.Store(true)
	_, err := inTime(func() decision {
		for !stop.Load() {
		}
		return decision{}
	})
	if err == nil || !strings.HasPrefix(err.Error(), "no decision within 100ms of processor time") {
		t.Errorf("error %v", err)
	}
}
