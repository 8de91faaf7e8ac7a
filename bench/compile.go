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

// withPresets closes more than AF_ALG.
const withPresets = `version: 1
name: presets
include: [builtin:baseline]
deny: {presets: [page-cache, unused]}
`

// compilePair compiles a profile as it is, as builtin:baseline hardens it, and as
// that with presets does.
func compilePair(name string, base *profile.Profile, h profile.Host) (pair, error) {
	p := pair{name: name}
	var err error
	if p.base, err = compile(base, h); err != nil {
		return pair{}, err
	}
	if p.hardened, err = compileHardened("builtin:baseline", base, h); err != nil {
		return pair{}, err
	}
	p.presets, err = compileHardened("presets.yaml", base, h)
	return p, err
}

func compileHardened(policy string, base *profile.Profile, h profile.Host) (cbpf.Program, error) {
	p, _, err := plan.Load(policy, func(name string) ([]byte, error) {
		if name == "presets.yaml" {
			return []byte(withPresets), nil
		}
		return policies.Read("baseline")
	})
	if err != nil {
		return nil, err
	}
	hardened, _, err := harden.Harden(p, base, harden.Options{Socketcall: harden.SocketcallDeny, Host: h})
	if err != nil {
		return nil, err
	}
	return compile(hardened, h)
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
