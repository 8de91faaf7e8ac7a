package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/afalg-policy/afalg-policy/internal/broker"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

const (
	bigSize       = 240 << 20
	neighbourSize = 4 // processes
)

// neighbour is a workload that executes a big file at the path of a digest
// rule, as often as it can, each time in another version.
type neighbour struct {
	Command []string
	Holds   bool // all rules; otherwise none
}

// start serves the neighbour beside the others, until this process ends.
func (n neighbour) start(b *broker.Broker, p *plan.Plan) error {
	if len(n.Command) == 0 {
		return nil
	}
	if !n.Holds {
		none := *p
		none.Rules = nil
		p = &none
	}
	ours, theirs, err := socketPair()
	if err != nil {
		return err
	}
	defer theirs.Close()
	cmd := exec.Command(n.Command[0], n.Command[1:]...)
	cmd.ExtraFiles, cmd.Stderr = []*os.File{theirs, theirs}, os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	l, err := (&workloads{socket: ours}).listener()
	if err != nil {
		return err
	}
	go b.Serve(context.Background(), l, broker.NewWorkload("neighbour", p))
	time.Sleep(time.Second) // until it is busy
	return nil
}

// benchNeighbour prints how one workload is served beside another that has the
// broker hash.
func benchNeighbour(rounds int, built string) error {
	b, err := newFilteredBench(rounds, built)
	if err != nil {
		return err
	}
	defer b.close()
	big, err := b.big()
	if err != nil {
		return err
	}
	load := func(filter string) []string {
		return []string{b.programs.path("neighbour"), filter, big, strconv.Itoa(neighbourSize)}
	}
	under := load(filepath.Join(b.dir, "filter"))
	contenders := []*neighboured{
		{name: "C floor, alone"},
		{name: "C floor, beside the same load without a filter", load: load("-")},
		{name: "broker, alone", broker: true},
		{name: "broker, a neighbour without a grant", broker: true, neighbour: neighbour{Command: under}},
		{name: "broker, a neighbour with a grant", broker: true, neighbour: neighbour{Command: under, Holds: true}},
	}
	for range b.rounds {
		for _, c := range contenders {
			if err := b.beside(c); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
		}
	}
	fmt.Printf("sessions of one workload, beside %d processes that execute a file of %d MiB at the path of a digest rule; %d rounds\n\n", neighbourSize, bigSize>>20, b.rounds)
	t := newTable()
	t.AppendHeader(table.Row{"served by, beside", "sessions/s", "median µs", "p99 µs", "median / alone", "p99 / alone"})
	for _, c := range contenders {
		alone := contenders[0]
		if c.broker {
			alone = contenders[2]
		}
		t.AppendRow(table.Row{
			c.name, fmt.Sprintf("%.0f", middle(c.rate)), micro(c.median), micro(c.p99),
			ratio(c.median, alone.median), ratio(c.p99, alone.p99),
		})
	}
	t.Render()
	fmt.Println("the bar: p99 / alone at most 3; what the load does where no broker is, the second row says")
	return nil
}

// neighboured is a workload that one of the two serves, beside a load or alone.
type neighboured struct {
	name   string
	broker bool // otherwise a floor
	neighbour
	load []string // beside a floor
	crowd
}

func (b *brokerBench) beside(c *neighboured) error {
	if c.broker {
		u, samples, err := b.serveMany(many{Procs: broker.Processors, Count: 1, Seconds: busySeconds, Neighbour: c.neighbour})
		if err == nil {
			c.add(samples, u.Threads)
		}
		return err
	}
	if c.load != nil {
		cmd := exec.Command(c.load[0], c.load[1:]...)
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			return err
		}
		defer cmd.Wait()
		defer cmd.Process.Kill() // and with it the processes that it started
		time.Sleep(time.Second)  // until it is busy
	}
	return b.apart(throughFloor, 1, &c.crowd)
}

// big makes the executable, and has the policy name it.
func (b *brokerBench) big() (path string, err error) {
	data, err := os.ReadFile(b.programs.path("neighbour"))
	if err != nil {
		return "", err
	}
	path = filepath.Join(b.dir, "big")
	if err := os.WriteFile(path, data, 0o700); err != nil {
		return "", err
	}
	if err := os.Truncate(path, bigSize); err != nil {
		return "", err
	}
	f, err := os.OpenFile(b.broker.Policy, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	_, err = fmt.Fprintf(f, "  - rule: big\n    binaries: [{path: %q, sha256: %064x}]\n    algorithms: {hash: [\"hmac(sha512)\"]}\n", path, 0)
	return path, err
}
