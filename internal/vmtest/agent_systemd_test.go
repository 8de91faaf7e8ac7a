//go:build vm

package vmtest

import (
	"bytes"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/afalg-policy/afalg-policy/internal/testing/box"
	"github.com/afalg-policy/afalg-policy/internal/testing/machine/wire"
)

const agentUnit = "afalg-policy-agent"

// answering is a container's command that uses AF_ALG each time it is told to:
// by its session, and by a new one if that is lost.
const answering = `mkfifo /tmp/ask /tmp/answer
python3 -c '
import socket
def session():
    parent = socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET)
    parent.bind(("hash", "hmac(sha512)"))
    parent.setsockopt(socket.SOL_ALG, socket.ALG_SET_KEY, b"key")
    return parent
def digest(parent):
    with parent.accept()[0] as op:
        op.sendall(open("/etc/debian_version", "rb").read())
        return op.recv(64).hex()
try:
    parent = session()
except OSError:
    parent = None
open("/tmp/answer", "w").write("up")
while True:
    open("/tmp/ask").read()
    try:
        text = "old " + digest(parent)
    except (OSError, AttributeError):
        try:
            parent = session()
            text = "new " + digest(parent)
        except OSError as e:
            text = e.strerror
    open("/tmp/answer", "w").write(text)
' &
cat /tmp/answer >/tmp/ready
while :; do sleep 1; done`

// testAgentService runs the agent as the shipped service, restarts and kills
// it, and asks a container that was there before.
func testAgentService(t *testing.T, vm *VM) {
	vm.Output(t, "cp", program(t), "/usr/local/bin/afalg-policy")
	vm.WriteFile(t, agentPolicy, systemdPolicy(t), 0o644)
	for _, kind := range []string{".service", ".socket"} {
		unit, err := os.ReadFile("../../dist/" + agentUnit + kind)
		if err != nil {
			t.Fatal(err)
		}
		vm.WriteFile(t, "/etc/systemd/system/"+agentUnit+kind, unit, 0o644)
	}
	// There is no journal.
	vm.WriteFile(t, "/etc/systemd/system/"+agentUnit+".service.d/log.conf", []byte("[Service]\nStandardError=append:"+agentLog+"\n"), 0o644)
	vm.Output(t, "systemctl", "daemon-reload")
	vm.Output(t, "systemctl", "start", agentUnit+".socket")
	c := startAnswering(t, vm)
	c.expect("at first", "old")

	vm.Output(t, "systemctl", "restart", agentUnit)
	c.expect("after a restart", "old")

	vm.Output(t, "systemctl", "kill", "--kill-who=main", "--signal=KILL", agentUnit)
	c.expect("after the agent was killed", "new")

	vm.WriteFile(t, agentPolicy, []byte("version: 1\nname: [\n"), 0o644)
	reloadAgent(t, vm)
	c.expect("after an invalid policy", "old")

	vm.WriteFile(t, agentPolicy, []byte("version: 1\nname: nothing\n"), 0o644)
	reloadAgent(t, vm)
	c.expect("after a policy without the rule", noFamily)

	vm.WriteFile(t, agentPolicy, systemdPolicy(t), 0o644)
	reloadAgent(t, vm)
	c.expect("after the first policy again", "old")

	vm.Output(t, "systemctl", "stop", agentUnit+".socket", agentUnit+".service")
	c.expect("after the agent was stopped", "Function not implemented")
}

// reloadAgent returns once the agent has read the policy, or refused it:
// systemctl does not wait for that.
func reloadAgent(t *testing.T, vm *VM) {
	t.Helper()
	const read = `grep -c 'the policy was read again\|the new policy was refused' ` + agentLog
	vm.Output(t, "sh", "-c", "n=$("+read+"); systemctl reload "+agentUnit+" && until [ $("+read+") -gt $n ]; do sleep .1; done")
}

// noFamily is the answer of a denial, and of a kernel without AF_ALG.
const noFamily = "Address family not supported by protocol"

// TestBoxAgentService asks on the host's kernel. If that has no AF_ALG, a
// session only shows that the agent asks for it.
func TestBoxAgentService(t *testing.T) {
	t.Parallel()
	testAgentService(t, box.Start(t))
}

