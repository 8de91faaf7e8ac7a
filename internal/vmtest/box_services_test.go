//go:build vm

package vmtest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/probe"
	"github.com/afalg-policy/afalg-policy/internal/testing/box"
)

// boxService asks the kernel at each start, and goes on running.
const boxService = `[Service]
ExecStartPre=/bin/sh -c '` + installed + ` probe --json --route socket >/run/%[1]s.json; true'
ExecStart=/bin/sleep infinity
%[2]s
`

// boxServices are units by name, with their own settings.
var boxServices = map[string]string{
	"plain":   "",
	"granted": "",
	"tight":   "RestrictAddressFamilies=AF_UNIX AF_INET\nSystemCallFilter=@system-service\nSystemCallErrorNumber=EPERM",
	"denying": "RestrictAddressFamilies=~AF_PACKET AF_VSOCK",
	"naming":  "RestrictAddressFamilies=AF_ALG AF_UNIX",
	"setuid":  "User=nobody",
	"ring":    "SystemCallFilter=@system-service io_uring_setup\nSystemCallErrorNumber=EPERM",
}

// old is a service of a program for a 32-bit machine, by its header.
const old = "[Service]\nExecStart=/usr/local/bin/old\n"

// agentOfBox runs our commands, and must not be closed: they would be closed
// too.
const agentOfBox = "vmtest-agent.service"

const boxPolicy = `version: 1
name: host
allow:
  - rule: granted
    units: [granted.service]
    algorithms:
      hash: [sha256]
`

// closeServices are the flags that the machine takes. The rule is wider in a
// unit, and the machine's own agent is left out.
var closeServices = []string{"--grant", "granted", "--accept", "granted", "--except", agentOfBox, "--accept", agentOfBox}

// TestBoxServices closes all services of a machine on which systemd is process
// 1, beside Docker and the agent, and opens them again.
func TestBoxServices(t *testing.T) {
	b := &servicesTest{box.Start(t)}
	b.setUp(t)
	before := b.exposures(t)
	clean := b.snapshot(t)
	b.generate(t, "/run/before")

	b.change(t, "install", "agent")
	b.change(t, "install", "docker")
	platforms, agents := b.snapshot(t), b.families(t, "afalg-policy-agent.service")
	t.Run("refused", b.testRefused)
	t.Run("stops", b.testStops)
	b.change(t, "install", "systemd", closeServices...)
	t.Run("stale", b.testStale)
	b.restart(t)
	t.Run("status", b.testStatus)
	t.Run("doctor", b.testDoctor)
	t.Run("again", b.testAgain)
	t.Run("closed", b.testClosed)
	t.Run("no weaker", func(t *testing.T) { b.compareExposures(t, before) })
	t.Run("the agent", func(t *testing.T) {
		if got := b.families(t, "afalg-policy-agent.service"); got != agents || !strings.Contains(got, "AF_ALG") {
			t.Errorf("the agent may open %s, and %s before", got, agents)
		}
	})
	t.Run("docker", b.testDocker)
	t.Run("what units say themselves", func(t *testing.T) {
		b.generate(t, "/run/after")
		b.Output(t, "diff", "-r", "/run/before", "/run/after")
	})
	t.Run("later", b.testLater)

	b.change(t, "uninstall", "systemd")
	if d := cmp.Diff(platforms, b.snapshot(t)); d != "" {
		t.Errorf("after uninstall systemd, -before +after:\n%s", d)
	}
	b.change(t, "uninstall", "docker")
	b.change(t, "uninstall", "agent")
	if d := cmp.Diff(clean, b.snapshot(t)); d != "" {
		t.Errorf("after uninstall, -before +after:\n%s", d)
	}
	b.Output(t, "systemctl", "restart", "plain")
	if got := b.socket(t, "plain"); got == "closed" {
		t.Error("plain.service is closed after uninstall")
	}
}

type servicesTest struct{ *VM }

