package install

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/install/host"
)

func TestInstalledAnswer(t *testing.T) {
	o := dockerRoot(t)
	h, err := host.Open(o.Root)
	must(t, err)
	defer h.Close()
	answer := func(want Answer) {
		t.Helper()
		r, err := h.ReadRecord("docker")
		must(t, err)
		got, err := installed(h, r)
		must(t, err)
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	answer(No)
	_, err = Install("docker", o)
	must(t, err)
	answer(Yes)

	config := o.Root + daemonJSON
	ours, err := os.ReadFile(config)
	must(t, err)
	must(t, os.WriteFile(config, []byte("{}\n"), 0o644))
	answer(Changed)
	must(t, os.WriteFile(config, ours, 0o644))
	answer(Yes)
	must(t, os.Chmod(o.Root+dockerWrapper, 0o777))
	answer(Changed)
	must(t, os.Chmod(o.Root+dockerWrapper, 0o755))
	must(t, os.Remove(o.Root+profilePath("docker")))
	answer(Changed)

	// A record that is about to be changed says so; package host is killed there.
	p := o.Root + host.RecordPath("docker")
	text, err := os.ReadFile(p)
	must(t, err)
	must(t, os.WriteFile(p, bytes.Replace(text, []byte(`"phase": "installed"`), []byte(`"phase": "removing"`), 1), 0o600))
	answer(Interrupted)
}

func TestStatusOK(t *testing.T) {
	good := Status{Installed: Yes, Active: Yes, Proved: Yes}
	if !good.OK() {
		t.Error("all yes is not OK")
	}
	unasked := good
	unasked.Proved = NotAsked
	if !unasked.OK() {
		t.Error("what was not asked for is missed")
	}
	for _, a := range []Answer{"", No, Changed, Interrupted, NotAsked} {
		for i, set := range []func(*Status){
			func(s *Status) { s.Installed = a }, func(s *Status) { s.Active = a }, func(s *Status) { s.Proved = a },
		} {
			s := good
			if set(&s); s.OK() && (i != 2 || a != NotAsked) {
				t.Errorf("%+v is OK", s)
			}
		}
	}
	if (Status{}).OK() {
		t.Error("nothing is OK")
	}
}

// A daemon that was started before an installation does not use it.
func TestFindDaemon(t *testing.T) {
	name := "afalg-pol-test(" // comm has 15 characters
	if _, err := findDaemon(name); errorText(err) != name+" does not run" {
		t.Errorf("%v", err)
	}
	program := filepath.Join(t.TempDir(), name)
	sleep, err := os.ReadFile("/bin/sleep")
	must(t, err)
	must(t, os.WriteFile(program, sleep, 0o755))

	before := host.Now()
	time.Sleep(3 * time.Second / ticks)
	cmd := exec.Command(program, "60")
	cmd.Env = []string{"X=PATH=/no", "PATH=" + dockerDir + ":/usr/bin"}
	must(t, cmd.Start())
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	time.Sleep(3 * time.Second / ticks)
	after := host.Now()

	d, err := findDaemon(name)
	must(t, err)
	if d.pid != cmd.Process.Pid || d.path != dockerDir+":/usr/bin" {
		t.Errorf("%+v", d)
	}
	if !d.after(before) || d.after(after) {
		t.Errorf("started %v after boot, between %v and %v", d.started, before.Uptime, after.Uptime)
	}
	if !d.after(host.Moment{Boot: "another boot", Uptime: after.Uptime}) {
		t.Error("after a reboot everything is younger")
	}
	must(t, current(name, &host.Record{Moment: before}, dockerDir))
	must(t, current(name, &host.Record{Moment: before}, ""))
	for want, err := range map[string]error{
		"was started before: restart it": current(name, &host.Record{Moment: after}, dockerDir),
		"without /elsewhere in front":    current(name, &host.Record{Moment: before}, "/elsewhere"),
	} {
		if !errors.Is(err, errStale) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

var dockerDir = filepath.Dir(dockerWrapper)

// The report of a probe is believed only if it says that each route is closed.
func TestProbeReport(t *testing.T) {
	report := func(verdicts ...string) string {
		var routes []string
		for i, v := range verdicts {
			routes = append(routes, fmt.Sprintf(`{"route":"r%d","verdict":%q}`, i, v))
		}
		return `echo '{"open":false,"routes":[` + strings.Join(routes, ",") + `]}'`
	}
	for script, want := range map[string]string{
		report("closed", "unavailable", "brokered"): "no error",
		report("closed", "open") + "; exit 1":       "in a container of sh: r1 (open)",
		report("loadable", "undecided", "new"):      "in a container of sh: r0 (loadable), r1 (undecided), r2 (new)",
		report("absent"):                            "in a container of sh: r0 (no filter stops it; this kernel has no AF_ALG)",
		report():                                    "sh -c: no report came back",
		"echo '{}'":                                 "sh -c: no report came back",
		"echo closed":                               "sh -c: no report came back",
		"true":                                      "sh -c: no report came back",
		"echo one >&2; echo two >&2; exit 125":      "sh -c: two",
		"exit 1":                                    "sh -c: exit status 1",
		"sleep 60":                                  "sh -c took too long",
		// A child that keeps the pipe does not hold it up.
		"sleep 60 & exit 3": "sh -c: exit status 3",
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		start := time.Now()
		got := errorText(probe(ctx, "sh", "-c", script))
		cancel()
		if got != want {
			t.Errorf("%s: %s, want %s", script, got, want)
		}
		if d := time.Since(start); d > 20*time.Second {
			t.Errorf("%s took %v", script, d)
		}
	}
}

func TestImageOf(t *testing.T) {
	program := filepath.Join(t.TempDir(), "p")
	must(t, os.WriteFile(program, []byte("program"), 0o700))
	image, err := imageOf(program)
	must(t, err)
	r := tar.NewReader(image)
	header, err := r.Next()
	must(t, err)
	data, err := io.ReadAll(r)
	must(t, err)
	if header.Name != "afalg-policy" || header.Mode != 0o755 || string(data) != "program" {
		t.Errorf("%+v %q", header, data)
	}
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("there is more: %v", err)
	}

	root, err := rootOf(program)
	must(t, err)
	defer os.RemoveAll(root)
	if diff := cmp.Diff([]string{"afalg-policy"}, names(t, root)); diff != "" {
		t.Error(diff)
	}
	for _, make := range []func(string) error{
		func(p string) error { _, err := imageOf(p); return err },
		func(p string) error { _, err := rootOf(p); return err },
	} {
		if err := make(filepath.Join(root, "none")); !errors.Is(err, syscall.ENOENT) {
			t.Errorf("%v", err)
		}
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// Of platforms that are not here, those that are named are missed.
func TestCheckNotHere(t *testing.T) {
	var unable *HostError
	if _, err := Check(t.Context(), StatusOptions{Platforms: []string{"crio"}}); !errors.As(err, &unable) {
		t.Errorf("crio: %v", err)
	}
	var option *OptionError
	if _, err := Check(t.Context(), StatusOptions{Platforms: []string{"none"}}); !errors.As(err, &option) {
		t.Errorf("none: %v", err)
	}
}
