package nri

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/nri/pkg/adaptation"
	"github.com/containerd/nri/pkg/api"
	nrilog "github.com/containerd/nri/pkg/log"
	validator "github.com/containerd/nri/plugins/default-validator/builtin"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/oci"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

const testPolicy = `version: 1
name: node
allow:
  - rule: digest
    anyone: true
    algorithms:
      hash: [sha256]
containers:
  unconfined: %s
  grants:
    - rules: [digest]
      namespaces: [crypto]
      pods: [known-pod]
`

func testPlan(t testing.TB, unconfined string) *plan.Plan {
	t.Helper()
	path := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(path, fmt.Appendf(nil, testPolicy, unconfined), 0o600); err != nil {
		t.Fatal(err)
	}
	p, _, err := plan.Load(path, plan.ReadNamed)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func testOptions(t testing.TB, p *plan.Plan) oci.Options {
	t.Helper()
	memo, err := oci.OpenMemo(filepath.Join(t.TempDir(), "proofs"), "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { memo.Close() })
	return oci.Options{Plan: p, Tool: "test", Arch: specs.ArchX86_64, Agent: agentSocket(t), Memo: memo}
}

// host is a runtime's own side of NRI, with the plugin beside it.
type host struct {
	*adaptation.Adaptation
	plugin *Plugin
	socket string
	end    func() // has the plugin end
	ended  chan struct{}

	mu     sync.Mutex
	notes  []string
	states []State
}

func init() { nrilog.Set(quiet{}) }

func (h *host) note(text string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.notes = append(h.notes, text)
}

func (h *host) state(s State) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.states = append(h.states, s)
}

func (h *host) said() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.Join(h.notes, "\n")
}

// setting is what a runtime is set to.
type setting struct {
	name, version string
	timeout       time.Duration
	containers    []*api.Container // that run when a plugin registers
	optional      bool             // the plugin is not required
}

// startHost starts the runtime's side of the newest NRI, which requires the plugin.
func startHost(t *testing.T, s setting, o Options) *host {
	t.Helper()
	h := &host{socket: filepath.Join(t.TempDir(), "nri.sock")}
	h.begin(t, s)
	o.Socket, o.Note, o.State = h.socket, h.note, h.state
	if o.Prove == nil {
		o.Prove = func(_ context.Context, f Proof) error { return f.Do(o.OCI) }
	}
	h.plugin = New(o)
	ctx, cancel := context.WithCancel(t.Context())
	h.end, h.ended = cancel, make(chan struct{})
	go func() {
		defer close(h.ended)
		h.plugin.Run(ctx, o.OCI.Agent)
	}()
	t.Cleanup(func() {
		cancel()
		<-h.ended
	})
	return h
}

// begin starts the runtime.
func (h *host) begin(t *testing.T, s setting) {
	t.Helper()
	if s.timeout == 0 {
		s.timeout = time.Minute
	}
	adaptation.SetPluginRequestTimeout(s.timeout)
	sync := func(ctx context.Context, f adaptation.SyncCB) error {
		_, err := f(ctx, []*api.PodSandbox{{Id: "p", Name: "old-pod", Namespace: "default"}}, s.containers)
		return err
	}
	update := func(context.Context, []*api.ContainerUpdate) ([]*api.ContainerUpdate, error) { return nil, nil }
	config := &validator.DefaultValidatorConfig{Enable: true, RequiredPlugins: []string{Name}}
	if s.optional {
		config = nil
	}
	nothing := t.TempDir()
	r, err := adaptation.New(s.name, s.version, sync, update, adaptation.WithSocketPath(h.socket), adaptation.WithPluginPath(nothing),
		adaptation.WithPluginConfigPath(nothing), adaptation.WithDefaultValidator(config))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Start(); err != nil {
		t.Fatal(err)
	}
	h.Adaptation = r
	t.Cleanup(r.Stop)
}

// connected waits until the runtime has the plugin.
func (h *host) connected(t *testing.T) {
	t.Helper()
	eventually(t, "the plugin is not connected", func() bool {
		_, err := h.create(api.SecurityProfile_RUNTIME_DEFAULT, closedAnyway(), "default", "first")
		return err == nil || !strings.Contains(err.Error(), "not present")
	})
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

var count int

// create asks for one container of a pod, as containerd does.
func (h *host) create(kind api.SecurityProfile_ProfileType, p *specs.LinuxSeccomp, namespace, pod string) (*specs.LinuxSeccomp, error) {
	return h.createNamed(kind, p, namespace, pod, "main")
}

func (h *host) createNamed(kind api.SecurityProfile_ProfileType, p *specs.LinuxSeccomp, namespace, pod, container string) (*specs.LinuxSeccomp, error) {
	count++
	c := &api.Container{
		Id: fmt.Sprint("c", count), Name: container, PodSandboxId: "p",
		Linux: &api.LinuxContainer{SeccompProfile: &api.SecurityProfile{ProfileType: kind}},
	}
	if p != nil {
		c.Linux.SeccompPolicy = api.FromOCILinuxSeccomp(p)
	}
	r, err := h.CreateContainer(context.Background(), &api.CreateContainerRequest{Pod: &api.PodSandbox{Id: "p", Name: pod, Namespace: namespace}, Container: c})
	if err != nil {
		return nil, err
	}
	return specOf(r.GetAdjust().GetLinux().GetSeccompPolicy()), nil
}

// closedAnyway is a small profile.
func closedAnyway() *specs.LinuxSeccomp {
	return &specs.LinuxSeccomp{
		DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchX86},
		Syscalls: []specs.LinuxSyscall{{Names: []string{"read", "socket"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{}}},
	}
}

// dockerDefault is a real one.
func dockerDefault(t testing.TB) *specs.LinuxSeccomp {
	t.Helper()
	p, err := profile.Docker().Resolve(profile.Host{Arch: specs.ArchX86_64, Caps: profile.DefaultCaps()})
	if err != nil {
		t.Fatal(err)
	}
	p.DefaultErrnoRet = nil // as containerd's, which has none
	return p
}
