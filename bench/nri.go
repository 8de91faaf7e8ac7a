package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/nri/pkg/adaptation"
	"github.com/containerd/nri/pkg/api"
	nrilog "github.com/containerd/nri/pkg/log"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
)

const nriPolicy = `version: 1
name: bench
allow:
  - {rule: digest, anyone: true, algorithms: {hash: ["hmac(sha512)"]}}
containers:
  unconfined: harden
  grants:
    - {rules: [digest], namespaces: [crypto], pods: [web]}
`

// nodeContainers is how many containers of pods a node has.
const nodeContainers = 500

// benchNRI prints how long a runtime waits for the agent about each of a node's
// containers, and what the agent takes: the runtime's own side of NRI asks the real
// program.
func benchNRI(rounds int, program string) error {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	n, err := startNRI(dir, program)
	if err != nil {
		return err
	}
	defer n.stop()
	before, err := n.memory()
	if err != nil {
		return err
	}
	docker, err := profile.Docker().Resolve(profile.Host{Arch: specs.ArchX86_64, Caps: profile.DefaultCaps()})
	if err != nil {
		return err
	}
	docker.DefaultErrnoRet = nil
	t := newTable()
	t.AppendHeader(table.Row{"containers", "number", "p50 ms", "p99 ms", "slowest ms"})
	for _, c := range []struct {
		name, namespace string
		profile         *specs.LinuxSeccomp
		number          int
		cold            bool
	}{
		{"a profile that nobody has proved", "default", docker, 4 * rounds, true},
		{"the same, granted a rule", "crypto", docker, 4 * rounds, true},
		{"the runtime's default", "default", docker, nodeContainers, false},
		{"the same, granted a rule", "crypto", docker, nodeContainers, false},
		{"none (unconfined)", "default", nil, nodeContainers, false},
	} {
		if !c.cold { // the first has it proved
			if _, err := n.ask(c.namespace, c.profile); err != nil {
				return err
			}
		}
		var took []float64
		for i := range c.number {
			p := c.profile
			if c.cold {
				p = unlike(p, i)
			}
			ms, err := n.ask(c.namespace, p)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			took = append(took, ms)
		}
		slices.Sort(took)
		t.AppendRow(table.Row{c.name, c.number, ms(took[len(took)/2]), ms(took[len(took)*99/100]), ms(took[len(took)-1])})
	}
	t.Render()
	after, err := n.memory()
	if err != nil {
		return err
	}
	fmt.Printf("\nthe agent's memory: %.1f MiB before, %.1f MiB after\n", before, after)
	return nil
}

// unlike is a profile that nobody has seen.
func unlike(p *specs.LinuxSeccomp, i int) *specs.LinuxSeccomp {
	other := *p
	arg := specs.LinuxSeccompArg{Index: 3, Value: uint64(time.Now().UnixNano()) + uint64(i), Op: specs.OpEqualTo}
	other.Syscalls = append(slices.Clone(p.Syscalls), specs.LinuxSyscall{Names: []string{"mbind"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{arg}})
	return &other
}

// nriBench is a runtime's side of NRI, and the agent.
type nriBench struct {
	runtime *adaptation.Adaptation
	agent   *exec.Cmd
	asked   int
	// adjusted is whether the last container was given a profile.
	adjusted bool
}

func startNRI(dir, program string) (*nriBench, error) {
	nrilog.Set(noLog{})
	socket, policy := filepath.Join(dir, "nri.sock"), filepath.Join(dir, "policy.yaml")
	if err := os.WriteFile(policy, []byte(nriPolicy), 0o600); err != nil {
		return nil, err
	}
	adaptation.SetPluginRequestTimeout(2 * time.Minute)
	sync := func(ctx context.Context, f adaptation.SyncCB) error { _, err := f(ctx, nil, nil); return err }
	update := func(context.Context, []*api.ContainerUpdate) ([]*api.ContainerUpdate, error) { return nil, nil }
	r, err := adaptation.New("containerd", "v2.4.2", sync, update, adaptation.WithSocketPath(socket), adaptation.WithPluginPath(dir+"/none"), adaptation.WithPluginConfigPath(dir+"/none"))
	if err == nil {
		err = r.Start()
	}
	if err != nil {
		return nil, err
	}
	n := &nriBench{runtime: r, agent: exec.Command(program, "agent", policy, "--listen", filepath.Join(dir, "agent.sock"), "--log", "/dev/null", "--nri="+socket)}
	if err := n.agent.Start(); err != nil {
		return nil, err
	}
	for range 600 {
		if _, err := n.ask("default", nil); err == nil && n.adjusted {
			return n, nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	n.stop()
	return nil, errors.New("the agent does not connect")
}

func (n *nriBench) stop() {
	n.agent.Process.Signal(syscall.SIGTERM)
	n.agent.Wait()
	n.runtime.Stop()
}

// ask asks about one container, and returns the milliseconds that it took.
func (n *nriBench) ask(namespace string, p *specs.LinuxSeccomp) (float64, error) {
	n.asked++
	c := &api.Container{Id: fmt.Sprint("c", n.asked), Name: "main", PodSandboxId: "p", Linux: &api.LinuxContainer{}}
	if p != nil {
		c.Linux.SeccompPolicy = api.FromOCILinuxSeccomp(p)
	}
	began := time.Now()
	r, err := n.runtime.CreateContainer(context.Background(), &api.CreateContainerRequest{Pod: &api.PodSandbox{Id: "p", Name: "web", Namespace: namespace}, Container: c})
	for err != nil && strings.Contains(err.Error(), "was not proved within") { // as the kubelet does, and without its pauses
		r, err = n.runtime.CreateContainer(context.Background(), &api.CreateContainerRequest{Pod: &api.PodSandbox{Id: "p", Name: "web", Namespace: namespace}, Container: c})
	}
	took := time.Since(began).Seconds() * 1000
	n.adjusted = r.GetAdjust().GetLinux().GetSeccompPolicy() != nil
	return took, err
}

var resident = regexp.MustCompile(`(?m)^VmRSS:\s+(\d+) kB$`)

// memory is what the agent's process has in memory, in MiB.
func (n *nriBench) memory() (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.agent.Process.Pid))
	if err != nil {
		return 0, err
	}
	m := resident.FindSubmatch(status)
	if m == nil {
		return 0, fmt.Errorf("no VmRSS in %s", strings.TrimSpace(string(bytes.TrimSpace(status))))
	}
	kib, err := strconv.ParseFloat(string(m[1]), 64)
	return kib / 1024, err
}

// noLog keeps NRI's own log off the tables.
type noLog struct{}

func (noLog) Debugf(context.Context, string, ...any) {}
func (noLog) Infof(context.Context, string, ...any)  {}
func (noLog) Warnf(context.Context, string, ...any)  {}
func (noLog) Errorf(context.Context, string, ...any) {}
