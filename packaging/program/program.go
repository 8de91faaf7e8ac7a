// Package program builds the static program, and renders its manual.
package program

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"github.com/afalg-policy/afalg-policy/packaging/release"
)

// toolchain is what builds for one architecture.
type toolchain struct {
	cc string
	// unpacked is the folder of the cache that has the libraries of C; "" where the
	// machine's own is used.
	unpacked, pkgConfig string
}

// The machine that makes releases is amd64. scripts/install packages fills the
// cache.
var toolchains = map[string]toolchain{
	"amd64": {cc: "gcc"},
	"arm64": {cc: "aarch64-linux-gnu-gcc", unpacked: "arm64/libraries", pkgConfig: "usr/lib/aarch64-linux-gnu/pkgconfig"},
}

// Build builds the program for an architecture into dir, and returns its path.
func Build(r *release.Release, arch, dir string) (string, error) {
	chain, ok := toolchains[arch]
	if !ok {
		return "", fmt.Errorf("-arch %s: want amd64 or arm64", arch)
	}
	if runtime.GOARCH != "amd64" {
		return "", errors.New("releases are made on amd64: this machine has no compiler that is known to make the same bytes")
	}
	_, root, err := Toolchain(arch)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(filepath.Join(root, chain.pkgConfig)); err != nil && root != "" {
		return "", fmt.Errorf("%w: run scripts/install packages", err)
	}
	path := filepath.Join(dir, "afalg-policy-"+arch)
	// No id of a build, no state of a work tree and no path of a host stands in the
	// program: whoever builds this commit elsewhere gets the same one.
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-tags", tags,
		"-ldflags", "-s -w -buildid= -X main.version="+r.Version+" -linkmode external -extldflags '-static -Wl,--build-id=none"+chain.linkFrom(root)+"'",
		"-o", path, "./cmd/afalg-policy")
	build.Dir = r.Tree
	build.Env = chain.environment(arch)
	if chain.unpacked != "" {
		// Go's cache does not see what pkg-config says: a path in that would stay there
		// when the directory is another one, and is given to the compiler and to the
		// linker instead. It stands in no program.
		build.Env = append(build.Env, "PKG_CONFIG_LIBDIR="+filepath.Join(root, chain.pkgConfig), "C_INCLUDE_PATH="+filepath.Join(root, "usr/include"))
	}
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build for %s: %w\n%s", arch, err, out)
	}
	return path, nil
}

const tags = "netgo,osusergo"

// environment has what a build depends on, whatever the caller's has.
func (c toolchain) environment(arch string) []string {
	return append(os.Environ(), "GOOS=linux", "GOARCH="+arch, "CC="+c.cc, "CGO_ENABLED=1",
		"GOFLAGS=-trimpath", "GOAMD64=v1", "GOARM64=v8.0", "GOEXPERIMENT=", "GOWORK=off",
		"CGO_CFLAGS=-O2 -g", "CGO_CPPFLAGS=", "CGO_LDFLAGS=-O2 -g -static", "LC_ALL=C", "TZ=UTC")
}

// linkFrom has the linker take the unpacked libraries before any others.
func (c toolchain) linkFrom(root string) string {
	if root == "" {
		return ""
	}
	return " -L" + filepath.Join(root, filepath.Dir(c.pkgConfig))
}

// Manual renders manual pages and completions into out/ of the tree, as "make man"
// does. It is built as the program for this machine is, most of which Go's cache has
// by then.
func Manual(tree string) error {
	cmd := exec.Command("go", "test", "-count=1", "-vet=off", "-tags", tags, "./cmd/afalg-policy", "-run", "^TestManual$", "-update")
	cmd.Dir = tree
	cmd.Env = toolchains["amd64"].environment("amd64")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make man: %w\n%s", err, out)
	}
	return nil
}
