package oci

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/filter/harden"
)

// halves are answers to whether the kernel half is in force.
var halves = map[string]struct {
	half    func() error
	refusal string // of what is left to it; none if it is in force
}{
	"not asked":    {nil, "to the kernel half, and that is not in force here (see lsm status)"},
	"not in force": {func() error { return errors.New("it only audits") }, "to the kernel half, and that is not in force here (see lsm status): it only audits"},
	"in force":     {func() error { return nil }, ""},
}

// TestLeftToTheKernelHalf: what runs without a filter starts as it is, where the
// policy leaves it to the kernel half and that is in force.
func TestLeftToTheKernelHalf(t *testing.T) {
	for name, tt := range halves {
		t.Run(name, func(t *testing.T) {
			o := options(t, "lsm")
			o.KernelHalf = tt.half
			apart, err := ReadSpec([]byte(strings.Replace(openSpec, `"linux": {`, `"linux": {"namespaces": [{"type": "pid"}],`, 1)))
			if err != nil {
				t.Fatal(err)
			}
			held := map[string][]string{"hardened": {"digest"}, "proved": {"digest"}}
			for what, ask := range map[string]func() (Outcome, error){
				"hardened": func() (Outcome, error) { return o.harden([]byte(unconfinedSpec), web) },
				"proved":   func() (Outcome, error) { return o.check([]byte(unconfinedSpec), web) },
				"restored": func() (Outcome, error) { return o.Restore(apart, plain, images(t, nil, first(thread()))) },
			} {
				out, err := ask()
				want := tt.refusal
				if want != "" {
					want = "the policy leaves unconfined containers " + want
				}
				refused(t, err, want)
				if err == nil && (out.Verdict != Unconfined || !out.Relies || !slices.Equal(out.Grants, held[what]) || !strings.HasSuffix(out.Reason, "unconfined: lsm")) {
					t.Errorf("%s: %+v", what, out)
				}
			}
			like, err := ReadSpec([]byte(openSpec))
			if err != nil {
				t.Fatal(err)
			}
			_, err = o.Restore(like, plain, images(t, nil, first(thread())))
			refused(t, err, "the kernel half takes it for the host's")
			if out, err := o.harden([]byte(openSpec), plain); err != nil || out.Verdict != Closed {
				t.Errorf("with a profile: %+v, %v", out, err)
			}
		})
	}
}

// TestDecidedByTheKernelHalf: a container that a grant leaves to the kernel half
// needs no agent, and its profile opens AF_ALG. Nobody else's may.
func TestDecidedByTheKernelHalf(t *testing.T) {
	for name, tt := range halves {
		t.Run(name, func(t *testing.T) {
			o := options(t, "refuse")
			o.Plan = planOf(t, strings.Replace(policyText, "names: [web]", "names: [web]\n      decided-by: lsm", 1), "refuse")
			o.Agent, o.KernelHalf = "/nobody/listens", tt.half
			_, err := o.harden([]byte(openSpec), web)
			refused(t, err, "install again with --accept decided-by-lsm")
			o.Accepted = []string{"other", "decided-by-lsm"}
			out, err := o.harden([]byte(openSpec), web)
			if tt.refusal != "" {
				refused(t, err, "the policy leaves the rules of this container (decided-by: lsm) "+tt.refusal)
				return
			}
			if err != nil || !out.Left || !out.Relies || out.Verdict != Granted || !slices.Equal(out.Grants, []string{"digest"}) {
				t.Fatalf("%+v, %v", out, err)
			}
			text := out.Spec.Text()
			if s := seccompOf(t, text); s.ListenerPath != "" {
				t.Errorf("it has a listener on %s", s.ListenerPath)
			}
			if again := mustCheck(t, o, text, web); !again.Left || !again.Relies || !slices.Equal(again.Grants, out.Grants) {
				t.Errorf("the gate: %+v", again)
			}
			_, err = o.check(text, plain)
			refused(t, err, "the container's seccomp profile does not close AF_ALG: ")
			o.KernelHalf = func() error { return errors.New("unloaded") }
			_, err = o.check(text, web)
			refused(t, err, "not in force here (see lsm status): unloaded")
			o.Socketcall = harden.SocketcallBroker
			_, err = o.harden([]byte(openSpec), web)
			refused(t, err, "no agent answers on /nobody/listens")
		})
	}
}

