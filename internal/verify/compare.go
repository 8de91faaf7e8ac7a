package verify

import (
	"fmt"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/bpf"
)

// Compare decides whether result does what base does for every input outside
// the exceptions, over all architectures, numbers and arguments at once. The
// byte order is that of the machine which runs both.
func Compare(base, result bpf.Filter, e bpf.Endian, except ...bpf.Region) (bpf.Difference, error) {
	d, err := bpf.Comparison{Endian: e, Except: except}.Compare(base, result)
	if err != nil {
		return bpf.Difference{}, fmt.Errorf("compare filters: %w", err)
	}
	return d, nil
}

// Exceptions returns the inputs that belong to a route to one of the
// families: where hardening a filter is meant to change it.
func Exceptions(abis []afalg.ABI, families ...uint32) []bpf.Region {
	var regions []bpf.Region
	for _, abi := range abis {
		for _, family := range families {
			for _, call := range abi.Calls(family) {
				regions = append(regions, RegionOf(call))
			}
		}
	}
	return regions
}
