package gen

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/filter/harden"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/kube"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// What the Security Profiles Operator is given.
const (
	operatorObject = "afalg-policy-default"
	operatorAPI    = "security-profiles-operator.x-k8s.io/v1"
	// operatorModule is a block of CIL, in which the operator puts the module.
	operatorModule = "afalgpolicy"
)

// The types have what the output uses of the operator's SeccompProfile. It has no
// base: the operator would unite that with the profile.
type (
	operatorSpec struct {
		DefaultAction specs.LinuxSeccompAction `yaml:"defaultAction"`
		Architectures []specs.Arch             `yaml:"architectures,omitempty"`
		Flags         []specs.LinuxSeccompFlag `yaml:"flags,omitempty"`
		Syscalls      []operatorSyscall        `yaml:"syscalls"`
	}
	operatorSyscall struct {
		Names    []string                 `yaml:"names,flow"`
		Action   specs.LinuxSeccompAction `yaml:"action"`
		ErrnoRet uint                     `yaml:"errnoRet,omitempty"`
		Args     []operatorArg            `yaml:"args,omitempty"`
	}
	operatorArg struct {
		Index    uint                       `yaml:"index"`
		Value    uint64                     `yaml:"value"`
		ValueTwo uint64                     `yaml:"valueTwo,omitempty"`
		Op       specs.LinuxSeccompOperator `yaml:"op"`
	}
	selinuxSpec struct {
		Policy string `yaml:"policy"`
	}
)

// operatorProfiles are the objects for clusters in which the operator brings profiles
// to the nodes.
func (a *admission) operatorProfiles() (files []File, gaps []plan.Gap, err error) {
	o := a.options.SeccompOptions
	if o.Socketcall == harden.SocketcallBroker {
		return nil, nil, errors.New("socketcall broker needs a listener, and the operator takes none but its own: it has listenerPath match ^/var/run/security-profiles-operator/")
	}
	for _, g := range a.grants {
		for _, rule := range g.rules {
			gaps = append(gaps, plan.Stricter.Gap(rule, nil, "no container holds the rule: its profile has the agent as its listener, and the operator takes none but its own"))
		}
	}
	made, more, err := kubernetesProfiles(a.plan, nil, o)
	gaps = append(gaps, more...)
	if err != nil || len(made) == 0 {
		return nil, gaps, err
	}
	p, err := profile.Parse(made[0].Data)
	if err != nil {
		return nil, gaps, err
	}
	spec, err := operatorSpecOf(p)
	if err != nil {
		return nil, gaps, fmt.Errorf("an object for the Security Profiles Operator: %w", err)
	}
	seccomp := admissionObject{operatorAPI, "SeccompProfile", objectMeta{operatorObject}, spec}
	documents := []document{
		{"operator/seccomp.yaml", seccomp, []string{"The operator writes it to " + kube.OperatorProfile(operatorObject) + ". Wait until it says Installed before you mutate or deny."}, false},
		{"operator/kustomization.yaml", resources("seccomp.yaml"), nil, false},
	}
	module, err := a.selinuxModule()
	if err != nil {
		return nil, gaps, err
	}
	documents = append(documents, module)
	for _, d := range documents {
		file, err := a.file(d, nil)
		if err != nil {
			return nil, gaps, err
		}
		files = append(files, file)
	}
	return files, gaps, nil
}

// operatorSpecOf refuses what the definition of the object does not have. The server
// may prune that without a word.
func operatorSpecOf(p *profile.Profile) (*operatorSpec, error) {
	if p.DefaultErrnoRet != nil && *p.DefaultErrnoRet != 1 {
		return nil, fmt.Errorf("defaultErrnoRet is %d, and the object has none, which means 1: take a base with 1", *p.DefaultErrnoRet)
	}
	if p.ListenerPath != "" {
		return nil, fmt.Errorf("listenerPath %q: the operator takes none but its own", p.ListenerPath)
	}
	spec := &operatorSpec{DefaultAction: p.DefaultAction, Architectures: distinct(p.Architectures), Flags: distinct(p.Flags)}
	for i, r := range p.Syscalls {
		if len(r.Names) == 0 {
			continue
		}
		s := operatorSyscall{Names: distinct(r.Names), Action: r.Action}
		if r.ErrnoRet != nil {
			s.ErrnoRet = *r.ErrnoRet
			if s.ErrnoRet == 0 || s.ErrnoRet > math.MaxInt32 {
				return nil, fmt.Errorf("syscalls[%d]: errnoRet %d: the object has 1 to %d, and leaves 0 out", i, s.ErrnoRet, math.MaxInt32)
			}
		}
		for _, arg := range r.Args {
			if arg.Value > math.MaxInt64 || arg.ValueTwo > math.MaxInt64 {
				return nil, fmt.Errorf("syscalls[%d]: values of %d and more are none of the object's", i, uint64(math.MaxInt64)+1)
			}
			s.Args = append(s.Args, operatorArg(arg))
		}
		spec.Syscalls = append(spec.Syscalls, s)
	}
	return spec, nil
}

func distinct[T ~string](list []T) []T {
	list = slices.Sorted(slices.Values(list))
	return slices.Compact(list)
}

// selinuxModule has SELinux close the same on nodes that have it. What it cannot
// is said in the file, and is no gap of the profiles.
func (a *admission) selinuxModule() (document, error) {
	o := SELinuxOptions{Common: Common{Tool: a.options.Tool}}
	files, gaps, err := SELinux(a.plan, o)
	if open, is := errors.AsType[*plan.UnacceptedError](err); is {
		for _, g := range open.Gaps {
			o.Standing = append(o.Standing, g.Name)
		}
		files, gaps, err = SELinux(a.plan, o)
	}
	if err != nil {
		return document{}, err
	}
	var policy []string
	for line := range strings.Lines(string(files[0].Data)) {
		if !strings.HasPrefix(line, ";") && strings.TrimSpace(line) != "" {
			policy = append(policy, line)
		}
	}
	notes := []string{"For nodes in SELinux's enforcing mode with its userspace 3.6 or later. It is in force for the whole node, and no grant holds under it. Apply it by itself, after you have tried it on one node: the operator wraps it in a block, and compiles it there."}
	for _, g := range gaps {
		notes = append(notes, g.String())
	}
	spec := selinuxSpec{strings.Join(policy, "")}
	return document{"operator/selinux.yaml", admissionObject{operatorAPI, "RawSelinuxProfile", objectMeta{operatorModule}, spec}, notes, false}, nil
}