func (b *servicesTest) setUp(t *testing.T) {
	b.Output(t, "install", "-D", program(t), installed)
	b.WriteFile(t, agentPolicy, []byte(boxPolicy), 0o644)
	for name, own := range boxServices {
		b.WriteFile(t, "/etc/systemd/system/"+name+".service", fmt.Appendf(nil, boxService, name, own), 0o644)
	}
	b.WriteFile(t, "/run/setuid.json", nil, 0o666)
	b.WriteFile(t, "/usr/local/bin/old", []byte("\x7fELF\x01\x01\x01"+strings.Repeat("\x00", 9)), 0o755)
	b.WriteFile(t, "/etc/systemd/system/old.service", []byte(old), 0o644)
	b.Output(t, "systemctl", "daemon-reload")
	b.Output(t, "systemctl", "start", "dbus") // for systemd-run
	for name := range boxServices {
		b.Output(t, "systemctl", "start", name)
		if got := b.socket(t, name); got == "closed" && name != "tight" {
			t.Errorf("%s.service is closed before", name)
		}
	}
}

// change runs the commands that the program prints for afterwards.
func (b *servicesTest) change(t *testing.T, command, platform string, flags ...string) {
	t.Helper()
	r := b.Run(t, slices.Concat([]string{installed, command, platform}, flags)...)
	t.Logf("%s %s:\n%s%s", command, platform, r.Stdout, r.Stderr)
	if r.Exit != 0 {
		t.Fatalf("%s %s: exit status %d", command, platform, r.Exit)
	}
	for line := range strings.Lines(string(r.Stderr)) {
		// Docker has no bridge here, and is not started.
		if command, ok := strings.CutPrefix(line, "  "); ok && !strings.Contains(line, "docker") {
			b.Output(t, "sh", "-c", command)
		}
	}
}

// generate asks the manager, and writes the resulting files.
func (b *servicesTest) generate(t *testing.T, dir string) {
	t.Helper()
	b.Output(t, slices.Concat([]string{installed, "generate", "systemd", agentPolicy, "-o", dir}, closeServices)...)
}

// socket is the verdict that a service got at its start.
func (b *servicesTest) socket(t *testing.T, name string) string {
	t.Helper()
	var report struct{ Routes []probe.Route }
	if err := json.Unmarshal(b.ReadFile(t, "/run/"+name+".json"), &report); err != nil || len(report.Routes) != 1 {
		t.Fatalf("%s.service: %v, %d routes", name, err, len(report.Routes))
	}
	return string(report.Routes[0].Verdict)
}

func (b *servicesTest) families(t *testing.T, unit string) string {
	t.Helper()
	return b.Output(t, "systemctl", "show", "--value", "--property=RestrictAddressFamilies", unit)
}

// snapshot is everything that could be changed, with content, mode, owner and
// time.
func (b *servicesTest) snapshot(t *testing.T) string {
	t.Helper()
	return (&platformTest{vm: b.VM}).snapshot(t)
}

// exposures are systemd's figures for each loaded service, in tenths.
func (b *servicesTest) exposures(t *testing.T) map[string]int {
	t.Helper()
	found := map[string]int{}
	for line := range strings.Lines(b.Output(t, "systemd-analyze", "security", "--no-pager")) {
		words := strings.Fields(line)
		if len(words) < 2 || !strings.HasSuffix(words[0], ".service") {
			continue
		}
		exposure, err := strconv.ParseFloat(words[1], 64)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		found[words[0]] = int(exposure*10 + .5)
	}
	if len(found) < len(boxServices) {
		t.Fatalf("systemd-analyze says something of %d services only", len(found))
	}
	return found
}

