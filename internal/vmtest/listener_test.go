//go:build vm

package vmtest

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/testing/machine/wire"
)

// Output of "attack listener".
const (
	noListener = "refused with EBUSY all\nlisteners none\nAF_ALG parents none\nbound none\nsocket ENOSYS\n"
	// The same with a broker that exists, and grants nothing.
	listenerLives = "refused with EBUSY all\nlisteners none\nAF_ALG parents none\nbound none\nsocket EAFNOSUPPORT\n"
	// Proof that it is an attack; by other ABIs some tries come to nothing.
	inPlace = "refused with EBUSY none\nlisteners some\nAF_ALG parents some\nbound some\nsocket ENOSYS\n"
)

// TestLongListener has the workload replace our listener by its own, in every
// place where ours can be missing. Each time it tries the same under a filter
// that lacks only the refusal.
func TestLongListener(t *testing.T) {
	files := buildAttacks(t)
	t.Parallel()
	vm := Boot(t, Kernels()[len(Kernels())-1], Options{})
	putAttacks(t, vm, files)
	vm.WriteFile(t, agentPolicy, containerPolicy(t), 0o644)
	t.Run("run", func(t *testing.T) { testListenerRun(t, vm) })
	root := vm.HostRoot(t)
	kept := agentProfile(t)
	for name, c := range map[string]struct {
		profile []byte
		want    string
	}{
		"refused": {kept, noListener},
		"control": {withoutRefusal(t, kept), inPlace},
	} {
		t.Run(name, func(t *testing.T) {
			l := listenerTest{vm, root, c.profile, c.want}
			t.Run("agent stopped", func(t *testing.T) { l.agentGone(t, "TERM") })
			t.Run("agent killed", func(t *testing.T) { l.agentGone(t, "KILL") })
			t.Run("crun exec", func(t *testing.T) { l.crunExec(t) })
			t.Run("greeting forgotten", func(t *testing.T) { l.forgotten(t) })
		})
	}
	t.Run("greeting refused", func(t *testing.T) { testGreetingRefused(t, vm, root, kept) })
}

// withoutRefusal is a brokered profile in which seccomp is permitted whole.
func withoutRefusal(t *testing.T, text []byte) []byte {
	t.Helper()
	var p specs.LinuxSeccomp
	if err := json.Unmarshal(text, &p); err != nil {
		t.Fatal(err)
	}
	permitted, refused := 0, 0
	var rules []specs.LinuxSyscall
	for _, r := range p.Syscalls {
		if len(r.Names) == 1 && r.Names[0] == "seccomp" {
			if r.Action == specs.ActErrno {
				refused++
				continue
			}
			permitted++
			r.Args = nil
		}
		rules = append(rules, r)
	}
	if permitted != 1 || refused != 1 {
		t.Fatalf("%d permissions and %d refusals of seccomp: the profile is another one", permitted, refused)
	}
	p.Syscalls = rules
	return mustJSON(t, p)
}

// asUser is an ordinary user, as on a desktop.
func asUser(args ...string) []string {
	return append([]string{"setpriv", "--reuid=1000", "--regid=1000", "--clear-groups"}, args...)
}

