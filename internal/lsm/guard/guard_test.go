package guard

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
)

// TestLongObjects makes the objects again, by the commands of go generate, and
// compares them with those that are committed.
func TestLongObjects(t *testing.T) {
	source, err := os.ReadFile("guard.go")
	if err != nil {
		t.Fatal(err)
	}
	commands := regexp.MustCompile(`(?m)^//go:generate (go tool bpf2go) (.*)$`).FindAllSubmatch(source, -1)
	if len(commands) != 2 {
		t.Fatalf("%d commands", len(commands))
	}
	dir := t.TempDir()
	for _, c := range commands {
		args := append([]string{"tool", "bpf2go", "-output-dir", dir, "-go-package", "guard"}, strings.Fields(string(c[2]))...)
		if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s(scripts/install bpf installs the compiler)", err, out)
		}
	}
	made, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(made) != 4 {
		t.Fatalf("%v, %v", made, err)
	}
	for _, path := range made {
		name := filepath.Base(path)
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what its source gives: run make generate", name)
		}
	}
}

// TestLayouts compares the layouts of the objects with those of the maps, which
// the kernel takes the sizes from.
func TestLayouts(t *testing.T) {
	for _, load := range []func() (*ebpf.CollectionSpec, error){LoadLSM, LoadFmodRet} {
		s, err := load()
		if err != nil {
			t.Fatal(err)
		}
		table := s.Maps[LSMMapSlot].InnerMap
		for name, sizes := range map[string][2]uintptr{
			"key":      {uintptr(table.KeySize), unsafe.Sizeof(Key{})},
			"value":    {uintptr(table.ValueSize), ValueSize},
			"use":      {uintptr(s.Maps[LSMMapUses].KeySize), unsafe.Sizeof(Use{})},
			"question": {uintptr(s.Maps[LSMMapQuestions].ValueSize), unsafe.Sizeof(Question{})},
			"unit":     {unsafe.Sizeof(Key{}.Algorithm), unsafe.Sizeof(UnitName{}.Name)},
		} {
			if sizes[0] != sizes[1] {
				t.Errorf("%s: %d bytes in the kernel, %d here", name, sizes[0], sizes[1])
			}
		}
		if got := s.Maps[LSMMapQuestions].MaxEntries; got != Questions {
			t.Errorf("%d questions in the kernel, %d here", got, Questions)
		}
	}
}
