//go:build vm

package vmtest

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

type examinedUser struct {
	Name, State, Executable, Unit string
	Evidence                      []struct{ Kind, Text string }
}

// examined is what the tests read of doctor's report.
type examined struct {
	Verdict string
	Host    struct {
		AFALG string `json:"af-alg"`
		Root  bool
		Facts []struct{ Name, Value string }
	}
	Users  []examinedUser
	Layers []struct {
		Name    string
		InForce string `json:"in-force"`
		Closes  []string
	}
	Matrix struct {
		Columns []struct{ Name string }
		Rows    []struct {
			Subjects []struct{ Name, Kind string }
			Cells    []struct {
				State, Witness, Rule string
				By                   []string
			}
		}
	}
	Contradictions []struct{ About string }
	Unasked        []struct{ What, Why string }
}

// examine runs doctor, which has to be quick.
func examine(t *testing.T, vm *VM, exit int, command ...string) (e examined) {
	t.Helper()
	r := vm.Run(t, append(command, "doctor", "--json")...)
	if r.Exit != exit {
		t.Errorf("exit status %d, want %d\n%s", r.Exit, exit, r.Stderr)
	}
	if err := json.Unmarshal(r.Stdout, &e); err != nil {
		t.Fatalf("%v\n%s%s", err, r.Stdout, r.Stderr)
	}
	t.Logf("%v: %s, %d rows, contradictions %v, unasked %v", r.Took, e.Verdict, len(e.Matrix.Rows), e.Contradictions, e.Unasked)
	return e
}

// state is that of a subject in a column.
func (e examined) state(subject, column string) string {
	i := slices.IndexFunc(e.Matrix.Columns, func(c struct{ Name string }) bool { return c.Name == column })
	for _, row := range e.Matrix.Rows {
		for _, s := range row.Subjects {
			if s.Name == subject {
				return row.Cells[i].State
			}
		}
	}
	return "no such subject"
}

func loadedModules(t *testing.T, vm *VM) []string {
	t.Helper()
	return strings.Fields(vm.Output(t, "sh", "-c", "cut -d' ' -f1 /proc/modules | sort"))
}

// doctorFirst is a step, if it is wanted, that has to come before anybody opens
// AF_ALG.
func doctorFirst(wanted bool) []step {
	if !wanted {
		return nil
	}
	return []step{{"doctor", testDoctor}}
}

const holdSocket = `import socket, time; s = socket.socket(38, 5, 0); s.bind(("hash", "sha256")); time.sleep(1000)`

