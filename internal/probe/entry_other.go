//go:build !amd64

package probe

import (
	"runtime"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
)

const lowMemory = 0

// reach holds the one ABI that this build can enter, its own.
var reach = ownOnly(runtime.GOARCH)

func ownOnly(goarch string) map[string]invoke {
	own, known := afalg.ABIOfGOARCH(goarch)
	if !known {
		return nil
	}
	return map[string]invoke{own.Name: direct}
}
