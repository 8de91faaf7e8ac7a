package decider

import (
	"math"
	"testing"
)

// A command alone has as many sessions as descriptors allow, within bounds.
func TestSessionsWith(t *testing.T) {
	for descriptors, want := range map[uint64]int{
		0: 64, 3: 64, 384: 64, 386: 65, 1024: 384, 4096: 1920, 1 << 20: 1 << 16, math.MaxUint64: 1 << 16,
	} {
		if got := sessionsWith(descriptors); got != want {
			t.Errorf("%d descriptors: %d sessions, want %d", descriptors, got, want)
		}
	}
}
