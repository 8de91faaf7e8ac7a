package install

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/afalg-policy/afalg-policy/internal/install/host"
)

// formerAgent installs the agent as versions did that called it systemd.
func formerAgent(t *testing.T) (o Options, before map[string]string) {
	t.Helper()
	_, _, o = rootFor(t, &txtar.Archive{Comment: []byte("programs usr/bin/systemctl\n")})
	before = snapshot(t, o.Root)
	_, err := Install(agentName, o)
	must(t, err)
	now, former := o.Root+host.RecordPath(agentName), o.Root+host.RecordPath(systemdName)
	text, err := os.ReadFile(now)
	must(t, err)
	renamed := bytes.Replace(text, []byte(`"platform": "agent"`), []byte(`"platform": "systemd"`), 1)
	if bytes.Equal(text, renamed) {
		t.Fatal("the record does not say what it is about")
	}
	must(t, os.WriteFile(former, renamed, 0o600))
	must(t, os.Remove(now))
	return o, before
}

func records(t *testing.T, root string) string {
	t.Helper()
	return strings.Join(names(t, root+"/var/lib/afalg-policy/installed"), " ")
}

// The agent that an earlier version installed under the name systemd is seen,
// updated and removed.
func TestFormerAgent(t *testing.T) {
	o, before := formerAgent(t)
	h, err := host.Open(o.Root)
	must(t, err)
	defer h.Close()
	r, err := readRecord(h, agentName)
	must(t, err)
	if answer, err := installed(h, r); err != nil || answer != Yes {
		t.Errorf("status of the agent: %s, %v", answer, err)
	}
	if r, err := readRecord(h, systemdName); err != nil || r != nil {
		t.Errorf("status of systemd: %v, %v", r, err)
	}

	there := snapshot(t, o.Root)
	dry := o
	dry.DryRun = true
	_, err = Install(agentName, dry)
	must(t, err)
	equal(t, "a dry run", there, snapshot(t, o.Root))

	r2, err := Install(agentName, o)
	must(t, err)
	if len(r2.Changes) != 0 || records(t, o.Root) != "agent.json" {
		t.Errorf("installed again: %v, records %s", r2.Changes, records(t, o.Root))
	}
	_, err = Uninstall(agentName, o.Root, false)
	must(t, err)
	equal(t, "uninstalled", before, snapshot(t, o.Root))
}

func TestFormerAgentTakenBack(t *testing.T) {
	o, before := formerAgent(t)
	_, err := Uninstall(systemdName, o.Root, false)
	if want := "systemd is not installed: there is no " + o.Root + "/var/lib/afalg-policy/installed/systemd.json; the agent, which earlier versions called so, goes by \"afalg-policy uninstall agent\""; errorText(err) != want {
		t.Errorf("%v", err)
	}
	_, err = Uninstall(agentName, o.Root, false)
	must(t, err)
	equal(t, "uninstalled", before, snapshot(t, o.Root))
}

// Services can be closed where the agent has its former name: each has a
// record.
func TestFormerAgentBesideServices(t *testing.T) {
	o, before := formerAgent(t)
	_, err := Install(systemdName, o)
	must(t, err)
	if got := records(t, o.Root); got != "agent.json systemd.json" {
		t.Errorf("records: %s", got)
	}
	_, err = Uninstall(systemdName, o.Root, false)
	must(t, err)
	if got := records(t, o.Root); got != "agent.json" {
		t.Errorf("records: %s", got)
	}
	_, err = Uninstall(agentName, o.Root, false)
	must(t, err)
	equal(t, "uninstalled", before, snapshot(t, o.Root))
}

// A kill during the renaming of the record is completed by the next run.
func TestFormerAgentTwice(t *testing.T) {
	o, before := formerAgent(t)
	former := o.Root + host.RecordPath(systemdName)
	text, err := os.ReadFile(former)
	must(t, err)
	_, err = Install(agentName, o)
	must(t, err)
	must(t, os.WriteFile(former, text, 0o600))
	must(t, os.WriteFile(o.Root+"/var/lib/afalg-policy/installed/.systemd.json.afalg-policy-new", nil, 0o600))
	_, err = Install(agentName, o)
	must(t, err)
	if records(t, o.Root) != "agent.json" {
		t.Errorf("records: %s", records(t, o.Root))
	}
	_, err = Uninstall(agentName, o.Root, false)
	must(t, err)
	equal(t, "uninstalled", before, snapshot(t, o.Root))
}

// The next install renames a drop-in that has generate's name from an earlier
// version.
func TestFormerDropIn(t *testing.T) {
	o := dockerRoot(t)
	before := snapshot(t, o.Root)
	_, err := Install("docker", o)
	must(t, err)
	dir := o.Root + unitDir + "/docker.service.d/"
	must(t, os.Rename(dir+"zz-afalg-policy-runtime.conf", dir+"zz-afalg-policy.conf"))
	p := o.Root + host.RecordPath("docker")
	text, err := os.ReadFile(p)
	must(t, err)
	must(t, os.WriteFile(p, bytes.Replace(text, []byte("docker.service.d/zz-afalg-policy-runtime.conf"), []byte("docker.service.d/zz-afalg-policy.conf"), 1), 0o600))

	_, err = Install("docker", o)
	must(t, err)
	if got := strings.Join(names(t, dir), " "); got != "zz-afalg-policy-runtime.conf" {
		t.Errorf("docker.service.d has %s", got)
	}
	_, err = Uninstall("docker", o.Root, false)
	must(t, err)
	equal(t, "uninstalled", before, snapshot(t, o.Root))
}
