package gen

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"sync"

	"go.yaml.in/yaml/v4"

	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// TetragonOptions are those of the Tetragon target.
type TetragonOptions struct {
	Common
	// Policy is the name of the TracingPolicy; DefaultTracingPolicy if empty.
	Policy string
}

// DefaultTracingPolicy is the name of the TracingPolicy.
const DefaultTracingPolicy = "afalg-policy"

// Tetragon renders a TracingPolicy, which the agent of Tetragon enforces on each
// node, in every process.
func Tetragon(p *plan.Plan, o TetragonOptions) ([]File, []plan.Gap, error) {
	t := tetragon{TetragonOptions: o, plan: p}
	if err := t.resolve(); err != nil {
		return nil, nil, err
	}
	gaps := t.gaps()
	if err := t.Settle(gaps); err != nil {
		return nil, gaps, err
	}
	text, err := t.render(gaps)
	if err != nil {
		return nil, gaps, err
	}
	return []File{{Path: t.Policy + ".yaml", Data: text}}, gaps, nil
}

type tetragon struct {
	TetragonOptions
	plan *plan.Plan
	// asked is what becomes of each rule.
	asked []askedRule
}

// objectName admits the names of Kubernetes that are a label of DNS as well.
var objectName = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
})

func (t *tetragon) resolve() error {
	if t.Policy == "" {
		t.Policy = DefaultTracingPolicy
	}
	if !objectName().MatchString(t.Policy) {
		return fmt.Errorf("policy name %q: up to 63 lower-case letters, digits and -, the first and the last no -", t.Policy)
	}
	granted, err := t.plan.RulesNamed(t.Grants)
	if err != nil {
		return err
	}
	t.asked = askRules(slices.DeleteFunc(slices.Clone(t.plan.Rules), func(r policy.Rule) bool { return !r.OpensAlgorithms() }), t.Grants)
	for _, rule := range granted {
		if !rule.OpensAlgorithms() {
			return fmt.Errorf("--grant %s: the rule allows no algorithm, and Tetragon closes everything else to everybody", rule.Name)
		}
		for _, a := range t.asked {
			if a.name == rule.Name && len(a.unasked) == 0 {
				return fmt.Errorf("--grant %s: Tetragon asks for everything in this rule, so it holds without a grant", a.name)
			}
		}
	}
	return nil
}

// The types have what the output uses of Tetragon's TracingPolicy, by the names
// of its CustomResourceDefinition (version 1.7.0, spec.kprobes).
type (
	tracingPolicy struct {
		APIVersion string            `yaml:"apiVersion"`
		Kind       string            `yaml:"kind"`
		Metadata   objectMeta        `yaml:"metadata"`
		Spec       tracingPolicySpec `yaml:"spec"`
	}
	objectMeta struct {
		Name string `yaml:"name"`
	}
	tracingPolicySpec struct {
		Options []tetragonOption `yaml:"options"`
		Kprobes []kprobe         `yaml:"kprobes"`
	}
	tetragonOption struct {
		Name  string `yaml:"name"`
		Value string `yaml:"value"`
	}
	// kprobe is one program on one function. The first of its selectors that
	// matches acts.
	kprobe struct {
		Call      string     `yaml:"call"`
		Syscall   bool       `yaml:"syscall"` // true by default
		Message   string     `yaml:"message"`
		Args      []argument `yaml:"args"`
		Data      []argument `yaml:"data,omitempty"`
		Selectors []selector `yaml:"selectors"`
	}
	argument struct {
		Index        int    `yaml:"index"`
		Type         string `yaml:"type"`
		SizeArgIndex int    `yaml:"sizeArgIndex,omitempty"` // counts from 1
		Source       string `yaml:"source,omitempty"`
		Resolve      string `yaml:"resolve,omitempty"`
		Label        string `yaml:"label"`
	}
	// selector matches where each of its filters does. One that cannot read what
	// it asks for does not match.
	selector struct {
		MatchBinaries     []valueFilter      `yaml:"matchBinaries,omitempty"`
		MatchNamespaces   []namespaceFilter  `yaml:"matchNamespaces,omitempty"`
		MatchCapabilities []capabilityFilter `yaml:"matchCapabilities,omitempty"`
		MatchArgs         []indexFilter      `yaml:"matchArgs,omitempty"`
		MatchData         []indexFilter      `yaml:"matchData,omitempty"`
		MatchActions      []action           `yaml:"matchActions"`
	}
	valueFilter struct {
		Operator string   `yaml:"operator"`
		Values   []string `yaml:"values"`
	}
	namespaceFilter struct {
		Namespace   string `yaml:"namespace"`
		valueFilter `yaml:",inline"`
	}
	capabilityFilter struct {
		Type        string `yaml:"type"`
		valueFilter `yaml:",inline"`
	}
	indexFilter struct {
		Index       int `yaml:"index"`
		valueFilter `yaml:",inline"`
	}
	action struct {
		Action   string `yaml:"action"`
		ArgError int    `yaml:"argError,omitempty"`
	}
)

func (t *tetragon) render(gaps []plan.Gap) ([]byte, error) {
	object := tracingPolicy{
		APIVersion: "cilium.io/v1alpha1",
		Kind:       "TracingPolicy",
		Metadata:   objectMeta{t.Policy},
		Spec: tracingPolicySpec{
			// With one program for many functions Tetragon can neither override
			// what a function of LSMs returns, nor have two kprobes on one.
			Options: []tetragonOption{{"disable-kprobe-multi", "1"}},
			Kprobes: append([]kprobe{t.socketProbe()}, t.bindProbes()...),
		},
	}
	text, err := yaml.Dump(object)
	if err != nil {
		return nil, fmt.Errorf("writing the TracingPolicy %s: %w", t.Policy, err)
	}
	return fmt.Appendf(nil, "%s%s\n", t.Header(t.plan, append(slices.Clone(tetragonNotes), breakNotes(t.plan)...), gaps), bytes.TrimSuffix(text, []byte("\n"))), nil
}

var tetragonNotes = []string{
	"Apply it with kubectl apply -f, or as a file in the directory of Tetragon's option tracing-policy-dir. It is for Tetragon 1.6 and later, on nodes with Linux 5.7 or later.",
	"It is in force on a node where \"tetra tracingpolicy list\" shows it enabled, in mode enforce; nothing here holds on another, or before the agent has loaded it.",
}
