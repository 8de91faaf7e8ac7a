//go:build vm

package vmtest

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// place is where, and as whom, somebody builds a release.
type place struct {
	dir, umask string
	env        []string
}

// TestReleasePackages makes a release twice, as two people would, and looks at it.
// Both have one build cache, for a cold one takes minutes: what is compiled is the
// same in each place by -trimpath, and testPlaceless finds what that forgot.
func TestReleasePackages(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	places := []place{
		{dir: root + "/first", umask: "022", env: []string{"TZ=UTC", "LC_ALL=C"}},
		{dir: root + "/second/below/another", umask: "077", env: []string{"TZ=Asia/Tokyo", "LC_ALL=C.UTF-8", "USER=somebody", "CGO_CFLAGS=-O0"}},
	}
	for _, p := range places { // of one state of the tree
		p.copyTree(t)
	}
	for _, p := range places {
		p.makePackages(t)
	}
	first, second := digests(t, places[0].dir+"/out/packages"), digests(t, places[1].dir+"/out/packages")
	for _, want := range []string{
		"afalg-policy_" + newRelease + "-1_amd64.deb", "afalg-policy_" + newRelease + "-1_arm64.deb",
		"afalg-policy-" + newRelease + "-1.x86_64.rpm", "afalg-policy-" + newRelease + "-1.aarch64.rpm",
		"afalg-policy-" + newRelease + "-linux-amd64.tar.gz", "afalg-policy-" + newRelease + "-linux-arm64.tar.gz", "SHA256SUMS",
	} {
		if first[want] == "" {
			t.Errorf("there is no %s", want)
		}
	}
	if d := cmp.Diff(first, second); d != "" {
		t.Errorf("two places make different bytes:\n%s", d)
	}
	dir := places[0].dir + "/out/packages"
	output(t, dir, "sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS")
	for _, arch := range []string{"amd64", "arm64"} {
		into := filepath.Join(root, arch)
		if err := os.Mkdir(into, 0o755); err != nil {
			t.Fatal(err)
		}
		output(t, into, "tar", "--extract", "--strip-components=1", "--file", dir+"/afalg-policy-"+newRelease+"-linux-"+arch+".tar.gz")
	}
	t.Run("static, and of no place", func(t *testing.T) {
		for _, arch := range []string{"amd64", "arm64"} {
			testPlaceless(t, filepath.Join(root, arch, "bin/afalg-policy"), root)
		}
	})
	t.Run("arm64", func(t *testing.T) { testUnderQEMU(t, filepath.Join(root, "arm64/bin/afalg-policy")) })
	t.Run("lintian", func(t *testing.T) {
		for _, arch := range []string{"amd64", "arm64"} {
			output(t, dir, "lintian", "--allow-root", "--fail-on", "error", "--tag-display-limit", "0", "afalg-policy_"+newRelease+"-1_"+arch+".deb")
		}
	})
	t.Run("empty root", func(t *testing.T) { testEmptyRoot(t, dir+"/afalg-policy_"+newRelease+"-1_amd64.deb") })
}

// copyTree copies what git has of the tree, as it is now.
func (p place) copyTree(t *testing.T) {
	t.Helper()
	p.sh(t, "../..", `mkdir -p "$2" && git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents --target-directory="$2"`)
}

// makePackages does in the copy what "make packages" does.
func (p place) makePackages(t *testing.T) {
	t.Helper()
	p.sh(t, p.dir, `go -C packaging run . -tree .. -version "$3" -date 1767225600 -o ../out/packages`)
}

func (p place) sh(t *testing.T, dir, script string) {
	t.Helper()
	cmd := exec.Command("bash", "-c", `set -euo pipefail; umask "$1"; `+script, "sh", p.umask, p.dir, newRelease)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), p.env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", p.dir, err, out)
	}
}

// digests has the SHA-256 of each file below dir.
func digests(t *testing.T, dir string) map[string]string {
	t.Helper()
	sums := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		sums[name] = fmt.Sprintf("%x", sha256.Sum256(data))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sums
}

