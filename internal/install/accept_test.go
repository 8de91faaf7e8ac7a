package install

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/afalg-policy/afalg-policy/internal/install/host"
	"github.com/afalg-policy/afalg-policy/internal/unit"
)

// These tests have each file read by the program for which it is written.

// installCase makes the root of a case and installs on it.
func installCase(t *testing.T, name string) (dir string) {
	t.Helper()
	archive, err := txtar.ParseFile(filepath.Join("testdata", name+".txtar"))
	must(t, err)
	dir, platform, o := rootFor(t, archive)
	_, err = Install(platform, o)
	must(t, err)
	return dir
}

// output runs a program that must succeed.
func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %v\n%s%s", cmd.Args, err, out.String(), errs.String())
	}
	return out.String()
}

// Containerd itself lists each handler, with its type and its program.
func TestContainerdReadsIt(t *testing.T) {
	const w = containerdWrappers
	runc := "runc " + shimV2 + " " + w + "/runc"
	for name, want := range map[string][]string{
		"none":         {runc},
		"debian":       {runc},
		"default-1.6":  {runc},
		"runc-is-crun": {runc},
		"handlers": {
			"crun " + shimV2 + " " + w + "/crun/crun", "crun-too " + shimV2 + " " + w + "/crun/crun",
			"kata io.containerd.kata.v2 ", runc, "same " + shimV2 + " " + w + "/runc",
		},
		// Up to 1.7, an import replaces the settings of a plugin as a whole.
		// Then PATH leads to the wrapper.
		"import-other": {"runc " + shimV2 + " "},
	} {
		t.Run(name, func(t *testing.T) {
			p := installCase(t, "containerd/"+name) + containerdConfig
			dump, err := parseTOML(p, []byte(output(t, "containerd", "--config", p, "config", "dump")))
			must(t, err)
			runtimes := dump.table("plugins", criPlugin[2], "containerd", "runtimes")
			var got []string
			for handler := range runtimes {
				h := runtimes.table(handler)
				got = append(got, fmt.Sprint(handler, " ", h.text("runtime_type"), " ", h.table("options").text("BinaryName")))
			}
			if name, program := bypassed(dump); name != "" {
				t.Errorf("the handler %s executes %s", name, program)
			}
			if diff := cmp.Diff(want, slices.Sorted(slices.Values(got))); diff != "" {
				t.Error(diff)
			}
		})
	}
	// containerd itself names the directory that comes before the wrapper.
	dump, err := parseTOML("dump", []byte(output(t, "containerd", "--config", installCase(t, "containerd/none")+containerdConfig, "config", "dump")))
	must(t, err)
	dir := t.TempDir()
	h, err := host.Open(dir)
	must(t, err)
	defer h.Close()
	must(t, optRunc(h, dump))
	opt := dump.table("plugins", optPlugin).text("path")
	write(t, dir, opt+"/bin/runc", "", 0o755)
	if err := optRunc(h, dump); opt == "" || !strings.Contains(errorText(err), opt+"/bin/runc: ") {
		t.Errorf("%q: %v", opt, err)
	}
	// The handler keeps its options.
	p := installCase(t, "containerd/handlers") + containerdConfig
	if out := output(t, "containerd", "--config", p, "config", "dump"); strings.Count(out, "SystemdCgroup = true") != 1 {
		t.Error("SystemdCgroup of the handler runc is lost")
	}
}

// dockerd reads daemon.json, and then fails at the next thing, as it is told to.
func TestDockerdReadsIt(t *testing.T) {
	for _, name := range []string{"none", "empty", "kept", "tabs", "custom-default", "default-runc", "runtime-path"} {
		t.Run(name, func(t *testing.T) {
			config := installCase(t, "docker/"+name) + daemonJSON
			got := dockerd(t, config)
			if want := "failed to start daemon: pid file found"; !strings.Contains(got, want) {
				t.Errorf("%s, want %s", got, want)
			}
		})
	}
	// It does complain about others.
	bad := filepath.Join(t.TempDir(), "daemon.json")
	must(t, os.WriteFile(bad, []byte(`{"default-runtimes": "x"}`), 0o644))
	if got := dockerd(t, bad); !strings.Contains(got, "unable to configure the Docker daemon with file") {
		t.Errorf("a file with an unknown key: %s", got)
	}
}

