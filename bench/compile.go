package main

import (
	"fmt"

	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
	"github.com/afalg-policy/afalg-policy/internal/filter/harden"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/filter/seccomp"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/policies"
)

// compilePair compiles a profile as it is, and as builtin:baseline hardens it.
func compilePair(name string, base *profile.Profile, h profile.Host) (pair, error) {
	baseline, _, err := plan.Load("builtin:baseline", func(string) ([]byte, error) { return policies.Read("baseline") })
	if err != nil {
		return pair{}, err
	}
	hardened, _, err := harden.Harden(baseline, base, harden.Options{Socketcall: harden.SocketcallDeny, Host: h})
	if err != nil {
		return pair{}, err
	}
	p := pair{name: name}
	if p.base, err = compile(base, h); err != nil {
		return pair{}, err
	}
	p.hardened, err = compile(hardened, h)
	return p, err
}

func compile(p *profile.Profile, h profile.Host) (cbpf.Program, error) {
	resolved, err := p.Resolve(h)
	if err != nil {
		return nil, err
	}
	program, err := seccomp.Compile(resolved, seccomp.Options{Runtime: seccomp.Runc, Native: h.Arch})
	if err != nil {
		return nil, fmt.Errorf("compiling: %w", err)
	}
	return cbpf.Program(program.Insns), nil
}