// testDoctor comes first: AF_ALG is not loaded yet, and doctor does not load it. Then
// somebody holds a socket, in a unit that may make no other.
func testDoctor(t *testing.T, vm *VM) {
	afalg := program(t)
	before := loadedModules(t, vm)
	if slices.Contains(before, "af_alg") {
		t.Fatal("af_alg is loaded before anybody asked for it")
	}
	e := examine(t, vm, 1, afalg)
	if d := cmp.Diff(before, loadedModules(t, vm)); d != "" {
		t.Errorf("modules were loaded:\n%s", d)
	}
	if e.Host.AFALG != "module" || !e.Host.Root || len(e.Contradictions) > 0 {
		t.Errorf("%+v, %+v", e.Host, e.Contradictions)
	}
	for _, u := range e.Users {
		if u.State != "unknown" {
			t.Errorf("%s is %s, and nobody looked", u.Name, u.State)
		}
	}
	vm.Output(t, "systemd-run", "--quiet", "--unit=holder", "python3", "-c", holdSocket)
	vm.Output(t, "systemd-run", "--quiet", "--unit=closed", "--property=RestrictAddressFamilies=AF_UNIX",
		"--property=SystemCallArchitectures=native", "--property=SystemCallFilter=~io_uring_setup io_uring_enter io_uring_register", "sleep", "1000")
	vm.Output(t, "sh", "-c", "until grep -q ^algif_hash /proc/modules; do sleep .1; done")
	e = examine(t, vm, 1, afalg)
	held := slices.IndexFunc(e.Users, func(u examinedUser) bool {
		return u.Unit == "holder.service"
	})
	if held < 0 || e.Users[held].State != "used" || !strings.Contains(e.Users[held].Executable, "python3") || e.Users[held].Evidence[0].Kind != "socket" {
		t.Errorf("the holder is not among %+v", e.Users)
	}
	if !slices.Contains(e.Host.Facts, struct{ Name, Value string }{"sockets of AF_ALG exist", "yes"}) || len(e.Contradictions) > 0 {
		t.Errorf("%+v, %+v", e.Host.Facts, e.Contradictions)
	}
	for subject, want := range map[string]string{"holder.service": "open", "closed.service": "proved closed"} {
		if got := e.state(subject, "hash"); got != want {
			t.Errorf("%s: %s, want %s", subject, got, want)
		}
	}
	e = examine(t, vm, 1, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", afalg)
	if got := e.state("closed.service", "hash"); got != "unknown" || e.Host.Root {
		t.Errorf("to nobody, closed.service is %s", got)
	}
	for _, u := range e.Users {
		if u.State != "unknown" {
			t.Errorf("to nobody, %s is %s", u.Name, u.State)
		}
	}
	vm.Output(t, "systemctl", "stop", "holder.service", "closed.service")
}

// testDoctor looks at a host on which the kernel half decides, and leaves it as it is.
func (h *lsmHost) testDoctor(t *testing.T) {
	h.expect(t, "doctor", lsmUnlisted, lsmDenied)
	before := h.snapshot(t) + h.vm.Output(t, "sh", "-c", "find /run/afalg-policy /sys/fs/bpf -printf '%p %T@\n' | sort")
	e := examine(t, h.vm, 0, installed)
	if d := cmp.Diff(before, h.snapshot(t)+h.vm.Output(t, "sh", "-c", "find /run/afalg-policy /sys/fs/bpf -printf '%p %T@\n' | sort")); d != "" {
		t.Errorf("doctor changed something:\n%s", d)
	}
	for _, l := range e.Layers {
		if l.Name == "kernel half" && (l.InForce != "yes" || !slices.Contains(l.Closes, "hash")) {
			t.Errorf("%+v", l)
		}
	}
	for _, row := range e.Matrix.Rows {
		if s := row.Cells[0].State; s != "closed, not proved" && s != "proved closed" {
			t.Errorf("%+v may use hashes: %s", row.Subjects, s)
		}
	}
	used := slices.ContainsFunc(e.Users, func(u examinedUser) bool {
		return u.Executable == lsmUnlisted && u.State == "used" && u.Evidence[0].Kind == "log"
	})
	if !used {
		t.Errorf("%s is not among %+v", lsmUnlisted, e.Users)
	}
}

// testDoctor looks at a host on which all services are closed by drop-ins.
func (b *servicesTest) testDoctor(t *testing.T) {
	var e examined
	r := b.Run(t, installed, "doctor", "--json")
	if err := json.Unmarshal(r.Stdout, &e); err != nil {
		t.Fatalf("%v\n%s%s", err, r.Stdout, r.Stderr)
	}
	t.Logf("%v, exit status %d, unasked %v", r.Took, r.Exit, e.Unasked)
	for subject, want := range map[string]string{"tight.service": "proved closed", "naming.service": "proved closed", agentOfBox: "closed, not proved"} {
		if got := e.state(subject, "hash"); got != want { // the kernel has no AF_ALG
			t.Errorf("%s: %s, want %s", subject, got, want)
		}
	}
	if !slices.ContainsFunc(e.Users, func(u examinedUser) bool { return u.Name == "naming.service" && u.Evidence[0].Kind == "unit" }) {
		t.Errorf("naming.service is not among %+v", e.Users)
	}
	inForce := map[string]string{}
	for _, l := range e.Layers {
		inForce[l.Name] = l.InForce
	}
	if inForce["install systemd"] != "yes" || inForce["seccomp"] != "yes" {
		t.Errorf("in force: %v", inForce)
	}
}
