package install

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
)

// dockerRoot is a root with Docker and a daemon.json.
func dockerRoot(t *testing.T) Options {
	t.Helper()
	_, _, o := rootFor(t, &txtar.Archive{
		Comment: []byte("programs usr/sbin/dockerd usr/sbin/runc usr/bin/crun\n"),
		Files:   []txtar.File{{Name: "before/etc/docker/daemon.json", Data: []byte("{\n\t\"debug\": true\n}\n")}},
	})
	return o
}

func TestDryRun(t *testing.T) {
	o := dockerRoot(t)
	before := snapshot(t, o.Root)
	o.DryRun = true
	r, err := Install("docker", o)
	must(t, err)
	equal(t, "a dry run", before, snapshot(t, o.Root))
	var what []string
	for _, c := range r.Changes {
		what = append(what, c.What+" "+strings.TrimPrefix(c.Path, o.Root))
	}
	if diff := cmp.Diff([]string{
		"new /etc/afalg-policy/seccomp/docker.json", "new /usr/local/lib/afalg-policy/docker/runc",
		"new /etc/systemd/system/docker.service.d/zz-afalg-policy.conf", "changed /etc/docker/daemon.json",
	}, what); diff != "" {
		t.Error(diff)
	}
	want := "--- ROOT/etc/docker/daemon.json\n+++ ROOT/etc/docker/daemon.json\n@@ -1,3 +1,10 @@\n {\n-\t\"debug\": true\n+\t\"debug\": true,\n" +
		"+\t\"runtimes\": {\n+\t\t\"afalg-policy\": {\n+\t\t\t\"path\": \"/usr/local/lib/afalg-policy/docker/runc\"\n+\t\t}\n+\t},\n" +
		"+\t\"default-runtime\": \"afalg-policy\",\n+\t\"seccomp-profile\": \"/etc/afalg-policy/seccomp/docker.json\"\n }\n"
	if diff := cmp.Diff(want, strings.ReplaceAll(r.Changes[3].Diff, o.Root, "ROOT")); diff != "" {
		t.Error(diff)
	}

	o.DryRun = false
	_, err = Install("docker", o)
	must(t, err)
	installed := snapshot(t, o.Root)
	r, err = Uninstall("docker", o.Root, true)
	must(t, err)
	equal(t, "a dry run of uninstall", installed, snapshot(t, o.Root))
	if len(r.Changes) != 4 || r.Changes[0].What != "restored" || r.Changes[3].What != "removed" {
		t.Errorf("%v", r.Changes)
	}
}

// With other options, all is computed from what was there at first.
func TestOtherOptions(t *testing.T) {
	o := dockerRoot(t)
	before := snapshot(t, o.Root)
	_, err := Install("docker", o)
	must(t, err)
	first := without(snapshot(t, o.Root))

	other := o
	other.RuntimePath, other.OnAgentDown = "/usr/bin/crun", "deny"
	r, err := Install("docker", other)
	must(t, err)
	if len(r.Changes) != 1 || r.Changes[0].Path != o.Root+dockerWrapper || r.Changes[0].What != "changed" {
		t.Errorf("%v", r.Changes)
	}
	_, err = Install("docker", o)
	must(t, err)
	equal(t, "the first options again", first, without(snapshot(t, o.Root)))
	_, err = Uninstall("docker", o.Root, false)
	must(t, err)
	equal(t, "uninstalled", before, snapshot(t, o.Root))
}

// Between the two modes of podman, files come and go.
func TestPodmanModes(t *testing.T) {
	_, _, o := rootFor(t, &txtar.Archive{Comment: []byte("programs usr/bin/podman usr/bin/crun\n")})
	before := snapshot(t, o.Root)
	for _, o.Precreate = range []bool{false, true, false, true} {
		_, err := Install("podman", o)
		must(t, err)
		_, hook := os.Stat(o.Root + precreateHooks + "/zz-afalg-policy-precreate.json")
		_, wrapper := os.Stat(o.Root + podmanWrappers)
		if (hook == nil) != o.Precreate || (wrapper == nil) == o.Precreate {
			t.Errorf("precreate %v: hook %v, wrappers %v", o.Precreate, hook, wrapper)
		}
	}
	_, err := Uninstall("podman", o.Root, false)
	must(t, err)
	equal(t, "uninstalled", before, snapshot(t, o.Root))
}

// All platforms on one host do not get into each other's way, in any order.
func TestAllPlatforms(t *testing.T) {
	_, _, o := rootFor(t, &txtar.Archive{Comment: []byte(
		"programs usr/sbin/dockerd usr/bin/podman usr/bin/containerd usr/bin/crio usr/bin/systemctl usr/sbin/runc usr/bin/crun\n")})
	before := snapshot(t, o.Root)
	names := Platforms()
	for i := range names {
		paths := map[string]string{}
		for _, name := range names {
			r, err := Install(name, o)
			must(t, err)
			for _, c := range r.Changes {
				if owner := paths[c.Path]; owner != "" {
					t.Errorf("%s is written by %s and by %s", c.Path, owner, name)
				}
				paths[c.Path] = name
			}
		}
		for j := range names {
			_, err := Uninstall(names[(i+j)%len(names)], o.Root, false)
			must(t, err)
		}
		equal(t, fmt.Sprintf("uninstalled, %s first", names[i]), before, snapshot(t, o.Root))
	}
}

func TestNames(t *testing.T) {
	o := dockerRoot(t)
	before := snapshot(t, o.Root)
	if _, err := Install("dockr", o); errorText(err) != `platform "dockr": there is no such platform; there are docker, podman, containerd, crio, systemd` {
		t.Errorf("%v", err)
	}
	if _, err := Uninstall("docker", o.Root, false); errorText(err) != "docker is not installed: there is no "+o.Root+"/var/lib/afalg-policy/installed/docker.json" {
		t.Errorf("%v", err)
	}
	o.Root = filepath.Join(o.Root, "none")
	if _, err := Install("docker", o); errorText(err) != "root "+o.Root+": no such file or directory" {
		t.Errorf("%v", err)
	}
	equal(t, "after mistakes", before, snapshot(t, filepath.Dir(o.Root)))
}

// A file that is as large as may be is edited; a larger one is refused.
func TestHugeFile(t *testing.T) {
	o := dockerRoot(t)
	frame := `{"labels": [""]}`
	fill := strings.Repeat("x", 16<<20-len(frame)-1000)
	write(t, o.Root, "etc/docker/daemon.json", strings.Replace(frame, `""`, `"`+fill+`"`, 1), 0o644)
	before := snapshot(t, o.Root)
	_, err := Install("docker", o)
	must(t, err)
	_, err = Uninstall("docker", o.Root, false)
	must(t, err)
	if diff := cmp.Diff(before, snapshot(t, o.Root)); diff != "" {
		t.Error("the file is another one after uninstall")
	}
	write(t, o.Root, "etc/docker/daemon.json", strings.Replace(frame, `""`, `"`+fill+fill[:2000]+`"`, 1), 0o644)
	if _, err := Install("docker", o); errorText(err) != "read "+o.Root+"/etc/docker/daemon.json: larger than 16 MiB, the most that is read" {
		t.Errorf("%v", err)
	}
}