// storing puts descriptors with the longest names into the service manager's store,
// as many as its argument says. Started again, it says how many came back.
const storing = `import os, socket, sys
manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
manager.connect(os.environ["NOTIFY_SOCKET"].replace("@", "\0", 1))
back = os.environ.get("LISTEN_FDS", "none")
for i in range(int(sys.argv[1]) if back == "none" else 0):
    fd = os.memfd_create("stored")
    socket.send_fds(manager, [b"FDSTORE=1\nFDNAME=" + b"%0255d" % i], [fd])
    os.close(fd)
open("/run/storing", "w").write(back)
manager.send(b"READY=1")
while True:
    manager.recv(1)
`

// TestBoxStoreNames shows how long the names in the store may be together: those of
// the agent's full store are passed on, and a unit with longer ones does not start again.
func TestBoxStoreNames(t *testing.T) {
	t.Parallel()
	vm := box.Start(t)
	vm.WriteFile(t, "/run/storing.py", []byte(storing), 0o644)
	vm.WriteFile(t, "/run/systemd/system/storing@.service", []byte("[Service]\nType=notify\nFileDescriptorStoreMax=1000\nLimitNOFILE=524288\nExecStart=python3 /run/storing.py %i\n"), 0o644)
	vm.Output(t, "systemctl", "daemon-reload")
	// 480 names of 255 bytes are as long as 15,360 of seven, separators included.
	for number, want := range map[string]string{"480": "480", "520": "status=203/EXEC"} { // E2BIG
		unit := "storing@" + number
		vm.Output(t, "systemctl", "start", unit)
		vm.Run(t, "systemctl", "restart", unit)
		r := vm.Run(t, "sh", "-c", "systemctl --quiet is-active "+unit+" && cat /run/storing || systemctl status "+unit)
		if got := string(r.Stdout); !strings.Contains(got, want) {
			t.Errorf("%s names: want %q:\n%s", number, want, got)
		}
	}
}

// systemdPolicy allows python, by its digest.
func systemdPolicy(t *testing.T) []byte {
	python, err := filepath.EvalSymlinks("/usr/bin/python3")
	if err != nil {
		t.Fatal(err)
	}
	policy := containerPolicy(t)
	return bytes.Replace(policy, []byte("    binaries:\n"), []byte("    binaries:\n      - path: "+python+"\n        sha256: "+digestOf(t, python)+"\n"), 1)
}

// answerer is a running container.
type answerer struct {
	t    *testing.T
	vm   *VM
	id   string
	real bool // the kernel has AF_ALG
}

func startAnswering(t *testing.T, vm *VM) answerer {
	t.Helper()
	spec := Container{Rootfs: vm.HostRoot(t), Seccomp: agentProfile(t, "--grant", "digest"), Args: []string{"sh", "-c", answering}}
	config, err := spec.Spec()
	if err != nil {
		t.Fatal(err)
	}
	bundle := wire.RunDir + "/answering"
	vm.WriteFile(t, path.Join(bundle, "config.json"), config, 0o644)
	c := answerer{t, vm, "answering", hasALG(t, vm)}
	vm.Output(t, "sh", "-c", "cd "+bundle+" && runc run --detach "+c.id+" </dev/null >/run/answering.out 2>&1; cat /run/answering.out >&2")
	if got := c.exec("until [ -s /tmp/ready ]; do sleep .1; done; cat /tmp/ready"); got != "up" {
		t.Fatalf("the container says %q\n%s", got, vm.Run(t, "sh", "-c", "cat /run/answering.out "+agentLog).Stdout)
	}
	return c
}

func (c answerer) exec(script string) string {
	c.t.Helper()
	pid := c.vm.Output(c.t, "sh", "-c", "runc state "+c.id+` | sed -n 's/.*"pid": \([0-9]*\).*/\1/p'`)
	r := c.vm.Command(c.t, Command{Args: []string{"nsenter", "-t", pid, "-m", "sh", "-c", script}})
	return string(r.Stdout) + string(r.Stderr)
}

// expect has the container accept: on its "old" session, or on a "new" one, or
// fail with an error.
func (c answerer) expect(when, want string) {
	c.t.Helper()
	session := want == "old" || want == "new"
	switch {
	case session && c.real:
		want += " " + wantDigest(c.t, c.vm)
	case session:
		want = noFamily
	}
	before := asked(c.t, c.vm, agentLog)
	if got := c.exec("echo >/tmp/ask; cat /tmp/answer"); got != want {
		c.t.Errorf("%s: the container says %q, want %q", when, got, want)
	}
	if !c.real {
		expectAsked(c.t, c.vm, when, agentLog, before, session)
	}
}
