//go:build vm

package vmtest

import (
	"testing"
)

// appArmorDir is where the tests put profiles; the machine's own are in
// /etc/apparmor.d.
const appArmorDir = "/etc/apparmor.d/"

// loadContainerProfile generates the container profile, loads it, and returns
// its name.
func loadContainerProfile(t testing.TB, vm *VM) string {
	t.Helper()
	const name = "afalg-policy-container"
	vm.WriteFile(t, appArmorDir+name, generate(t, "apparmor", "builtin:baseline"), 0o644)
	vm.Output(t, "apparmor_parser", "--replace", "--skip-cache", appArmorDir+name)
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
	vm.WriteFile(t, appArmorDir+name, []byte(programProfile), 0o644)
	vm.Output(t, "apparmor_parser", "--replace", "--skip-cache", appArmorDir+name)
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
