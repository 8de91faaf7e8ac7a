// Bench prints the cost of a generated filter: the BPF instructions that one
// call executes under it, beside those under its base, and the time on this
// machine, as a ratio measured in one run.
//
//	go run ./bench            the tables
//	go run ./bench -rounds 9  more rounds for the times
//	go run ./bench -verify    the cost of a proof, and its growth
//	go run ./bench -broker    the cost of the broker, beside a minimal one in C
//	go run ./bench -broker -busy  with many workloads at once
//	go run ./bench -broker -neighbour  beside one that has the broker hash
//	go run ./bench -lsm       the cost of the kernel half, which it puts in force on this host
//	go run ./bench -broker -lsm  sessions through the broker and through the kernel half
//	go run ./bench -fleet     how the cost grows with a cluster, simulated
//	go run ./bench -nri PROGRAM  how long containerd waits for the agent about each container of a node
//	go run ./bench -start PROGRAM  the cost of a container's start; PROGRAM is bin/afalg-policy
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/filter/seccomp"
)

// podmanProfile comes with Debian's golang-github-containers-common.
const podmanProfile = "/usr/share/containers/seccomp.json"

func main() {
	if os.Getenv(childVariable) != "" {
		os.Exit(child())
	}
	if status, is := stage(os.Args[1:]); is {
		os.Exit(status)
	}
	rounds := flag.Int("rounds", 5, "rounds of timing, each candidate in turn; the median counts")
	proofs := flag.Bool("verify", false, "print what proofs cost instead")
	broker := flag.Bool("broker", false, "print what the broker costs instead")
	busy := flag.Bool("busy", false, "with -broker: with many workloads at once")
	beside := flag.Bool("neighbour", false, "with -broker: beside a workload that has the broker hash")
	kernel := flag.Bool("lsm", false, "print what the kernel half costs instead; its policies are in force on this host meanwhile")
	shift := flag.Int("icount", -1, "with -lsm: the `SHIFT` of the option -icount of the QEMU that this runs in, to count instructions")
	built := flag.String("programs", "", "with -broker and -lsm: where its C programs are; they are built if it is left out")
	start := flag.String("start", "", "print what the start of a container costs with this `PROGRAM` instead")
	cluster := flag.Bool("fleet", false, "print how the cost grows with a cluster instead")
	asked := flag.String("nri", "", "print how long a runtime waits for this `PROGRAM` as its plugin instead")
	flag.Parse()
	work := run
	switch {
	case *asked != "":
		work = func(rounds int) error { return benchNRI(rounds, *asked) }
	case *start != "":
		work = func(rounds int) error { return benchStart(rounds, *start) }
	case *cluster:
		work = benchFleet
	case *proofs:
		work = benchVerify
	case *broker && *kernel:
		work = func(rounds int) error { return benchHalves(rounds, *built) }
	case *kernel:
		work = func(rounds int) error { return benchKernelHalf(rounds, *shift, *built) }
	case *broker && *busy:
		work = func(rounds int) error { return benchBusy(rounds, *built) }
	case *broker && *beside:
		work = func(rounds int) error { return benchNeighbour(rounds, *built) }
	case *broker:
		work = func(rounds int) error { return benchBroker(rounds, *built) }
	}
	if err := work(*rounds); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(rounds int) error {
	profiles, err := profilePairs()
	if err != nil {
		return err
	}
	fmt.Printf("instructions executed for one call (x86-64, as runc compiles, libseccomp %s)\n\n", seccomp.Version())
	if err := printCounts(profiles); err != nil {
		return err
	}
	times, err := measure(profiles, rounds)
	if err != nil {
		return err
	}
	fmt.Printf("\ntime for one call under the hardened profile, as a ratio to its base: median of %d rounds\n\n", rounds)
	printTimes(profiles, times)
	return nil
}

// pair is a base profile and its hardened form, compiled.
type pair struct {
	name           string
	base, hardened cbpf.Program
	presets        cbpf.Program // hardened with presets besides
}

func profilePairs() ([]pair, error) {
	text, err := os.ReadFile(podmanProfile)
	if err != nil {
		return nil, fmt.Errorf("the podman profile (Debian package golang-github-containers-common): %w", err)
	}
	podman, err := profile.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", podmanProfile, err)
	}
	docker := profile.Docker()
	var pairs []pair
	for _, b := range []struct {
		name string
		base *profile.Profile
		caps []string
	}{
		{"docker", docker, profile.DefaultCaps()},
		{"podman", podman, []string{"CAP_CHOWN"}},
		{"podman, CAP_AUDIT_WRITE", podman, profile.DefaultCaps()},
		{"none", profile.AllowAll(specs.ArchX86_64), nil},
	} {
		p, err := compilePair(b.name, b.base, profile.Host{Arch: specs.ArchX86_64, Caps: b.caps})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", b.name, err)
		}
		pairs = append(pairs, p)
	}
	return pairs, nil
}

// call is one system call with arguments that a filter may look at.
type call struct {
	name string
	nr   uint32
	args [6]uint64
}

var calls = []call{
	{"socket(AF_UNIX)", unix.SYS_SOCKET, [6]uint64{unix.AF_UNIX, unix.SOCK_STREAM}},
	{"socket(AF_INET)", unix.SYS_SOCKET, [6]uint64{unix.AF_INET, unix.SOCK_STREAM}},
	{"socket(AF_INET6)", unix.SYS_SOCKET, [6]uint64{unix.AF_INET6, unix.SOCK_STREAM}},
	{"socket(AF_NETLINK)", unix.SYS_SOCKET, [6]uint64{unix.AF_NETLINK, unix.SOCK_RAW}},
	{"read", unix.SYS_READ, [6]uint64{}},
	{"write", unix.SYS_WRITE, [6]uint64{}},
	{"openat", unix.SYS_OPENAT, [6]uint64{}},
	{"futex", unix.SYS_FUTEX, [6]uint64{}},
	{"bind", unix.SYS_BIND, [6]uint64{}},
}

func printCounts(pairs []pair) error {
	t := newTable()
	header := table.Row{"call"}
	total := table.Row{"instructions in all"}
	for _, p := range pairs {
		header = append(header, p.name, "hardened", "with presets")
		total = append(total, len(p.base))
		for _, hardened := range []cbpf.Program{p.hardened, p.presets} {
			total = append(total, fmt.Sprintf("%d (%+d)", len(hardened), len(hardened)-len(p.base)))
		}
	}
	t.AppendHeader(header)
	t.AppendRow(total)
	for _, c := range calls {
		row := table.Row{c.name}
		for _, p := range pairs {
			before, err := executed(p.base, c)
			if err != nil {
				return err
			}
			row = append(row, before)
			for _, hardened := range []cbpf.Program{p.hardened, p.presets} {
				after, err := executed(hardened, c)
				if err != nil {
					return err
				}
				row = append(row, fmt.Sprintf("%d (%+d)", after, after-before))
			}
		}
		t.AppendRow(row)
	}
	t.Render()
	return nil
}

func executed(p cbpf.Program, c call) (int, error) {
	_, n, err := p.Run(cbpf.Data{Arch: unix.AUDIT_ARCH_X86_64, Nr: c.nr, Args: c.args}, cbpf.EndianOf(false))
	if err != nil {
		return 0, fmt.Errorf("running the filter on %s: %w", c.name, err)
	}
	return n, nil
}

func newTable() table.Writer {
	t := table.NewWriter()
	t.SetOutputMirror(os.Stdout)
	t.SetStyle(table.StyleLight)
	return t
}