func dockerd(t *testing.T, config string) string {
	t.Helper()
	dir := t.TempDir()
	pidfile := filepath.Join(dir, "pid")
	must(t, os.WriteFile(pidfile, []byte("1"), 0o644)) // this process runs
	cmd := exec.Command("dockerd", "--config-file", config, "--pidfile", pidfile, "--data-root", dir, "--exec-root", dir, "--host", "unix://"+dir+"/sock")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS} // it mounts its directory
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Fatalf("dockerd ended with 0\n%s", out)
	}
	return string(out)
}

// podman takes the runtime that the drop-in names.
func TestPodmanReadsIt(t *testing.T) {
	for name, want := range map[string]string{"none": "/crun", "runtime-by-path": "/default/runc"} {
		t.Run(name, func(t *testing.T) {
			dir := installCase(t, "podman/"+name)
			// podman asks a runtime for its version, and has no option for a root.
			wrapper := dir + podmanWrappers + want
			must(t, os.WriteFile(wrapper, []byte("#!/bin/sh\nexec crun \"$@\"\n"), 0o755))
			conf, err := os.ReadFile(dir + containersDropIn)
			must(t, err)
			moved := filepath.Join(dir, "moved.conf")
			must(t, os.WriteFile(moved, bytes.ReplaceAll(conf, []byte(libDir), []byte(dir+libDir)), 0o644))
			t.Setenv("CONTAINERS_CONF", moved)
			run, err := os.MkdirTemp("/tmp", "podman") // up to 50 characters
			must(t, err)
			t.Cleanup(func() { must(t, os.RemoveAll(run)) })
			got := output(t, "podman", "--root", run+"/storage", "--runroot", run+"/run", "--storage-driver", "vfs", "info", "--format", "{{.Host.OCIRuntime.Path}}")
			if strings.TrimSpace(got) != wrapper {
				t.Errorf("%s, want %s", got, wrapper)
			}
		})
	}
}

// TestSystemdReadsIt expects no output: systemd warns of a fault, and exits
// with 0.
func TestSystemdReadsIt(t *testing.T) {
	for name, units := range map[string][]string{
		"agent/default":     {agentService, agentSocket},
		"agent/odd-names":   {agentService, agentSocket},
		"lsm/default":       {unit.LSMService, unit.LSMRefresh, unit.LSMPath, unit.LSMCheck, unit.LSMTimer},
		"lsm/odd-names":     {unit.LSMService, unit.LSMRefresh, unit.LSMPath, unit.LSMCheck, unit.LSMTimer},
		"docker/flags-none": {"docker.service"},
		"containerd/unit":   {"containerd.service"},
	} {
		dir := installCase(t, name)
		for _, target := range []string{"sysinit.target", "basic.target", "shutdown.target", "sockets.target", "paths.target", "timers.target", "local-fs.target", "remote-fs.target", "multi-user.target", "system.slice", "-.slice"} {
			write(t, dir, "usr/lib/systemd/system/"+target, "[Unit]\n", 0o644)
		}
		write(t, dir, "usr/lib/systemd/system/docker.socket", "[Socket]\nListenStream=/x\n", 0o644)
		write(t, dir, "bin/kill", "", 0o755)
		out, err := exec.Command("systemd-analyze", append([]string{"verify", "--root=" + dir, "--man=no"}, units...)...).CombinedOutput()
		if err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// TestWrapperArguments passes odd names through the wrapper, which may not
// change them.
func TestWrapperArguments(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, `it's a $(touch x) "program" \ %n *`)
	must(t, os.WriteFile(program, []byte("#!/bin/sh\nprintf '%s\\n' \"$@\"\n"), 0o755))
	o := Options{Program: program, Policy: `/p;exit`, Agent: "/a&b", OnAgentDown: "deny", DecisionLog: "-n ' \" $HOME `id`"}
	w := o.wrapper("docker", "/x", "/r u n", "--debug", "", "'")
	script := filepath.Join(dir, "runc")
	must(t, os.WriteFile(script, w.Data, 0o755))
	got := output(t, script, "create", "a b", "$1", "")
	want := strings.Join([]string{
		"runtime", "--platform", "docker", "--policy", "/p;exit", "--agent", "/a&b", "--on-agent-down", "deny",
		"--decision-log", "-n ' \" $HOME `id`", "--runtime-path", "/r u n", "--", "--debug", "", "'", "create", "a b", "$1", "",
	}, "\n") + "\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
