package main

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/filter/harden"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// fleet is a cluster under the DaemonSet: its size, and what Kubernetes does by
// itself. No program of ours is in it: nodes are draws of times.
type fleet struct {
	nodes, pods int // a pod starts on a day for each that runs
	// perSecond bounds the writes of the controller manager (--kube-api-qps).
	perSecond float64
	// proof is what a node computes once a policy is new, measured here; busy is by
	// how much a node's own load may stretch it.
	proof time.Duration
	busy  float64
	rand  *rand.Rand
}

const (
	fleetGrants = 8    // sets of rules that a policy grants
	policyBytes = 4096 // of the ConfigMap
	// admission is what expressions such as those of generate kubernetes took for one
	// pod, in Kubernetes' own code.
	admission = 150 * time.Microsecond
)

// benchFleet prints how the cost of the DaemonSet grows with a cluster: what is
// measured on this machine once, and simulated for the rest.
func benchFleet(int) error {
	proof, err := proofAhead()
	if err != nil {
		return err
	}
	fmt.Printf("a new policy with %d sets of grants takes a node %.1f s to prove ahead of time, measured here\n\n", fleetGrants, proof.Seconds())
	t := newTable()
	fmt.Print("a policy and an agent reach the nodes in the same way: the DaemonSet replaces its pods\n\n")
	t.AppendHeader(table.Row{"nodes", "pods", "our requests for a pod", "admission, processors", "bytes of a policy, MB",
		"on every node, min: 1 at once / 1 % / 10 %", "requests a second, most"})
	for _, size := range []struct{ nodes, pods int }{{10, 1_000}, {100, 10_000}, {1_000, 100_000}, {10_000, 1_000_000}} {
		f := fleet{nodes: size.nodes, pods: size.pods, perSecond: 20, proof: proof, busy: 4, rand: rand.New(rand.NewPCG(1, 2))}
		var minutes [3]string
		most := 0
		for i, atOnce := range []int{1, max(1, f.nodes/100), max(1, f.nodes/10)} {
			took, peak := f.rollOut(atOnce)
			minutes[i] = fmt.Sprintf("%.0f", took.Minutes())
			most = max(most, peak)
		}
		t.AppendRow(table.Row{
			f.nodes, f.pods, 0,
			fmt.Sprintf("%.5f", float64(f.pods)/(24*time.Hour).Seconds()*admission.Seconds()),
			fmt.Sprintf("%.1f", float64(f.nodes*policyBytes)/1e6),
			minutes[0] + " / " + minutes[1] + " / " + minutes[2], most,
		})
	}
	t.Render()
	return nil
}

// proofAhead hardens and proves a default profile for no grant and for each set, as an agent
// does for RuntimeDefault when it starts or has a new policy.
func proofAhead() (time.Duration, error) {
	text := "version: 1\nname: fleet\nallow:\n"
	for i := range fleetGrants {
		text += fmt.Sprintf("  - {rule: r%d, anyone: true, algorithms: {hash: [sha256]}}\n", i)
	}
	p, _, err := plan.Load("fleet.yaml", func(string) ([]byte, error) { return []byte(text), nil })
	if err != nil {
		return 0, err
	}
	start := time.Now()
	for i := range fleetGrants + 1 {
		o := harden.Options{Host: profile.Host{Arch: specs.ArchX86_64, Caps: profile.DefaultCaps()}}
		if i > 0 {
			o.Grants, o.Broker = []string{fmt.Sprintf("r%d", i-1)}, "/run/afalg-policy/agent.sock"
		}
		if _, _, err := harden.Harden(p, profile.Docker(), o); err != nil {
			return 0, err
		}
	}
	return time.Since(start), nil
}

// Requests of one replaced pod: the controller deletes and creates; scheduler,
// kubelet and our node command tell the rest.
const (
	controllerWrites = 2
	otherRequests    = 1 + 5 + 2 // binding; statuses; GET and PATCH of the node
)

// rollOut replaces the agents of all nodes, some at once, and returns how long that
// takes and the most requests in one second.
func (f *fleet) rollOut(atOnce int) (took time.Duration, peak int) {
	var running times
	seconds := map[int]int{}
	var now, next time.Duration // next is when the controller may write again
	perWrite := time.Duration(float64(time.Second) / f.perSecond)
	for range f.nodes {
		if len(running) == atOnce {
			now = max(now, heap.Pop(&running).(time.Duration))
		}
		now = max(now, next)
		next = now + controllerWrites*perWrite
		// A node starts the new agent, which proves, and then finds itself closed.
		ready := now + time.Duration((5+f.rand.Float64()*20)*float64(time.Second)) + time.Duration(float64(f.proof)*(1+f.rand.Float64()*f.busy))
		heap.Push(&running, ready)
		seconds[int(now.Seconds())] += controllerWrites
		seconds[int(ready.Seconds())] += otherRequests
		took = max(took, ready)
	}
	for _, n := range seconds {
		peak = max(peak, n)
	}
	return took, peak
}

// times is a heap, the earliest first.
type times []time.Duration

func (t times) Len() int           { return len(t) }
func (t times) Less(i, j int) bool { return t[i] < t[j] }
func (t times) Swap(i, j int)      { t[i], t[j] = t[j], t[i] }
func (t *times) Push(x any)        { *t = append(*t, x.(time.Duration)) }
func (t *times) Pop() any {
	last := (*t)[len(*t)-1]
	*t = (*t)[:len(*t)-1]
	return last
}
