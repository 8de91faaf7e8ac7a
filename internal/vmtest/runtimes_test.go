//go:build vm

package vmtest

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/vmtest/wire"
)

// TestRuntimes puts the wrapper in front of each runtime by hand.
func TestRuntimes(t *testing.T) {
	t.Parallel()
	vm := Boot(t, "6.1", Options{})
	vm.Output(t, "install", "-D", program(t), installed)
	vm.WriteFile(t, agentPolicy, platformPolicy(t, map[string]string{"known": "sha256:" + sum(nil)}, "refuse"), 0o644)
	vm.Output(t, "sh", "-c", "mkdir -p /run/afalg-policy; "+installed+" agent "+agentPolicy+" --listen "+agentSocket+
		" >/run/agent.out 2>&1 </dev/null & for i in $(seq 100); do [ -S "+agentSocket+" ] && exit; sleep .1; done; cat /run/agent.out; exit 1")
	root := vm.HostRoot(t)
	for _, runtime := range Runtimes() {
		t.Run(runtime, func(t *testing.T) {
			w := &wrapped{vm, runtime, root}
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
	bundle := w.vm.next("bundle")
	w.vm.WriteFile(t, bundle+"/config.json", config, 0o644)
	return bundle
}

// expect runs a container in a bundle, which stays as it is.
func (w *wrapped) expect(t *testing.T, bundle, id, want string) {
	t.Helper()
	before := w.vm.Output(t, "sh", "-c", "cd "+bundle+" && ls -lA --full-time && sha256sum config.json")
	r := w.vm.Command(t, Command{Args: w.command("run", "--bundle", bundle, id), Timeout: 4 * time.Minute})
	if d := cmp.Diff(want, string(r.Stdout)); d != "" || r.Exit != 0 {
		t.Errorf("%s: exit status %d, -want +got:\n%s\n%s", id, r.Exit, d, r.Stderr)
	}
	if after := w.vm.Output(t, "sh", "-c", "cd "+bundle+" && ls -lA --full-time && sha256sum config.json"); after != before {
		t.Errorf("%s: the bundle was\n%s\nand is\n%s", id, before, after)
	}
}

func (w *wrapped) testRun(t *testing.T) {
	bundle := w.bundle(t, allowAll, "sh", "-c", inContainer)
	direct := w.vm.Run(t, w.runtime, "run", "--bundle", bundle, "direct")
	if got := string(direct.Stdout); bytes.Contains(direct.Stdout, []byte("Error")) || len(got) != 2*len(wantDigest(t, w.vm))+64 {
		t.Errorf("without the wrapper AF_ALG is not open: %s%s", got, direct.Stderr)
	}
	w.expect(t, bundle, "ordinary", said(t, w.vm, false))
	w.expect(t, bundle, "granted", said(t, w.vm, true))
}

// testBundles: from wherever the spec comes, what runs is hardened.
func (w *wrapped) testBundles(t *testing.T) {
	bundle := w.bundle(t, allowAll, "sh", "-c", inContainer)
	w.vm.Output(t, "mount", "--bind", bundle, bundle)
	w.vm.Output(t, "mount", "-o", "remount,bind,ro", bundle)
	w.expect(t, bundle, "read-only", said(t, w.vm, false))
	linked := w.vm.next("bundle")
	w.vm.Output(t, "mkdir", linked)
	w.vm.Output(t, "ln", "-s", bundle+"/config.json", linked+"/config.json")
	w.expect(t, linked, "linked", said(t, w.vm, false))
	r := w.vm.Run(t, "sh", "-c", "cd "+bundle+" && exec "+strings.Join(w.command("run", "here"), " "))
	if d := cmp.Diff(said(t, w.vm, false), string(r.Stdout)); d != "" {
		t.Errorf("in the working directory: exit status %d, -want +got:\n%s\n%s", r.Exit, d, r.Stderr)
	}
}

// testExec: what is started in a container later is under its filter.
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
		r := w.vm.Run(t, append(slices.Clone(command), "sh", "-c", inContainer)...)
		if d := cmp.Diff(said(t, w.vm, false), string(r.Stdout)); d != "" {
			t.Errorf("%s: exit status %d, -want +got:\n%s\n%s", name, r.Exit, d, r.Stderr)
		}
	}
	w.vm.Output(t, w.command("kill", "inside", "KILL")...)
	w.vm.Output(t, "sh", "-c", "for i in $(seq 50); do "+strings.Join(w.direct("delete", "inside"), " ")+" && exit; sleep .1; done; exit 1")
}

func (w *wrapped) testUnconfined(t *testing.T) {
	bundle := w.bundle(t, "", "echo", "up")
	r := w.vm.Run(t, w.command("run", "--bundle", bundle, "free")...)
	if r.Exit != 1 || len(r.Stdout) > 0 || !bytes.Contains(r.Stderr, []byte("the container has no seccomp profile")) {
		t.Errorf("exit status %d, and it says %q\n%s", r.Exit, r.Stdout, r.Stderr)
	}
}

// testOthers: what starts no container is the runtime's own business.
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
