package deploy

import (
	"path/filepath"
	"testing"

	"github.com/afalg-policy/afalg-policy/internal/gen/host"
	"github.com/afalg-policy/afalg-policy/internal/hostfacts"
	"github.com/afalg-policy/afalg-policy/internal/install"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// What is generated is what package install, which knows no policy, looks for.
func TestHostPaths(t *testing.T) {
	p, _, err := plan.Load("builtin:baseline", plan.ReadNamed)
	must(t, err)
	r := newResult("install", "host", false)
	files, gaps, err := hostSettings(p, hostfacts.Facts{}, &install.Options{Version: "test"}, r)
	must(t, err)
	if len(gaps) > 0 || len(r.Notes) == 0 {
		t.Errorf("gaps %v, notes %q", gaps, r.Notes)
	}
	for _, path := range []string{host.ModprobePath, host.SysctlPath, host.UdevPath, host.ArgumentsPath} {
		if files[path] == nil {
			t.Errorf("there is no %s", path)
		}
	}
	for path, dir := range map[string]string{host.ModprobePath: "modprobe.d", host.SysctlPath: "sysctl.d"} {
		if filepath.Dir(path) != "etc/"+dir {
			t.Errorf("%s is not in %s", path, dir)
		}
	}
	if refused := hostfacts.Refused(string(files[host.ModprobePath])); len(refused) != 5 {
		t.Errorf("refused: %q", refused)
	}
	if set := hostfacts.Set(string(files[host.SysctlPath])); set["crypto.af_alg_restrict"] != "2" || len(set) != 1 {
		t.Errorf("set: %v", set)
	}
}
