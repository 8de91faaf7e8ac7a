package oracle

import (
	"cmp"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
	"github.com/afalg-policy/afalg-policy/internal/filter/seccomp"
	"github.com/afalg-policy/afalg-policy/internal/filter/verify"
)

// Trial is a mutant as a runtime loads it on x86-64, with verify's verdicts.
type Trial struct {
	Name     string // of the profile, the runtime and the damage
	Filter   cbpf.Filter
	Verdicts []verify.Verdict
}

// Trials are compiled mutants with their verdicts.
type Trials struct {
	List    []Trial // the distinct programs
	Mutants int     // all of them, by every runtime
	Refused int     // those that libseccomp refuses to compile
}

// Subject is a profile whose mutants are tried.
type Subject struct {
	Name    string
	Profile *specs.LinuxSeccomp
	Every   int // only each n-th mutant is tried; 0 and 1: all
}

// Try compiles the mutants of profiles that close AF_ALG as each runtime does,
// and asks verify about all routes of the machine.
func Try(subjects ...Subject) (Trials, error) {
	var t Trials
	seen := map[string]bool{}
	for _, s := range subjects {
		for i, m := range Mutants(s.Profile, afalg.Family) {
			if s.Every > 1 && i%s.Every != 0 {
				continue
			}
			for _, r := range seccomp.Runtimes() {
				t.Mutants++
				c, err := seccomp.Compile(m.Profile, seccomp.Options{Runtime: r, Native: specs.ArchX86_64})
				if err != nil {
					t.Refused++
					continue
				}
				filter := cbpf.Filter{c.Insns}
				if key := string(filter[0].Bytes(cbpf.Little)); !seen[key] {
					seen[key] = true
					t.List = append(t.List, Trial{Name: fmt.Sprintf("%s, %s: %s", s.Name, r, m.Name), Filter: filter})
				}
			}
		}
	}
	return t, t.decide()
}

func (t *Trials) decide() error {
	errs := make([]error, len(t.List))
	next := make(chan int)
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for i := range next {
				t.List[i].Verdicts, errs[i] = verify.Routes(t.List[i].Filter, Machine, afalg.Family, verify.Options{})
			}
		})
	}
	for i := range t.List {
		next <- i
	}
	close(next)
	workers.Wait()
	for i, err := range errs {
		if err != nil {
			return fmt.Errorf("%s: %w", t.List[i].Name, err)
		}
	}
	return nil
}

// Machine holds the ABIs of x86-64.
var Machine = afalg.Machine(string(specs.ArchX86_64))

// Attempt is a call that obtains an AF_ALG socket, or loads the module, unless
// something denies it.
type Attempt struct {
	Call
	ABI   string
	Route afalg.Route
	Needs []string // the calls that a filter must let through for it
}

// highs are upper halves of a register that holds an int.
var highs = []uint64{1, 7, 1 << 31, 1<<32 - 1}

// Attempts lists the ways to try on x86-64. They do what a program would, with
// the type of AF_ALG.
func Attempts() []Attempt {
	var list []Attempt
	for _, abi := range Machine {
		how, ring := BySyscall, IOUringSocket
		if abi.Kind == afalg.Compat {
			how, ring = ByInt80, IOUringSocket32
		}
		add := func(c afalg.Call, high uint64, args ...uint64) {
			a := Attempt{Call{how, uint64(c.Nr), [6]uint64{}}, abi.Name, c.Route, []string{c.Name}}
			copy(a.Args[:], args)
			a.Args[0] |= high << 32
			list = append(list, a)
		}
		for _, c := range abi.Calls(afalg.Family) {
			canonical, patterns := []uint64{0}, append([]uint64{0}, highs...)
			if c.High == afalg.HighZero {
				patterns = canonical
			} else if c.High == afalg.HighSet {
				patterns = highs
			}
			switch c.Name {
			case "socket":
				for _, high := range patterns {
					add(c, high, afalg.Family, unix.SOCK_SEQPACKET)
				}
				add(c, patterns[0], afalg.Family, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC)
			case "socketpair":
				for _, high := range patterns {
					add(c, high, afalg.Family, unix.SOCK_SEQPACKET, 0, Pair)
				}
			case "socketcall":
				for _, high := range patterns {
					add(c, high, uint64(*c.Arg0), SocketArguments)
				}
			case "io_uring_setup":
				list = append(list, Attempt{Call{ring, uint64(c.Nr), [6]uint64{afalg.Family}}, abi.Name, c.Route, []string{"io_uring_setup", "io_uring_enter"}})
			}
		}
	}
	return list
}

// Obtained reports whether an answer shows the way to be open.
func (a Attempt) Obtained(got Answer) bool {
	if a.Route == afalg.RouteSocketpair {
		return got.Errno() == unix.EOPNOTSUPP // AF_ALG's answer, which has no pairs
	}
	return got.What == Returned && got.Value >= 0
}

// Tally compares verify with the kernel.
type Tally struct {
	Trials
	Open   int      // shown open by the kernel
	Found  int      // of those, found open by verify
	Missed []string // the others: there may be none
	// Only counts the trials that verify calls open and the kernel does not
	// show, by their open calls.
	Only map[string]int
}

// Compare compares the verdicts of the trials with the answers to Attempts.
func (t Trials) Compare(answers [][]Answer) Tally {
	tally := Tally{Trials: t, Only: map[string]int{}}
	attempts := Attempts()
	for i, trial := range t.List {
		open, missed := false, false
		for j, a := range attempts {
			if !a.Obtained(answers[i][j]) {
				continue
			}
			open = true
			for _, name := range a.Needs {
				if !trial.saysOpen(a, name) && !missed {
					missed = true
					tally.Missed = append(tally.Missed, fmt.Sprintf("%s: %s of %s, %v, is open: %v", trial.Name, name, a.ABI, a.Call, answers[i][j]))
				}
			}
		}
		switch {
		case open && !missed:
			tally.Open++
			tally.Found++
		case open:
			tally.Open++
		case trial.openCalls() != "":
			tally.Only[trial.openCalls()]++
		}
	}
	return tally
}

func (t Trial) saysOpen(a Attempt, name string) bool {
	return slices.ContainsFunc(t.Verdicts, func(v verify.Verdict) bool {
		return v.State == verify.Open && v.Call.ABI.Name == a.ABI && v.Call.Route == a.Route && v.Call.Name == name
	})
}

// openCalls lists the calls that verify does not call closed: "x86-64
// io_uring_enter".
func (t Trial) openCalls() string {
	var calls []string
	for _, v := range t.Verdicts {
		if v.State != verify.Closed {
			calls = append(calls, fmt.Sprintf("%s %s (%v)", v.Call.ABI.Name, v.Call.Name, v.State))
		}
	}
	return strings.Join(slices.Compact(calls), ", ")
}

func (t Tally) String() string {
	var b strings.Builder
	only := 0
	for _, n := range t.Only {
		only += n
	}
	fmt.Fprintf(&b, "%d mutants, %d refused by libseccomp, %d distinct programs; %d open by the kernel, of which verify finds %d; %d open by verify alone",
		t.Mutants, t.Refused, len(t.List), t.Open, t.Found, only)
	for _, calls := range slices.SortedFunc(maps.Keys(t.Only), func(a, c string) int { return cmp.Or(cmp.Compare(t.Only[c], t.Only[a]), cmp.Compare(a, c)) }) {
		fmt.Fprintf(&b, "\n%5d  %s", t.Only[calls], calls)
	}
	return b.String()
}
