//go:build amd64

package verify_test

import (
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
	"github.com/afalg-policy/afalg-policy/internal/filter/verify"
	"github.com/afalg-policy/afalg-policy/internal/testing/oracle"
)

// subjects are hardened profiles. Most of the calls that are not about sockets
// are left out, so that every mutant can be compiled in seconds; the whole
// profiles have a sample of their mutants.
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

// TestMutants damages hardened profiles, one rule at a time. If the kernel then
// permits a call to AF_ALG, verify must have called it open; and each witness
// of verify must pass.
func TestMutants(t *testing.T) {
	trials, err := oracle.Try(subjects(t)...)
	if err != nil {
		t.Fatal(err)
	}
	forEachKind(t, func(t *testing.T, abis []afalg.ABI) { mutantsAgree(t, trials, abis) })
}

func mutantsAgree(t *testing.T, trials oracle.Trials, abis []afalg.ABI) {
	cases := make([]oracle.Case, len(trials.List))
	calls := make([][]judged, len(trials.List))
	for i, trial := range trials.List {
		calls[i] = append(attempts(abis), witnessesOf(trial, abis)...)
		var data []cbpf.Data
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
	if enough := 150; !testing.Short() && (open < enough || len(trials.List)-open < enough) {
		t.Error("too few of one kind to mean anything")
	}
}

// attempts are the calls of every route as a program would make them.
func attempts(abis []afalg.ABI) []judged {
	var list []judged
	for _, a := range oracle.Attempts() {
		named := func(abi afalg.ABI) bool { return abi.Name == a.ABI }
		if a.Route == afalg.RouteIOUring || !slices.ContainsFunc(abis, named) {
			continue // rings need more than one call: see below
		}
		d := cbpf.Data{Arch: unix.AUDIT_ARCH_X86_64, Nr: uint32(a.Nr), Args: a.Args}
		if a.How == oracle.ByInt80 {
			d.Arch = unix.AUDIT_ARCH_I386
		}
		list = append(list, judged{data: d})
	}
	for _, abi := range abis {
		for i := range uint32(3) {
			list = append(list, judged{data: cbpf.Data{Arch: abi.Audit, Nr: abi.Bit | (abi.IOUring + i), Args: [6]uint64{1, oracle.SocketArguments}}})
		}
	}
	return list
}

func witnessesOf(trial oracle.Trial, abis []afalg.ABI) (list []judged) {
	for _, v := range trial.Verdicts {
		named := func(abi afalg.ABI) bool { return abi.Name == v.Call.ABI.Name }
		if v.Witness != nil && slices.ContainsFunc(abis, named) {
			list = append(list, judged{Verdict: v, data: *v.Witness})
		}
	}
	return list
}

// verdictOn finds the verdict whose calls hold d.
func verdictOn(trial oracle.Trial, d cbpf.Data) verify.Verdict {
	for _, v := range trial.Verdicts {
		if verify.RegionOf(v.Call).Contains(d) {
			return v
		}
	}
	return verify.Verdict{State: verify.Closed}
}
