package profile

import (
	"bytes"
	"path/filepath"
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestDockerOf(t *testing.T) {
	for _, tt := range []struct {
		version, file string
		known         bool
	}{
		{"20.10.24+dfsg1", "20.10.18", true},
		{"20.10.22", "20.10.22", true},
		{"v23.0.6", "23.0.0", true},
		{"24.0.2", "23.0.0", true},
		{"24.0.9-1", "23.0.7", true},
		{"26.1.5+dfsg1", "25.0.3", true},
		{"28.5.2", "28.2.0", true},
		{"29.7.2", "29.4.3", true},
		{"29.7.3", "29.4.3", false},
		{"30.0.0", "29.4.3", false},
		{"29.0.0-rc.1", "28.2.0", false},
		{"28.5.99", "28.2.0", false},
		{"19.03.15", "20.10.0", false},
		{"", "29.4.3", false},
		{"library-import", "29.4.3", false},
		{"99999999999999999999.0.0", "29.4.3", false},
	} {
		got, known, err := DockerOf(tt.version)
		want, err2 := mobyFiles.ReadFile("moby/" + tt.file + ".json")
		if err != nil || err2 != nil || known != tt.known || !bytes.Equal(got, want) {
			t.Errorf("%q: known %v, %v, %v; want that of %s, known %v", tt.version, known, err, err2, tt.file, tt.known)
		}
	}
}

// The tables are in order, each file is used, and can be read for any machine.
func TestMobyDefaults(t *testing.T) {
	used := map[string]bool{}
	for i, d := range mobyDefaults {
		used[d.file+".json"] = true
		if i > 0 && slices.Compare(mobyDefaults[i-1].from[:], d.from[:]) >= 0 {
			t.Errorf("%v is out of order", d.from)
		}
	}
	if !slices.IsSortedFunc(mobyLast, func(a, b release) int { return slices.Compare(a[:], b[:]) }) {
		t.Error("the last releases are out of order")
	}
	files, err := mobyFiles.ReadDir("moby")
	if err != nil || len(files) != len(used) {
		t.Errorf("%d files, and %d are used: %v", len(files), len(used), err)
	}
	for _, f := range files {
		text, err := mobyFiles.ReadFile(filepath.Join("moby", f.Name()))
		if err != nil || !used[f.Name()] {
			t.Fatalf("%s: %v", f.Name(), err)
		}
		for _, arch := range []specs.Arch{specs.ArchX86_64, specs.ArchAARCH64, specs.ArchS390X} {
			conditional, err := Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			p, err := conditional.Resolve(Host{Arch: arch, Kernel: "6.1", Caps: DefaultCaps()})
			if err != nil || p.DefaultAction != specs.ActErrno || len(p.Syscalls) == 0 {
				t.Errorf("%s on %s: %v", f.Name(), arch, err)
			}
		}
	}
}