// TestRegisters: whoever holds rules or relies on the kernel half is registered,
// and whoever it would take for the host.
func TestRegisters(t *testing.T) {
	with := func(namespaces string) *Spec {
		s, err := ReadSpec([]byte(`{"ociVersion": "1.0.2", "linux": {"namespaces": ` + namespaces + `}}`))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	apart := with(`[{"type": "mount"}, {"type": "cgroup"}]`)
	for name, tt := range map[string]struct {
		out  Outcome
		want bool
	}{
		"apart":                {Outcome{Spec: apart}, false},
		"apart by PIDs":        {Outcome{Spec: with(`[{"type": "pid"}]`)}, false},
		"holds a rule":         {Outcome{Spec: apart, Grants: []string{"digest"}}, true},
		"relies":               {Outcome{Spec: apart, Relies: true}, true},
		"like the host":        {Outcome{Spec: with(`[{"type": "mount"}]`)}, true},
		"joins":                {Outcome{Spec: with(`[{"type": "pid", "path": "/proc/1/ns/pid"}]`)}, true},
		"no namespaces at all": {Outcome{Spec: with(`null`)}, true},
	} {
		if got := tt.out.Registers(); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if _, err := ReadSpec([]byte(`{"ociVersion": "1.0.2", "linux": {"namespaces": [{"type": "pid"}], "Namespaces": []}}`)); err == nil {
		t.Error("namespaces that runtimes read in different ways are taken")
	}
}

// TestWithHook: a hook comes behind those that are there, and nothing else changes.
func TestWithHook(t *testing.T) {
	h := specs.Hook{Path: "/ours", Args: []string{"a", "b"}}
	const ours = `{"path":"/ours","args":["a","b"]}`
	for name, tt := range map[string]struct{ before, want string }{
		"none":    {`{"ociVersion":"1.0.2","linux":{}}`, `{"ociVersion":"1.0.2","linux":{},"hooks":{"createRuntime":[` + ours + `]}}`},
		"null":    {`{"ociVersion":"1.0.2","hooks":null,"linux":{}}`, `{"ociVersion":"1.0.2","hooks":{"createRuntime":[` + ours + `]},"linux":{}}`},
		"others":  {`{"ociVersion":"1.0.2","hooks":{"poststop":[]},"linux":{}}`, `{"ociVersion":"1.0.2","hooks":{"poststop":[],"createRuntime":[` + ours + `]},"linux":{}}`},
		"another": {`{"ociVersion":"1.0.2","hooks":{"createRuntime":[{"path":"/x","later":1e400}]},"linux":{}}`, `{"ociVersion":"1.0.2","hooks":{"createRuntime":[{"path":"/x","later":1e400},` + ours + `]},"linux":{}}`},
	} {
		spec, err := ReadSpec([]byte(tt.before))
		if err != nil {
			t.Fatal(err)
		}
		with, err := spec.WithHook(h)
		if err != nil || string(with.Text()) != tt.want {
			t.Errorf("%s: %v\n%s\n%s", name, err, with.Text(), tt.want)
		}
	}
	for _, bad := range []string{`{"createRuntime":{}}`, `{"CreateRuntime":[]}`, `[]`} {
		spec, err := ReadSpec([]byte(`{"ociVersion":"1.0.2","linux":{},"hooks":` + bad + `}`))
		if err != nil {
			t.Fatal(err)
		}
		if with, err := spec.WithHook(h); err == nil {
			t.Errorf("%s: %s", bad, with.Text())
		}
	}
}

// TestZeroCopy: a container that holds a rule starts only if somebody denies it
// zero-copy, where the policy says that it is denied.
func TestZeroCopy(t *testing.T) {
	for name, tt := range halves {
		t.Run(name, func(t *testing.T) {
			o := options(t, "refuse")
			made, err := o.harden([]byte(openSpec), web)
			if err != nil {
				t.Fatal(err)
			}
			o.Plan.ZeroCopy, o.KernelHalf = "true", tt.half
			for what, ask := range map[string]func() (Outcome, error){
				"hardened":       func() (Outcome, error) { return o.harden([]byte(openSpec), web) },
				"hardened again": func() (Outcome, error) { return o.harden(made.Spec.Text(), web) },
				"proved":         func() (Outcome, error) { return o.check(made.Spec.Text(), web) },
			} {
				out, err := ask()
				refused(t, err, tt.refusal)
				if err == nil && out.Verdict != Granted {
					t.Errorf("%s: %s", what, out.Verdict)
				}
			}
			if _, err := o.harden([]byte(openSpec), plain); err != nil {
				t.Errorf("a container that holds nothing: %v", err)
			}
		})
	}
}
