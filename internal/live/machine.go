package live

import (
	"runtime"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/hosterr"
)

// Machine returns the GOARCH and the ABIs of the machine whose kernel runs the
// filters that it shows. A kernel takes calls by all of its ABIs, whatever a
// filter's author thought of. The error is a *hosterr.Error.
func Machine() (string, []afalg.ABI, error) {
	own, known := afalg.ABIOfGOARCH(runtime.GOARCH)
	if !known {
		return "", nil, hosterr.Errorf("verify running processes: the system calls of %s are not known", runtime.GOARCH)
	}
	return runtime.GOARCH, afalg.Machine(own.Arch), nil
}
