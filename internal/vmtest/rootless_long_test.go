//go:build vm

package vmtest

import (
	"slices"
	"strings"
	"testing"
)

const userHome = "/srv/user"

// ofUser has an ordinary user call a platform's tool.
func ofUser(e engine) engine {
	user := []string{"setpriv", "--reuid=1234", "--regid=1234", "--clear-groups",
		"env", "--chdir=" + userHome, "HOME=" + userHome, "XDG_RUNTIME_DIR=" + userHome + "/run"}
	as := func(args []string) []string { return slices.Concat(user, args) }
	run, exec := e.run, e.exec
	e.load, e.remove = as(e.load), as(e.remove)
	e.run = func(c workload) []string {
		c.options = append(slices.Clone(c.options), "--cgroups=disabled") // the user has none
		return as(run(c))
	}
	e.exec = func(name string, args ...string) []string { return as(exec(name, args...)) }
	return e
}

// TestLongRootless has an ordinary user start containers on a host where root
// has installed the policy: it holds for his, and grants them nothing.
func TestLongRootless(t *testing.T) {
	all := engines()
	podman := all[slices.IndexFunc(all, func(e engine) bool { return e.name == "podman" })]
	files := buildPlatforms(t, []engine{podman})
	t.Parallel()
	vm := bootPlatforms(t, podman.kernel)
	vm.Output(t, "sh", "-ec", "mkdir "+userHome+" && mount -t tmpfs -o uid=1234,gid=1234,mode=700 user "+userHome+
		"\ninstall -d -o 1234 -g 1234 "+userHome+"/run\ninstall -m 644 \"$0\" /srv/images.tar", files.archive)
	p := newPlatformTest(t, ofUser(podman), vm, files)
	p.begin(t, "/srv/images.tar")
	p.says(t, workload{name: "free"}, inContainer, p.saidFree(t))
	p.installAll(t)
	p.says(t, workload{name: "ordinary"}, inContainer, p.said(t, false))
	p.sleeping(t, workload{name: "inside"})
	p.expectExec(t, "as it is", p.exec("inside"), inContainer, p.said(t, false))
	p.discard(t, "inside")
	// Where the user's Podman writes down a name, the user could write another.
	p.says(t, workload{name: "granted"}, inContainer, p.said(t, false))
	r := p.try(t, vm, workload{name: "mighty", options: []string{"--privileged"}, args: []string{"echo", "up"}})
	if r.Exit == 0 || len(r.Stdout) > 0 || !strings.Contains(string(r.Stderr), "the container has no seccomp profile") {
		t.Errorf("privileged: exit status %d, and it says %q\n%s", r.Exit, r.Stdout, r.Stderr)
	}
}
