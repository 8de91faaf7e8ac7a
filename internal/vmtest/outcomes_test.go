//go:build vm

package vmtest

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
)

// platformTest is a machine with one platform under test.
type platformTest struct {
	engine
	vm      *VM
	digests map[string]string
	kernel  []route
	real    bool // the kernel has AF_ALG
	mighty  bool // root has every capability: otherwise nobody can start a privileged container
}

const privileged = "privileged"

// route is a route as the machine's own kernel answers, without a container.
type route struct{ name, verdict string }

// outcome is the result of a workload. If the kernel has no AF_ALG, a grant
// only shows in that the agent asks the kernel.
type outcome struct {
	text    string
	granted bool
}

const (
	buildDir   = "/run/build"
	dockerfile = `FROM localhost/plain:1
COPY afalg-policy /
RUN /afalg-policy probe --route socket || true
`
	// work asks the kernel about every route, and uses two algorithms.
	work = `/afalg-policy probe 2>/tmp/probe.err | cut -f 1,2
` + inContainer
)

func (p *platformTest) askKernel(t *testing.T) {
	t.Helper()
	for line := range strings.Lines(string(p.vm.Run(t, installed, "probe").Stdout)) {
		f := strings.Split(line, "\t")
		p.kernel = append(p.kernel, route{f[0], f[1]})
	}
	if want := len(afalg.Routes()); len(p.kernel) != want {
		t.Fatalf("the prober answers %v, want %d routes", p.kernel, want)
	}
	p.mighty = p.vm.Run(t, "sh", "-c", `[ $(printf '%d' 0x$(sed -n 's/CapBnd:\t//p' /proc/self/status)) = $(((2 << $(cat /proc/sys/kernel/cap_last_cap)) - 1)) ]`).Exit == 0
}

// hasALG reports whether a client can use AF_ALG where nothing prevents it.
func hasALG(t *testing.T, vm *VM) bool {
	t.Helper()
	return vm.Run(t, "kcapi-dgst", "-c", "sha256", "--hex", "-i", "/etc/debian_version").Exit == 0
}

// verdicts is the output of work where every route is closed, or each but those
// that the platform itself closes, and no socket is passed in.
func (p *platformTest) verdicts(open bool) string {
	var text strings.Builder
	for _, r := range p.kernel {
		verdict := "closed"
		if open && !slices.Contains(p.engine.closed, r.name) {
			verdict = r.verdict
		}
		fmt.Fprintf(&text, "%s\t%s\n", r.name, verdict)
	}
	return text.String()
}

// seen is the output of a container, with the routes that this kernel does not
// count as closed: a filter in front of them need not be seen.
func (p *platformTest) seen(text string) string {
	for _, r := range p.kernel {
		if r.verdict == "unavailable" {
			text = strings.Replace(text, r.name+"\tunavailable\n", r.name+"\tclosed\n", 1)
		}
	}
	return text
}

// free, refused and granted are the results of work without a policy, and in a
// container that the policy grants nothing, or the rule.
func (p *platformTest) free(t *testing.T) outcome {
	t.Helper()
	return p.with(p.seen(p.verdicts(true)), p.saidFree(t))
}

// saidFree is the result of inContainer without a policy.
func (p *platformTest) saidFree(t *testing.T) outcome {
	t.Helper()
	said := strings.Repeat(noSocket, 3)
	if p.real {
		hmac := wantDigest(t, p.vm)
		said = hmac + p.plainDigest(t) + hmac
	}
	return outcome{said, false}
}

func (p *platformTest) refused(t *testing.T) outcome {
	return p.with(p.verdicts(false), p.said(t, false))
}
func (p *platformTest) granted(t *testing.T) outcome {
	return p.with(p.verdicts(false), p.said(t, true))
}

func (p *platformTest) with(verdicts string, o outcome) outcome {
	o.text = verdicts + o.text
	return o
}

// said is the result of inContainer.
func (p *platformTest) said(t *testing.T, granted bool) outcome {
	t.Helper()
	return outcome{said(t, p.vm, granted && p.real), granted}
}

// plainDigest is not allowed by the rule.
func (p *platformTest) plainDigest(t *testing.T) string {
	t.Helper()
	return sum([]byte(p.vm.Output(t, "cat", "/etc/debian_version") + "\n"))
}

// expect runs a container that works, and compares its output. Standard error
// is the container's own, too.
func (p *platformTest) expect(t *testing.T, c workload, want outcome) {
	t.Helper()
	p.says(t, c, work, want)
}

func (p *platformTest) says(t *testing.T, c workload, script string, want outcome) {
	t.Helper()
	c.args = []string{"sh", "-c", script}
	r := p.compare(t, c.name, p.run(c), want)
	if len(r.Stderr) > 0 {
		t.Errorf("%s: standard error: %s", c.name, r.Stderr)
	}
}

// compare runs a command that does the work, and compares the result.
func (p *platformTest) compare(t *testing.T, what string, args []string, want outcome) Result {
	t.Helper()
	before := p.asked(t)
	r := p.vm.Command(t, Command{Args: args, Timeout: 4 * time.Minute})
	if d := cmp.Diff(want.text, p.seen(string(r.Stdout))); d != "" || r.Exit != 0 {
		t.Errorf("%s: exit status %d, -want +got:\n%s\n%s", what, r.Exit, d, r.Stderr)
	}
	if !p.real {
		expectAsked(t, p.vm, what, unitLog, before, want.granted)
	}
	return r
}

// asked counts the requests that the agent allowed, and that got no socket from
// the kernel.
func (p *platformTest) asked(t *testing.T) int {
	t.Helper()
	return asked(t, p.vm, unitLog)
}

// unitLog is where the agent's unit writes.
const unitLog = "/run/" + agentUnit + ".log"

const gaveNone = "the kernel gave no socket"

func asked(t *testing.T, vm *VM, log string) int {
	t.Helper()
	return bytes.Count(vm.Run(t, "cat", log).Stdout, []byte(gaveNone))
}

// expectAsked checks whether the agent has asked the kernel again since that
// count. A log is written after the answer, so it waits for the line that it
// wants.
func expectAsked(t *testing.T, vm *VM, what, log string, before int, want bool) {
	t.Helper()
	if want {
		vm.Output(t, "sh", "-c", fmt.Sprintf("until [ $(grep -c '%s' %s) -gt %d ]; do sleep .1; done", gaveNone, log, before))
		return
	}
	if asked(t, vm, log) > before {
		t.Errorf("%s: the agent asked the kernel", what)
	}
}

// expectExec does the work in a running container.
func (p *platformTest) expectExec(t *testing.T, when string, args []string, script string, want outcome) {
	t.Helper()
	p.compare(t, fmt.Sprintf("%v, %s", args, when), append(args, "sh", "-c", script), want)
}

// sleeping starts a container that stays.
func (p *platformTest) sleeping(t *testing.T, c workload) {
	t.Helper()
	c.detach, c.args = true, []string{"sleep", "100000"}
	if r := p.try(t, p.vm, c); r.Exit != 0 {
		t.Fatalf("%s: exit status %d\n%s", c.name, r.Exit, r.Stderr)
	}
}

func (p *platformTest) discard(t *testing.T, name string) {
	t.Helper()
	p.vm.Output(t, append(slices.Clone(p.remove), name)...)
}
