//go:build vm

package vmtest

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
	"github.com/afalg-policy/afalg-policy/internal/testing/oracle"
)

// TestLongVerify compares the verdicts of verify with kernels that have AF_ALG,
// x32 and io_uring.
func TestLongVerify(t *testing.T) {
	asking := filepath.Join(t.TempDir(), "oracle")
	if err := oracle.Build(asking); err != nil {
		t.Fatal(err)
	}
	trials := mutants(t)
	t.Parallel()
	for _, version := range Kernels() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			vm := Boot(t, version, Options{})
			t.Run("attempts", func(t *testing.T) { testAttempts(t, vm, asking) })
			t.Run("containers", func(t *testing.T) { testVerifyContainers(t, vm) })
			t.Run("mutants", func(t *testing.T) { testMutants(t, vm, asking, trials) })
		})
	}
}

// ask puts cases to the machine's kernel.
func ask(t *testing.T, vm *VM, program string, cases []oracle.Case) [][]oracle.Answer {
	t.Helper()
	r := vm.Command(t, Command{Args: []string{program}, Stdin: oracle.Encode(cases)})
	answers, err := oracle.Decode(cases, r.Stdout)
	if err != nil || r.Exit != 0 {
		t.Fatalf("exit status %d: %v\n%s", r.Exit, err, r.Stderr)
	}
	t.Logf("%d cases in %v", len(cases), r.Took.Round(time.Millisecond))
	return answers
}

func calls() (list []oracle.Call) {
	for _, a := range oracle.Attempts() {
		list = append(list, a.Call)
	}
	return list
}

// testAttempts shows that each way is open without a filter. Otherwise a mutant
// that opens it would go unnoticed.
func testAttempts(t *testing.T, vm *VM, program string) {
	answers := ask(t, vm, program, []oracle.Case{{Filter: nil, Calls: calls()}})[0]
	for i, a := range oracle.Attempts() {
		if !a.Obtained(answers[i]) {
			t.Errorf("%s %s %v: %v", a.ABI, a.Needs[0], a.Call, answers[i])
		}
	}
}

// mutants are hardened profiles that are damaged, one rule at a time, with what
// verify says of each. No kernel changes that.
func mutants(t *testing.T) oracle.Trials {
	t.Helper()
	var subjects []oracle.Subject
	for _, c := range hardened(t) {
		var p specs.LinuxSeccomp
		if err := json.Unmarshal(c.seccomp, &p); err != nil {
			t.Fatal(err)
		}
		subjects = append(subjects, oracle.Subject{Name: c.name, Profile: oracle.Slim(&p)})
	}
	trials, err := oracle.Try(subjects...)
	if err != nil {
		t.Fatal(err)
	}
	return trials
}

// testMutants puts mutants to a kernel. verify must find each one open that the
// kernel shows open; and a call that verify lets pass must pass.
func testMutants(t *testing.T, vm *VM, program string, trials oracle.Trials) {
	real := make([]oracle.Case, len(trials.List))
	for i, trial := range trials.List {
		real[i] = oracle.Case{Filter: trial.Filter, Calls: calls()}
	}
	tally := trials.Compare(ask(t, vm, program, real))
	for _, missed := range tally.Missed {
		t.Errorf("missed: %s", missed)
	}
	t.Logf("kernel %s: %v", vm.Release, tally)
	if tally.Open < len(trials.List)/10 || tally.Open > len(trials.List)*9/10 {
		t.Error("too few of one kind to mean anything")
	}
	testWitnesses(t, vm, program, trials)
}

// testWitnesses makes the call of every witness, with its registers. A program
// below the filter answers for the kernel, so that calls with odd arguments
// tell.
func testWitnesses(t *testing.T, vm *VM, program string, trials oracle.Trials) {
	var cases []oracle.Case
	var of []oracle.Trial
	witnesses := map[string]int{}
	for _, trial := range trials.List {
		var data []cbpf.Data
		for _, v := range trial.Verdicts {
			if v.Witness != nil {
				data = append(data, *v.Witness)
				witnesses[v.Call.ABI.Name]++
			}
		}
		if len(data) > 0 {
			cases, of = append(cases, oracle.Judged(trial.Filter, data)), append(of, trial)
		}
	}
	for i, answers := range ask(t, vm, program, cases) {
		for j, got := range answers {
			if got.Errno() != oracle.Gated {
				t.Errorf("%s: witness %v: %v", of[i].Name, cases[i].Calls[j], got)
			}
		}
	}
	t.Logf("witnesses: %v", witnesses)
	for _, abi := range oracle.Machine {
		if witnesses[abi.Name] < 10 {
			t.Errorf("%s: %d witnesses", abi.Name, witnesses[abi.Name])
		}
	}
}

