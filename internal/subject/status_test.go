package subject

import (
	"os"
	"testing"
)

// A thread calls itself what it likes.
func TestNameOfThread(t *testing.T) {
	c := start(t, command("name", program, "x\nUid:\t1\t7"))
	s := newReader(t, Options{}).Look(c.tid())
	if s.UID == nil || *s.UID != uint32(os.Geteuid()) || s.PID != c.pid {
		t.Errorf("%+v", s)
	}
}
