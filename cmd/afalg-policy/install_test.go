package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/install"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/profile"
)

// shown is what a function prints, and the exit status of its error.
func shown(t *testing.T, show func(*tui) error) outcome {
	t.Helper()
	var stdout, stderr bytes.Buffer
	u := newTUI(&stdout, &stderr)
	err := show(u)
	must(t, u.out.Flush())
	return outcome{stdout.String(), stderr.String(), exitStatus(err)}
}

func TestShowStatus(t *testing.T) {
	good := install.Status{Platform: "podman", Installed: install.Yes, Active: install.Yes, Proved: install.Yes}
	bad := install.Status{Platform: "docker", Installed: install.Yes, Active: install.No, Proved: install.No,
		Restart: []string{"docker.service"}, Reasons: []string{"not active: old", "not proved: socket (open)"}}
	for name, tt := range map[string]struct {
		all  []install.Status
		want outcome
	}{
		"good": {[]install.Status{good}, outcome{"podman\tyes\tyes\tyes\t-\n", "", 0}},
		"one is bad": {[]install.Status{bad, good}, outcome{
			"docker\tyes\tno\tno\tdocker.service\npodman\tyes\tyes\tyes\t-\n",
			"docker: not active: old\ndocker: not proved: socket (open)\n", 1}},
		"nothing": {nil, outcome{"", "no platform was found: docker, podman, containerd, crio, systemd\n", 1}},
	} {
		got := shown(t, func(u *tui) error { return showStatus(u, tt.all, false) })
		if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(outcome{})); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	got := shown(t, func(u *tui) error { return showStatus(u, []install.Status{bad}, true) })
	const want = `[
  {
    "platform": "docker",
    "installed": "yes",
    "active": "no",
    "proved": "no",
    "restart": [
      "docker.service"
    ],
    "reasons": [
      "not active: old",
      "not proved: socket (open)"
    ]
  }
]
`
	if diff := cmp.Diff(outcome{want, "", 1}, got, cmp.AllowUnexported(outcome{})); diff != "" {
		t.Error(diff)
	}
	if got := shown(t, func(u *tui) error { return showStatus(u, nil, true) }); got.stdout != "[]\n" || got.status != 1 {
		t.Errorf("%+v", got)
	}
}

func TestShowInstall(t *testing.T) {
	r := &install.Result{
		Changes: []install.Change{{Path: "/a", What: "new", Diff: "+a\n"}, {Path: "/b\x1b", What: "changed", Diff: "-b\n+c\x1b\n"}},
		Notes:   []string{"n"}, Restart: []string{"systemctl restart x"}, Recovered: true,
	}
	for name, tt := range map[string]struct {
		result *install.Result
		dryRun bool
		want   outcome
	}{
		"done": {r, false, outcome{"new\t/a\nchanged\t/b\ufffd\n",
			"an earlier run was interrupted; this one goes on from there\nnote: n\ninstalled; containers that run keep what they were started with. Now run:\n  systemctl restart x\n", 0}},
		"dry run": {r, true, outcome{"+a\n-b\n+c\ufffd\n", "an earlier run was interrupted; this one goes on from there\nnote: n\n", 0}},
		"nothing": {&install.Result{}, false, outcome{"unchanged\n", "", 0}},
	} {
		got := shown(t, func(u *tui) error { showInstall(u, tt.result, tt.dryRun, "installed"); return nil })
		if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(outcome{})); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// What is installed as a default profile is proved closed: for the bases of
// Docker and of Podman, and without a base.
func TestHardenBase(t *testing.T) {
	p, _, err := plan.Load("builtin:fips", readPolicy)
	must(t, err)
	podman, err := readInput("/usr/share/containers/seccomp.json", profile.MaxJSON)
	must(t, err)
	docker, err := profile.Docker()
	must(t, err)
	fromDocker, err := hardenBase(p, docker)
	must(t, err)
	for name, base := range map[string][]byte{"none": nil, "podman": podman} {
		data, err := hardenBase(p, base)
		must(t, err)
		if !json.Valid(data) || name == "none" && !bytes.Equal(data, fromDocker) || name != "none" && bytes.Equal(data, fromDocker) {
			t.Errorf("base %s: %d bytes", name, len(data))
		}
	}
	if _, err := hardenBase(p, []byte("{}")); err == nil {
		t.Error("an empty profile is a base")
	}
}

func TestInstallErrors(t *testing.T) {
	for name, tt := range map[string]struct {
		err  error
		want int
	}{
		"conflict": {errors.New("x"), exitNo},
		"changed":  {&install.ChangedError{Diff: "-a\n"}, exitNo},
		"busy":     {install.ErrBusy, exitHost},
	} {
		got := shown(t, func(u *tui) error { return installError(u, tt.err) })
		if got.status != tt.want || (name == "changed") != (got.stdout == "-a\n") {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
