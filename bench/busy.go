package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
)

const (
	busyCount   = 100
	busySeconds = 2
	idleCount   = 1000
)

// sample has the times of the sessions of one workload, in nanoseconds.
type sample []float64

func readSamples(dir string, count int) ([]sample, error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	if len(files) != count {
		return nil, fmt.Errorf("%d of %d workloads told how they fared", len(files), count)
	}
	var all []sample
	for _, f := range files {
		text, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			return nil, err
		}
		var s sample
		for field := range strings.FieldsSeq(string(text)) {
			ns, err := strconv.ParseFloat(field, 64)
			if err != nil {
				return nil, err
			}
			s = append(s, ns)
		}
		all = append(all, s)
	}
	return all, nil
}

// crowd is the result of workloads that were busy at once, a value for each
// round.
type crowd struct {
	rate, median, p99, tail []float64 // sessions a second; ns; p99/median
	least, most             []float64 // sessions of a workload, relative to the median one's
	threads                 []float64
}

func (c *crowd) add(samples []sample, threads int) {
	var all, each []float64
	for _, s := range samples {
		all, each = append(all, s...), append(each, float64(len(s)))
	}
	slices.Sort(all)
	median, p99 := all[len(all)/2], all[len(all)-len(all)/100-1]
	c.rate = append(c.rate, float64(len(all))/busySeconds)
	c.median, c.p99, c.tail = append(c.median, median), append(c.p99, p99), append(c.tail, p99/median)
	c.least = append(c.least, slices.Min(each)/middle(each))
	c.most = append(c.most, slices.Max(each)/middle(each))
	c.threads = append(c.threads, float64(threads))
}

// procs are the values of GOMAXPROCS to try.
func procs() []int {
	all := []int{1, 2, runtime.NumCPU(), 4}
	slices.Sort(all)
	return slices.Compact(all)
}

// benchBusy prints how a broker serves many workloads.
func benchBusy(rounds int, built string) error {
	b, err := newFilteredBench(rounds, built)
	if err != nil {
		return err
	}
	defer b.close()
	if err := b.busy(); err != nil {
		return err
	}
	return b.idle()
}

// newFilteredBench is a bench whose filter is in a file, for C programs to load.
func newFilteredBench(rounds int, built string) (*brokerBench, error) {
	b, err := newBrokerBench(rounds, built)
	if err != nil {
		return nil, err
	}
	if err := b.writeFilter(); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

func (b *brokerBench) writeFilter() error {
	filter, err := b.broker.filter()
	if err != nil {
		return err
	}
	var text bytes.Buffer
	if err := binary.Write(&text, binary.NativeEndian, filter); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(b.dir, "filter"), text.Bytes(), 0o600)
}

func (b *brokerBench) busy() error {
	type contender struct {
		name string
		run  func(*crowd) error
		crowd
	}
	var contenders []*contender
	for _, w := range b.ways()[:len(b.ways())-1] {
		name := "direct"
		if w == throughFloor {
			name = "a C floor each"
		}
		contenders = append(contenders, &contender{name: name, run: func(c *crowd) error { return b.apart(w, busyCount, c) }})
	}
	for _, n := range procs() {
		contenders = append(contenders, &contender{name: procsName(n), run: func(c *crowd) error {
			u, samples, err := b.serveMany(many{Procs: n, Count: busyCount, Seconds: busySeconds})
			if err == nil {
				c.add(samples, u.Threads)
			}
			return err
		}})
	}
	for range b.rounds {
		for _, c := range contenders {
			if err := c.run(&c.crowd); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
		}
	}
	fmt.Printf("%d workloads make sessions at once on %d processors, for %d s; %d rounds\n\n", busyCount, runtime.NumCPU(), busySeconds, b.rounds)
	t := newTable()
	t.AppendHeader(table.Row{"served by", "sessions/s", "median ms", "p99 ms", "p99 / median", "least", "most", "threads"})
	for _, c := range contenders {
		t.AppendRow(table.Row{
			c.name, fmt.Sprintf("%.0f", middle(c.rate)),
			milli(c.median), milli(c.p99), spread(c.tail),
			fmt.Sprintf("%.2f", slices.Min(c.least)), fmt.Sprintf("%.2f", slices.Max(c.most)),
			fmt.Sprintf("%.0f", middle(c.threads)),
		})
	}
	t.Render()
	fmt.Println("the bar: p99 / median at most 10")
	fmt.Println("least, most: sessions of one workload, by those of the median one; the worst round")
	return nil
}

func procsName(n int) string {
	name := fmt.Sprintf("a broker, GOMAXPROCS %d", n)
	if n == runtime.NumCPU() {
		name += " (the default)"
	}
	return name
}

func milli(ns []float64) string { return fmt.Sprintf("%.2f", middle(ns)/1e6) }

// apart runs as many workloads, each by itself: the machine's share in the
// result.
func (b *brokerBench) apart(w way, count int, c *crowd) error {
	dir, err := os.MkdirTemp(b.dir, "apart")
	if err != nil {
		return err
	}
	argv, err := b.command(w, b.broker, "workload", dir, strconv.Itoa(busySeconds))
	if err != nil {
		return err
	}
	wait, goAhead, err := os.Pipe()
	if err != nil {
		return err
	}
	defer goAhead.Close()
	defer wait.Close()
	var all []*exec.Cmd
	for range count {
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.ExtraFiles, cmd.Stderr = []*os.File{wait}, os.Stderr
		if err := cmd.Start(); err != nil {
			return err
		}
		all = append(all, cmd)
	}
	time.Sleep(200 * time.Millisecond) // until all of them wait
	goAhead.Close()
	for _, cmd := range all {
		if err := cmd.Wait(); err != nil {
			return err
		}
	}
	samples, err := readSamples(dir, count)
	if err == nil {
		c.add(samples, 0)
	}
	return err
}

func (b *brokerBench) idle() error {
	fmt.Printf("\na broker with %d idle workloads, each of which had ten sessions\n\n", idleCount)
	t := newTable()
	t.AppendHeader(table.Row{"GOMAXPROCS", "RSS MiB", "threads", "descriptors", "goroutines", fmt.Sprintf("processor ms in %v", idleTime)})
	for _, n := range procs() {
		u, _, err := b.serveMany(many{Procs: n, Count: idleCount})
		if err != nil {
			return err
		}
		t.AppendRow(table.Row{n, fmt.Sprintf("%.1f", float64(u.RSS)/1024), u.Threads, u.FDs, u.Goroutines, u.CPU.Milliseconds()})
	}
	t.Render()
	fmt.Println("the bar: 64 MiB")
	return nil
}
