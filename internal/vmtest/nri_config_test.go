//go:build vm

package vmtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestBoxNRIConfiguration shows that what "install containerd --nri" sets arrives in
// a real containerd 2.4, in the right tables, whatever was there before, and that
// uninstall brings back each byte. Containerd prints the configuration that it read;
// it is not started.
func TestBoxNRIConfiguration(t *testing.T) {
	t.Parallel()
	containerd := goPrograms(t, "github.com/containerd/containerd/v2/cmd/containerd") + "/containerd"
	for name, before := range map[string]string{
		"missing":   "",
		"empty":     "# nothing\n",
		"version 2": "version = 2\n[plugins]\n  [plugins.\"io.containerd.nri.v1.nri\"]\n    disable = true\n    plugin_request_timeout = \"2s\"\n",
		"version 3": "version = 3\n[plugins.'io.containerd.nri.v1.nri'.default_validator]\nrequired_plugins = ['theirs']\n",
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			config := filepath.Join(root, containerdConfig)
			must := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			must(os.Chmod(root, 0o755))
			for _, dir := range []string{"etc/containerd", "usr/bin", "usr/sbin", "usr/local/bin", "var/lib"} {
				must(os.MkdirAll(filepath.Join(root, dir), 0o755))
			}
			for _, p := range []string{"usr/sbin/runc", "usr/local/bin/afalg-policy"} {
				must(os.WriteFile(filepath.Join(root, p), nil, 0o755))
			}
			must(exec.Command("cp", containerd, filepath.Join(root, "usr/bin/containerd")).Run())
			if before != "" {
				must(os.WriteFile(config, []byte(before), 0o644))
			}
			run := func(args ...string) string {
				t.Helper()
				out, err := exec.Command(program(t), append(args, "--root", root)...).CombinedOutput()
				if err != nil {
					return "refused: " + string(out)
				}
				return string(out)
			}
			install := []string{"install", "containerd", "--nri", "--policy", "builtin:baseline", "--program", "/usr/local/bin/afalg-policy"}
			if out := run(install...); !strings.Contains(out, "accept with --accept required-at-boot") || strings.Contains(out, "containerd-version") {
				t.Fatalf("without a unit of the agent: %s", out)
			}
			if out := run(append(install, "--accept", "required-at-boot")...); strings.HasPrefix(out, "refused") {
				t.Fatal(out)
			}
			dump, err := exec.Command(containerd, "--config", config, "config", "dump").Output()
			must(err)
			want := []string{"disable = false", "plugin_request_timeout = '30s'", "disable_connections = false", "enable = true", "required_plugins = ['afalg-policy'"}
			_, nri, _ := strings.Cut(string(dump), "[plugins.'io.containerd.nri.v1.nri']")
			nri, _, _ = strings.Cut(nri, "[plugins.'io.containerd.runtime")
			for _, line := range want {
				if !strings.Contains(nri, line) {
					t.Errorf("%s did not arrive:\n%s", line, nri)
				}
			}
			if strings.Contains(before, "theirs") && !strings.Contains(nri, "required_plugins = ['afalg-policy', 'theirs']") {
				t.Errorf("another plugin is not required any more:\n%s", nri)
			}
			if !strings.Contains(string(dump), "BinaryName = '/usr/local/lib/afalg-policy/containerd/runc'") {
				t.Error("no wrapper stands behind it")
			}
			if out := run("uninstall", "containerd"); strings.HasPrefix(out, "refused") {
				t.Fatal(out)
			}
			after, err := os.ReadFile(config)
			if before == "" && !os.IsNotExist(err) || string(after) != before {
				t.Errorf("after uninstall: %q, %v", after, err)
			}
		})
	}
	// Debian's containerd 1.6 shows a plugin nothing.
	out, err := exec.Command(program(t), "install", "containerd", "--nri", "--dry-run", "--policy", "builtin:baseline").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "before containerd 2.3 a plugin does not see the profile") {
		t.Errorf("Debian's containerd: %v\n%s", err, out)
	}
}
