package install

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
)

// These tests have the real podman, crun and runc use the files: the files of
// the root lie over those of this host. The program is a script that acts as
// wrapper and hooks, but changes no spec, so that only the default profile
// closes anything.

// noMkdir stands for a hardened profile: a container notices it.
const noMkdir = `{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]}`

const podmanProgram = `#!/bin/sh
echo "$1 $2" >>CALLS
if [ "$1" = hook ]; then exec cat; fi
while [ "$1" != -- ]; do
	if [ "$1" = --runtime-path ]; then runtime=$2; fi
	shift
done
shift
exec "$runtime" "$@"
`

const overHost = `
for d in etc usr/local; do mount -t overlay -o "lowerdir=$1/$d:/$d" overlay "/$d" || exit 99; done
umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup || exit 99 # crun takes no other
shift
exec "$@"
`

// podmanHost is a host on which podman is installed.
type podmanHost struct {
	dir, storage, calls string
}

func newPodmanHost(t *testing.T, settings string, before ...txtar.File) *podmanHost {
	t.Helper()
	dir, _, o := rootFor(t, &txtar.Archive{
		Comment: []byte("programs usr/bin/podman usr/bin/crun usr/sbin/runc\n" + settings), Files: before,
	})
	o.Harden = func([]byte) ([]byte, error) { return []byte(noMkdir), nil }
	_, err := Install("podman", o)
	must(t, err)
	write(t, dir, "usr/local/bin/afalg-policy", strings.Replace(podmanProgram, "CALLS", dir+"/calls", 1), 0o755)
	busybox, err := os.ReadFile("/bin/busybox")
	must(t, err)
	write(t, dir, "rootfs/busybox", string(busybox), 0o755)
	write(t, dir, "build/busybox", string(busybox), 0o755)
	storage, err := os.MkdirTemp("/tmp", "podman") // up to 50 characters
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(storage)) })
	return &podmanHost{dir, storage, filepath.Join(dir, "calls")}
}

// podman runs with those arguments. It returns the output, the calls of the
// program, and whether it succeeded.
func (h *podmanHost) podman(t *testing.T, args ...string) (text, calls string, ok bool) {
	t.Helper()
	must(t, os.WriteFile(h.calls, nil, 0o644))
	args = append([]string{"--mount", "sh", "-c", overHost, "sh", h.dir, "podman", "--root", h.storage + "/storage",
		"--runroot", h.storage + "/run", "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"}, args...)
	cmd := exec.Command("unshare", args...)
	cmd.Env = here()
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() == 99 {
		t.Fatalf("%s", out)
	}
	called, readErr := os.ReadFile(h.calls)
	must(t, readErr)
	return string(out), string(called), err == nil
}

// limits are those that a container-like host may set.
var limits = []string{"--ulimit", "nofile=1024:1024", "--ulimit", "nproc=512:512"}

func (h *podmanHost) run(t *testing.T, command string, flags ...string) (text, calls string, ok bool) {
	t.Helper()
	args := append([]string{"run", "--rm", "--network=none", "--cgroups=disabled"}, limits...)
	args = append(append(args, flags...), "--rootfs", h.dir+"/rootfs", "/busybox")
	return h.podman(t, append(args, strings.Fields(command)...)...)
}

func (h *podmanHost) build(t *testing.T, command string, flags ...string) (text, calls string, ok bool) {
	t.Helper()
	file := "FROM scratch\nCOPY busybox /busybox\nRUN [\"/busybox\", \"" + strings.Join(strings.Fields(command), `", "`) + "\"]\n"
	must(t, os.WriteFile(h.dir+"/build/Containerfile", []byte(file), 0o644))
	args := append([]string{"build", "--network=host"}, limits...) // chroot has no other
	return h.podman(t, append(append(args, flags...), h.dir+"/build")...)
}

// Run, build, and a build without a runtime use the hardened profile by
// default. The policy decides about a privileged container: podman gives it no
// profile, unless an administrator set one.
func TestPodmanReadsProfile(t *testing.T) {
	set := txtar.File{Name: "before/etc/containers/containers.conf", Data: []byte("[containers]\nseccomp_profile = \"/etc/containers/own.json\"\n")}
	own := txtar.File{Name: "before/etc/containers/own.json", Data: []byte("{}")}
	for name, tt := range map[string]struct {
		before     []txtar.File
		profile    string
		privileged bool // closed too
	}{
		"none":           {nil, containersSeccomp, false},
		"the admin's":    {[]txtar.File{{Name: "before" + containersSeccomp, Data: []byte("{}")}}, containersSeccomp, false},
		"set by setting": {[]txtar.File{set, own}, profilePath("podman"), true},
	} {
		t.Run(name, func(t *testing.T) {
			h := newPodmanHost(t, "", tt.before...)
			const closed = "mkdir: can't create directory '/x': Operation not supported"
			expect := func(what string, wantClosed bool, wantCalls string, text, calls string, ok bool) {
				t.Helper()
				if strings.Contains(text, closed) != wantClosed || ok == wantClosed {
					t.Errorf("%s: closed should be %v\n%s", what, wantClosed, text)
				}
				if !strings.Contains(calls, wantCalls) {
					t.Errorf("%s: called was %q, want %q", what, calls, wantCalls)
				}
			}
			check := func(what string, wantClosed bool, wantCalls string) func(text, calls string, ok bool) {
				return func(text, calls string, ok bool) { t.Helper(); expect(what, wantClosed, wantCalls, text, calls, ok) }
			}
			if text, _, ok := h.podman(t, "info", "--format", "{{.Host.Security.SECCOMPProfilePath}}"); !ok || !strings.HasSuffix(strings.TrimSpace(text), tt.profile) {
				t.Errorf("podman info: %s, want %s", text, tt.profile)
			}
			check("run", true, "runtime --platform\n")(h.run(t, "mkdir /x"))
			check("build", true, "hook createRuntime\n")(h.build(t, "mkdir /x", "--runtime=runc"))
			// buildah loses what the command says in a chroot, now and then.
			text, calls, ok := h.build(t, "mkdir /x", "--isolation=chroot")
			for try := 1; try < 10 && !ok && !strings.Contains(text, "mkdir: "); try++ {
				text, calls, ok = h.build(t, "mkdir /x", "--isolation=chroot")
			}
			expect("build --isolation=chroot", true, "", text, calls, ok)
			check("run --privileged", tt.privileged, "runtime --platform\n")(h.run(t, "mkdir /x", "--privileged"))
		})
	}
}

// With a precreate hook podman builds as before: buildah does not know the
// stage, and does not see the hook.
func TestPodmanPrecreate(t *testing.T) {
	h := newPodmanHost(t, "precreate")
	if text, calls, ok := h.run(t, "true"); !ok || calls != "hook precreate\nhook createRuntime\n" {
		t.Errorf("run: %v, called was %q\n%s", ok, calls, text)
	}
	for _, flag := range []string{"--runtime=runc", "--isolation=chroot"} {
		if text, _, ok := h.build(t, "true", flag); !ok {
			t.Errorf("build %s\n%s", flag, text)
		}
	}
	// The check can fail: this is why the hook has a directory of its own.
	hook, err := os.ReadFile(h.dir + precreateHooks + "/zz-afalg-policy-precreate.json")
	must(t, err)
	write(t, h.dir, podmanHooks+"/precreate.json", string(bytes.TrimSpace(hook)), 0o644)
	if text, _, ok := h.build(t, "true", "--runtime=runc", "--no-cache"); ok || !strings.Contains(text, "precreate") {
		t.Errorf("with the hook in %s: %v\n%s", podmanHooks, ok, text)
	}
}
