//go:build vm

package vmtest

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/testing/box"
	"github.com/afalg-policy/afalg-policy/internal/testing/machine/wire"
)

// TestBoxRuntimes puts the wrapper in front of each runtime by hand.
func TestBoxRuntimes(t *testing.T) {
	t.Parallel()
	vm := box.Start(t)
	vm.Output(t, "install", "-D", program(t), installed)
	vm.WriteFile(t, agentPolicy, platformPolicy(t, map[string]string{"known": "sha256:" + sum(nil)}, "refuse"), 0o644)
	startAgent(t, vm, realAgent(t))
	root := vm.HostRoot(t)
	for _, runtime := range Runtimes() {
		t.Run(runtime, func(t *testing.T) {
			w := &wrapped{vm, runtime, root, hasALG(t, vm)}
			t.Run("run", w.testRun)
			t.Run("bundles", w.testBundles)
			t.Run("exec", w.testExec)
			t.Run("unconfined", w.testUnconfined)
			t.Run("others", w.testOthers)
		})
	}
}

// allowAll is a profile that closes nothing.
const allowAll = `{"defaultAction":"SCMP_ACT_ALLOW"}`

// wrapped is a runtime behind the wrapper.
type wrapped struct {
	vm      *VM
	runtime string
	root    string
	real    bool // the kernel has AF_ALG
}

func (w *wrapped) command(args ...string) []string {
	return slices.Concat([]string{installed, "runtime", "--policy", agentPolicy, "--runtime-path", w.runtime, "--"}, w.direct()[1:], args)
}

// direct is the runtime by itself, with the same containers.
func (w *wrapped) direct(args ...string) []string {
	return append([]string{w.runtime, "--root", wire.RunDir + "/" + w.runtime}, args...)
}

// bundle makes a bundle whose container does args.
func (w *wrapped) bundle(t *testing.T, seccomp string, args ...string) string {
	t.Helper()
	c := Container{Rootfs: w.root, Args: args}
	if seccomp != "" {
		c.Seccomp = json.RawMessage(seccomp)
	}
	config, err := c.Spec()
	if err != nil {
		t.Fatal(err)
	}
	bundle := w.vm.Next("bundle")
	w.vm.WriteFile(t, bundle+"/config.json", config, 0o644)
	return bundle
}

// expect runs a container in a bundle, which stays as it is.
func (w *wrapped) expect(t *testing.T, bundle, id string, granted bool) {
	t.Helper()
	before, asked := w.listing(t, bundle), w.asked(t)
	r := w.vm.Run(t, w.command("run", "--bundle", bundle, id)...)
	w.compare(t, id, r, granted)
	if after := w.listing(t, bundle); after != before {
		t.Errorf("%s: the bundle was\n%s\nand is\n%s", id, before, after)
	}
	if !w.real {
		expectAsked(t, w.vm, id, agentLog, asked, granted)
	}
}

// compare compares the output of askInContainer with the expected one.
func (w *wrapped) compare(t *testing.T, what string, r Result, granted bool) {
	t.Helper()
	if d := cmp.Diff("socket\tclosed\n"+said(t, w.vm, granted && w.real), string(r.Stdout)); d != "" || r.Exit != 0 {
		t.Errorf("%s: exit status %d, -want +got:\n%s\n%s", what, r.Exit, d, r.Stderr)
	}
}

func (w *wrapped) listing(t *testing.T, bundle string) string {
	t.Helper()
	return w.vm.Output(t, "sh", "-c", "cd "+bundle+" && ls -lA --full-time && sha256sum config.json")
}

func (w *wrapped) asked(t *testing.T) int {
	t.Helper()
	return asked(t, w.vm, agentLog)
}

// askInContainer also shows whether a filter stops the socket.
const askInContainer = installed + " probe --route socket | cut -f 1,2\n" + inContainer

