//go:build vm

package vmtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/testing/box"
)

// fleetPlaybook gives this host the role.
const fleetPlaybook = `- hosts: localhost
  connection: local
  gather_facts: false
  roles: [afalg_policy]
`

var ansible = []string{"env", "HOME=/run", "ANSIBLE_ROLES_PATH=/run/roles", "ANSIBLE_PIPELINING=1",
	"ansible-playbook", "-i", "localhost,", "-e", "ansible_python_interpreter=/usr/bin/python3", "-e", "afalg_policy_initramfs=true", "/run/play.yml"}

// Neither grubby nor GRUB can run in a box, nor is there an initramfs: these stand
// for them. Each kernel of
// grubby has a line of arguments.
const (
	grubbyOfBox = `#!/bin/sh -e
case $1-$2 in
--info=ALL-) cat /run/kernels ;;
--update-kernel=ALL---args=*) sed -i "s|\"$| ${2#--args=}\"|" /run/kernels ;;
--update-kernel=ALL---remove-args=*) sed -i "s| ${2#--remove-args=}||" /run/kernels ;;
*) exit 2 ;;
esac
`
	kernelsOfBox   = "index=0\nargs=\"ro quiet\"\nindex=1\nargs=\"ro\"\n"
	updateGRUB     = "#!/bin/sh -e\nfor f in /etc/default/grub.d/*; do [ ! -e \"$f\" ] || . \"$f\"; done\necho \"$GRUB_CMDLINE_LINUX\" >>/run/grub\n"
	cloudInitInBox = `import sys
from cloudinit import util
from cloudinit.config import cc_write_files
data = util.load_yaml(util.load_file(sys.argv[1]))
cc_write_files.write_files("write_files", data["write_files"], "root:root")
print(util.shellify(data["runcmd"]))
`
)

const modprobeOfFleet = "etc/modprobe.d/00-afalg-policy.conf"

const fleetArguments = "initcall_blacklist=af_alg_init,algif_aead_init,algif_hash_init,algif_skcipher_init,rng_init"

