package install

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/hosterr"
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

	// A record of an unfinished change says so; package host is killed there.
	p := o.Root + host.RecordPath("docker")
	text, err := os.ReadFile(p)
	must(t, err)
	must(t, os.WriteFile(p, bytes.Replace(text, []byte(`"phase": "installed"`), []byte(`"phase": "removing"`), 1), 0o600))
	answer(Interrupted)
}

func TestStatusOK(t *testing.T) {
	good := Status{Policy: Yes, Installed: Yes, Active: Yes, Agent: Yes, Probed: Yes}
	fields := []func(*Status) *Answer{
		func(s *Status) *Answer { return &s.Policy }, func(s *Status) *Answer { return &s.Installed },
		func(s *Status) *Answer { return &s.Active }, func(s *Status) *Answer { return &s.Agent }, func(s *Status) *Answer { return &s.Probed },
	}
	for i, field := range fields {
		for _, a := range []Answer{"", Yes, No, Changed, Interrupted, NotAsked, NotNeeded} {
			s := good
			*field(&s) = a
			if want := a == Yes || i == 3 && a == NotNeeded || i == 4 && a == NotAsked; s.OK() != want {
				t.Errorf("%+v: OK is %v", s, s.OK())
			}
		}
	}
	if (Status{}).OK() {
		t.Error("nothing is OK")
	}
	bad, absent := Status{Installed: Yes}, Status{Installed: No, Remark: "not installed"}
	for _, tt := range []struct {
		all  []Status
		want bool
	}{
		{nil, false}, {[]Status{good}, true}, {[]Status{good, bad}, false}, {[]Status{absent}, false}, {[]Status{good, absent}, true},
		{[]Status{good, {Installed: No}}, false},
	} {
		if Good(tt.all) != tt.want {
			t.Errorf("Good(%+v) is not %v", tt.all, tt.want)
		}
	}
}

// A running installation is not enough: the policy must be readable, and
// somebody must answer containers with grants.
func wrongPlatform(platform string) error {
	if platform != "docker" {
		return errors.New("asked about " + platform)
	}
	return nil
}

func TestStatusOfPolicyAndAgent(t *testing.T) {
	o := dockerRoot(t)
	socket := filepath.Join(t.TempDir(), "agent.sock")
	o.Agent = socket
	_, err := Install("docker", o)
	must(t, err)
	h, err := host.Open(o.Root)
	must(t, err)
	defer h.Close()
	r, err := h.ReadRecord("docker")
	must(t, err)
	p := docker()
	p.active = func(context.Context, *host.Record) error { return nil } // a daemon, which this test is not about
	var relying error
	status := func(n Needs, broken error) Status {
		t.Helper()
		s, err := p.status(t.Context(), h, r, StatusOptions{
			Policy:  func(string) (Needs, error) { return n, broken },
			Relying: func(platform string) error { return errors.Join(relying, wrongPlatform(platform)) },
		})
		must(t, err)
		return s
	}
	expect := func(s Status, policy, agent Answer, reasons ...string) {
		t.Helper()
		if s.Policy != policy || s.Agent != agent || s.OK() != (reasons == nil) {
			t.Errorf("%+v", s)
		}
		if diff := cmp.Diff(reasons, s.Reasons); diff != "" {
			t.Error(diff)
		}
	}
	expect(status(Needs{}, nil), Yes, NotNeeded)
	relying = errors.New("web relies on what is gone")
	expect(status(Needs{}, nil), Yes, NotNeeded, "not active: web relies on what is gone")
	relying = nil
	expect(status(Needs{}, errors.New("policy.yaml:3:1: a typo")), No, NotNeeded, "the policy builtin:fips cannot be read: policy.yaml:3:1: a typo")
	missing := "containers that are granted something do not start: nothing listens on " + socket + `: run "afalg-policy install agent"`
	expect(status(Needs{Rules: true}, nil), Yes, No, missing)
	expect(status(Needs{Sockets: true}, nil), Yes, No, missing)
	l, err := net.Listen("unix", socket)
	must(t, err)
	expect(status(Needs{Rules: true}, nil), Yes, Yes)
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	must(t, l.Close())
	expect(status(Needs{Rules: true}, nil), Yes, No, "containers that are granted something do not start: nothing listens on "+socket+
		` any more: run "systemctl restart afalg-policy-agent.socket"`)
}

func TestLastLine(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "one\n": "one", "one\ntwo\n\n": "two",
		"docker: Error response from daemon: no agent answers.\nSee 'docker run --help'.\n":                      "docker: Error response from daemon: no agent answers.",
		"docker: Error response from daemon: no agent answers\n\nRun 'docker run --help' for more information\n": "docker: Error response from daemon: no agent answers",
		"unknown flag: --x\n": "unknown flag: --x", "try --help\n": "try --help",
	} {
		if got := lastLine(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
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

// A report counts only if it says that each route is closed.
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
		// A child that keeps the pipe open does not delay it.
		"sleep 1000 & echo $! >%s; exit 3": "sh -c: exit status 3",
	} {
		child := filepath.Join(t.TempDir(), "child")
		if got := errorText(probe(t.Context(), "sh", "-c", strings.ReplaceAll(script, "%s", child))); got != want {
			t.Errorf("%s: %s, want %s", script, got, want)
		}
		if pid, err := os.ReadFile(child); err == nil {
			must(t, exec.Command("kill", strings.TrimSpace(string(pid))).Run()) // it runs still
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if got := errorText(probe(ctx, "sleep", "1000")); got != "sleep 1000 took too long" {
		t.Error(got)
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

// Of platforms that are not here, only those asked for by name are missing.
func TestCheckNotHere(t *testing.T) {
	var unable *hosterr.Error
	if _, err := Check(t.Context(), StatusOptions{Platforms: []string{"crio"}}); !errors.As(err, &unable) {
		t.Errorf("crio: %v", err)
	}
	var option *OptionError
	if _, err := Check(t.Context(), StatusOptions{Platforms: []string{"none"}}); !errors.As(err, &option) {
		t.Errorf("none: %v", err)
	}
}
