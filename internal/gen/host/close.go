package host

import (
	"fmt"
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/hostfacts"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// code is a part of the kernel that can be closed whole.
type code struct {
	what      string   // in the words of the policy
	gap       string   // the name of its gaps
	modules   []string // that have it
	initcalls []string // that set it up
	why       string
	breaks    []string
}

// typeCode has the code of each type of algorithms. [src: crypto/algif_*.c, Linux
// 6.12; the symbols are those of Debian's modules]
var typeCode = map[afalg.Type]code{
	afalg.AEAD: {modules: []string{"algif_aead"}, initcalls: []string{"algif_aead_init"}, breaks: []string{
		"cryptsetup: LUKS2 volumes with authenticated encryption (--integrity) do not open",
		"iwd: no network whose RADIUS server speaks TLS with AES-GCM alone",
		"bluetooth-meshd",
	}},
	afalg.Hash: {modules: []string{"algif_hash"}, initcalls: []string{"algif_hash_init"}, breaks: []string{
		"a boot with fips=1: its integrity check (sha512hmac) fails, and the machine halts",
		"iwd does not start", "bluetoothd: no GATT database hash",
		"systemd before 250: IDs of applications", "strongSwan's plugin af-alg", "aklog-kafs",
	}},
	afalg.RNG: {modules: []string{"algif_rng"}, initcalls: []string{"rng_init"}, breaks: []string{
		"test harnesses for the kernel's random generators (ACVP)",
	}},
	afalg.Skcipher: {modules: []string{"algif_skcipher"}, initcalls: []string{"algif_skcipher_init"}, breaks: []string{
		"cryptsetup before 2.8.7: LUKS2 volumes in serpent, twofish, camellia, lrw or adiantum, and TrueCrypt volumes, do not open; if the root file system is on one, the machine does not boot",
		"iwd does not start", "bluetoothd: no signed writes", "strongSwan's plugin af-alg", "QEMU where it is built for AF_ALG (Oracle Linux)",
	}},
}

// familyCode is what all types share.
var familyCode = code{
	what: "AF_ALG", gap: "af_alg", modules: []string{"af_alg"}, initcalls: []string{"af_alg_init"},
	why:    "No rule of the policy allows an algorithm.",
	breaks: []string{"everything that uses the kernel's cryptography by AF_ALG"},
}

// algorithms closes the types of which no rule allows an algorithm, and the family
// if there is no other.
func (d *decision) algorithms() {
	for _, t := range afalg.Types() {
		if len(d.needs.types[t]) > 0 {
			continue
		}
		c := typeCode[t]
		c.what, c.gap, c.why = "AF_ALG type "+string(t), c.modules[0], "No rule of the policy allows an algorithm of it."
		d.close(c)
	}
	if len(d.needs.types) == 0 {
		d.close(familyCode)
	}
	if slices.Contains(d.facts.Cmdline, "fips=1") && len(d.needs.types[afalg.Hash]) == 0 {
		d.gaps = append(d.gaps, plan.Breaking.Gap(fipsBoot, nil,
			"this host boots with fips=1, and the check of its kernel needs type hash of AF_ALG: the next boot halts; include builtin:fips in the policy"))
	}
}

// fipsBoot is the name of the gap of a host that would not boot again.
const fipsBoot = "fips-boot"

// close has modprobe refuse the modules of some code, and the kernel not set it up
// where it is, or may be, built in.
func (d *decision) close(c code) {
	builtin := false
	for _, m := range c.modules {
		presence := d.facts.Presence(m)
		builtin = builtin || presence == hostfacts.Builtin
		d.Modules = append(d.Modules, ModprobeRule{m, d.module(c, m, presence)})
	}
	needed := slices.ContainsFunc(c.modules, func(m string) bool {
		p := d.facts.Presence(m)
		return p == hostfacts.Builtin || p == hostfacts.Unknown
	})
	if needed {
		d.argument(c)
	}
	if builtin && (len(c.initcalls) == 0 || d.facts.Config["KALLSYMS"] == "n") {
		why := "nothing keeps the kernel from setting it up"
		if len(c.initcalls) > 0 {
			why = "the kernel has no CONFIG_KALLSYMS, by which it finds what initcall_blacklist names"
		}
		d.wider(c.gap, fmt.Sprintf("%s stays open: %s is built in, and %s", c.what, strings.Join(c.modules, " and "), why))
	}
	if !builtin && d.facts.Modprobe == "busybox" {
		d.wider(c.gap, fmt.Sprintf("%s stays open: modprobe is busybox's, which reads no install lines; install kmod", c.what))
	}
}

func (d *decision) wider(name, text string) {
	d.gaps = append(d.gaps, plan.Wider.Gap(name, nil, text))
}

func (d *decision) module(c code, module string, presence hostfacts.Presence) About {
	a := About{
		Why: c.why, Closes: []string{c.what}, Breaks: c.breaks, Takes: TakesNow,
		Open: []string{"a load by root that does not ask modprobe.d: insmod, modprobe --ignore-install, or an initramfs that was made before"},
		Undo: "remove the line",
	}
	switch {
	case presence == hostfacts.Builtin:
		a.Takes, a.Now = TakesNever, module+" is built in: modprobe does nothing here, see the arguments of the kernel"
	case d.facts.IsLoaded(module):
		a.Takes, a.Now = TakesReboot, module+" is loaded now, and stays until it is unloaded (modprobe -r "+module+") or the machine boots again"
	case presence == hostfacts.Absent:
		a.Now = "this kernel has no " + module + "; another may"
	}
	return a
}

func (d *decision) argument(c code) {
	for _, call := range c.initcalls {
		a := KernelArgument{Name: initcallBlacklist, Value: call, About: About{
			Why: c.why, Closes: []string{c.what}, Breaks: c.breaks, Takes: TakesReboot,
			Undo: "take the argument off the command line, and boot again",
		}}
		if d.facts.Cmdline != nil && hostfacts.MissingArguments(d.facts.Cmdline, a.Name+"="+a.Value) == "" {
			a.Now = "the running kernel has it"
		}
		d.Arguments = append(d.Arguments, a)
	}
}

// initcallBlacklist has a kernel with CONFIG_KALLSYMS skip initcalls, those of
// modules as well: their load then fails.
const initcallBlacklist = "initcall_blacklist"

// rules says that what a rule uses stays open to everybody.
func (d *decision) rules() {
	for i := range d.plan.Rules {
		r := &d.plan.Rules[i]
		if open := d.openFor(r); len(open) > 0 {
			d.wider(r.Name, fmt.Sprintf("a setting of the host sees neither who asks nor the algorithm: %s stays open to every process; close it by another target too", strings.Join(open, ", ")))
		}
	}
	d.gaps = append(d.gaps, d.plan.ZeroCopyGaps(len(d.needs.types) > 0)...)
}

// openFor is what stays open for the sake of a rule, and is more than it allows.
func (d *decision) openFor(r *policy.Rule) (open []string) {
	if !r.Anyone || !wholeTypes(r) {
		for _, t := range afalg.Types() {
			if slices.Contains(d.needs.types[t], r.Name) {
				open = append(open, "AF_ALG type "+string(t))
			}
		}
	}
	opened := plan.OpenedBy([]policy.Rule{*r})
	opened.Options = nil // no setting closes them, whoever opens them
	return append(open, opened.Names()...)
}

// wholeTypes reports whether a rule opens whole types alone.
func wholeTypes(r *policy.Rule) bool {
	return !slices.ContainsFunc(r.Algorithms, func(a policy.Algorithm) bool { return a.Name != afalg.AnyName })
}