// TestLongFleet has Ansible and cloud-init put on a machine what the form of files
// has, and Ansible take it back.
func TestLongFleet(t *testing.T) {
	f := &fleetTest{box.Start(t), t.TempDir()}
	f.paste(t, f.made(t, "files"), "")
	before := f.etc(t)
	f.WriteFile(t, "/usr/sbin/update-grub", []byte(updateGRUB), 0o755)
	f.WriteFile(t, "/run/play.yml", []byte(fleetPlaybook), 0o644)
	role := f.made(t, "ansible")
	f.paste(t, role, "afalg_policy/files")
	f.copyTo(t, role, "/run/roles")
	f.WriteFile(t, "/usr/sbin/update-initramfs", []byte("#!/bin/sh\necho \"$@\" >>/run/initramfs\n"), 0o755)
	t.Run("GRUB", func(t *testing.T) { f.testRole(t, before, "/run/grub", fleetArguments) })
	t.Run("initramfs", func(t *testing.T) {
		const want = "-u -k all\n-u -k all\n" // with the files, and without them
		if got := string(f.ReadFile(t, "/run/initramfs")); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
	f.WriteFile(t, "/usr/sbin/grubby", []byte(grubbyOfBox), 0o755)
	f.WriteFile(t, "/run/kernels", []byte(kernelsOfBox), 0o644)
	t.Run("grubby", func(t *testing.T) {
		f.testRole(t, before, "/run/kernels", "ro quiet "+fleetArguments, "ro "+fleetArguments)
		if got := string(f.ReadFile(t, "/run/kernels")); got != kernelsOfBox {
			t.Errorf("kernels after undo:\n%s", got)
		}
	})
	t.Run("another value", f.testOtherValue)
	f.Output(t, "test", "!", "-e", "/run/pasted")
	f.Output(t, "rm", "/usr/sbin/grubby", "/run/grub")
	f.made(t, "files")
	t.Run("cloud-init", func(t *testing.T) { f.testCloudInit(t) })
}

type fleetTest struct {
	*VM
	dir string
}

// made is the directory with a form of the policy that closes everything.
func (f *fleetTest) made(t *testing.T, form string) string {
	t.Helper()
	dir := filepath.Join(f.dir, form)
	if out, err := exec.Command(program(t), "generate", "host", "builtin:baseline", "--form", form, "-o", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return dir
}

// paste adds a text to a file of a form that Ansible would carry out, if it took
// files for templates.
func (f *fleetTest) paste(t *testing.T, dir, below string) {
	t.Helper()
	file, err := os.OpenFile(filepath.Join(dir, below, modprobeOfFleet), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteString("# {{ lookup('pipe', 'touch /run/pasted') }} {% raw %}\n"); err != nil {
		t.Fatal(err)
	}
}

func (f *fleetTest) copyTo(t *testing.T, from, to string) {
	t.Helper()
	f.Output(t, "mkdir", "-p", to)
	for name, data := range readTree(t, from) {
		f.Output(t, "mkdir", "-p", filepath.Dir(filepath.Join(to, name)))
		f.WriteFile(t, filepath.Join(to, name), []byte(data), 0o644)
	}
}

func readTree(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		files[name] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// etc are the files of /etc, with what says whether one was touched.
func (f *fleetTest) etc(t *testing.T) string {
	t.Helper()
	return f.Output(t, "sh", "-c", `find /etc ! -type d -printf '%p %m %u:%g %s %T@\n' | sort`)
}

// play runs the role, and returns what it says and how many tasks changed something.
func (f *fleetTest) play(t *testing.T, args ...string) (out, changed string) {
	t.Helper()
	out = f.Output(t, append(slices.Clone(ansible), args...)...)
	_, changed, _ = strings.Cut(out, "changed=")
	changed, _, _ = strings.Cut(changed, " ")
	return out, changed
}

// testRole applies the role twice and takes it back.
func (f *fleetTest) testRole(t *testing.T, before, boot string, lines ...string) {
	f.Output(t, "truncate", "-cs", "0", "/run/grub")
	if out, changed := f.play(t); changed == "0" {
		t.Fatalf("the role changed nothing:\n%s", out)
	}
	f.testFiles(t)
	told := string(f.ReadFile(t, boot))
	for _, line := range lines {
		if !strings.Contains(told, line) {
			t.Errorf("%s has no %q:\n%s", boot, line, told)
		}
	}
	if out, changed := f.play(t); changed != "0" {
		t.Errorf("applied again, %s tasks changed something:\n%s", changed, out)
	}
	if again := string(f.ReadFile(t, boot)); again != told {
		t.Errorf("applied again, %s is:\n%s", boot, again)
	}
	if out, changed := f.play(t, "-e", "afalg_policy_state=absent"); changed == "0" {
		t.Fatalf("taking the role back changed nothing:\n%s", out)
	}
	if d := cmp.Diff(before, f.etc(t)); d != "" {
		t.Errorf("after undo, -before +after:\n%s", d)
	}
}

// testFiles compares the machine's files with those of the form of files, and asks
// modprobe what they mean.
func (f *fleetTest) testFiles(t *testing.T) {
	t.Helper()
	for name, want := range readTree(t, filepath.Join(f.dir, "files")) {
		if name == "etc/afalg-policy/kernel-arguments" {
			continue // which no program reads
		}
		if got := string(f.ReadFile(t, "/"+name)); got != want {
			t.Errorf("-files +machine: %s", cmp.Diff(want, got))
		}
		if got := f.Output(t, "stat", "-c", "%a %U:%G", "/"+name); got != "644 root:root" {
			t.Errorf("/%s is %s", name, got)
		}
	}
	if got := f.Output(t, "modprobe", "--showconfig"); !strings.Contains(got, "\ninstall algif_aead /bin/false\n") {
		t.Error("modprobe does not refuse algif_aead")
	}
}

// A kernel that already skips something else keeps doing so, and nothing is
// changed.
func (f *fleetTest) testOtherValue(t *testing.T) {
	const kernels = "index=0\nargs=\"ro initcall_blacklist=other\"\n"
	f.WriteFile(t, "/run/kernels", []byte(kernels), 0o644)
	r := f.Run(t, ansible...)
	if r.Exit == 0 || !strings.Contains(string(r.Stdout), "a kernel has another value") {
		t.Errorf("%+v", r)
	}
	if got := string(f.ReadFile(t, "/run/kernels")); got != kernels {
		t.Errorf("kernels:\n%s", got)
	}
	if r := f.Run(t, "test", "-e", "/"+modprobeOfFleet); r.Exit == 0 {
		t.Error("files were put there although the role stopped")
	}
}

// testCloudInit has cloud-init's own code write the files, and runs the script
// that it makes of the commands.
func (f *fleetTest) testCloudInit(t *testing.T) {
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	f.copyTo(t, f.made(t, "cloud-init"), "/run/cloud")
	f.WriteFile(t, "/run/apply.py", []byte(cloudInitInBox), 0o644)
	modules := filepath.Join(cache, "afalg-policy/unpacked/cloud-init/usr/lib/python3/dist-packages")
	script := f.Output(t, "env", "PYTHONPATH="+modules, "/usr/bin/python3", "/run/apply.py", "/run/cloud/afalg-policy.cloud-config.yaml")
	f.testFiles(t)
	f.WriteFile(t, "/run/script", []byte(script), 0o755)
	f.Output(t, "sh", "-e", "/run/script")
	if got, want := string(f.ReadFile(t, "/run/grub")), fmt.Sprintf(" %s\n", fleetArguments); got != want {
		t.Errorf("GRUB has %q, want %q", got, want)
	}
	f.Output(t, "rm", "/usr/sbin/update-grub")
	if r := f.Run(t, "sh", "-e", "/run/script"); r.Exit == 0 || !strings.Contains(string(r.Stderr), "by hand: "+fleetArguments) {
		t.Errorf("with no tool of a boot loader: %+v", r)
	}
}
