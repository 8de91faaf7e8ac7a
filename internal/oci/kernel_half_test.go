package oci

import (
	"errors"
	"strings"
	"testing"
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
			open, err := ReadSpec([]byte(openSpec))
			if err != nil {
				t.Fatal(err)
			}
			for what, ask := range map[string]func() (Outcome, error){
				"hardened": func() (Outcome, error) { return o.harden([]byte(unconfinedSpec), web) },
				"proved":   func() (Outcome, error) { return o.check([]byte(unconfinedSpec), web) },
				"restored": func() (Outcome, error) { return o.Restore(open, plain, images(t, nil, first(thread()))) },
			} {
				out, err := ask()
				want := tt.refusal
				if want != "" {
					want = "the policy leaves unconfined containers " + want
				}
				refused(t, err, want)
				if err == nil && (out.Verdict != Unconfined || out.Grants != nil || !strings.HasSuffix(out.Reason, "unconfined: lsm")) {
					t.Errorf("%s: %+v", what, out)
				}
			}
			if out, err := o.harden([]byte(openSpec), plain); err != nil || out.Verdict != Closed {
				t.Errorf("with a profile: %+v, %v", out, err)
			}
		})
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
