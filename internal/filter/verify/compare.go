package verify

import (
	"fmt"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
)

// Compare decides whether result does the same as base for every input outside
// the exceptions, over all architectures, numbers and arguments at once. e is
// the byte order of the machine that runs both.
func Compare(base, result cbpf.Filter, e cbpf.Endian, except ...cbpf.Region) (cbpf.Difference, error) {
	d, err := cbpf.Comparison{Endian: e, Except: except}.Compare(base, result)
	if err != nil {
		return cbpf.Difference{}, fmt.Errorf("compare filters: %w", err)
	}
	return d, nil
}

// Exceptions returns the inputs that belong to a route to one of the families:
// hardening is meant to change a filter there.
func Exceptions(abis []afalg.ABI, families ...uint32) []cbpf.Region {
	var regions []cbpf.Region
	for _, abi := range abis {
		for _, family := range families {
			for _, call := range abi.Calls(family) {
				regions = append(regions, RegionOf(call))
			}
		}
	}
	return regions
}
