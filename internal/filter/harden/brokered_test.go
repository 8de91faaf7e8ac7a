package harden

import (
	"slices"
	"testing"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
)

// Profiles leave to the broker the calls that it answers, and no others.
func TestTrappedCallsAreBrokered(t *testing.T) {
	var trapped []string
	for _, c := range trappedCalls {
		trapped = append(trapped, c.name)
	}
	for _, c := range afalg.BrokeredCalls() {
		if slices.Contains(trapped, c.Name) == c.Makes {
			t.Errorf("%s makes a socket: %v; it is trapped besides: %v", c.Name, c.Makes, !c.Makes)
		}
		if !slices.Contains(socketcallBrokered, c.Socketcall) || slices.Contains(socketcallFamilies, c.Socketcall) != c.Makes {
			t.Errorf("%s is call %d of socketcall: %v, %v", c.Name, c.Socketcall, socketcallBrokered, socketcallFamilies)
		}
	}
	if len(socketcallBrokered) != len(afalg.BrokeredCalls()) || slices.Max(socketcallBrokered) >= socketcallLimit {
		t.Errorf("calls of socketcall %v", socketcallBrokered)
	}
}
