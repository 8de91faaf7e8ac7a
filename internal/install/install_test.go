package install

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/afalg-policy/afalg-policy/internal/install/host"
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
		"new /etc/systemd/system/docker.service.d/zz-afalg-policy-runtime.conf", "changed /etc/docker/daemon.json",
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

// Other options start from the files as they were at first.
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

// Platforms on one host can be installed and removed in any order.
func TestAllPlatforms(t *testing.T) {
	_, _, o := rootFor(t, &txtar.Archive{Comment: []byte(
		"programs usr/sbin/dockerd usr/bin/podman usr/bin/containerd usr/bin/crio usr/bin/kubelet usr/bin/systemctl usr/sbin/modprobe usr/sbin/runc usr/bin/crun\n")})
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
	if _, err := Install("dockr", o); errorText(err) != `platform "dockr": there is no such platform; there are docker, podman, containerd, crio, kubernetes, agent, systemd, lsm, host` {
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

// The largest file allowed is edited; a larger one is refused.
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
	if _, err := Install("docker", o); errorText(err) != "read "+o.Root+"/etc/docker/daemon.json: larger than 16384 KiB, the most that is read" {
		t.Errorf("%v", err)
	}
}

// Others' later additions to a file are in nobody's way, and stay.
func TestLaterEdits(t *testing.T) {
	for _, tt := range []struct{ platform, file, before, edit, into, want string }{
		{"docker", daemonJSON, "{\n\t\"debug\": true\n}\n", "\"debug\": true,", "\"debug\": true,\n\t\"registry-mirrors\": [\"https://m\"],",
			"{\n\t\"debug\": true,\n\t\"registry-mirrors\": [\"https://m\"]\n}\n"},
		{"containerd", containerdConfig, "version = 2\n", "version = 2\n", "version = 2\n\n[metrics]\naddress = \"127.0.0.1:1338\"\n",
			"version = 2\n\n[metrics]\naddress = \"127.0.0.1:1338\"\n"},
		{"podman", containersDropIn, "", "[engine]\n", "[engine]\ncgroup_manager = \"cgroupfs\"\n",
			"# Written by \"afalg-policy install podman\"; \"afalg-policy uninstall podman\" takes it back.\n\n[engine]\ncgroup_manager = \"cgroupfs\"\n"},
	} {
		t.Run(tt.platform, func(t *testing.T) {
			a := &txtar.Archive{Comment: []byte("programs usr/sbin/dockerd usr/bin/podman usr/bin/containerd usr/sbin/runc usr/bin/crun\n")}
			if tt.before != "" {
				a.Files = []txtar.File{{Name: "before" + tt.file, Data: []byte(tt.before)}}
			}
			_, _, o := rootFor(t, a)
			_, err := Install(tt.platform, o)
			must(t, err)
			installed := readText(t, o.Root+tt.file)
			now := strings.Replace(installed, tt.edit, tt.into, 1)
			if now == installed {
				t.Fatalf("%q is not in\n%s", tt.edit, installed)
			}
			must(t, os.WriteFile(o.Root+tt.file, []byte(now), 0o644))
			answer(t, o.Root, tt.platform, Yes)
			must(t, os.Chmod(o.Root+tt.file, 0o666)) // others can take the keys out
			answer(t, o.Root, tt.platform, Changed)
			must(t, os.Chmod(o.Root+tt.file, 0o644))

			// The same options, or others, change nothing of it.
			o.OnAgentDown = "deny"
			_, err = Install(tt.platform, o)
			must(t, err)
			answer(t, o.Root, tt.platform, Yes)
			_, err = Uninstall(tt.platform, o.Root, false)
			must(t, err)
			if diff := cmp.Diff(tt.want, readText(t, o.Root+tt.file)); diff != "" {
				t.Error(diff)
			}
			for _, p := range []string{libDir, seccompDir, host.RecordPath(tt.platform)} {
				if _, err := os.Lstat(o.Root + p); err == nil {
					t.Errorf("%s is left", p)
				}
			}
		})
	}
}

func readText(t *testing.T, p string) string {
	t.Helper()
	text, err := os.ReadFile(p)
	must(t, err)
	return string(text)
}

func answer(t *testing.T, root, platform string, want Answer) {
	t.Helper()
	h, err := host.Open(root)
	must(t, err)
	defer h.Close()
	r, err := h.ReadRecord(platform)
	must(t, err)
	if got, err := installed(h, r); err != nil || got != want {
		t.Errorf("%s, %v; want %s", got, err, want)
	}
}
