package install

import (
	"maps"
	"testing"
)

// What a record saves of the options is read back.
func TestRecordedOptions(t *testing.T) {
	o := Options{
		Root: "/", Policy: "/p", Program: "/q", RuntimePath: "/r", Agent: "/a", OnAgentDown: "deny", Socketcall: "keep", DecisionLog: "/l", BasePath: "/b",
		KubeletRoot: "/k", Grants: []string{"one", "two"}, Accept: []string{"three"}, Except: []string{"four"}, Audit: true, NRI: true,
	}
	for _, one := range []Options{{}, o} {
		saved := one.saved()
		if got := recorded(saved).saved(); !maps.Equal(got, saved) {
			t.Errorf("%v is read back as %v", saved, got)
		}
	}
	if len(o.saved()) != 14 {
		t.Errorf("the sample saves %d options", len(o.saved()))
	}
}
