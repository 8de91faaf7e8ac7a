//go:build vm

package vmtest

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// appArmorDir is where the tests put profiles; the machine's own are in
// /etc/apparmor.d.
const appArmorDir = "/etc/apparmor.d/"

// loadAppArmor loads a file as the docs say. The parser refuses rules that
// would not be enforced, and its configuration does not help the rules.
func loadAppArmor(t testing.TB, vm *VM, name string, text []byte) {
	t.Helper()
	vm.WriteFile(t, appArmorDir+name, text, 0o644)
	vm.Output(t, "apparmor_parser", "--replace", "--skip-cache", "--config-file=/dev/null",
		"--warn=rule-not-enforced", "--Werror=rule-not-enforced", appArmorDir+name)
}

// loadContainerProfile generates the container profile, loads it, and returns
// its name.
func loadContainerProfile(t testing.TB, vm *VM) string {
	t.Helper()
	const name = "afalg-policy-container"
	loadAppArmor(t, vm, name, generate(t, "apparmor", "builtin:baseline"))
	return name
}

// programProfile is a program's profile as its packager would write it.
const programProfile = `abi <abi/3.0>,
include <tunables/global>
profile vmtest-program {
  include <abstractions/base>
  include <abstractions/afalg-policy>
  file,
  capability,
  network,
  signal,
}
`

func loadProgramProfile(t testing.TB, vm *VM) string {
	t.Helper()
	const name = "vmtest-program"
	vm.WriteFile(t, appArmorDir+"abstractions/afalg-policy", generate(t, "apparmor", "builtin:baseline", "--abstraction"), 0o644)
	loadAppArmor(t, vm, name, []byte(programProfile))
	return name
}

// testAppArmorRoutes shows that the rule reaches the routes that seccomp
// cannot read.
func testAppArmorRoutes(t *testing.T, vm *VM) {
	rootfs := vm.Rootfs(t, map[string]string{"/afalg-policy": program(t)})
	name := loadContainerProfile(t, vm)
	for _, runtime := range Runtimes() {
		t.Run(runtime, func(t *testing.T) {
			r := vm.Container(t, Container{
				Runtime: runtime, Rootfs: rootfs, AppArmor: name,
				Args: append([]string{"/afalg-policy"}, probing...),
			})
			compareRoutes(t, otherRoutes.column(t, "AppArmor, container"), r)
		})
	}
	t.Run("abstraction", func(t *testing.T) {
		args := append([]string{"aa-exec", "-p", loadProgramProfile(t, vm), "--", program(t)}, probing...)
		compareRoutes(t, otherRoutes.column(t, "AppArmor, program"), vm.Run(t, args...))
	})
}

// askFamilies asks for AF_UNIX, AF_INET, AF_NETLINK, AF_ALG, AF_AX25 and
// AF_VSOCK by the 64-bit call, and by socketcall with a type that each has.
const askFamilies = `
/x86-64 1 2 16 38 3 40
for question in 1:1 2:1 16:3 38:5 3:5 40:1; do
	family=${question%:*}
	/raw $family ${question#*:} | grep '^socketcall ' | sed "s/ / $family /"
done`

// closedFamilies is the result in a container under the profile; only AppArmor
// answers EACCES.
const closedFamilies = `1 open
2 open
16 open
38 EACCES
3 EACCES
40 EACCES
socketcall 1 ok
socketcall 2 ok
socketcall 16 ok
socketcall 38 EACCES
socketcall 3 EACCES
socketcall 40 EACCES
`

// testAppArmorFamilies shows that a container gets no family that Docker's
// newer profiles deny, by any call, and the ordinary ones by each. Without the
// abi line the parser's own defaults drop the rules: that is the control.
func testAppArmorFamilies(t *testing.T, vm *VM, p programs) {
	rootfs := vm.Rootfs(t, map[string]string{
		"/x86-64": p.byABI["x86-64"], "/raw": p.raw,
		"/bin/sh": "/bin/busybox", "/bin/sed": "/bin/busybox", "/bin/grep": "/bin/busybox",
	})
	quoted := generate(t, "apparmor", "builtin:baseline", "--profile", "vmtest quoted")
	bare := generate(t, "apparmor", "builtin:baseline", "--profile", "vmtest-bare", "--no-includes")
	loose := generate(t, "apparmor", "builtin:baseline", "--profile", "vmtest-loose", "--abi", "none", "--accept", "abi")
	loadAppArmor(t, vm, "vmtest quoted", quoted)
	loadAppArmor(t, vm, "vmtest-bare", bare)
	vm.WriteFile(t, appArmorDir+"vmtest-loose", loose, 0o644)
	unpinned := []string{"apparmor_parser", "--replace", "--skip-cache", "--config-file=/dev/null", appArmorDir + "vmtest-loose"}
	vm.Output(t, unpinned...)
	if r := vm.Run(t, append(unpinned, "--Werror=rule-not-enforced")...); r.Exit == 0 {
		t.Error("a profile whose rules are not enforced was loaded")
	}
	ask := func(t *testing.T, runtime, profile string) string {
		r := vm.Container(t, Container{
			Runtime: runtime, Rootfs: rootfs, AppArmor: profile,
			Args: []string{"/bin/sh", "-c", askFamilies},
		})
		if r.Exit != 0 {
			t.Errorf("exit status %d\n%s", r.Exit, r.Stderr)
		}
		return string(r.Stdout)
	}
	for _, runtime := range Runtimes() {
		for _, profile := range []string{loadContainerProfile(t, vm), "vmtest quoted", "vmtest-bare"} {
			t.Run(runtime+"/"+profile, func(t *testing.T) {
				if got := ask(t, runtime, profile); got != closedFamilies {
					t.Errorf("got:\n%s", got)
				}
			})
		}
		t.Run(runtime+"/control", func(t *testing.T) {
			got := ask(t, runtime, "vmtest-loose")
			if !strings.Contains(got, "\nsocketcall 38 ok\n") || strings.Contains(got, "EACCES") {
				t.Errorf("got:\n%s", got)
			}
		})
	}
}

// testAppArmorTypes shows the gap socket-types of a rule compiled by an
// apparmor_parser before 5.0: there is no socket of a type without a name,
// though the kernel may have loaded the module.
func testAppArmorTypes(t *testing.T, vm *VM) {
	args := []string{"aa-exec", "-p", loadContainerProfile(t, vm), "--", "python3", "-"}
	var script bytes.Buffer
	fmt.Fprint(&script, `
import errno, socket
for type in range(12):
    try:
        socket.socket(38, type, 0)
        print(type, "open")
    except OSError as e:
        print(type, errno.errorcode[e.errno])
`)
	r := vm.Command(t, Command{Args: args, Stdin: script.Bytes()})
	if strings.Contains(string(r.Stdout), "open") || r.Exit != 0 {
		t.Errorf("exit status %d\n%s%s", r.Exit, r.Stdout, r.Stderr)
	}
	if named := strings.Count(string(r.Stdout), "EACCES"); named < 6 {
		t.Errorf("the profile refused %d types, want those that have a name at least:\n%s", named, r.Stdout)
	}
	t.Logf("by type:\n%s", r.Stdout)
}
