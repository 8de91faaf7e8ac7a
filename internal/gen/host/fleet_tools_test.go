package host

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/afalg-policy/afalg-policy/internal/gen"
)

// cloudInitChecks is what cloud-init's own checker says of user data.
func cloudInitChecks(t *testing.T, data []byte) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	modules := filepath.Join(cache, "afalg-policy/unpacked/cloud-init/usr/lib/python3/dist-packages")
	if _, err := os.Stat(modules); err != nil {
		t.Fatalf("%v: run scripts/install test", err)
	}
	file := filepath.Join(t.TempDir(), "user-data")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	check := exec.Command("/usr/bin/python3", "-m", "cloudinit.cmd.main", "schema", "--config-file", file)
	check.Env = append(os.Environ(), "PYTHONPATH="+modules)
	out, _ := check.CombinedOutput() // which says what is wrong
	return strings.ReplaceAll(string(out), file, "FILE")
}

// cloud-init takes its form, and would not take one with a key that it lacks.
func TestFleetCloudInit(t *testing.T) {
	var data []byte
	for _, name := range []string{"whole host", "yaml"} {
		data = fleetOutput(t, "cloud-init", fleetInputs(t)[name])[0].Data
		if got := cloudInitChecks(t, data); got != "Valid cloud-config: FILE\n" {
			t.Errorf("%s\n%s", got, data)
		}
	}
	wrong := bytes.Replace(data, []byte("  permissions:"), []byte("  mode:"), 1)
	if got := cloudInitChecks(t, wrong); !strings.Contains(got, "'mode' was unexpected") {
		t.Errorf("a key that cloud-init lacks: %s", got)
	}
}

// Ansible takes the role, and would not take one with a task that it lacks.
func TestFleetAnsibleSyntax(t *testing.T) {
	role := fleetOutput(t, "ansible", fleetInputs(t)["jinja"])
	if out, err := ansibleChecks(t, role); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	for i, f := range role {
		if f.Path == "afalg_policy/tasks/main.yml" {
			role[i].Data = bytes.Replace(f.Data, []byte("ansible.builtin.copy"), []byte("ansible.builtin.cp"), 1)
		}
	}
	if out, err := ansibleChecks(t, role); err == nil {
		t.Errorf("a task that Ansible lacks is taken:\n%s", out)
	}
}

func ansibleChecks(t *testing.T, role []gen.File) (string, error) {
	t.Helper()
	dir := t.TempDir()
	for _, f := range append(role, gen.File{Path: "play.yml", Data: []byte("- hosts: localhost\n  roles: [afalg_policy]\n")}) {
		path := filepath.Join(dir, f.Path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	check := exec.Command("ansible-playbook", "--syntax-check", "-i", "localhost,", "play.yml")
	check.Dir = dir
	check.Env = append(os.Environ(), "ANSIBLE_ROLES_PATH="+dir, "ANSIBLE_HOME="+dir, "ANSIBLE_LOCAL_TEMP="+dir)
	out, err := check.CombinedOutput()
	return string(out), err
}
