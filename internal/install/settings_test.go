package install

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/hostfacts"
	"github.com/afalg-policy/afalg-policy/internal/install/host"
)

const refused = "# text\ninstall algif_aead /bin/false\n"

func pretendSettings() (map[string][]byte, error) {
	return map[string][]byte{
		"etc/modprobe.d/00-afalg-policy.conf":    []byte(refused),
		"etc/sysctl.d/zz-afalg-policy.conf":      []byte("user.max_user_namespaces = 0\n-kernel.unprivileged_userns_clone = 0\n"),
		"etc/afalg-policy/kernel-arguments":      []byte("# text\ninitcall_blacklist=algif_aead_init,rng_init\n"),
		"etc/udev/rules.d/zz-afalg-policy.rules": []byte("# rule\n"),
	}, nil
}

// Files are put in place and taken back. Debian's GRUB gets the arguments, and of
// another boot loader it is said.
func TestSettings(t *testing.T) {
	for _, grub := range []bool{true, false} {
		comment := "programs usr/sbin/update-initramfs\ndirectory etc/modprobe.d\n"
		if grub {
			comment += "directory etc/default/grub.d\n"
		}
		dir, _, o := rootFor(t, archiveOf(comment))
		write(t, dir, "etc/modprobe.d/other.conf", "# others\n", 0o600)
		before := snapshot(t, dir)
		r, err := Install(settingsName, o)
		must(t, err)
		cfg, err := os.ReadFile(dir + grubFile)
		if want := `GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX initcall_blacklist=algif_aead_init,rng_init"` + "\n"; grub && (err != nil || !strings.HasSuffix(string(cfg), want)) {
			t.Errorf("%q, %v", cfg, err)
		}
		told := slices.ContainsFunc(r.Notes, func(n string) bool {
			return n == "the boot loader has to be given initcall_blacklist=algif_aead_init,rng_init: "+dir+"/etc/afalg-policy/kernel-arguments says how"
		})
		if told == grub {
			t.Errorf("grub.d %v: notes %q", grub, r.Notes)
		}
		again, err := Install(settingsName, o)
		must(t, err)
		if len(again.Changes) != 0 {
			t.Errorf("once more: %+v", again.Changes)
		}
		_, err = Uninstall(settingsName, o.Root, false)
		must(t, err)
		if diff := cmp.Diff(without(before), without(snapshot(t, dir))); diff != "" {
			t.Errorf("after uninstall:\n%s", diff)
		}
	}
}

func TestSettingsCommands(t *testing.T) {
	dir, _, _ := rootFor(t, archiveOf("programs usr/sbin/update-initramfs usr/bin/dracut\n"))
	h, err := host.Open(dir)
	must(t, err)
	defer h.Close()
	r := &host.Record{Files: []host.Entry{{Path: grubFile}}}
	if got := settingsCommands(h, r); !slices.Equal(got, []string{"update-grub", "dracut -f --regenerate-all"}) {
		t.Errorf("%q", got)
	}
}

// The values before the first installation are those that uninstall gives back.
func TestSysctlsBefore(t *testing.T) {
	o := Options{Sysctls: map[string]string{"user.max_user_namespaces": "0", "kernel.unprivileged_userns_clone": "1"}}
	o.was(&host.Record{Options: map[string]string{"was user.max_user_namespaces": "63000"}})
	saved := o.saved()
	if saved["was user.max_user_namespaces"] != "63000" || saved["was kernel.unprivileged_userns_clone"] != "1" {
		t.Errorf("%v", saved)
	}
}

func TestSettingsFaults(t *testing.T) {
	dir, _, o := rootFor(t, archiveOf("directory etc/modprobe.d\n"))
	_, err := Install(settingsName, o)
	must(t, err)
	h, err := host.Open(dir)
	must(t, err)
	defer h.Close()
	r, err := h.ReadRecord(settingsName)
	must(t, err)
	good := func() hostfacts.Facts {
		return hostfacts.Facts{
			Loaded:  map[string]bool{"algif_hash": true},
			Sysctls: map[string]string{"user.max_user_namespaces": "0"}, // this kernel lacks the other
			Cmdline: []string{"initcall_blacklist=rng_init", "initcall_blacklist=other,algif_aead_init"},
		}
	}
	for _, tt := range []struct {
		name   string
		change func(*hostfacts.Facts)
		want   string
	}{
		{"in force", func(*hostfacts.Facts) {}, ""},
		{"loaded", func(f *hostfacts.Facts) { f.Loaded["algif_aead"] = true }, "algif_aead is loaded: unload it (modprobe -r algif_aead), or boot again"},
		{"another value", func(f *hostfacts.Facts) { f.Sysctls["kernel.unprivileged_userns_clone"] = "1" },
			"kernel.unprivileged_userns_clone is 1 and not 0: sysctl --system sets it, if no later file says otherwise"},
		{"not booted", func(f *hostfacts.Facts) { f.Cmdline = f.Cmdline[:1] },
			"the kernel was started without initcall_blacklist=algif_aead_init: in force after the boot loader has it, and the next boot"},
	} {
		f := good()
		tt.change(&f)
		if got := strings.Join(settingsFaults(r, f), "; "); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}
