//go:build vm

package vmtest

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/afalg-policy/afalg-policy/internal/testing/box"
)

// imageNamed is what the image of a release is called.
const imageNamed = "ghcr.io/afalg-policy/afalg-policy:1.2.3"

// imageOfRelease makes the image of the program that make build made.
func imageOfRelease(t *testing.T) string {
	t.Helper()
	tree, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "out")
	make := exec.Command("go", "run", ".", "-tree", tree, "-version", "1.2.3", "-date", "1767225600", "-arch", "amd64",
		"-program", program(t), "-keep-manual", "-only", "image", "-o", out)
	make.Dir = filepath.Join(tree, "packaging")
	if text, err := make.CombinedOutput(); err != nil {
		t.Fatalf("make the image: %v\n%s", err, text)
	}
	return filepath.Join(out, "afalg-policy-1.2.3-image.tar")
}

// TestBoxImage loads the image of a release into podman and containerd, and runs
// it: from scratch, read-only, without any capability, and as nobody.
func TestBoxImage(t *testing.T) {
	archive, err := os.ReadFile(imageOfRelease(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Parallel()
	vm := box.Start(t)
	setUp(t, vm, boxContainers)
	vm.Output(t, "rm", installed) // what runs is the image's
	const loaded = "/srv/image.tar"
	vm.WriteFile(t, loaded, archive, 0o644)
	own, err := exec.Command(program(t), "version").Output()
	if err != nil {
		t.Fatal(err)
	}
	vm.Output(t, "systemctl", "start", "containerd")
	name := 0
	for engine, tt := range map[string]struct {
		load []string
		run  func(hard bool, args ...string) []string
	}{
		"podman": {[]string{"podman", "load", "--input", loaded}, func(hard bool, args ...string) []string {
			run := []string{"podman", "run", "--rm", "--network=none"}
			if hard {
				run = append(run, "--read-only", "--cap-drop=all", "--user=65532", "--security-opt=no-new-privileges")
			}
			return slices.Concat(run, []string{imageNamed}, args)
		}},
		"containerd": {[]string{"ctr", "image", "import", loaded}, func(hard bool, args ...string) []string {
			run := []string{"ctr", "run", "--rm", "--cpu-shares=0", "--seccomp"}
			if hard {
				run = append(run, "--read-only") // its ctr knows no user
			}
			name++
			return slices.Concat(run, []string{imageNamed, fmt.Sprint("c", name), "/afalg-policy"}, args)
		}},
	} {
		t.Run(engine, func(t *testing.T) {
			if out := vm.Output(t, tt.load...); !strings.Contains(out, imageNamed) {
				t.Errorf("loaded as %s", out)
			}
			for _, hard := range []bool{false, true} {
				if got := vm.Output(t, tt.run(hard, "version")...); got != strings.TrimSpace(string(own)) {
					t.Errorf("version says %q, want %q", got, own)
				}
				r := vm.Run(t, tt.run(hard, "probe", "--json")...)
				var report struct{ Verdict string }
				if err := json.Unmarshal(r.Stdout, &report); err != nil || report.Verdict == "" {
					t.Errorf("probe: %v\n%+v", err, r)
				}
			}
			if out := vm.Output(t, tt.run(true, "version", "--licenses")...); !strings.Contains(out, "GNU LESSER GENERAL PUBLIC LICENSE") {
				t.Errorf("the image does not print its licences: %s", out)
			}
		})
	}
	labels := vm.Output(t, "podman", "image", "inspect", "--format", "{{json .Labels}}", imageNamed)
	for _, want := range []string{`"org.opencontainers.image.version":"1.2.3"`, `"org.opencontainers.image.licenses":"Apache-2.0 AND`} {
		if !strings.Contains(labels, want) {
			t.Errorf("labels %s", labels)
		}
	}
}
