package hostfacts

import (
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// files are those of a host, by path below its root.
type files map[string]string

func (f files) write(t testing.TB) string {
	t.Helper()
	root := t.TempDir()
	for p, text := range f {
		p = filepath.Join(root, p)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

const release = "5.14.0-570.el9.x86_64"

// rhel has AF_ALG built in, and RXRPC as a module.
func rhel() files {
	return files{
		"proc/sys/kernel/osrelease":                   release + "\n",
		"proc/sys/user/max_user_namespaces":           "63000\n",
		"proc/modules":                                "rxrpc 512000 0 - Live 0x0000000000000000\n",
		"proc/cmdline":                                "BOOT_IMAGE=/vmlinuz root=/dev/sda1 initcall_blacklist=algif_aead_init\n",
		"lib/modules/" + release + "/modules.builtin": "kernel/crypto/af_alg.ko\nkernel/crypto/algif_aead.ko\nkernel/crypto/algif_hash.ko\n",
		"lib/modules/" + release + "/modules.dep":     "kernel/net/rxrpc/rxrpc.ko.xz: kernel/net/ipv4/udp_tunnel.ko.xz\nkernel/crypto/algif_skcipher.ko.xz:\n",
		"boot/config-" + release:                      "# Linux\nCONFIG_CRYPTO_USER_API=y\nCONFIG_CRYPTO_USER_API_AEAD=y\nCONFIG_CRYPTO_USER_API_HASH=y\nCONFIG_CRYPTO_USER_API_SKCIPHER=m\nCONFIG_AF_RXRPC=m\nCONFIG_RDS=m\n# CONFIG_TIPC is not set\nCONFIG_KALLSYMS=y\n",
		"sys/kernel/security/lsm":                     "lockdown,capability,selinux,bpf",
		"sys/fs/selinux/enforce":                      "1",
		"etc/selinux/config":                          "# text\nSELINUX=permissive\nSELINUXTYPE=targeted\n",
		"etc/selinux/targeted/policy/policy.33":       "x",
		"etc/default/grub":                            "",
		"usr/sbin/grubby":                             "",
		"var/lib/dpkg/status":                         "Package: libsepol2\nStatus: install ok installed\nVersion: 3.6-1\n\nPackage: z\nVersion: 1\n",
	}
}

func read(t testing.TB, f files, g Given) Facts {
	t.Helper()
	facts, err := Read(f.write(t), g)
	if err != nil {
		t.Fatal(err)
	}
	return facts
}

func TestRead(t *testing.T) {
	f := read(t, rhel(), Given{})
	if f.Release != release || f.Version.String() != "5.14" || !f.Complete {
		t.Errorf("%q, %s, complete %v", f.Release, f.Version, f.Complete)
	}
	for module, want := range map[string]Presence{
		"af_alg": Builtin, "algif-aead": Builtin, "algif_skcipher": Module, "rxrpc": Module,
		"rds":  Module, // a package may bring it
		"tipc": Absent, "nothing": Absent,
	} {
		if got := f.Presence(module); got != want {
			t.Errorf("%s: %q, want %q", module, got, want)
		}
	}
	if !f.IsLoaded("rxrpc") || f.IsLoaded("rds") {
		t.Errorf("loaded: %v", f.Loaded)
	}
	if f.Config["TIPC"] != "n" || f.Config["KALLSYMS"] != "y" {
		t.Errorf("options: %v", f.Config)
	}
	want := Facts{
		Sysctls: map[string]string{"user.max_user_namespaces": "63000"},
		LSMs:    []string{"lockdown", "capability", "selinux", "bpf"},
		SELinux: SELinux{Mode: "enforcing", Type: "targeted", Userspace: "3.6", Policies: []string{"targeted"}},
		Cmdline: []string{"BOOT_IMAGE=/vmlinuz", "root=/dev/sda1", "initcall_blacklist=algif_aead_init"},
		Loaders: []string{"grub", "grubby"},
	}
	ignored := cmpopts.IgnoreFields(Facts{}, "Release", "Version", "Modules", "Complete", "Loaded", "Config", "Sources")
	if diff := cmp.Diff(want, f, ignored, cmpopts.IgnoreUnexported(Facts{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestNothingIsUnknown(t *testing.T) {
	for name, f := range map[string]Facts{"told nothing": {}, "an empty root": read(t, files{}, Given{})} {
		if f.Presence("af_alg") != Unknown || f.Loaded != nil || f.Config != nil || f.Cmdline != nil || f.Release != "" {
			t.Errorf("%s: %+v", name, f)
		}
		if f.AtLeast(f.Version) || f.Before(since["crypto.af_alg_restrict"]) {
			t.Errorf("%s: a version is known", name)
		}
	}
}

func TestContradictions(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(files)
		module string // unknown then; empty if none is
		want   string
	}{
		{"built in by the options alone", func(f files) {
			f["boot/config-"+release] += "CONFIG_NET_KEY=y\n"
		}, "af_key", "CONFIG_NET_KEY is y, and modules.builtin lacks af_key"},
		{"a module by the options, and built in", func(f files) {
			f["boot/config-"+release] = strings.Replace(f["boot/config-"+release], "HASH=y", "HASH=m", 1)
		}, "algif_hash", "CONFIG_CRYPTO_USER_API_HASH is m, and modules.builtin has algif_hash"},
		{"not set, and there is a file", func(f files) {
			f["boot/config-"+release] = strings.Replace(f["boot/config-"+release], "RXRPC=m", "OTHER=m", 1)
		}, "", "CONFIG_AF_RXRPC is n, and modules.dep has a file of rxrpc"},
		{"built in, and there is a file", func(f files) {
			f["lib/modules/"+release+"/modules.dep"] += "kernel/net/af_alg.ko:\n"
		}, "af_alg", "modules.builtin has af_alg, and modules.dep has a file of it"},
		{"built in, and loaded", func(f files) {
			f["proc/modules"] += "algif_aead 1 0 - Live 0x0\n"
		}, "algif_aead", "algif_aead is loaded as a module, and counts as built in"},
		{"loaded, and no file", func(f files) {
			f["proc/modules"] += "strange 1 0 - Live 0x0\n"
		}, "", "strange is loaded, and the host has no file of it: the modules may be those of another kernel"},
		{"a sysctl of a later kernel", func(f files) {
			f["proc/sys/crypto/af_alg_restrict"] = "1\n"
		}, "", "crypto.af_alg_restrict exists, and Linux has it since 7.3, while this is " + release + ": it may have been taken over"},
		{"no word of Kconfig", func(f files) {
			f["boot/config-"+release] += "CONFIG_NET_KEY=maybe\n"
		}, "", "CONFIG_NET_KEY is maybe, which is neither y, m nor n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			host := rhel()
			tt.change(host)
			f := read(t, host, Given{})
			if !slices.Equal(f.Contradictions, []string{tt.want}) {
				t.Errorf("%q, want %q", f.Contradictions, tt.want)
			}
			if tt.module != "" && f.Presence(tt.module) != Unknown {
				t.Errorf("%s is %q", tt.module, f.Presence(tt.module))
			}
		})
	}
}

func TestUnreadIsUnknown(t *testing.T) {
	builtin := "lib/modules/" + release + "/modules.builtin"
	for _, tt := range []struct {
		name, path, text, why string
	}{
		{"no module", builtin, "kernel/crypto/af_alg.ko\nkernel/../etc/passwd\n", `line 2: "kernel/../etc/passwd" is no file of a module`},
		{"an odd name", builtin, "kernel/a\x1b[31m.ko\n", `line 1: "kernel/a\\x1b[31m.ko" has a name that no module has`},
		{"a long name", builtin, strings.Repeat("x", 65) + ".ko\n", `line 1: "` + strings.Repeat("x", 65) + `.ko" has a name that no module has`},
		{"too many", builtin, strings.Repeat("kernel/a.ko\n", 100_000), "larger than 1024 KiB, the most that is read"},
		{"no line of /proc/modules", "proc/modules", "af_alg\n", `line 1: "af_alg" is no line of /proc/modules`},
		{"no option", "boot/config-" + release, "hello\n", `line 1: "hello" is no option of a kernel`},
		{"no options at all", "boot/config-" + release, "", "it has no option of a kernel"},
		{"twice", "boot/config-" + release, "CONFIG_A=y\nCONFIG_A=m\n", "CONFIG_A is given twice, as y and as m"},
		{"cut off", "boot/config-" + release, packed(t, "CONFIG_A=y\n")[:24], "it is cut off"},
		{"a bomb", "boot/config-" + release, packed(t, strings.Repeat("#", 64<<20)), "larger than 2048 KiB, the most that is read"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			host := rhel()
			host[tt.path] = tt.text
			f := read(t, host, Given{})
			if want := []Unread{{"/" + tt.path, tt.why}}; !slices.Equal(f.Unread, want) {
				t.Errorf("%q, want %q", f.Unread, want)
			}
			if tt.path == builtin && (f.Complete || f.Presence("algif_rng") != Absent && f.Presence("algif_rng") != Unknown) {
				t.Error("what is built in counts as known")
			}
		})
	}
}

func packed(t testing.TB, text string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// An image is written by somebody else: its links stay inside, and a file that is
// no file is not opened.
func TestHostileImage(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "modules.builtin")
	if err := os.WriteFile(secret, []byte("kernel/secret.ko\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	f := rhel()
	builtin := "lib/modules/" + release + "/modules.builtin"
	delete(f, builtin)
	root := f.write(t)
	if err := os.Symlink(secret, filepath.Join(root, builtin)); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(root, "boot/config-"+release)
	if err := os.Remove(config); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(config, 0o755); err != nil {
		t.Fatal(err)
	}
	facts, err := Read(root, Given{})
	if err != nil {
		t.Fatal(err)
	}
	if facts.Presence("secret") == Builtin {
		t.Error("a link led out of the image")
	}
	if want := []Unread{{"/boot/config-" + release, "it is a directory"}}; !slices.Equal(facts.Unread, want) {
		t.Errorf("%q, want %q", facts.Unread, want)
	}
	if facts.Presence("af_alg") != Unknown || facts.Complete {
		t.Errorf("af_alg is %q", facts.Presence("af_alg"))
	}
}

func TestManyKernels(t *testing.T) {
	f := read(t, files{"lib/modules/6.1.0/modules.builtin": "a.ko\n", "lib/modules/6.12.1/modules.builtin": "a.ko\n"}, Given{})
	if want := []string{"the image has more than one kernel, 6.1.0 and 6.12.1: nothing is read of any"}; !slices.Equal(f.Contradictions, want) || f.Release != "" {
		t.Errorf("%q, %q", f.Contradictions, f.Release)
	}
	f = read(t, files{"lib/modules/6.1.0/modules.builtin": "a.ko\n", "lib/modules/6.12.1/modules.builtin": "b.ko\n"}, Given{Release: "6.12.1"})
	if f.Contradictions != nil || f.Presence("b") != Builtin || f.Presence("a") == Builtin {
		t.Errorf("%+v", f)
	}
}

func TestTold(t *testing.T) {
	f, err := Told(Given{Release: "7.3.0", Builtin: []byte("kernel/crypto/af_alg.ko\n"), Config: []byte("CONFIG_CRYPTO_USER_API_HASH=m\n")})
	if err != nil {
		t.Fatal(err)
	}
	for module, want := range map[string]Presence{"af_alg": Unknown, "algif_hash": Module, "algif_aead": Absent, "other": Module} {
		if got := f.Presence(module); got != want {
			t.Errorf("%s: %q, want %q", module, got, want)
		}
	}
	for _, tt := range []struct {
		given Given
		want  string
	}{
		{Given{Release: "six"}, `release: kernel release "six": no version at its start`},
		{Given{Builtin: []byte("x\n")}, `modules.builtin: line 1: "x" is no file of a module`},
		{Given{Config: []byte("x\n")}, `options of the kernel: line 1: "x" is no option of a kernel`},
		{Given{Config: []byte(packed(t, strings.Repeat("#", 64<<20)))}, "options of the kernel: larger than 2048 KiB, the most that is read"},
		{Given{Builtin: bytes.Repeat([]byte("kernel/crypto/af_alg.ko\n"), 100<<20/24)}, "modules.builtin: larger than 1024 KiB, the most that is read"},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := Told(tt.given)
		runtime.ReadMemStats(&after)
		if err == nil || err.Error() != tt.want {
			t.Errorf("%v, want %s", err, tt.want)
		}
		if used := after.TotalAlloc - before.TotalAlloc; used > 16<<20 {
			t.Errorf("%s: %d MiB of memory", tt.want, used>>20)
		}
	}
}

func TestMissingArguments(t *testing.T) {
	cmdline := []string{"quiet", "initcall_blacklist=a,b", "initcall_blacklist=c", "initcall_blacklist"}
	for wanted, want := range map[string]string{
		"initcall_blacklist=a,c": "", "initcall_blacklist=b": "", "initcall_blacklist=a,d,e": "initcall_blacklist=d,e",
		"other=a": "other=a",
	} {
		if got := MissingArguments(cmdline, wanted); got != want {
			t.Errorf("%s: %q, want %q", wanted, got, want)
		}
	}
}

func TestOwnFiles(t *testing.T) {
	if got := Refused("# install no /bin/false\ninstall algif_aead /bin/false\ninstall x /bin/true\ninstall z /bin/true --help\nblacklist y\n"); !slices.Equal(got, []string{"algif_aead", "x"}) {
		t.Errorf("%q", got)
	}
	want := map[string]string{"a.b": "1", "c": "2 3"}
	if diff := cmp.Diff(want, Set("# x = 1\n-a.b = 1\nc=2 3\n\n")); diff != "" {
		t.Error(diff)
	}
}
