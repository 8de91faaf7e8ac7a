package nri

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/nri/pkg/api"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/kube"
	"github.com/afalg-policy/afalg-policy/internal/oci"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// agentSocket is one on which somebody listens.
func agentSocket(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return path
}

func start(t *testing.T, unconfined string, s setting) (*host, oci.Options) {
	t.Helper()
	p := testPlan(t, unconfined)
	o := testOptions(t, p)
	if s.name == "" {
		s.name, s.version = "containerd", "v2.4.2"
	}
	return startHost(t, s, Options{Plan: func() *plan.Plan { return p }, OCI: o}), o
}

// Containers get a profile that is closed, or left to the agent for what the policy
// grants to their pod; a pod of the same name in another namespace gets nothing.
func TestContainers(t *testing.T) {
	h, o := start(t, "harden", setting{})
	h.connected(t)
	base := dockerDefault(t)
	for _, tt := range []struct {
		name, namespace, pod string
		kind                 api.SecurityProfile_ProfileType
		profile              *specs.LinuxSeccomp
		grants               []string
	}{
		{"runtime's default", "default", "web", api.SecurityProfile_RUNTIME_DEFAULT, base, nil},
		{"a small one", "default", "web", api.SecurityProfile_LOCALHOST, closedAnyway(), nil},
		{"none", "default", "web", api.SecurityProfile_UNCONFINED, nil, nil},
		{"granted", "crypto", "known-pod", api.SecurityProfile_RUNTIME_DEFAULT, base, []string{"digest"}},
		{"granted, none", "crypto", "known-pod", api.SecurityProfile_UNCONFINED, nil, []string{"digest"}},
		{"neighbour", "default", "known-pod", api.SecurityProfile_RUNTIME_DEFAULT, base, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			given, err := h.create(tt.kind, tt.profile, tt.namespace, tt.pod)
			for err != nil && strings.Contains(err.Error(), "was not proved within") {
				given, err = h.create(tt.kind, tt.profile, tt.namespace, tt.pod)
			}
			if err != nil {
				t.Fatal(err)
			}
			if given == nil {
				t.Fatal("it keeps its profile")
			}
			// What the runtime got is proved once more, without what is kept.
			fresh := o
			fresh.Memo = nil
			p, err := profile.OfSpec(given)
			if err != nil {
				t.Fatal(err)
			}
			if err := fresh.ProveAhead(p, tt.grants); err != nil {
				t.Error(err)
			}
			if listens := given.ListenerPath != ""; listens != (tt.grants != nil) {
				t.Errorf("the listener is %q", given.ListenerPath)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	h, _ := start(t, "refuse", setting{})
	h.connected(t)
	errno := uint(38)
	other := closedAnyway()
	other.DefaultErrnoRet = &errno
	stolen := closedAnyway()
	stolen.ListenerPath = "/run/other.sock"
	for name, tt := range map[string]struct {
		profile        *specs.LinuxSeccomp
		namespace, pod string
		want           string
	}{
		"unconfined":    {nil, "default", "web", "the container has no seccomp profile"},
		"lossy":         {other, "default", "web", "NRI loses the profile's defaultErrnoRet"},
		"lossy, grants": {other, "crypto", "known-pod", "NRI loses the profile's defaultErrnoRet"},
		"listener":      {stolen, "default", "web", "hands calls to the listener"},
		"unknown":       {&specs.LinuxSeccomp{DefaultAction: "SCMP_ACT_NONE", Syscalls: closedAnyway().Syscalls}, "default", "web", "unknown action"},
	} {
		t.Run(name, func(t *testing.T) {
			given, err := h.create(api.SecurityProfile_LOCALHOST, tt.profile, tt.namespace, tt.pod)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, given %v", err, given)
			}
		})
	}
}

// A profile that NRI cannot carry is left to the container if it is closed.
func TestLossyAndClosed(t *testing.T) {
	h, _ := start(t, "refuse", setting{})
	h.connected(t)
	errno := uint(38)
	p := closedAnyway()
	p.DefaultErrnoRet, p.Syscalls[0].Names = &errno, []string{"read", "write"}
	given, err := h.create(api.SecurityProfile_LOCALHOST, p, "default", "web")
	if err != nil || given != nil {
		t.Errorf("%v, given %v", err, given)
	}
}

// The agent's own container is left alone, so that the next agent can make sockets.
// Nobody else gets that by one of its names, nor by saying them elsewhere.
func TestOwnContainer(t *testing.T) {
	h, _ := start(t, "refuse", setting{})
	h.connected(t)
	for _, tt := range []struct {
		namespace, pod, container string
		alone                     bool
	}{
		{kube.Namespace, "afalg-policy-x7k2p", kube.AgentContainer, true},
		{"default", "afalg-policy-x7k2p", kube.AgentContainer, false},
		{kube.Namespace, kube.AgentContainer, "node", false},
		{kube.AgentContainer, kube.Namespace, kube.AgentContainer, false},
		{kube.Namespace, "afalg-policy-x7k2p", "", false},
		{"", "afalg-policy-x7k2p", kube.AgentContainer, false},
		{kube.Namespace + "-2", "afalg-policy-x7k2p", kube.AgentContainer, false},
		{kube.Namespace, "afalg-policy-x7k2p", kube.AgentContainer + "-2", false},
		{"Afalg-Policy", "afalg-policy-x7k2p", kube.AgentContainer, false},
	} {
		t.Run(tt.namespace+"/"+tt.container, func(t *testing.T) {
			given, err := h.createNamed(api.SecurityProfile_UNCONFINED, nil, tt.namespace, tt.pod, tt.container)
			switch {
			case tt.alone && (err != nil || given != nil):
				t.Errorf("%v, given %v", err, given)
			case !tt.alone && (err == nil || !strings.Contains(err.Error(), "the container has no seccomp profile")):
				t.Errorf("it starts: %v, given %v", err, given)
			}
			given, err = h.createNamed(api.SecurityProfile_RUNTIME_DEFAULT, closedAnyway(), tt.namespace, tt.pod, tt.container)
			if err != nil || (given == nil) != tt.alone {
				t.Errorf("with a profile: %v, given %v", err, given)
			}
		})
	}
}

// The plugin refuses runtimes that show it no profile; nothing is adjusted there, and
// the reason is told.
func TestRuntimes(t *testing.T) {
	for _, s := range []setting{{name: "cri-o", version: "1.37.0"}, {name: "containerd", version: "v2.2.9"}, {name: "containerd", version: "dev"}} {
		t.Run(s.name+" "+s.version, func(t *testing.T) {
			h, _ := start(t, "harden", s)
			eventually(t, "no reason is told", func() bool {
				return strings.Contains(h.said(), "install the wrapper runtime there")
			})
			if _, err := h.create(api.SecurityProfile_UNCONFINED, nil, "default", "web"); err == nil || !strings.Contains(err.Error(), "not present") {
				t.Errorf("with the plugin required: %v", err)
			}
		})
	}
	for version, ok := range map[string]bool{
		"v2.3.0": true, "2.4.2": true, "2.10.1": true, "3.0.0": true, "v2.3.0-rc.1": true, "2.4.2+unknown": true,
		"2.2.99": false, "1.7.30": false, "": false, "v": false, "x2.4": false, "99999.1": false,
	} {
		if err := CheckRuntime("containerd", version); (err == nil) != ok {
			t.Errorf("%s: %v", version, err)
		}
	}
}

// Containers that ran before are named.
func TestSynchronize(t *testing.T) {
	s := setting{name: "containerd", version: "v2.4.2", containers: []*api.Container{{
		Id: "old", Name: "main", PodSandboxId: "p", Linux: &api.LinuxContainer{SeccompPolicy: api.FromOCILinuxSeccomp(closedAnyway())},
	}}}
	h, _ := start(t, "harden", s)
	h.connected(t)
	if !strings.Contains(h.said(), "default/old-pod/main") {
		t.Errorf("it is not named: %s", h.said())
	}
}

// A proof that takes longer than the runtime waits refuses the container in time, goes
// on, and the container starts when it is tried again.
func TestLate(t *testing.T) {
	p := testPlan(t, "harden")
	o := testOptions(t, p)
	release := make(chan struct{})
	var proofs atomic.Int32
	h := startHost(t, setting{name: "containerd", version: "v2.4.2", timeout: 3 * time.Second}, Options{
		Plan: func() *plan.Plan { return p }, OCI: o,
		Prove: func(ctx context.Context, f Proof) error {
			proofs.Add(1)
			select {
			case <-release:
			case <-ctx.Done():
				return ctx.Err()
			}
			return f.Do(o)
		},
	})
	h.connected(t)
	for range 2 {
		if _, err := h.create(api.SecurityProfile_LOCALHOST, closedAnyway(), "default", "web"); err == nil || !strings.Contains(err.Error(), "was not proved within") {
			t.Fatalf("the answer is %v", err)
		}
	}
	close(release)
	eventually(t, "it never starts", func() bool {
		given, err := h.create(api.SecurityProfile_LOCALHOST, closedAnyway(), "default", "web")
		return err == nil && given != nil
	})
	if n := proofs.Load(); n != 1 {
		t.Errorf("%d proofs were made", n)
	}
}

// The answer of a plugin that the runtime gave up is no answer, in the newest NRI by
// the failure policy.
func TestNoAnswer(t *testing.T) {
	p := testPlan(t, "harden")
	o := testOptions(t, p)
	hang := make(chan struct{})
	defer close(hang)
	var stuck atomic.Bool
	h := startHost(t, setting{name: "containerd", version: "v2.4.2", timeout: time.Second}, Options{
		Plan: func() *plan.Plan { return p }, OCI: o,
		// The observer is called on the way to the answer: nothing is answered.
		Told: &hanging{&stuck, hang},
	})
	h.connected(t)
	stuck.Store(true)
	given, err := h.create(api.SecurityProfile_UNCONFINED, nil, "default", "web")
	if err == nil {
		t.Errorf("it starts, with %v", given)
	}
}

// An agent that is to end answers first what it was asked: the container starts.
func TestEndsAfterTheAnswer(t *testing.T) {
	p := testPlan(t, "harden")
	o := testOptions(t, p)
	asked, release := make(chan struct{}), make(chan struct{})
	h := startHost(t, setting{name: "containerd", version: "v2.4.2"}, Options{
		Plan: func() *plan.Plan { return p }, OCI: o,
		Prove: func(ctx context.Context, f Proof) error {
			if f.Seccomp == nil { // not the first container, by which the test waits for the plugin
				close(asked)
				<-release
			}
			return errors.Join(ctx.Err(), f.Do(o))
		},
	})
	h.connected(t)
	got := make(chan error, 1)
	go func() {
		given, err := h.create(api.SecurityProfile_UNCONFINED, nil, "default", "web")
		if err == nil && given == nil {
			err = errors.New("it keeps its profile")
		}
		got <- err
	}()
	<-asked
	h.end()
	close(release)
	if err := <-got; err != nil {
		t.Error(err)
	}
	<-h.ended
	if _, err := h.create(api.SecurityProfile_UNCONFINED, nil, "default", "web"); err == nil {
		t.Error("a container starts after the end")
	}
}

type hanging struct {
	stuck *atomic.Bool
	hang  chan struct{}
}

func (hanging) Connected(bool) {}
func (hanging) Unproved(int)   {}
func (h *hanging) Answered(string, time.Duration) {
	if h.stuck.Load() {
		<-h.hang
	}
}

// The second question is asked about what all plugins made of the container.
func TestValidate(t *testing.T) {
	s := &session{p: New(Options{Note: func(string) {}}), answers: map[string]*answer{}}
	given := api.FromOCILinuxSeccomp(closedAnyway())
	adjusted := func(p *api.LinuxSeccomp, annotations map[string]string) *api.ValidateContainerAdjustmentRequest {
		return &api.ValidateContainerAdjustmentRequest{
			Container: &api.Container{Id: "c"},
			Adjust:    &api.ContainerAdjustment{Linux: &api.LinuxContainerAdjustment{SeccompPolicy: p}, Annotations: annotations},
		}
	}
	open := api.FromOCILinuxSeccomp(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow})
	for name, tt := range map[string]struct {
		answer  *answer
		request *api.ValidateContainerAdjustmentRequest
		want    string
	}{
		"as it was given":   {&answer{profile: given}, adjusted(api.FromOCILinuxSeccomp(closedAnyway()), nil), ""},
		"kept":              {&answer{}, adjusted(nil, map[string]string{"a": "b"}), ""},
		"kept, none at all": {&answer{}, &api.ValidateContainerAdjustmentRequest{Container: &api.Container{Id: "c"}}, ""},
		"never asked":       {nil, adjusted(given, nil), "nothing was decided about the container in time"},
		"left out":          {&answer{profile: given}, adjusted(nil, nil), "another plugin has replaced"},
		"replaced":          {&answer{profile: given}, adjusted(open, nil), "another plugin has replaced"},
		"added":             {&answer{}, adjusted(open, nil), "another plugin has replaced"},
		"annotated":         {&answer{profile: given}, adjusted(given, map[string]string{"run.oci.seccomp_bpf_data": "x"}), "has crun take another filter"},
		"nothing":           {nil, nil, "nothing was decided"},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.answer != nil {
				s.remember("c", tt.answer)
			}
			err := s.ValidateContainerAdjustment(t.Context(), tt.request)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("%v", err)
			}
			if s.take("c") != nil {
				t.Error("the answer holds for another question")
			}
		})
	}
}