func (w *wrapped) testRun(t *testing.T) {
	bundle := w.bundle(t, allowAll, "sh", "-c", askInContainer)
	direct := w.vm.Run(t, w.runtime, "run", "--bundle", bundle, "direct")
	if bytes.HasPrefix(direct.Stdout, []byte("socket\tclosed\n")) || bytes.Contains(direct.Stdout, []byte("Error")) == w.real {
		t.Errorf("without the wrapper AF_ALG is not what the kernel has: %s%s", direct.Stdout, direct.Stderr)
	}
	w.expect(t, bundle, "ordinary", false)
	w.expect(t, bundle, "granted", true)
}

// testBundles shows that every container is hardened, wherever its spec comes
// from.
func (w *wrapped) testBundles(t *testing.T) {
	bundle := w.bundle(t, allowAll, "sh", "-c", askInContainer)
	w.vm.Output(t, "mount", "--bind", bundle, bundle)
	w.vm.Output(t, "mount", "-o", "remount,bind,ro", bundle)
	w.expect(t, bundle, "read-only", false)
	linked := w.vm.Next("bundle")
	w.vm.Output(t, "mkdir", linked)
	w.vm.Output(t, "ln", "-s", bundle+"/config.json", linked+"/config.json")
	w.expect(t, linked, "linked", false)
	r := w.vm.Run(t, "sh", "-c", "cd "+bundle+" && exec "+strings.Join(w.command("run", "here"), " "))
	w.compare(t, "in the working directory", r, false)
}

// testExec shows that a process started in a container later is under its
// filter.
func (w *wrapped) testExec(t *testing.T) {
	bundle := w.bundle(t, allowAll, "sleep", "100000")
	for _, step := range [][]string{{"create", "--bundle", bundle, "inside"}, {"start", "inside"}} {
		// The container keeps the streams.
		w.vm.Output(t, "sh", "-c", strings.Join(w.command(step...), " ")+" </dev/null >/run/step.out 2>&1 || { cat /run/step.out >&2; exit 1; }")
	}
	for name, command := range map[string][]string{
		"through the wrapper": w.command("exec", "inside"),
		"past the wrapper":    w.direct("exec", "--cap", "CAP_SYS_ADMIN", "inside"),
	} {
		r := w.vm.Run(t, append(slices.Clone(command), "sh", "-c", askInContainer)...)
		w.compare(t, name, r, false)
	}
	w.vm.Output(t, w.command("kill", "inside", "KILL")...)
	w.vm.Output(t, "sh", "-c", "until "+strings.Join(w.direct("delete", "inside"), " ")+"; do sleep .1; done")
}

func (w *wrapped) testUnconfined(t *testing.T) {
	bundle := w.bundle(t, "", "echo", "up")
	r := w.vm.Run(t, w.command("run", "--bundle", bundle, "free")...)
	if r.Exit != 1 || len(r.Stdout) > 0 || !bytes.Contains(r.Stderr, []byte("the container has no seccomp profile")) {
		t.Errorf("exit status %d, and it says %q\n%s", r.Exit, r.Stdout, r.Stderr)
	}
}

// testOthers shows that commands that start no container are the runtime's own
// business.
func (w *wrapped) testOthers(t *testing.T) {
	for _, args := range [][]string{{"--version"}, {"list"}, {"state", "nobody"}, {"kill", "nobody", "KILL"}, {"no-such-command"}} {
		want, got := w.vm.Run(t, w.direct(args...)...), w.vm.Run(t, w.command(args...)...)
		want.Took, got.Took = 0, 0
		if w.runtime == "runc" { // it prints the time
			want.Stderr, got.Stderr = withoutTime(want.Stderr), withoutTime(got.Stderr)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%v, -direct +wrapped:\n%s", args, d)
		}
	}
}

func withoutTime(line []byte) []byte {
	_, rest, found := bytes.Cut(line, []byte(" level="))
	if !found {
		return line
	}
	return rest
}
