package oci

import (
	"encoding/json"
	"errors"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tailscale/hujson"

	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/jsontext"
)

// Registers reports whether the kernel half must know of the container before its
// process starts: since it holds rules, or relies on being denied the others. It
// takes a container without a PID and a cgroup namespace of its own for the host.
// To all others it denies everything.
func (o Outcome) Registers() bool {
	return len(o.Grants) > 0 || o.Relies || o.Spec != nil && !o.Spec.apart()
}

// apart reports whether the processes of the container have a new PID or cgroup
// namespace. One that it joins may be the host's.
func (s *Spec) apart() bool {
	return slices.ContainsFunc(s.Config.Namespaces, func(n profile.Namespace) bool {
		return n.Path == "" && (n.Type == string(specs.PIDNamespace) || n.Type == string(specs.CgroupNamespace))
	})
}

// WithHook is the spec with a further hook of the stage createRuntime: the
// container's process is in its cgroup then, and does not run its program yet.
func (s *Spec) WithHook(h specs.Hook) (*Spec, error) {
	d := s.Config.Document()
	var hooks []any
	if before := d.Root.Find("/hooks/createRuntime"); before != nil && !jsontext.IsNull(before) {
		list, ok := before.Value.(*hujson.Array)
		if !ok {
			return nil, errors.New("hooks.createRuntime is no list")
		}
		for i := range list.Elements {
			e := &list.Elements[i]
			hooks = append(hooks, json.RawMessage(d.Src[e.StartOffset:e.EndOffset]))
		}
	}
	change, err := d.Set([]string{"hooks", "createRuntime"}, append(hooks, h))
	if err != nil {
		return nil, err
	}
	return s.with(change), nil
}
