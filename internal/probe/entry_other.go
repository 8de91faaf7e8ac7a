//go:build !amd64

package probe

import "runtime"

const lowMemory = 0

// reach holds the one ABI that this build can enter, its own.
var reach = ownOnly(machines[runtime.GOARCH])

func ownOnly(abis []string) map[string]invoke {
	if len(abis) == 0 {
		return nil
	}
	return map[string]invoke{abis[0]: direct}
}
