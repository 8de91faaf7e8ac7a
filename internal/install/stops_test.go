package install

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/install/host"
)

func TestUnfilteredOf(t *testing.T) {
	const out = "/mighty true <no value>\n/plain false []\n/free false [seccomp=unconfined label=disable]\n/old false [seccomp:unconfined]\n" +
		"pod-mate false [label=disable seccomp=unconfined]\n/own false [seccomp=/srv/unconfined.json]\n\n"
	if d := cmp.Diff([]string{"free", "mighty", "old", "pod-mate"}, unfilteredOf(out)); d != "" {
		t.Error(d)
	}
}

func TestBundleUnfiltered(t *testing.T) {
	dir := t.TempDir()
	for p, spec := range map[string]string{
		"k8s.io/a": `{"annotations": {"io.kubernetes.cri.sandbox-name": "proxy", "io.kubernetes.cri.sandbox-namespace": "kube-system", "io.kubernetes.cri.container-name": "p"}, "linux": {}}`,
		"k8s.io/b": `{"annotations": {"io.kubernetes.cri.sandbox-name": "web"}, "linux": {"seccomp": {"defaultAction": "SCMP_ACT_ERRNO"}}}`,
		"moby/c":   `{"linux": {"namespaces": []}}`,
		"moby/d":   `{`,
	} {
		write(t, dir, p+"/config.json", spec, 0o644)
	}
	got := bundleUnfiltered(dir+"/*/*/config.json", containerdContainer)(t.Context())
	if d := cmp.Diff([]string{"kube-system/proxy/p", "moby/c"}, got); d != "" {
		t.Error(d)
	}
	if got := bundleUnfiltered(dir+"/*/*/config.json", crioContainer)(t.Context()); got != nil {
		t.Errorf("of others: %v", got)
	}
}

// Not every machine runs 32-bit programs: files stand for processes.
func TestCompat(t *testing.T) {
	proc := t.TempDir()
	const id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	for pid, p := range map[string]struct{ group, head string }{
		"1": {"0::/system.slice/docker-" + id + ".scope\n", "\x7fELF\x01\x01"},
		"2": {"0::/system.slice/docker-" + id + ".scope\n", "\x7fELF\x02\x01"},
		"3": {"0::/user.slice\n", "\x7fELF\x01\x01"},
		"4": {"12:pids:/docker/" + id + "\n", "#!/bin/sh"},
	} {
		write(t, proc, pid+"/cgroup", p.group, 0o644)
		write(t, proc, "bin/"+pid, p.head+strings.Repeat("\x00", 16), 0o755)
		must(t, os.Symlink(filepath.Join(proc, "bin", pid), filepath.Join(proc, pid, "exe")))
	}
	if d := cmp.Diff([]string{proc + "/bin/1 in container 0123456789ab"}, compat(proc)); d != "" {
		t.Error(d)
	}
	if is32bit("/proc/self/exe") || is32bit(proc) || is32bit(proc+"/none") {
		t.Error("taken for a program of 32 bits")
	}
}

// The user hears what would stop working before anything is changed, and only
// about this host.
func TestStops(t *testing.T) {
	o := dockerRoot(t)
	p := docker()
	h, err := host.Open("/")
	must(t, err)
	defer h.Close()
	p.unfiltered = bundleUnfiltered(t.TempDir()+"/*", crioContainer)
	if got := p.stops(t.Context(), h, o); len(got) > 1 {
		t.Errorf("nothing is there: %v", got)
	}
	spec := t.TempDir()
	write(t, spec, "config.json", `{"linux": {}}`, 0o644)
	p.unfiltered = bundleUnfiltered(spec+"/*", containerdContainer)
	o.Socketcall = socketcallKeep
	if got := p.stops(t.Context(), h, o); got != nil {
		t.Errorf("nobody is refused: %v", got)
	}
	o.Unconfined.Refused = true
	if got := p.stops(t.Context(), h, o); len(got) != 1 {
		t.Errorf("%v", got)
	}
	image, err := host.Open(o.Root)
	must(t, err)
	defer image.Close()
	if got := p.stops(t.Context(), image, o); got != nil {
		t.Errorf("of an image: %v", got)
	}
	if got := atMost([]string{"1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"}); got != "1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more" {
		t.Error(got)
	}
}