// testListenerRun attacks with a daemon that the command of "run" leaves
// behind. One that survives the end of its tree is in the same place as if all
// parts were killed.
func testListenerRun(t *testing.T, vm *VM) {
	const attack, report = attackDir + "attack", "/tmp/listener.report"
	wait := fmt.Sprintf("until [ -e %[1]s ]; do sleep .1; done; cat %[1]s %[1]s.err", report)
	for _, test := range []struct{ name, script, want string }{
		// One part is left, and ends the daemon before it can try.
		{"broker killed", "$RUN $A daemon broker $R; " + gone, nothingLeft},
		{"guard and broker killed", "$RUN $A daemon guard $R; " + wait, noListener},
		{"all killed", "$RUN $A daemon all $R; " + wait, noListener},
		{"control", "$A orphaned $A listener; cat $R.err", inPlace},
		// A process left in the background is served as before.
		{"daemon served", "$GRANTED sh -c '(setsid sh -c \"sleep 2; $A sessions 200 >$R.new 2>/dev/null; mv $R.new $R\" >/dev/null &)'; " + wait, "failed 0\n"},
		{"broker lives", "$RUN $A listener; cat $R.err", listenerLives},
	} {
		t.Run(test.name, func(t *testing.T) {
			vm.Output(t, "sh", "-c", "rm -f "+report+"*")
			r := vm.Command(t, Command{
				Args: asUser("sh", "-c", "exec 2>"+report+".err; "+test.script), Timeout: 5 * time.Minute,
				Env: []string{"A=" + attack, "R=" + report,
					"RUN=" + program(t) + " run " + attackPolicy + " --", "GRANTED=" + program(t) + " run " + attackPolicy + " --grant path --"},
			})
			got := ""
			for line := range strings.Lines(string(r.Stdout)) {
				if line == "Killed\n" { // the shell's, if the command's end came later than the daemon
					continue
				}
				if strings.HasPrefix(line, "tries ") {
					t.Log(strings.TrimSpace(line))
				} else if !strings.HasPrefix(line, "{") && !strings.HasPrefix(line, "afalg-policy: ") {
					got += line
				}
			}
			if d := cmp.Diff(test.want, got); d != "" {
				t.Errorf("exit status %d, -want +got:\n%s\n%s", r.Exit, d, vm.Run(t, "cat", report+".err").Stdout)
			}
		})
	}
}

// gone waits until nothing is left of the attack; a try writes a report.
const (
	gone        = `while pgrep -x attack >/dev/null && ! [ -e $R ]; do sleep .1; done; [ -e $R ] && exec cat $R $R.err; echo nothing is left`
	nothingLeft = "nothing is left\n"
)

// listenerTest tries it in containers under a profile.
type listenerTest struct {
	vm      *VM
	root    string
	profile []byte
	want    string
}

// startAgent starts an agent by hand, or a stand-in for one.
func (l listenerTest) startAgent(t *testing.T, command string) {
	t.Helper()
	startAgent(t, l.vm, command)
}

func (l listenerTest) endAgent(t *testing.T, signal string) {
	t.Helper()
	l.vm.Output(t, "sh", "-c", "kill -"+signal+" $(cat /run/agent.pid); while kill -0 $(cat /run/agent.pid) 2>/dev/null; do sleep .1; done")
}

// waiting tries when it is told to.
const waiting = `while ! [ -e /tmp/go ]; do sleep .1; done; /opt/attack/attack listener >/tmp/new 2>&1; mv /tmp/new /tmp/done; sleep 100000`

// start starts a container in the background, and returns its id.
func (l listenerTest) start(t *testing.T, runtime, script string) (id string) {
	t.Helper()
	config, err := Container{Rootfs: l.root, Seccomp: l.profile, Args: []string{"sh", "-c", script}}.Spec()
	if err != nil {
		t.Fatal(err)
	}
	bundle := l.vm.Next("listener")
	l.vm.WriteFile(t, path.Join(bundle, "config.json"), config, 0o644)
	id = path.Base(bundle)
	l.vm.Output(t, "sh", "-c", fmt.Sprintf("cd %s && %s --root %s run --detach %s </dev/null >/run/listener.out 2>&1 || { cat /run/listener.out /run/agent.out >&2; exit 1; }",
		bundle, runtime, wire.RunDir+"/"+runtime, id))
	t.Cleanup(func() { // the test's own context has ended by then
		_, err := l.vm.Do(context.Background(), Command{Args: []string{runtime, "--root", wire.RunDir + "/" + runtime, "delete", "--force", id}})
		if err != nil {
			t.Error(err)
		}
	})
	return id
}