// A fault in deciding refuses the container.
func TestFault(t *testing.T) {
	s := &session{p: New(Options{Note: func(string) {}, Plan: func() *plan.Plan { panic("a fault") }}), answers: map[string]*answer{}, timeout: func() time.Duration { return time.Minute }}
	_, _, err := s.CreateContainer(t.Context(), &api.PodSandbox{}, &api.Container{Id: "c"})
	if err == nil || !strings.Contains(err.Error(), "a fault") {
		t.Error(err)
	}
	if err := s.ValidateContainerAdjustment(t.Context(), &api.ValidateContainerAdjustmentRequest{Container: &api.Container{Id: "c"}}); err == nil {
		t.Error("the container starts")
	}
	// No plan at all.
	s.p.o.Plan = func() *plan.Plan { return nil }
	if _, _, err := s.CreateContainer(t.Context(), nil, nil); err == nil {
		t.Error("without a policy a container starts")
	}
}

func TestProverIsBounded(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	hang := make(chan struct{})
	p := newProver(func(context.Context, Proof) error { <-hang; return nil })
	cancel()
	var err error
	for i := range mostWaiting + 1 {
		err = p.ask(ctx, Proof{Rules: []string{string(rune('a' + i))}})
	}
	close(hang)
	if err == nil || errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "wait to be proved") {
		t.Error(err)
	}
}
