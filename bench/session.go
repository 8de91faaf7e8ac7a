package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"golang.org/x/sys/unix"
)

// sessions is how many sessions a program times in one round.
const sessions = 2000

// brokerBench is one run of the benchmarks of the broker.
type brokerBench struct {
	programs programs
	dir      string // for files, and removed afterwards
	rounds   int
	real     bool // the kernel has AF_ALG
	user     string
	broker   brokered
}

func newBrokerBench(rounds int, built string) (*brokerBench, error) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return nil, err
	}
	b := &brokerBench{dir: dir, rounds: max(rounds, 1)}
	if err := b.prepare(built); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

func (b *brokerBench) close() { os.RemoveAll(b.dir) }

func (b *brokerBench) prepare(built string) (err error) {
	if b.programs, err = findPrograms(built, b.dir); err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_ALG, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if b.real = err == nil; b.real {
		unix.Close(fd)
	}
	who, err := user.Current()
	if err != nil {
		return err
	}
	uid, err := strconv.ParseUint(who.Uid, 10, 32)
	if err != nil {
		return err
	}
	b.broker = brokered{
		Policy: filepath.Join(b.dir, "policy.yaml"), StandIn: !b.real,
		Users: map[uint32]string{uint32(uid): who.Username},
	}
	b.user = who.Username
	return b.writePolicy()
}

func (b *brokerBench) writePolicy() error {
	rule, err := b.rule()
	if err != nil {
		return err
	}
	return os.WriteFile(b.broker.Policy, []byte("version: 1\nname: bench\nallow:\n"+rule), 0o600)
}

// rule asks for every condition that needs no systemd: the paths and digests of
// the programs, and the user.
func (b *brokerBench) rule() (string, error) {
	text := "  - rule: programs\n    binaries:\n"
	for _, name := range programNames {
		data, err := os.ReadFile(b.programs.path(name))
		if err != nil {
			return "", err
		}
		text += fmt.Sprintf("      - {path: %q, sha256: %x}\n", b.programs.path(name), sha256.Sum256(data))
	}
	return text + fmt.Sprintf("    users: [%q]\n    algorithms: {hash: [\"hmac(sha512)\"]}\n", b.user), nil
}

// way is how a program gets its sockets.
type way int

const (
	direct way = iota
	throughFloor
	throughBroker
)

func (w way) String() string { return [...]string{"direct", "C floor", "broker"}[w] }

// ways are the ways of this kernel.
func (b *brokerBench) ways() []way {
	if b.real {
		return []way{direct, throughFloor, throughBroker}
	}
	return []way{throughFloor, throughBroker}
}

// command is the command line for one of the programs.
func (b *brokerBench) command(w way, o brokered, program string, args ...string) ([]string, error) {
	args = append([]string{b.programs.path(program)}, args...)
	switch w {
	case throughFloor:
		if !b.real {
			args = append([]string{"-s"}, args...)
		}
		return append([]string{b.programs.path("floor")}, args...), nil
	case throughBroker:
		details, err := json.Marshal(o)
		return append([]string{"/proc/self/exe", "brokered", string(details)}, args...), err
	}
	return args, nil
}

// run returns the output of a program.
func (b *brokerBench) run(w way, o brokered, program string, args ...string) (string, error) {
	argv, err := b.command(w, o, program, args...)
	if err != nil {
		return "", err
	}
	var said strings.Builder
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil || said.Len() > 0 {
		return "", fmt.Errorf("%s, %s: %v: %s", program, w, err, said.String())
	}
	return strings.TrimSpace(string(out)), nil
}

// times reads numbers, in nanoseconds.
func (b *brokerBench) times(w way, program string, args ...string) ([]float64, error) {
	out, err := b.run(w, b.broker, program, args...)
	if err != nil {
		return nil, err
	}
	var all []float64
	for field := range strings.FieldsSeq(out) {
		ns, err := strconv.ParseFloat(field, 64)
		if err != nil {
			return nil, fmt.Errorf("%s printed %q", program, out)
		}
		all = append(all, ns)
	}
	return all, nil
}

// pinned calls f while every process that it starts runs on one processor, the
// nth.
func pinned(n int, f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return err
	}
	n %= before.Count()
	for cpu := 0; one.Count() == 0; cpu++ {
		if !before.IsSet(cpu) {
			continue
		}
		if n--; n < 0 {
			one.Set(cpu)
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return err
	}
	defer unix.SchedSetaffinity(0, &before)
	return f()
}

func unpinned(_ int, f func() error) error { return f() }

// inTurn measures each way in every round, in an order that changes with the
// round, so that the machine's drift falls on all of them.
func (b *brokerBench) inTurn(ways []way, measure func(round int, w way) error) error {
	for round := range b.rounds {
		order := slices.Clone(ways)
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, w := range order {
			if err := measure(round, w); err != nil {
				return err
			}
		}
	}
	return nil
}

// sessions times whole sessions.
func (b *brokerBench) sessions() error {
	what := "ordinary sockets stand in for AF_ALG, which this kernel does not have"
	if b.real {
		what = "AF_ALG of this kernel"
	}
	fmt.Printf("a whole session (socket, bind, key, accept, close), µs: %d rounds of %d; %s\n\n", b.rounds, sessions, what)
	t := newTable()
	t.AppendHeader(table.Row{"processors", "through", "median", "mean", "p99", "median / floor", "mean / floor", "p99 / floor"})
	// Each round is on the next processor: something else may keep one busy.
	places := []struct {
		name string
		in   func(round int, f func() error) error
	}{{"one", pinned}, {"any", unpinned}}
	if runtime.NumCPU() == 1 {
		places = places[1:]
	}
	for _, place := range places {
		medians, means, p99s := map[way][]float64{}, map[way][]float64{}, map[way][]float64{}
		err := b.inTurn(b.ways(), func(round int, w way) error {
			return place.in(round, func() error {
				ns, err := b.times(w, "client", strconv.Itoa(sessions))
				if err == nil {
					medians[w], means[w], p99s[w] = append(medians[w], ns[0]), append(means[w], ns[1]), append(p99s[w], ns[2])
				}
				return err
			})
		})
		if err != nil {
			return err
		}
		for _, w := range b.ways() {
			t.AppendRow(table.Row{
				place.name, w, micro(medians[w]), micro(means[w]), micro(p99s[w]),
				ratio(medians[w], medians[throughFloor]), ratio(means[w], means[throughFloor]), ratio(p99s[w], p99s[throughFloor]),
			})
		}
		t.AppendSeparator()
	}
	t.Render()
	fmt.Println("the bar: median / floor at most 1.5 for the broker")
	return nil
}

// middle sorts a copy, and returns its median.
func middle(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

func micro(ns []float64) string { return fmt.Sprintf("%.2f", middle(ns)/1000) }

// ratio divides values measured in the same round: median and range.
func ratio(of, to []float64) string {
	var all []float64
	for i := range of {
		all = append(all, of[i]/to[i])
	}
	if slices.Equal(of, to) {
		return "1"
	}
	return spread(all)
}

func spread(values []float64) string {
	return fmt.Sprintf("%.2f (%.2f–%.2f)", middle(values), slices.Min(values), slices.Max(values))
}
