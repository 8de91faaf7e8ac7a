//go:build vm

package vmtest

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/testing/box"
)

// ordinary is the workload's output where nothing ordinary is refused.
const ordinary = `shell ok
tcp4 ok
tcp6 ok
udp4 ok
udp6 ok
dns ok
resolver ok
unix ok
socketpair ok
netlink ok
asyncio ok
`

// testWorkload runs the workload under AppArmor, under no profile as the control,
// and on one kernel under each hardened profile: TestBoxWorkload has those too.
func testWorkload(t *testing.T, vm *VM, version string) {
	confinements := []confinement{{name: "no profile"}, {name: "AppArmor", apparmor: loadContainerProfile(t, vm)}}
	if newest(version) {
		confinements = append(confinements, hardened(t)...)
	}
	testOrdinary(t, vm, confinements)
}

// TestBoxWorkload shows that the hardened profiles refuse nothing ordinary on
// the host's kernel either.
func TestBoxWorkload(t *testing.T) {
	t.Parallel()
	testOrdinary(t, box.Start(t), hardened(t))
}

func testOrdinary(t *testing.T, vm *VM, confinements []confinement) {
	script, err := os.ReadFile("../../testdata/vm/workload.py")
	if err != nil {
		t.Fatal(err)
	}
	root := vm.HostRoot(t)
	for _, c := range confinements {
		want := ordinary + "alg EAFNOSUPPORT\nalg socketpair EAFNOSUPPORT\n"
		switch {
		case c.apparmor != "":
			want = ordinary + "alg EACCES\nalg socketpair EACCES\n"
		case c.seccomp == nil:
			want = ordinary + "alg ok\nalg socketpair ENOTSUP\n" // Python's name of EOPNOTSUPP
		}
		for _, runtime := range Runtimes() {
			t.Run(runtime+"/"+c.name, func(t *testing.T) {
				r := vm.Container(t, Container{
					Runtime: runtime, Rootfs: root, Seccomp: c.seccomp, AppArmor: c.apparmor,
					Args: []string{"python3", "-"}, Stdin: script,
				})
				if d := cmp.Diff(want, string(r.Stdout)); d != "" || r.Exit != 0 {
					t.Errorf("exit status %d\n%s%s", r.Exit, d, r.Stderr)
				}
			})
		}
	}
}

// rawClient builds a client that makes 32-bit calls itself.
func rawClient(t *testing.T, name string) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), name)
	compile(t, binary, "-m32", "-static", "../../testdata/clients/"+name+".c")
	return binary
}

// askClients runs every client in one container, and names each in the output.
const askClients = `
for c in x86-64 i386 x32; do
	/$c 1 2 10 16 38 | sed "s/^/$c /"
done
for family in 1 38; do
	/raw $family | sed "s/^\([a-z]*\) /\1 $family /; s/ok/open/"
done`

// clientRows maps the names in the output of askClients to the rows of
// clientSockets.
var clientRows = map[string]string{
	"x86-64": "64-bit, C library", "i386": "32-bit, C library", "x32": "x32, C library",
	"socket": "32-bit, socket", "socketcall": "32-bit, socketcall",
}

// testPrograms has programs of each ABI ask under the hardened profiles.
func testPrograms(t *testing.T, vm *VM, p programs) {
	files := map[string]string{"/raw": p.raw, "/bin/sh": "/bin/busybox", "/bin/sed": "/bin/busybox"}
	for abi, binary := range p.byABI {
		files["/"+abi] = binary
	}
	rootfs := vm.Rootfs(t, files)
	apparmor := loadContainerProfile(t, vm)
	confinements := []confinement{
		{"docker, deny", harden(t, "docker"), ""},
		{"docker, keep", kept(t, "docker"), ""},
		{"docker, keep, AppArmor", kept(t, "docker"), apparmor},
		{"podman, deny", harden(t, podmanBase), ""},
		{"podman, keep", kept(t, podmanBase), ""},
		{"none, deny", harden(t, "none"), ""},
		{"none, keep", harden(t, "none", "--socketcall", "keep"), ""},
	}
	for _, c := range confinements {
		for _, runtime := range Runtimes() {
			t.Run(runtime+"/"+c.name, func(t *testing.T) {
				r := vm.Container(t, Container{
					Runtime: runtime, Rootfs: rootfs, Seccomp: c.seccomp, AppArmor: c.apparmor,
					Args: []string{"/bin/sh", "-c", askClients},
				})
				if d := cmp.Diff(clientSockets.column(t, c.name), clientCells(string(r.Stdout))); d != "" {
					t.Errorf("exit status %d, -want +got:\n%s\n%s%s", r.Exit, d, r.Stdout, r.Stderr)
				}
			})
		}
	}
}

// clientCells reads the output of askClients, lines of client, family, result.
func clientCells(text string) map[string]string {
	type results struct{ ordinary, alg map[string]bool }
	found := map[string]results{}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) != 3 {
			return map[string]string{"line": line}
		}
		row := clientRows[f[0]]
		if _, ok := found[row]; !ok {
			found[row] = results{map[string]bool{}, map[string]bool{}}
		}
		if f[1] == "38" {
			found[row].alg[f[2]] = true
		} else {
			found[row].ordinary[f[2]] = true
		}
	}
	cells := map[string]string{}
	for row, r := range found {
		cells[row] = fmt.Sprintf("%s / %s", join(r.ordinary), join(r.alg))
	}
	return cells
}

func join(set map[string]bool) string {
	return strings.Join(slices.Sorted(maps.Keys(set)), ", ")
}
