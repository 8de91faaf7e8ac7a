package host

import (
	"fmt"
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/gen"
)

// Paths of the files, below the root of the host. Of modprobe.d the first install
// line of a module counts, so that ours sorts first; of sysctl.d the last.
const (
	ModprobePath  = "etc/modprobe.d/00-afalg-policy.conf"
	SysctlPath    = "etc/sysctl.d/zz-afalg-policy.conf"
	UdevPath      = "etc/udev/rules.d/zz-afalg-policy.rules"
	ArgumentsPath = "etc/afalg-policy/kernel-arguments"
)

// files renders the files that a host reads by itself, and the arguments of the
// kernel, which its boot loader has to be given.
func files(in Input) ([]gen.File, error) {
	var all []gen.File
	for _, f := range []struct {
		path  string
		notes []string
		body  string
	}{
		{ModprobePath, modprobeNotes, in.Settings.modprobe()},
		{SysctlPath, sysctlNotes, in.Settings.sysctl()},
		{UdevPath, udevNotes, in.Settings.udev()},
		{ArgumentsPath, argumentNotes(in.Facts.Loaders), in.Settings.arguments()},
	} {
		if f.body != "" {
			all = append(all, gen.File{Path: f.path, Data: []byte(in.Header(in.Plan, f.notes, in.Gaps) + f.body)})
		}
	}
	return all, nil
}

var modprobeNotes = []string{
	"For /etc/modprobe.d of the host; it has no effect in a container. An install line stops every load by modprobe, on demand and by name; a blacklist line stops only a load by another name than the module's, and the kernel asks for algif-aead by that.",
	"Takes effect at the next load of a module. One that is loaded stays until the next boot, or modprobe -r. The initramfs has its own copy of modprobe.d: make it anew (update-initramfs -u -k all, dracut -f --regenerate-all, mkinitcpio -P), and keep one that boots.",
	"Leaves open: a load by root that does not ask modprobe.d (insmod, modprobe --ignore-install), what is built into the kernel, and a modprobe that knows no install lines, as busybox's.",
	"Undo: remove this file, and make the initramfs anew.",
}

func (s Settings) modprobe() string {
	var b strings.Builder
	for i, m := range s.Modules {
		if i == 0 || !sameCode(s.Modules[i-1].About, m.About) {
			b.WriteString("\n" + m.comment())
		}
		if m.Now != "" {
			b.WriteString(gen.Comment("Here: " + m.Now + "."))
		}
		fmt.Fprintf(&b, "install %s /bin/false\n", m.Module)
	}
	return b.String()
}

// sameCode reports whether one comment does for two settings.
func sameCode(a, b About) bool { return a.Why == b.Why && slices.Equal(a.Closes, b.Closes) }

// comment says what a setting closes, and whom it stops.
func (a About) comment() string {
	text := "Closes " + strings.Join(a.Closes, ", ") + ". " + a.Why
	if len(a.Breaks) > 0 {
		text += " Stops, where it is in use: " + strings.TrimSuffix(strings.Join(a.Breaks, "; "), ".") + "."
	}
	return gen.Comment(text)
}

var sysctlNotes = []string{
	"For /etc/sysctl.d of the host. Takes effect at the next boot, or now by: sysctl -p /" + SysctlPath + ". A line with - is for kernels that have the setting; others go on without it.",
	"Undo: remove this file, and set what the comments name, or boot again.",
}

func (s Settings) sysctl() string {
	var b strings.Builder
	for _, c := range s.Sysctls {
		b.WriteString("\n" + c.comment())
		for _, open := range c.Open {
			b.WriteString(gen.Comment("Leaves open: " + open + "."))
		}
		if c.Now != "" {
			b.WriteString(gen.Comment("Here: " + c.Now + "."))
		}
		b.WriteString(gen.Comment("Undo: " + c.Undo + "."))
		if c.Optional {
			b.WriteByte('-')
		}
		fmt.Fprintf(&b, "%s = %s\n", c.Key, c.Value)
	}
	return b.String()
}

var udevNotes = []string{
	"For /etc/udev/rules.d of the host. A sysctl of a module exists once that is loaded, which may be long after sysctl.d was read at boot: this sets it then, from " + SysctlPath + ".",
	"Undo: remove this file.",
}

func (s Settings) udev() string {
	var b strings.Builder
	for _, c := range s.Sysctls {
		if c.Module != "" {
			fmt.Fprintf(&b, "\nACTION==\"add\", SUBSYSTEM==\"module\", KERNEL==\"%s\", RUN+=\"/usr/lib/systemd/systemd-sysctl --prefix=/%s\"\n",
				c.Module, strings.ReplaceAll(c.Key, ".", "/"))
		}
	}
	return b.String()
}

func (s Settings) arguments() string {
	if len(s.Arguments) == 0 {
		return ""
	}
	var b strings.Builder
	for i, a := range s.Arguments {
		if i == 0 || !sameCode(s.Arguments[i-1].About, a.About) {
			b.WriteString("\n" + a.comment())
		}
		if a.Now != "" {
			b.WriteString(gen.Comment("Here: " + a.Now + "."))
		}
	}
	b.WriteString(strings.Join(s.CommandLine(), "\n") + "\n")
	return b.String()
}

// argumentNotes say how each boot loader is given the arguments.
// All are named where it is not known which the host has.
func argumentNotes(known []string) []string {
	notes := []string{
		"Arguments of the kernel, for what is built in, or may be. No program reads this file: give your boot loader the last line, ARGS below. A kernel with CONFIG_KALLSYMS does not run what it names, in itself and in modules; on a kernel where these are modules it stops insmod as well.",
		"Takes effect after a reboot; cat /proc/cmdline shows it. Undo: take the argument off again, and boot.",
	}
	for _, l := range loaderWords {
		if len(known) == 0 || slices.Contains(known, l.name) {
			notes = append(notes, l.who+": "+l.how+".")
		}
	}
	return notes
}

// loaderWords say how each boot loader is given arguments; names are those of
// hostfacts.Facts.Loaders.
var loaderWords = []struct{ name, who, how string }{
	{"grub.d", "Debian, Ubuntu", `put GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX ARGS" into /etc/default/grub.d/afalg-policy.cfg, then update-grub`},
	{"grub", "other GRUB", "add it to GRUB_CMDLINE_LINUX in /etc/default/grub, then grub-mkconfig -o /boot/grub/grub.cfg (grub2-mkconfig -o /boot/grub2/grub.cfg)"},
	{"grubby", "RHEL, Fedora and their kin", `grubby --update-kernel=ALL --args="ARGS"; undo with --remove-args`},
	{"rpm-ostree", "Fedora CoreOS, Silverblue", "rpm-ostree kargs --append-if-missing=ARGS; undo with --delete-if-present"},
	{"kernel-install", "systemd-boot, unified images", "add it to /etc/kernel/cmdline, then kernel-install add-all, or proxmox-boot-tool refresh; a signed image has to be signed again"},
	{"extlinux", "extlinux", "add it to APPEND in extlinux.conf, or to U_BOOT_PARAMETERS in /etc/default/u-boot, then u-boot-update"},
	{"zipl", "zipl (s390x)", "add it to parameters= in /etc/zipl.conf, then zipl"},
}
