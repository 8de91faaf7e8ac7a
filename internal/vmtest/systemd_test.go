//go:build vm

package vmtest

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/probe"
	"github.com/afalg-policy/afalg-policy/internal/testing/box"
)

// services are the units under test.
var services = []struct {
	name    string
	column  string // of otherRoutes
	own     string // the unit's own setting
	shown   string // RestrictAddressFamilies as systemctl shows it then
	clients string // the output of the client under the drop-in
	granted bool   // AF_ALG can be used
}{
	{"free", "unit left out", "", "~", "1 open\n2 open\n10 open\n16 open\n38 open\n", true},
	{"plain", "unit", "", "~", "1 open\n2 open\n10 open\n16 open\n38 EAFNOSUPPORT\n", false},
	{"granted", "unit with a grant", "", "~", "1 open\n2 open\n10 open\n16 open\n38 open\n", true},
	// Its list stays as narrow as it is, and loses AF_ALG.
	{"narrow", "unit with a list", "RestrictAddressFamilies=AF_UNIX AF_INET AF_ALG", "AF_ALG AF_INET AF_UNIX",
		"1 open\n2 open\n10 EAFNOSUPPORT\n16 EAFNOSUPPORT\n38 EAFNOSUPPORT\n", false},
}

const unit = `[Service]
Type=oneshot
ExecStart=/bin/sh %s
%s
`

// The units each leave a file: they open sockets through the C library, use
// AF_ALG as the policy allows, and ask every route.
const (
	unitTruth = `mkdir /run/%[1]s && cd /run/%[1]s || exit
%[3]s 1 2 10 16 38 >clients
%[4]s >digest
true
`
	unitWhole = unitTruth + `%[2]s probe --json --load >routes
echo $? >status
`
)

// dropInArgs follow the manual, with a policy whose rule
// is for granted.service.
func dropInArgs(facts, out string) []string {
	return []string{"systemd", "../../testdata/vm/units.yaml", "--show", facts, "--grant", "digest", "--accept", "digest",
		"--except", "free.service", "--accept", "free.service", "-o", out}
}

// testUnits runs the units under their drop-ins, on a kernel that has AF_ALG.
func testUnits(t *testing.T, vm *VM, client, script string) {
	startUnits(t, vm, client, script)
	for _, s := range services {
		t.Run(s.name, func(t *testing.T) {
			file := func(name string) string { return string(vm.ReadFile(t, "/run/"+s.name+"/"+name)) }
			if script == unitWhole {
				routes := Result{Stdout: []byte(file("routes"))}
				if file("status") != "0\n" {
					routes.Exit = 1
				}
				compareRoutes(t, otherRoutes.column(t, s.column), routes)
			}
			if d := cmp.Diff(s.clients, file("clients")); d != "" {
				t.Error(d)
			}
			if got := strings.TrimSpace(file("digest")); (got == wantDigest(t, vm)) != s.granted {
				t.Errorf("granted: %t, digest %q", s.granted, got)
			}
		})
	}
}

// TestBoxSystemd asks on the host's kernel, where a filter may stand in front
// of something missing.
func TestBoxSystemd(t *testing.T) {
	client := clients(t)["x86-64"]
	t.Parallel()
	vm := box.Start(t)
	own := verdictsOf(t, vm.Run(t, append([]string{program(t)}, probing...)...).Stdout)
	alg := string(vm.Run(t, client, "38").Stdout)
	startUnits(t, vm, client, unitWhole)
	for _, s := range services {
		t.Run(s.name, func(t *testing.T) {
			want, got := map[string]probe.Verdict{}, verdictsOf(t, vm.ReadFile(t, "/run/"+s.name+"/routes"))
			for route, cell := range otherRoutes.column(t, s.column) {
				want[route] = probe.Closed
				if cell == "open" {
					want[route] = own[route]
				} else if own[route] == probe.Unavailable && got[route] == probe.Unavailable {
					want[route] = probe.Unavailable // a filter in front of it need not be seen
				}
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
			sockets := strings.Replace(s.clients, "38 open\n", alg, 1)
			if d := cmp.Diff(sockets, string(vm.ReadFile(t, "/run/"+s.name+"/clients"))); d != "" {
				t.Error(d)
			}
		})
	}
}

func verdictsOf(t *testing.T, text []byte) map[string]probe.Verdict {
	t.Helper()
	var report probe.Report
	if err := json.Unmarshal(text, &report); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	verdicts := map[string]probe.Verdict{}
	for _, r := range report.Routes {
		verdicts[string(r.Route)] = r.Verdict
	}
	return verdicts
}

// startUnits runs the services with their drop-ins, which go with the test.
func startUnits(t *testing.T, vm *VM, client, script string) {
	t.Helper()
	start := []string{"systemctl", "start"}
	var names []string
	for _, s := range services {
		path := "/etc/vmtest/" + s.name
		vm.WriteFile(t, path, fmt.Appendf(nil, script, s.name, program(t), client, digest), 0o644)
		vm.WriteFile(t, "/etc/systemd/system/"+s.name+".service", fmt.Appendf(nil, unit, path, s.own), 0o644)
		names = append(names, s.name+".service")
	}
	t.Cleanup(func() {
		remove := "rm -r /etc/systemd/system/*.service.d /etc/systemd/system/service.d; systemctl daemon-reload"
		if _, err := vm.Do(context.Background(), Command{Args: []string{"sh", "-c", remove}}); err != nil {
			t.Error(err)
		}
	})
	installDropIns(t, vm, names)
	vm.Output(t, append(start, names...)...)
}

// installDropIns generates the drop-ins for the machine's services as the
// manual says, and puts them in place.
func installDropIns(t *testing.T, vm *VM, names []string) {
	t.Helper()
	show := vm.Output(t, append([]string{"systemctl", "show", "--property=Id,RestrictAddressFamilies", "*.service"}, names...)...)
	for _, s := range services {
		want := "RestrictAddressFamilies=" + s.shown + "\nId=" + s.name + ".service"
		if !strings.Contains("\n\n"+show+"\n\n", "\n\n"+want+"\n\n") {
			t.Errorf("systemctl does not show this block:\n%s\nbut:\n%s", want, show)
		}
	}
	dir := t.TempDir()
	facts, out := filepath.Join(dir, "show"), filepath.Join(dir, "out")
	if err := os.WriteFile(facts, []byte(show), 0o600); err != nil {
		t.Fatal(err)
	}
	generate(t, dropInArgs(facts, out)...)
	for _, d := range []string{"service.d", "free.service.d", "granted.service.d", "narrow.service.d"} {
		const name = "zz-afalg-policy.conf"
		data, err := os.ReadFile(filepath.Join(out, d, name))
		if err != nil {
			t.Fatal(err)
		}
		vm.WriteFile(t, "/etc/systemd/system/"+d+"/"+name, data, 0o644)
	}
	vm.Output(t, "systemctl", "daemon-reload")
	got := vm.Output(t, "systemctl", "show", "--property=Id,RestrictAddressFamilies,SystemCallArchitectures", "narrow.service")
	const want = "SystemCallArchitectures=native\nRestrictAddressFamilies=AF_INET AF_UNIX\nId=narrow.service"
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("narrow.service with its drop-in: %s", d)
	}
}
