//go:build vm

package vmtest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// services are the units under test.
var services = []struct {
	name    string
	column  string // of otherRoutes
	own     string // what the unit sets itself
	shown   string // RestrictAddressFamilies as systemctl shows it then
	clients string // what the client prints under the drop-in
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

// steps asks every route, then opens sockets through the C library, then uses
// AF_ALG as the policy allows. Each leaves a file.
const steps = `mkdir /run/%[1]s && cd /run/%[1]s || exit
%[2]s probe --json --load >routes
echo $? >status
%[3]s 1 2 10 16 38 >clients
%[4]s >digest
true
`

// dropInArgs follow the manual, with a policy whose rule
// is for granted.service.
func dropInArgs(facts, out string) []string {
	return []string{"systemd", "../../testdata/vm/units.yaml", "--show", facts, "--grant", "digest", "--accept", "digest",
		"--except", "free.service", "--accept", "free.service", "-o", out}
}

func TestSystemd(t *testing.T) {
	binaries := clients(t)
	for _, version := range Kernels() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			vm := Boot(t, version, Options{Systemd: true})
			t.Logf("%s booted in %v", vm.Release, vm.Booted.Round(time.Millisecond))
			if got := vm.Output(t, "cat", "/proc/1/comm"); got != "systemd" {
				t.Fatalf("process 1 is %s", got)
			}
			var names []string
			for _, s := range services {
				script := "/etc/vmtest/" + s.name
				vm.WriteFile(t, script, fmt.Appendf(nil, steps, s.name, program(t), binaries["x86-64"], digest), 0o644)
				vm.WriteFile(t, "/etc/systemd/system/"+s.name+".service", fmt.Appendf(nil, unit, script, s.own), 0o644)
				names = append(names, s.name+".service")
			}
			installDropIns(t, vm, names)
			for _, s := range services {
				t.Run(s.name, func(t *testing.T) {
					vm.Output(t, "systemctl", "start", s.name)
					file := func(name string) string { return string(vm.Run(t, "cat", "/run/"+s.name+"/"+name).Stdout) }
					routes := Result{Stdout: []byte(file("routes"))}
					if file("status") != "0\n" {
						routes.Exit = 1
					}
					compareRoutes(t, otherRoutes.column(t, s.column), routes)
					if d := cmp.Diff(s.clients, file("clients")); d != "" {
						t.Error(d)
					}
					if got := strings.TrimSpace(file("digest")); (got == wantDigest(t, vm)) != s.granted {
						t.Errorf("granted: %t, digest %q", s.granted, got)
					}
				})
			}
		})
	}
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