// try has the container's own process try, and compares the result.
func (l listenerTest) try(t *testing.T, runtime, id string) {
	t.Helper()
	pid := l.vm.Output(t, "sh", "-c", fmt.Sprintf(`%s --root %s state %s | sed -n 's/.*"pid": \([0-9]*\).*/\1/p'`, runtime, wire.RunDir+"/"+runtime, id))
	r := l.vm.Command(t, Command{Args: []string{"nsenter", "-t", pid, "-m", "sh", "-c",
		"touch /tmp/go; until [ -e /tmp/done ]; do sleep .1; done; cat /tmp/done"}, Timeout: 4 * time.Minute})
	l.compare(t, r)
}

func (l listenerTest) compare(t *testing.T, r Result) {
	t.Helper()
	got := ""
	for line := range strings.Lines(string(r.Stdout) + string(r.Stderr)) {
		if strings.HasPrefix(line, "tries ") {
			t.Log(strings.TrimSpace(line))
		} else {
			got += line
		}
	}
	if d := cmp.Diff(l.want, got); d != "" {
		t.Errorf("exit status %d, -want +got:\n%s", r.Exit, d)
	}
}

// agentGone ends the agent below a container that runc started.
func (l listenerTest) agentGone(t *testing.T, signal string) {
	l.startAgent(t, realAgent(t))
	id := l.start(t, "runc", waiting)
	l.endAgent(t, signal)
	l.try(t, "runc", id)
}

// crunExec uses a process that has the filter, and never had a listener.
func (l listenerTest) crunExec(t *testing.T) {
	l.startAgent(t, realAgent(t))
	id := l.start(t, "crun", "sleep 100000")
	l.compare(t, l.vm.Command(t, Command{
		Args: []string{"crun", "--root", wire.RunDir + "/crun", "exec", id, attackDir + "attack", "listener"}, Timeout: 4 * time.Minute}))
	l.endAgent(t, "TERM")
}

// forgotten has an agent take the listener and close it; the container goes on.
func (l listenerTest) forgotten(t *testing.T) {
	l.startAgent(t, attackDir+"attack forgetful "+agentSocket)
	for _, runtime := range Runtimes() {
		l.try(t, runtime, l.start(t, runtime, waiting))
	}
	l.endAgent(t, "KILL")
}

// testGreetingRefused shows that a container whose first process holds an
// AF_ALG socket does not go on.
func testGreetingRefused(t *testing.T, vm *VM, root string, profile []byte) {
	l := listenerTest{vm, root, profile, ""}
	l.startAgent(t, realAgent(t))
	config, err := Container{Rootfs: root, Seccomp: profile, Args: []string{"echo", "it goes on"}}.Spec()
	if err != nil {
		t.Fatal(err)
	}
	bundle := vm.Next("refused")
	vm.WriteFile(t, path.Join(bundle, "config.json"), config, 0o644)
	r := vm.Command(t, Command{Args: []string{attackDir + "attack", "inherit", "parent", "sh", "-c",
		"exec 3<&7 7<&-; exec runc --root " + wire.RunDir + "/runc run --preserve-fds 1 --bundle " + bundle + " refused"}, Timeout: 2 * time.Minute})
	if r.Exit == 0 || strings.Contains(string(r.Stdout), "goes on") {
		t.Errorf("the container went on: exit status %d\n%s%s", r.Exit, r.Stdout, r.Stderr)
	}
	// The agent may say so after the runtime has seen the end.
	log := vm.Output(t, "sh", "-c", "until grep -q 'is refused, and its process was killed' "+agentLog+" /run/agent.out; do sleep .1; done; cat "+agentLog+" /run/agent.out")
	if !strings.Contains(log, "holds an AF_ALG socket") {
		t.Errorf("the agent did not say that it killed the container's process:\n%s\nrunc: %s", log, r.Stderr)
	}
	l.endAgent(t, "TERM")
}
