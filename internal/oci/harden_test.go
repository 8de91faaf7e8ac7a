package oci

import (
	"encoding/json"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/filter/harden"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

const policyText = `version: 1
name: containers
containers:
  unconfined: UNCONFINED
  grants:
    - rules: [digest]
      names: [web]
    - rules: [digest]
      labels: {role: crypto}
allow:
  - rule: digest
    anyone: true
    algorithms: {hash: ["hmac(sha512)"]}
  - rule: other
    anyone: true
    algorithms: {hash: [sha256]}
`

func loadPlan(t testing.TB, unconfined string) *plan.Plan {
	t.Helper()
	return planOf(t, policyText, unconfined)
}

func planOf(t testing.TB, text, unconfined string) *plan.Plan {
	t.Helper()
	text = strings.Replace(text, "UNCONFINED", unconfined, 1)
	p, _, err := plan.Load("policy.yaml", func(string) ([]byte, error) { return []byte(text), nil })
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// listenSocket is a socket on which somebody listens.
func listenSocket(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return path
}

func options(t testing.TB, unconfined string) Options {
	return Options{Plan: loadPlan(t, unconfined), Tool: "test", Arch: specs.ArchX86_64, Agent: listenSocket(t)}
}

// The container that the policy names, and another one.
var (
	web   = plan.Container{Platform: "oci", ID: "c1", Vouched: plan.Identity{Name: "web"}}
	plain = plan.Container{Platform: "oci", ID: "c2", Vouched: plan.Identity{Name: "plain"}}
)

const (
	openSpec = `{
  "ociVersion": "1.9.0-later",
  "root": {"path": "rootfs"},
  "later": {"unknown": [1, 2.50, 1e400]},
  "process": {"args": ["x"], "capabilities": {"bounding": ["CAP_CHOWN"]}},
  "linux": {
    "seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]},
    "also": "later"
  }
}
`
	unconfinedSpec = `{"ociVersion": "1.0.2", "root": {"path": "/r"}, "linux": {"namespaces": []}}`
)

// harden and check are for texts.
func (o Options) harden(text []byte, c plan.Container) (Outcome, error) {
	return asked(o, text, c, Options.Harden)
}

func (o Options) check(text []byte, c plan.Container) (Outcome, error) {
	return asked(o, text, c, Options.Check)
}

func asked(o Options, text []byte, c plan.Container, ask func(Options, *Spec, plan.Container) (Outcome, error)) (Outcome, error) {
	spec, err := ReadSpec(text)
	if err != nil {
		return Outcome{}, err
	}
	return ask(o, spec, c)
}

func seccompOf(t *testing.T, spec []byte) *specs.LinuxSeccomp {
	t.Helper()
	var s specs.Spec
	if err := json.Unmarshal(spec, &s); err != nil {
		t.Fatal(err)
	}
	return s.Linux.Seccomp
}

// rest is a spec without its seccomp profile.
func rest(t *testing.T, spec []byte) any {
	t.Helper()
	var v map[string]any
	d := json.NewDecoder(strings.NewReader(string(spec)))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	delete(v["linux"].(map[string]any), "seccomp")
	return v
}

// mustCheck asks the gate, which knows nothing of how the spec came about.
func mustCheck(t *testing.T, o Options, spec []byte, c plan.Container) Outcome {
	t.Helper()
	out, err := o.check(spec, c)
	if err != nil {
		t.Fatalf("the gate refuses what Harden made: %v", err)
	}
	return out
}

func TestHarden(t *testing.T) {
	o := options(t, "refuse")
	for _, tt := range []struct {
		name    string
		c       plan.Container
		verdict Verdict
		grants  []string
	}{
		{"without grants", plain, Closed, nil},
		{"with grants", web, Granted, []string{"digest"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, err := o.harden([]byte(openSpec), tt.c)
			if err != nil {
				t.Fatal(err)
			}
			if out.Verdict != tt.verdict || cmp.Diff(tt.grants, out.Grants) != "" || out.Reason != "" {
				t.Errorf("%+v", out)
			}
			if d := cmp.Diff(rest(t, []byte(openSpec)), rest(t, out.Spec.Text())); d != "" {
				t.Errorf("besides the profile: %s", d)
			}
			if got := seccompOf(t, out.Spec.Text()).ListenerPath != ""; got != (tt.grants != nil) {
				t.Errorf("has a listener: %v", got)
			}
			if again := mustCheck(t, o, out.Spec.Text(), tt.c); again.Verdict != tt.verdict || cmp.Diff(tt.grants, again.Grants) != "" {
				t.Errorf("the gate: %+v", again)
			}
			twice, err := o.harden(out.Spec.Text(), tt.c)
			if err != nil || string(twice.Spec.Text()) != string(out.Spec.Text()) || twice.Verdict != tt.verdict {
				t.Errorf("the second time: %v, %v\n%s", twice.Verdict, err, cmp.Diff(string(out.Spec.Text()), string(twice.Spec.Text())))
			}
		})
	}
}

// A profile that was made for one container does not serve another.
// TestHardenAgain: what a front hands to the wrapper a second time comes out as
// it went in.
func TestHardenAgain(t *testing.T) {
	o := options(t, "harden")
	for _, text := range []string{openSpec, unconfinedSpec} {
		for _, c := range []plan.Container{plain, web} {
			once, err := o.harden([]byte(text), c)
			if err != nil {
				t.Fatal(err)
			}
			again, err := o.harden(once.Spec.Text(), c)
			if err != nil {
				t.Errorf("%s: %v", c.ID, err)
			}
			if d := cmp.Diff(string(once.Spec.Text()), string(again.Spec.Text())); d != "" || again.Verdict != once.Verdict {
				t.Errorf("%s: %s, then %s: %s", c.ID, once.Verdict, again.Verdict, d)
			}
		}
	}
}

func TestStolenProfile(t *testing.T) {
	o := options(t, "refuse")
	out, err := o.harden([]byte(openSpec), web)
	if err != nil {
		t.Fatal(err)
	}
	const want = `claims the rule "digest", which the policy does not grant to this container`
	refusedWith(t, want, func() error { _, err := o.check(out.Spec.Text(), plain); return err })
	refusedWith(t, want, func() error { _, err := o.harden(out.Spec.Text(), plain); return err })
	elsewhere := o
	elsewhere.Agent = "/run/another.sock"
	refusedWith(t, "and what it answers cannot be proved", func() error { _, err := elsewhere.check(out.Spec.Text(), web); return err })
	refusedWith(t, "and what it answers cannot be proved", func() error { _, err := elsewhere.harden(out.Spec.Text(), web); return err })
}

func refusedWith(t *testing.T, want string, f func() error) {
	t.Helper()
	err := f()
	var refused *NotStartedError
	if !errors.As(err, &refused) || !strings.Contains(err.Error(), want) {
		t.Errorf("%v; want a refusal with %s", err, want)
	}
}

func TestUnconfined(t *testing.T) {
	const text = "the container has no seccomp profile"
	spec := []byte(unconfinedSpec)
	t.Run("refuse", func(t *testing.T) {
		o := options(t, "refuse")
		refusedWith(t, text, func() error { _, err := o.harden(spec, web); return err })
		refusedWith(t, text, func() error { _, err := o.check(spec, web); return err })
	})
	t.Run("allow", func(t *testing.T) {
		o := options(t, "allow")
		for _, ask := range []func(Options, []byte, plan.Container) (Outcome, error){Options.harden, Options.check} {
			out, err := ask(o, spec, web)
			if err != nil || out.Verdict != Unconfined || string(out.Spec.Text()) != unconfinedSpec || out.Grants != nil || out.Reason == "" {
				t.Errorf("%+v, %v", out, err)
			}
		}
	})
	t.Run("harden", func(t *testing.T) {
		o := options(t, "harden")
		refusedWith(t, text, func() error { _, err := o.check(spec, web); return err })
		for _, c := range []plan.Container{web, plain} {
			out, err := o.harden(spec, c)
			if err != nil {
				t.Fatal(err)
			}
			if p := seccompOf(t, out.Spec.Text()); p == nil || p.DefaultAction != specs.ActAllow {
				t.Errorf("the profile is %+v", p)
			}
			mustCheck(t, o, out.Spec.Text(), c)
		}
	})
	t.Run("a null profile", func(t *testing.T) {
		o := options(t, "refuse")
		null := strings.Replace(unconfinedSpec, `"namespaces": []`, `"seccomp": null`, 1)
		refusedWith(t, text, func() error { _, err := o.harden([]byte(null), web); return err })
	})
}

// The gate is no rubber stamp: whatever reaches AF_ALG is refused.
func TestCheckRefuses(t *testing.T) {
	o := options(t, "refuse")
	with := func(seccomp string) string {
		return `{"ociVersion": "1.0.2", "root": {"path": "/r"}, "linux": {"seccomp": ` + seccomp + `}}`
	}
	const open = "the container's seccomp profile does not close AF_ALG"
	for _, tt := range []struct{ name, spec, want string }{
		{"allows all", openSpec, open},
		{"64 bits", with(`{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["socket"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 38, "op": "SCMP_CMP_EQ"}]}]}`), open},
		{"equals the default", with(`{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["socket"], "action": "SCMP_ACT_ALLOW"}]}`), open},
		{"a listener of its own", with(`{"defaultAction": "SCMP_ACT_ERRNO", "listenerPath": "/tmp/mine", "syscalls": [{"names": ["socket"], "action": "SCMP_ACT_NOTIFY"}]}`), "and what it answers cannot be proved"},
		{"notifies nobody", with(`{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["socket"], "action": "SCMP_ACT_NOTIFY"}]}`), open},
		{"another case", strings.Replace(openSpec, `"seccomp"`, `"Seccomp"`, 1), `runc reads it as "seccomp", and crun ignores it`},
		{"twice", strings.Replace(openSpec, `"also": "later"`, `"seccomp": null`, 1), "stands twice"},
		{"a filter in an annotation", strings.Replace(openSpec, `"later": {`, `"annotations": {"run.oci.seccomp_bpf_data": "BgAAAAAA/38="}, "later": {`, 1), `the annotation "run.oci.seccomp_bpf_data"`},
		{"keys of a later version", with(`{"defaultAction": "SCMP_ACT_ERRNO", "except": []}`), `unknown key "except"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := o.check([]byte(tt.spec), plain); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v; want an error with %s", err, tt.want)
			}
		})
	}
}

func TestNoAgent(t *testing.T) {
	o := options(t, "refuse")
	o.Agent = filepath.Join(t.TempDir(), "nobody.sock")
	refusedWith(t, "no agent answers on "+o.Agent+": there is no such socket; ", func() error { _, err := o.harden([]byte(openSpec), web); return err })
	if _, err := o.harden([]byte(openSpec), plain); err != nil {
		t.Errorf("a container without grants needs no agent: %v", err)
	}
	o.DenyWithoutAgent = true
	out, err := o.harden([]byte(openSpec), web)
	if err != nil || out.Verdict != Closed || out.Grants != nil || !strings.Contains(out.Reason, "starts without its grants") {
		t.Fatalf("%+v, %v", out, err)
	}
	if seccompOf(t, out.Spec.Text()).ListenerPath != "" {
		t.Error("the runtime would connect to nobody")
	}
	mustCheck(t, o, out.Spec.Text(), web)
}

// TestGrantTakesNoAgent: a rule that allows denied classes alone takes no agent, and
// opens its class and no AF_ALG.
func TestGrantTakesNoAgent(t *testing.T) {
	const text = `version: 1
name: classes
deny: {families: [AF_PACKET]}
containers:
  unconfined: UNCONFINED
  grants: [{rules: [capture], names: [web]}]
allow:
  - {rule: capture, anyone: true, sockets: [{family: AF_PACKET}]}
  - {rule: other, anyone: true, algorithms: {hash: [sha256]}}
`
	o := options(t, "refuse")
	o.Plan = planOf(t, text, "refuse")
	o.Agent = filepath.Join(t.TempDir(), "nobody.sock")
	out, err := o.harden([]byte(openSpec), web)
	if err != nil || out.Verdict != Granted || seccompOf(t, out.Spec.Text()).ListenerPath != "" {
		t.Fatalf("%+v, %v", out, err)
	}
	mustCheck(t, o, out.Spec.Text(), web)
	refusedWith(t, "does not close", func() error { _, err := o.check(out.Spec.Text(), plain); return err })
	o.Plan = loadPlan(t, "refuse")
	mustCheck(t, o, out.Spec.Text(), plain) // AF_ALG is closed
}

// With socketcall left to the agent every container needs it.
func TestBrokered(t *testing.T) {
	o := options(t, "refuse")
	o.Socketcall = harden.SocketcallBroker
	out, err := o.harden([]byte(openSpec), plain)
	if err != nil || out.Verdict != Closed || len(out.Grants) > 0 {
		t.Fatalf("%+v, %v", out, err)
	}
	if seccompOf(t, out.Spec.Text()).ListenerPath != o.Agent {
		t.Error("socketcall is not left to the agent")
	}
	for _, c := range []plan.Container{plain, web} { // the profile has no grants, whoever brings it
		if again := mustCheck(t, o, out.Spec.Text(), c); again.Verdict != Closed || len(again.Grants) > 0 {
			t.Errorf("the gate: %+v", again)
		}
	}
	o.Agent, o.DenyWithoutAgent = filepath.Join(t.TempDir(), "nobody.sock"), true
	refusedWith(t, "no agent answers", func() error { _, err := o.harden([]byte(openSpec), plain); return err })
}

// A claim grants nothing, and is told of.
func TestClaims(t *testing.T) {
	o := options(t, "refuse")
	c := plain
	c.Claimed.Labels = map[string]string{"role": "crypto"}
	c.Asks = []string{"digest"}
	out, err := o.harden([]byte(openSpec), c)
	if err != nil || out.Verdict != Closed || len(out.Grants) > 0 || len(out.Refused) == 0 {
		t.Errorf("%+v, %v", out, err)
	}
}

func TestReadSpec(t *testing.T) {
	deep := strings.Repeat(`{"a":`, 20_000) + "1" + strings.Repeat("}", 20_000)
	for _, tt := range []struct{ name, text, want string }{
		{"nothing", " \n", "it is empty"},
		{"no JSON", "version: 1", "1:1: invalid character"},
		{"cut", openSpec[:100], "unexpected end of JSON input"},
		{"two", openSpec + openSpec, "invalid character '{' after top-level value"},
		{"a list", "[]", "1:1: the config is no JSON object"},
		{"null", "null", "1:1: the config is no JSON object"},
		{"deep", deep, "exceeded max depth"},
		{"huge", `{"a": "` + strings.Repeat("x", MaxSpec) + `"}`, "the limit is"},
		{"a state", `{"ociVersion": "1.0.2", "id": "a", "status": "creating", "pid": 1, "bundle": "/b"}`, "this is the state of a container"},
		{"version 2", `{"ociVersion": "2.0.0", "linux": {}}`, `ociVersion "2.0.0": this program knows version 1`},
		{"a version that is none", `{"ociVersion": "new", "linux": {}}`, `ociVersion "new"`},
		{"Windows", `{"ociVersion": "1.0.2", "windows": {}}`, "a config for windows"},
		{"no version", `{"linux": {}}`, "ociVersion is missing"},
		{"nothing in it", `{"ociVersion": "1.0.2"}`, "no linux section"},
		{"a profile that is a list", `{"ociVersion": "1.0.2", "linux": {"seccomp": []}}`, "linux.seccomp"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := ReadSpec([]byte(tt.text)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%.300v; want an error with %s", err, tt.want)
			}
		})
	}
}

// FuzzHarden: whatever comes out passes the gate and is otherwise what went in.
func FuzzHarden(f *testing.F) {
	f.Add([]byte(openSpec))
	f.Add([]byte(unconfinedSpec))
	f.Add([]byte(`{"ociVersion":"1.0.2","linux":{"seccomp":{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["socket","bind"],"action":"SCMP_ACT_ALLOW"}]}}}`))
	o := Options{Tool: "test", Arch: specs.ArchX86_64, Agent: listenSocket(f), Plan: loadPlan(f, "harden")}
	f.Fuzz(func(t *testing.T, spec []byte) {
		for _, c := range []plan.Container{web, plain} {
			out, err := o.harden(spec, c)
			if err != nil {
				continue
			}
			mustCheck(t, o, out.Spec.Text(), c)
			if d := cmp.Diff(rest(t, spec), rest(t, out.Spec.Text())); d != "" {
				t.Error(d)
			}
		}
	})
}

func TestZeroOptions(t *testing.T) {
	if _, err := (Options{}).harden([]byte(openSpec), web); err == nil {
		t.Error("hardened without a policy")
	}
	if _, err := (Options{}).check([]byte(openSpec), web); err == nil {
		t.Error("checked without a policy")
	}
}

// TestProfilesAsFound: a profile that filters nothing is none, and rules that
// do nothing stop no container.
func TestProfilesAsFound(t *testing.T) {
	spec := func(seccomp string) []byte {
		return []byte(`{"ociVersion":"1.0.2","process":{"capabilities":{}},"linux":{"seccomp":` + seccomp + `}}`)
	}
	refusing, hardening := options(t, "refuse"), options(t, "harden")
	for _, nothing := range []string{`{}`, `{"defaultAction":"","syscalls":[]}`, `{"architectures":["SCMP_ARCH_X86_64"]}`} {
		if _, err := refusing.harden(spec(nothing), plain); err == nil || !strings.Contains(err.Error(), "the container has no seccomp profile") {
			t.Errorf("%s is not refused: %v", nothing, err)
		}
		out, err := hardening.harden(spec(nothing), plain)
		if err != nil || out.Verdict != Closed || out.Reason == "" {
			t.Errorf("%s is not hardened: %+v, %v", nothing, out.Verdict, err)
		}
	}
	for _, loaded := range []string{
		`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":[],"action":"SCMP_ACT_ALLOW"},{"names":["read"],"action":"SCMP_ACT_ALLOW"}]}`,
		`{"_why":"no AF_ALG","$schema":"x","defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}]}`,
	} {
		out, err := refusing.harden(spec(loaded), plain)
		if err != nil || out.Verdict != Closed {
			t.Errorf("%s: %+v, %v", loaded, out.Verdict, err)
		}
	}
}
