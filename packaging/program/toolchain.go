package program

import (
	"fmt"
	"os"
	"path/filepath"
)

// Toolchain returns the compiler for an architecture, and the directory with
// Debian's unpacked packages for it; "" where those of the machine are linked.
func Toolchain(arch string) (cc, root string, err error) {
	chain, ok := toolchains[arch]
	if !ok || chain.unpacked == "" {
		if !ok {
			err = fmt.Errorf("-arch %s: want amd64 or arm64", arch)
		}
		return chain.cc, "", err
	}
	cache, err := os.UserCacheDir()
	return chain.cc, filepath.Join(cache, "afalg-policy", chain.unpacked), err
}
