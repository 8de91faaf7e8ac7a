package main

import (
	"fmt"
	"github.com/afalg-policy/afalg-policy/internal/profile"

	"github.com/afalg-policy/afalg-policy/internal/bpf"
	"github.com/afalg-policy/afalg-policy/internal/gen"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/seccomp"
	"github.com/afalg-policy/afalg-policy/policies"
)

// compilePair compiles a profile as it is, and as builtin:baseline hardens it.
func compilePair(name string, src []byte, h profile.Host) (pair, error) {
	baseline, _, err := plan.Load("builtin:baseline", func(string) ([]byte, error) { return policies.Read("baseline") })
	if err != nil {
		return pair{}, err
	}
	files, _, err := gen.Seccomp(baseline, gen.SeccompOptions{
		Base: src, Format: gen.FormatOCI, Socketcall: gen.SocketcallDeny, Host: h,
	})
	if err != nil {
		return pair{}, err
	}
	p := pair{name: name}
	if p.base, err = compile(src, h); err != nil {
		return pair{}, err
	}
	p.hardened, err = compile(files[0].Data, h)
	return p, err
}

func compile(src []byte, h profile.Host) (bpf.Program, error) {
	resolved, err := profile.Resolve(src, h)
	if err != nil {
		return nil, err
	}
	program, err := seccomp.Compile(resolved, seccomp.Options{Runtime: seccomp.Runc, Native: h.Arch})
	if err != nil {
		return nil, fmt.Errorf("compiling: %w", err)
	}
	return bpf.Program(program.Insns), nil
}
