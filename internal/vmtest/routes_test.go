//go:build vm

package vmtest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/probe"
)

// probing asks every route, and lets a call load the module, as an attacker's
// would.
var probing = []string{"probe", "--json", "--load"}

// testRoutes compares a table of routes with the prober's findings. The prober
// runs alone in its root: its start shows that it needs nothing else.
func testRoutes(t *testing.T, vm *VM) {
	rootfs := vm.Rootfs(t, map[string]string{"/afalg-policy": program(t)})
	for _, c := range seccompConfinements(t) {
		for _, runtime := range Runtimes() {
			t.Run(runtime+"/"+c.name, func(t *testing.T) {
				r := vm.Container(t, Container{
					Runtime: runtime, Rootfs: rootfs, Seccomp: c.seccomp,
					Args: append([]string{"/afalg-policy"}, probing...),
				})
				compareRoutes(t, seccompRoutes.column(t, c.name), r)
			})
		}
	}
}

// routesOf reads the prober's result, a cell for each route.
func routesOf(t *testing.T, r Result) map[string]string {
	t.Helper()
	var report probe.Report
	if err := json.Unmarshal(r.Stdout, &report); err != nil {
		t.Fatalf("exit status %d: %v\n%s%s", r.Exit, err, r.Stdout, r.Stderr)
	}
	got := map[string]string{}
	for _, route := range report.Routes {
		got[string(route.Route)] = routeCell(route)
	}
	return got
}

// compareRoutes compares the prober's result with the column of a table.
func compareRoutes(t *testing.T, want map[string]string, r Result) {
	t.Helper()
	got := routesOf(t, r)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got:\n%s\n%s", d, r.Stdout)
	}
	status := 0
	for _, cell := range want {
		if cell == "open" {
			status = 1
		}
	}
	if r.Exit != status || len(r.Stderr) > 0 {
		t.Errorf("exit status %d, want %d\n%s", r.Exit, status, r.Stderr)
	}
}

// routeCell is a result in the form of the tables.
func routeCell(r probe.Route) string {
	switch {
	case r.Verdict == probe.Open && (r.Bind == "" || r.Bind == "ok"):
		return "open"
	case r.Verdict != probe.Closed:
		return fmt.Sprintf("%s %s %s", r.Verdict, r.Errno, r.Bind)
	case r.Errno == "":
		return "closed"
	}
	var errnos []string
	for _, c := range r.Calls {
		errnos = append(errnos, c.Errno)
	}
	slices.Sort(errnos)
	cell := strings.Join(slices.Compact(errnos), "/")
	if r.Control != "ok" {
		cell += "*"
	}
	return cell
}

// No filter sees a descriptor that is passed in; only the prober does.
func testInherited(t *testing.T, vm *VM) {
	const pass = `import os, socket, sys
parent = socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET)
os.set_inheritable(parent.fileno(), True)
os.execv(sys.argv[1], sys.argv[1:])
`
	r := vm.Run(t, "python3", "-c", pass, program(t), "probe", "--json", "--route", "inherited")
	compareRoutes(t, map[string]string{"inherited": "open"}, r)
}