// compareExposures shows that no service is weaker than it was, and that those
// without a list of their own are stronger.
func (b *servicesTest) compareExposures(t *testing.T, before map[string]int) {
	after := b.exposures(t)
	for name, was := range before {
		if is, ok := after[name]; ok && is > was {
			t.Errorf("%s: exposure %d before, %d after", name, was, is)
		}
	}
	if before["plain.service"] <= after["plain.service"] {
		t.Errorf("plain.service: exposure %d before, %d after", before["plain.service"], after["plain.service"])
	}
	t.Logf("tight.service: %d before, %d after; plain.service: %d, %d", before["tight.service"], after["tight.service"], before["plain.service"], after["plain.service"])
	for unit, want := range map[string]string{
		"tight.service": "AF_INET AF_UNIX", "naming.service": "AF_UNIX",
	} {
		if got := b.families(t, unit); got != want {
			t.Errorf("%s may open %s, want %s", unit, got, want)
		}
	}
	for _, family := range []string{"AF_ALG", "AF_PACKET", "AF_VSOCK"} {
		if got := b.families(t, "denying.service"); slices.Contains(strings.Fields(got), family) {
			t.Errorf("denying.service may open %s", family)
		}
	}
	if got := b.Output(t, "systemctl", "show", "--value", "--property=SystemCallFilter", "tight.service"); strings.Contains(got, "mount") || !strings.Contains(got, "read") {
		t.Errorf("tight.service has lost its list of calls: %s", got)
	}
}

// testRefused shows that a rule for an existing unit is not silently closed.
func (b *servicesTest) testRefused(t *testing.T) {
	before := b.snapshot(t)
	r := b.Run(t, installed, "install", "systemd")
	const want = "  granted: granted.service is here and loses AF_ALG, which the rule allows it: what it is for fails; grant it with --grant granted (accept with --accept granted)"
	if r.Exit != 1 || !strings.Contains(string(r.Stderr), want) {
		t.Errorf("exit status %d\n%s", r.Exit, r.Stderr)
	}
	r = b.Run(t, slices.Concat([]string{installed, "install", "systemd", "--except", "plian.service", "--accept", "plian.service"}, closeServices)...)
	if r.Exit != 1 || !strings.Contains(string(r.Stderr), "--except plian.service: there is no such unit") {
		t.Errorf("exit status %d\n%s", r.Exit, r.Stderr)
	}
	if d := cmp.Diff(before, b.snapshot(t)); d != "" {
		t.Errorf("refused, and changed:\n%s", d)
	}
}

// testStops shows that a list of what would stop comes before any change.
func (b *servicesTest) testStops(t *testing.T) {
	before := b.snapshot(t)
	r := b.Run(t, slices.Concat([]string{installed, "install", "systemd", "--dry-run"}, closeServices)...)
	for _, want := range []string{
		"stops: old.service: a 32-bit program: it is killed by SIGSYS at its first call (/usr/local/bin/old)\n",
		"stops: ring.service: io_uring: ",
		"stops: user@.service: setuid programs gain nothing any more: it runs as its user ",
		"stops: setuid.service: setuid programs gain nothing any more: it runs as nobody ",
		"stops: naming.service: AF_ALG, which it names itself: ",
		"gap: stricter: naming.service [socket, socket-highbits]: it names AF_ALG ",
	} {
		if !strings.Contains(string(r.Stderr), want) {
			t.Errorf("%q is not said", want)
		}
	}
	for _, other := range []string{"plain", "granted", "tight", "denying"} {
		if strings.Contains(string(r.Stderr), "stops: "+other+".service") {
			t.Errorf("%s.service is said to stop", other)
		}
	}
	if r.Exit != 0 || before != b.snapshot(t) {
		t.Errorf("exit status %d, or a dry run that changes something\n%s", r.Exit, r.Stderr)
	}
}

type serviceStatus struct {
	Platform, Installed, Active, Probed string
	Restart, Reasons                    []string
}

func (b *servicesTest) status(t *testing.T) (serviceStatus, int) {
	t.Helper()
	r := b.Run(t, installed, "status", "systemd", "--json")
	var report struct{ Platforms []serviceStatus }
	if err := json.Unmarshal(r.Stdout, &report); err != nil || len(report.Platforms) != 1 {
		t.Fatalf("exit status %d, %v\n%s%s", r.Exit, err, r.Stdout, r.Stderr)
	}
	return report.Platforms[0], r.Exit
}

