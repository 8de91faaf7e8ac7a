// Package hostfacts reads what a host is, as far as hardening it depends on that:
// its kernel, what of it is built in, and how it starts. It only reads, and makes
// the kernel load no module.
package hostfacts

import (
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/kernel"
)

// Facts are what is known of a host. The zero value knows nothing, and nothing in
// it may be taken for "no": an empty field is unknown.
type Facts struct {
	Release string         // as uname -r prints it
	Version kernel.Version // at the start of the release; the zero value is unknown
	// Modules says where the kernel has a module, by its name with underscores. Ask
	// by Presence.
	Modules map[string]Presence
	// Complete means that Modules has every module that is on the host.
	Complete bool
	Loaded   map[string]bool // loaded modules by name, those built in left out; nil is unknown
	// Config has the options of the kernel by name without "CONFIG_": "y", "m",
	// "n", or a value. nil is unknown.
	Config  map[string]string
	Sysctls map[string]string // "crypto.af_alg_restrict": its value now; what is missing is unknown or not there
	LSMs    []string          // the active ones, in their order
	SELinux SELinux
	Cmdline []string // arguments of the running kernel; nil is unknown
	// Loaders are ways in which the host keeps the arguments of its kernel: "grub",
	// "grub.d", "grubby", "kernel-install", "rpm-ostree", "extlinux", "zipl".
	Loaders   []string
	Initramfs string // the tool that makes it: "dracut", "update-initramfs", "mkinitcpio", "booster"
	Modprobe  string // "kmod" or "busybox", which ignores install lines

	Sources        []string // the files that were read
	Unread         []Unread // files that are there, and could not be read
	Contradictions []string // facts that exclude each other, each as a sentence

	builtinRead bool            // what is built in was told
	both        map[string]bool // modules that count as built in, and have a file
}

// Presence says where a kernel has a module.
type Presence string

const (
	Unknown Presence = ""
	Builtin Presence = "builtin" // in the image of the kernel
	Module  Presence = "module"  // in a file that can be loaded, here or from a package
	Absent  Presence = "absent"  // nowhere
)

// SELinux is what a host has of it.
type SELinux struct {
	Mode      string   // "enforcing", "permissive", "disabled"
	Type      string   // SELINUXTYPE: "targeted", "default", "mls"
	Userspace string   // version of libsepol: "3.6"
	Policies  []string // types that have a store on disk
}

// Unread is a file that is there and says nothing.
type Unread struct{ Path, Why string }

func (u Unread) String() string { return u.Path + ": " + u.Why }

// Presence says where the kernel has a module.
func (f Facts) Presence(module string) Presence {
	if p, ok := f.Modules[Name(module)]; ok {
		return p
	}
	switch {
	case f.Complete:
		return Absent
	case f.builtinRead:
		return Module // or nowhere: it is not built in
	}
	return Unknown
}

// IsLoaded reports whether a module is known to be loaded now.
func (f Facts) IsLoaded(module string) bool { return f.Loaded[Name(module)] }

// HasLSM reports whether a security module is known to be active.
func (f Facts) HasLSM(name string) bool { return slices.Contains(f.LSMs, name) }

// AtLeast reports whether the kernel is known to be of a version or newer.
func (f Facts) AtLeast(v kernel.Version) bool {
	return f.Version != kernel.Version{} && f.Version.Compare(v) >= 0
}

// Before reports whether the kernel is known to be older than a version.
func (f Facts) Before(v kernel.Version) bool {
	return f.Version != kernel.Version{} && f.Version.Compare(v) < 0
}

// Name is a module's name as the kernel writes it: modprobe takes dashes and
// underscores for equal.
func Name(module string) string { return strings.ReplaceAll(module, "-", "_") }
