package lsm

import (
	"errors"
	"strings"
)

// InForce returns nil if the policy decides in the kernel now, and otherwise why
// it does not. It asks less than ReadStatus: a container that starts waits for
// it.
func InForce() error {
	st, err := ReadState()
	if err != nil {
		return err
	}
	if st.Audit {
		return errors.New("the policy that is loaded only records (--audit): load it without that")
	}
	h, err := lookFor(st.Attachment)
	if err != nil {
		return err
	}
	s := &Status{State: st, Host: h}
	s.check(nil) // who else holds the programs does not matter here
	m, err := openPinned()
	if err != nil {
		return err
	}
	defer m.close()
	s.checkTable(m)
	if len(s.Faults) > 0 {
		return errors.New(strings.Join(s.Faults, "; "))
	}
	return nil
}
