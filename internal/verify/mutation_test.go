//go:build amd64

package verify_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/bpf"
	"github.com/afalg-policy/afalg-policy/internal/oracle"
	"github.com/afalg-policy/afalg-policy/internal/verify"
)

// subjects are hardened profiles: without most of the calls that are not
// about sockets, so that every mutant can be compiled in seconds, and a sample
// of the mutants of the whole.
func subjects(t *testing.T) (list []oracle.Subject) {
	t.Helper()
	for _, p := range hardenedProfiles(t) {
		if testing.Short() {
			list = append(list, oracle.Subject{Name: p.name + ", slim", Profile: oracle.Slim(p.LinuxSeccomp), Every: 4})
			continue
		}
		list = append(list,
			oracle.Subject{Name: p.name + ", slim", Profile: oracle.Slim(p.LinuxSeccomp)},
			oracle.Subject{Name: p.name, Profile: p.LinuxSeccomp, Every: 40})
	}
	return list
}

// TestMutants damages hardened profiles, one rule at a time. Whatever call to
// AF_ALG the kernel then lets through, verify must have called open; and each
// witness of verify must be let through.
func TestMutants(t *testing.T) {
	trials, err := oracle.Try(subjects(t)...)
	if err != nil {
		t.Fatal(err)
	}
	cases := make([]oracle.Case, len(trials.List))
	calls := make([][]judged, len(trials.List))
	for i, trial := range trials.List {
		calls[i] = append(attempts(), witnessesOf(trial)...)
		var data []bpf.Data
		for _, c := range calls[i] {
			data = append(data, c.data)
		}
		cases[i] = oracle.Judged(trial.Filter, data)
	}
	open, found, witnesses := 0, 0, 0
	for i, answers := range askKernel(t, cases) {
		trial := trials.List[i]
		passes, missed := false, false
		for j, got := range answers {
			c, passed := calls[i][j], got.Errno() == oracle.Gated
			switch {
			case c.Witness != nil:
				witnesses++
				if !passed {
					t.Errorf("%s: the witness %v of %s is answered by %v", trial.Name, c.data, c.Call.Name, got)
				}
			case passed:
				passes = true
				if v := verdictOn(trial, c.data); v.State == verify.Closed {
					missed = true
					t.Errorf("%s: %v passes, and %s of %s is %v", trial.Name, c.data, v.Call.Name, v.Call.ABI.Name, v.State)
				}
			}
		}
		if passes {
			open++
		}
		if passes && !missed {
			found++
		}
	}
	t.Logf("%d mutants, %d refused by libseccomp, %d distinct programs; the kernel lets AF_ALG through %d, verify finds %d of them (killed %d%%); %d witnesses",
		trials.Mutants, trials.Refused, len(trials.List), open, found, 100*found/max(1, open), witnesses)
	if enough := 200; !testing.Short() && (open < enough || len(trials.List)-open < enough) {
		t.Error("too few of one kind to mean anything")
	}
}

// attempts are the calls of every route as a program would make them.
func attempts() []judged {
	var list []judged
	for _, a := range oracle.Attempts() {
		if a.Route == afalg.RouteIOUring {
			continue // rings need more than one call: see below
		}
		d := bpf.Data{Arch: unix.AUDIT_ARCH_X86_64, Nr: uint32(a.Nr), Args: a.Args}
		if a.How == oracle.ByInt80 {
			d.Arch = unix.AUDIT_ARCH_I386
		}
		list = append(list, judged{data: d})
	}
	for _, abi := range machine {
		for i := range uint32(3) {
			list = append(list, judged{data: bpf.Data{Arch: abi.Audit, Nr: abi.Bit | (abi.IOUring + i), Args: [6]uint64{1, oracle.SocketArguments}}})
		}
	}
	return list
}

func witnessesOf(trial oracle.Trial) (list []judged) {
	for _, v := range trial.Verdicts {
		if v.Witness != nil {
			list = append(list, judged{Verdict: v, data: *v.Witness})
		}
	}
	return list
}

// verdictOn finds the verdict whose calls hold d.
func verdictOn(trial oracle.Trial, d bpf.Data) verify.Verdict {
	for _, v := range trial.Verdicts {
		if verify.RegionOf(v.Call).Contains(d) {
			return v
		}
	}
	return verify.Verdict{State: verify.Closed}
}
