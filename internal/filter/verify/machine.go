package verify

import (
	"slices"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
)

// Machine returns the ABIs that a kernel for the architecture can run, whatever
// a profile admits: its own first, then those that share the machine. It is nil
// if afalg.ABIs has no architecture of that name.
func Machine(arch string) []afalg.ABI {
	all := afalg.ABIs()
	first := slices.IndexFunc(all, func(a afalg.ABI) bool { return a.Arch == arch })
	if first < 0 {
		return nil
	}
	if all[first].Kind != afalg.Native {
		return all[first : first+1] // a kernel of 32 bits runs nothing else
	}
	last := first + 1
	for last < len(all) && all[last].Kind != afalg.Native {
		last++
	}
	return all[first:last]
}

// machineOf returns the 64-bit ABI of the machine that runs an ABI.
func machineOf(arch string) (afalg.ABI, bool) {
	var native afalg.ABI
	for _, a := range afalg.ABIs() {
		if a.Kind == afalg.Native {
			native = a
		}
		if a.Arch == arch {
			return native, true
		}
	}
	return afalg.ABI{}, false
}