// report is what the test needs of verify's JSON.
type report struct {
	Verdict string `json:"verdict"`
	Filters []struct {
		Name     string `json:"name"`
		Kind     string `json:"kind"`
		Programs int    `json:"programs"`
		Answers  []struct {
			ABI   string      `json:"abi"`
			Route afalg.Route `json:"route"`
			State string      `json:"verdict"`
		} `json:"answers"`
	} `json:"filters"`
}

func (r report) closed() bool { return r.Verdict == "closed" }

// openRoutes lists the routes that a report does not call closed.
func (r report) openRoutes() string {
	open := map[string]bool{}
	for _, f := range r.Filters {
		for _, a := range f.Answers {
			if a.State != "closed" {
				open[string(a.Route)] = true
			}
		}
	}
	var names []string
	for _, info := range afalg.Routes() {
		if open[string(info.Route)] {
			names = append(names, string(info.Route))
		}
	}
	return strings.Join(names, " ")
}

// The first process of a container answers for what its runtime loaded.
func testVerifyContainers(t *testing.T, vm *VM) {
	afalgPolicy, root := program(t), vm.HostRoot(t)
	want := map[string]string{
		"no profile":       "socket socket-highbits compat-socket compat-socketcall x32-socket io_uring socketpair",
		"docker":           "compat-socketcall socketpair",
		"docker, hardened": "",
		"none, hardened":   "",
	}
	for _, runtime := range Runtimes() {
		for _, c := range seccompConfinements(t) {
			routes, asked := want[c.name]
			if !asked {
				continue
			}
			t.Run(runtime+"/"+c.name, func(t *testing.T) {
				name := runtime + "-" + strings.NewReplacer(" ", "-", ",", "").Replace(c.name)
				vm.Running(t, Container{Runtime: runtime, Rootfs: root, Seccomp: c.seccomp, Args: []string{"sleep", "100000"}}, name)
				r := vm.Run(t, afalgPolicy, "verify", "--json", "--container", name)
				var got report
				if err := json.Unmarshal(r.Stdout, &got); err != nil {
					t.Fatalf("%v\n%s%s", err, r.Stdout, r.Stderr)
				}
				if d := cmp.Diff(routes, got.openRoutes()); d != "" || got.closed() != (routes == "") || (r.Exit == 0) != got.closed() {
					t.Errorf("exit status %d, %s: %s", r.Exit, got.Verdict, d)
				}
				if prefix := fmt.Sprintf("container %s of %s, process ", name, runtime); !strings.HasPrefix(got.Filters[0].Name, prefix) {
					t.Errorf("name %q, want %s…", got.Filters[0].Name, prefix)
				}
			})
		}
	}
	t.Run("from inside", func(t *testing.T) {
		for name, tt := range map[string]struct {
			c     Container
			wants string
		}{
			"filtered":   {Container{Seccomp: seccompConfinements(t)[1].seccomp}, "this program is itself under seccomp (filtered)"},
			"unfiltered": {Container{}, "open"},
		} {
			tt.c.Runtime, tt.c.Rootfs = "runc", vm.Rootfs(t, map[string]string{"afalg-policy": afalgPolicy})
			tt.c.Args = []string{"/afalg-policy", "verify", "--pid", "1"}
			r := vm.Container(t, tt.c)
			if text := string(r.Stdout) + string(r.Stderr); !strings.Contains(text, tt.wants) {
				t.Errorf("%s: exit status %d\n%s", name, r.Exit, text)
			} else if status := map[string]int{"filtered": 3, "unfiltered": 1}[name]; r.Exit != status {
				t.Errorf("%s: exit status %d, want %d", name, r.Exit, status)
			}
		}
	})
	t.Run("no such container", func(t *testing.T) {
		r := vm.Run(t, afalgPolicy, "verify", "--container", "nobody")
		if r.Exit != 2 || !strings.Contains(string(r.Stderr), "container nobody: ") {
			t.Errorf("exit status %d\n%s", r.Exit, r.Stderr)
		}
	})
	t.Run("a user namespace of its own", func(t *testing.T) {
		vm.Running(t, Container{Runtime: "runc", Rootfs: root, Seccomp: seccompConfinements(t)[1].seccomp, Args: []string{"sleep", "100000"}}, "target")
		var state struct{ PID int }
		if err := json.Unmarshal([]byte(vm.Output(t, "runc", "state", "target")), &state); err != nil {
			t.Fatal(err)
		}
		r := vm.Run(t, "unshare", "--user", "--map-root-user", afalgPolicy, "verify", "--pid", fmt.Sprint(state.PID))
		if r.Exit != 3 || !strings.Contains(string(r.Stderr), "CAP_SYS_ADMIN in the initial user namespace") {
			t.Errorf("exit status %d\n%s", r.Exit, r.Stderr)
		}
	})
}
