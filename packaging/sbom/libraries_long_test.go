package sbom

import (
	"slices"
	"testing"

	"github.com/afalg-policy/afalg-policy/packaging/program"
)

// What is released for each architecture is linked with the same sources: those
// that come with the release.
func TestLongLibraries(t *testing.T) {
	native, err := linked()
	if err != nil {
		t.Fatal(err)
	}
	cc, root, err := program.Toolchain("arm64")
	if err != nil {
		t.Fatal(err)
	}
	other, err := Libraries(cc, root)
	if err != nil {
		t.Fatalf("%v: run scripts/install packages", err)
	}
	isFree := func(l Library) bool { return l.Name == "libgcc" } // whose source need not come with it
	if a, b := slices.DeleteFunc(slices.Clone(native), isFree), slices.DeleteFunc(other, isFree); !slices.Equal(a, b) {
		t.Errorf("amd64 is linked with %v, arm64 with %v: apt upgrade this machine, or remove %s and run scripts/install packages", a, b, root)
	}
}
