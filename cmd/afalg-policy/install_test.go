package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/deploy"
	"github.com/afalg-policy/afalg-policy/internal/install"
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
	good := install.Status{Platform: "podman", Policy: install.Yes, Installed: install.Yes, Active: install.Yes, Agent: install.NotNeeded, Probed: install.Yes}
	bad := install.Status{Platform: "docker", Policy: install.Yes, Installed: install.Yes, Active: install.No, Agent: install.Yes, Probed: install.No,
		Restart: []string{"docker.service"}, Reasons: []string{"not active: old", "not probed closed: socket (open)"}}
	absent := install.Status{Platform: "containerd", Policy: install.NotAsked, Installed: install.No, Active: install.No, Agent: install.NotNeeded, Probed: install.No,
		Remark: `not installed: run "afalg-policy install containerd"`}
	for name, tt := range map[string]struct {
		all  []install.Status
		want outcome
	}{
		"good": {[]install.Status{good}, outcome{"podman\tyes\tyes\tyes\tnot needed\tyes\t-\n", "", 0}},
		"one is bad": {[]install.Status{bad, good}, outcome{
			"docker\tyes\tyes\tno\tyes\tno\tdocker.service\npodman\tyes\tyes\tyes\tnot needed\tyes\t-\n",
			"docker: not active: old\ndocker: not probed closed: socket (open)\n", 1}},
		"one was never installed": {[]install.Status{good, absent}, outcome{
			"podman\tyes\tyes\tyes\tnot needed\tyes\t-\ncontainerd\tnot asked\tno\tno\tnot needed\tno\t-\n",
			"remark: containerd: not installed: run \"afalg-policy install containerd\"\n", 0}},
		"none was ever installed": {[]install.Status{absent}, outcome{
			"containerd\tnot asked\tno\tno\tnot needed\tno\t-\n",
			"remark: containerd: not installed: run \"afalg-policy install containerd\"\n", 1}},
		"nothing": {nil, outcome{"", "no platform was found: docker, podman, containerd, crio, kubernetes, agent, systemd, lsm, host\n", 1}},
	} {
		got := shown(t, func(u *tui) error { return showStatus(u, tt.all, false) })
		if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(outcome{})); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	got := shown(t, func(u *tui) error { return showStatus(u, []install.Status{bad}, true) })
	const want = `{
  "report": "status",
  "version": 1,
  "verdict": "no",
  "platforms": [
    {
      "platform": "docker",
      "policy": "yes",
      "installed": "yes",
      "active": "no",
      "agent": "yes",
      "probed": "no",
      "restart": [
        "docker.service"
      ],
      "reasons": [
        "not active: old",
        "not probed closed: socket (open)"
      ]
    }
  ]
}
`
	if diff := cmp.Diff(outcome{want, "", 1}, got, cmp.AllowUnexported(outcome{})); diff != "" {
		t.Error(diff)
	}
	if got := shown(t, func(u *tui) error { return showStatus(u, nil, true) }); !strings.Contains(got.stdout, `"platforms": []`) || got.status != 1 {
		t.Errorf("%+v", got)
	}
}

func TestInstallErrors(t *testing.T) {
	for name, tt := range map[string]struct {
		err  error
		want int
	}{
		"conflict": {errors.New("x"), exitNo},
		"changed":  {&install.ChangedError{Diff: "-a\n", Err: errors.New("x")}, exitNo},
		"busy":     {install.ErrBusy, exitHost},
	} {
		got := shown(t, func(u *tui) error { return showResult(u, deploy.Refused("install", "docker", tt.err), tt.err, false) })
		if got.status != tt.want || (name == "changed") != (got.stdout == "-a\n") {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