// testStale shows that running services are not closed yet, and status names
// them.
func (b *servicesTest) testStale(t *testing.T) {
	s, exit := b.status(t)
	if exit != 1 || s.Installed != "yes" || s.Active != "no" || s.Probed != "yes" {
		t.Errorf("exit status %d, %+v", exit, s)
	}
	for name := range boxServices {
		if !slices.Contains(s.Restart, name+".service") {
			t.Errorf("%s.service is not among what must be restarted: %v", name, s.Restart)
		}
	}
	if slices.Contains(s.Restart, agentOfBox) || slices.Contains(s.Restart, "afalg-policy-agent.service") {
		t.Errorf("what is left as it is must be restarted: %v", s.Restart)
	}
}

// restart restarts the services that status names.
func (b *servicesTest) restart(t *testing.T) {
	t.Helper()
	s, _ := b.status(t)
	for _, unit := range s.Restart {
		b.Output(t, "systemctl", "restart", unit)
	}
}

func (b *servicesTest) testStatus(t *testing.T) {
	want := serviceStatus{Platform: "systemd", Installed: "yes", Active: "yes", Probed: "yes"}
	if s, exit := b.status(t); exit != 0 || !cmp.Equal(want, s) {
		t.Errorf("exit status %d, %s", exit, cmp.Diff(want, s))
	}
	if r := b.Run(t, installed, "status", "agent", "--json"); r.Exit != 0 {
		t.Errorf("status agent: exit status %d\n%s", r.Exit, r.Stdout)
	}
}

// testAgain: with the same options, and its own drop-ins in force, install
// changes nothing.
func (b *servicesTest) testAgain(t *testing.T) {
	r := b.Run(t, slices.Concat([]string{installed, "install", "systemd"}, closeServices)...)
	if r.Exit != 0 || string(r.Stdout) != "unchanged\n" {
		t.Errorf("exit status %d\n%s%s", r.Exit, r.Stdout, r.Stderr)
	}
}

func (b *servicesTest) testClosed(t *testing.T) {
	for name := range boxServices {
		if closed := b.socket(t, name) == "closed"; closed == (name == "granted") {
			t.Errorf("%s.service: the socket is %s", name, b.socket(t, name))
		}
	}
}

// testDocker shows that docker.service is closed, and leads to the wrapper.
func (b *servicesTest) testDocker(t *testing.T) {
	if got := b.families(t, "docker.service"); !strings.Contains(got, "AF_INET") || slices.Contains(strings.Fields(got), "AF_ALG") {
		t.Errorf("docker.service may open %s", got)
	}
	const want = "PATH=/usr/local/lib/afalg-policy/docker:"
	if got := b.Output(t, "systemctl", "show", "--value", "--property=Environment", "docker.service"); !strings.HasPrefix(got, want) {
		t.Errorf("docker.service has %q, want %s", got, want)
	}
}

// testLater shows that a service that comes later is closed at once, but with a
// longer list than its own. Status reports that, and another install corrects
// it.
func (b *servicesTest) testLater(t *testing.T) {
	b.WriteFile(t, "/etc/systemd/system/later.service", fmt.Appendf(nil, boxService, "later", "RestrictAddressFamilies=AF_UNIX"), 0o644)
	b.Output(t, "systemctl", "daemon-reload")
	b.Output(t, "systemctl", "start", "later")
	if got := b.socket(t, "later"); got != "closed" {
		t.Errorf("later.service: the socket is %s", got)
	}
	s, exit := b.status(t)
	const want = `not active: the list of later.service is shorter than the one that was installed: run "afalg-policy install systemd" again`
	if exit != 1 || !slices.Contains(s.Reasons, want) {
		t.Errorf("exit status %d, %+v", exit, s)
	}
	b.change(t, "install", "systemd", closeServices...)
	if got := b.families(t, "later.service"); got != "AF_UNIX" {
		t.Errorf("later.service may open %s", got)
	}
	b.Output(t, "sh", "-c", "systemctl stop later && rm /etc/systemd/system/later.service && systemctl daemon-reload")
}