func output(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return string(out)
}

// testPlaceless finds no loader, no id of a build and no path of the machine.
func testPlaceless(t *testing.T, program, root string) {
	t.Helper()
	f, err := elf.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("%s is not static: it has a %v", program, p.Type)
		}
	}
	if f.Section(".note.gnu.build-id") != nil {
		t.Errorf("%s has the linker's id of a build", program)
	}
	data, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	tree, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range slices.DeleteFunc([]string{
		root, tree, strings.TrimSpace(output(t, ".", "go", "env", "GOROOT")), strings.TrimSpace(output(t, ".", "go", "env", "GOMODCACHE")),
		strings.TrimSpace(output(t, ".", "go", "env", "GOCACHE")), "/go-build", "/go-link", "libseccomp-dev",
	}, func(s string) bool { return s == "" }) {
		if i := bytes.Index(data, []byte(path)); i >= 0 {
			t.Errorf("%s names %s: %q", program, path, data[max(0, i-40):min(len(data), i+80)])
		}
	}
}

// testUnderQEMU runs the program for arm64, with the children that it starts by
// /proc/self/exe. The kernel starts the emulator for them, and hands the names on by
// which they are called (P); both hold in a user namespace of the test's own.
func testUnderQEMU(t *testing.T, program string) {
	const script = `set -e
mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
printf '%s' ':aarch64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:/usr/bin/qemu-aarch64-static:PF' >/proc/sys/fs/binfmt_misc/register
"$1" version
"$1" check builtin:fips
"$1" generate seccomp builtin:fips -o "$1.json" 2>/dev/null
"$1" verify "$1.json"`
	out := output(t, ".", "unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", program)
	// A compiler with other experiments than Go's own choice says so after its version.
	for _, want := range []string{"afalg-policy " + newRelease + " (" + runtime.Version() + ", linux/arm64, libseccomp ", "policy fips is valid: 3 rules\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("there is no %q in:\n%s", want, out)
		}
	}
	here := generate(t, "seccomp", "builtin:fips")
	there, err := os.ReadFile(program + ".json")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(bytes.TrimSpace(here), bytes.TrimSpace(there)) {
		t.Error("the program for arm64 makes another profile than the one for this machine")
	}
}

// testEmptyRoot installs the package on a Debian that has nothing but its base,
// and removes all of it.
func testEmptyRoot(t *testing.T, deb string) {
	root := t.TempDir()
	mirror := strings.TrimSpace(output(t, ".", "sh", "-c", `apt-get indextargets --format '$(CODENAME) $(REPO_URI)' | awk '$1 == "bookworm" { print $2; exit }'`))
	output(t, ".", "debootstrap", "--variant=minbase", "bookworm", root, mirror)
	output(t, ".", "cp", deb, root+"/package.deb")
	in := func(args ...string) string {
		t.Helper()
		return output(t, ".", append([]string{"chroot", root, "env", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, args...)...)
	}
	list := func() []string {
		return strings.Split(in("find", "/", "-xdev", "-not", "-path", "/proc/*", "-not", "-path", "/var/lib/dpkg/*", "-not", "-path", "/var/log/*",
			"-not", "-path", "/var/lib/apt/*", "-not", "-path", "/var/cache/apt/*", "-printf", "%p %y %m %u:%g %l\n"), "\n")
	}
	before := list()
	in("apt-get", "install", "-y", "/package.deb")
	if got := in("afalg-policy", "check", agentPolicy); !strings.Contains(got, "valid") {
		t.Errorf("check: %s", got)
	}
	if got := in("dpkg", "--verify", "afalg-policy"); got != "" {
		t.Errorf("what was unpacked is not what was packed:\n%s", got)
	}
	in("apt-get", "purge", "-y", "afalg-policy")
	if d := cmp.Diff(before, list()); d != "" {
		t.Errorf("the root, -before +after:\n%s", d)
	}
}
