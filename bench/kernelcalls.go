package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/afalg-policy/afalg-policy/internal/lsm"
)

// passed are the programs of the kernel half that a call of count.c runs, by its
// name. What is not here runs none.
var passed = map[string][]string{
	"socket, close: UDP":                   {"guard_socket"},
	"bind that fails at once: UDP":         {"guard_bind"},
	"socket, bind, close: UDP":             {"guard_socket", "guard_bind"},
	"socket, connect, accept, close: UNIX": {"guard_socket", "guard_accept"},
	"send, recv: UNIX":                     {"guard_sendmsg", "guard_recvmsg"},
	"prctl":                                {"guard_prctl"},
	"readlink of /proc/PID/exe":            {"strict_traced"},
	"vfork, exec, exit":                    {"strict_child", "strict_exec", "strict_started"},
	deciding:                               {"guard_socket", "guard_bind"},
}

// deciding is the call that is decided about. The bar is for the others.
const (
	deciding = "socket, bind, close: ALG"
	bar      = 250
)

// callBatches is how often a call, or several, are counted. The fastest is the
// one that no interrupt fell into.
const callBatches = 300

// callTable has what calls cost, step by step: the first step is without the
// kernel half.
type callTable struct {
	names []string
	steps []callStep
}

type callStep struct {
	name  string
	costs map[string]float64
	hooks map[string]int // programs that are run, by call
}

// count adds the costs of calls now.
func (k *kernelHalf) count(step string) error {
	if err := k.settled(); err != nil {
		return err
	}
	out, err := exec.Command(k.programs.path("count"), strconv.Itoa(callBatches)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("count, %s: %w: %s", step, err, out)
	}
	s := callStep{step, map[string]float64{}, map[string]int{}}
	loaded := &lsm.State{}
	if len(k.called.steps) > 0 {
		if loaded, err = lsm.ReadState(); err != nil {
			return err
		}
	}
	for line := range strings.Lines(string(out)) {
		name, text, _ := strings.Cut(strings.TrimSpace(line), "\t")
		ticks, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return fmt.Errorf("count printed %q", line)
		}
		if len(k.called.steps) == 0 {
			k.called.names = append(k.called.names, name)
		}
		s.costs[name] = k.clock.of(ticks)
		for _, program := range passed[name] {
			if slices.Contains(loaded.Programs, program) {
				s.hooks[name]++
			}
		}
	}
	k.called.steps = append(k.called.steps, s)
	return nil
}

// settled waits until the programs of the load before are gone: the kernel takes
// them off its functions some time after their links are closed, and until then
// calls run both.
func (k *kernelHalf) settled() error {
	wanted := []string{}
	s, err := lsm.ReadState()
	switch {
	case err == nil:
		wanted = slices.Sorted(slices.Values(s.Programs))
	case !errors.Is(err, lsm.ErrNotLoaded):
		return err
	}
	var have []string
	for range 600 {
		if have, err = programsNow(); err != nil || slices.Equal(have, wanted) {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
	return fmt.Errorf("the kernel has the programs %v a minute after a load of %v", have, wanted)
}

// hookNames begin the names of programs that are attached.
var hookNames = regexp.MustCompile("^(guard|strict|taint)_")

// programsNow lists the programs of the kernel half that the kernel has.
func programsNow() (have []string, err error) {
	for id := ebpf.ProgramID(0); ; {
		if id, err = ebpf.ProgramGetNextID(id); errors.Is(err, os.ErrNotExist) {
			slices.Sort(have)
			return have, nil
		}
		if err != nil {
			return nil, err
		}
		p, err := ebpf.NewProgramFromID(id)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		info, err := p.Info()
		p.Close()
		if err != nil {
			return nil, err
		}
		if hookNames.MatchString(info.Name) {
			have = append(have, info.Name)
		}
	}
}

func (c callTable) print(unit clock) {
	fmt.Printf("a call: the fastest of %d batches, what each step adds to the first, and that for each program it runs\n\n", callBatches)
	t := newTable()
	header := table.Row{"call"}
	for _, s := range c.steps {
		header = append(header, s.name)
	}
	t.AppendHeader(header)
	var over []string
	for _, name := range c.names {
		row := table.Row{name, fmt.Sprintf("%.0f", c.steps[0].costs[name])}
		for _, s := range c.steps[1:] {
			more, hooks := s.costs[name]-c.steps[0].costs[name], s.hooks[name]
			row = append(row, added(more, hooks))
			if name != deciding && more > float64(bar*hooks)+slack(c.steps[0].costs[name]) {
				over = append(over, fmt.Sprintf("%s, %s (%s)", name, s.name, added(more, hooks)))
			}
		}
		t.AppendRow(row)
	}
	t.Render()
	if !unit.counts() {
		fmt.Println()
		return
	}
	if len(over) == 0 {
		over = []string{"none"}
	}
	fmt.Printf("the bar: at most %d instructions for each program that a call about something else runs, and 0 for other calls; over it: %s\n\n",
		bar, strings.Join(over, "; "))
}

// slack is what a call varies by itself: lists in the kernel have another length.
func slack(cost float64) float64 { return 10 + cost/1000 }

// added words what a call costs more, and that by program.
func added(more float64, programs int) string {
	switch {
	case math.Abs(more) < 0.5:
		return "0"
	case programs < 2:
		return fmt.Sprintf("%+.0f", more)
	}
	return fmt.Sprintf("%+.0f = %d × %.0f", more, programs, more/float64(programs))
}
