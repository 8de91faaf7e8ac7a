// Package lsm puts a policy in force in the kernel, for every process of the
// host: it loads the programs of package guard, fills their table, and shows
// that they decide.
//
// What is pinned under Dir decides for as long as it is pinned; no process of
// ours need live. A table is replaced whole: it is one frozen map in one slot.
package lsm

import (
	"path/filepath"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
)

// Where things are.
const (
	Dir      = "/sys/fs/bpf/afalg-policy" // pins
	StateDir = "/run/afalg-policy/lsm"
)

// Attachment is how programs are called.
type Attachment string

const (
	// LSM programs run if "bpf" is in the kernel's list of LSMs.
	LSM Attachment = "lsm"
	// FmodRet programs modify what the kernel's security_ functions return. They
	// need nothing in that list, and are skipped where a kernel preempts tasks
	// that run in it.
	FmodRet Attachment = "fmod_ret"
)

// hook is one program, and when it is needed.
type hook struct {
	program string
	needed  func(needs) bool
}

// needs is what a load asks of the programs.
type needs struct {
	attachment Attachment
	zeroCopy   bool // refuse it
	splices    bool // the kernel passes pages by sendmsg: Linux 6.5
	binaries   bool // some rule names an executable
	strict     bool // some rule asks for a clean start
}

var hooks = []hook{
	{"guard_socket", func(needs) bool { return true }},
	{"guard_bind", func(needs) bool { return true }},
	{"guard_accept", func(needs) bool { return true }},
	{"guard_prctl", func(n needs) bool { return n.binaries }},
	{"guard_sendmsg", func(n needs) bool { return n.zeroCopy && n.splices }},
	{"taint_sendpage", func(n needs) bool { return n.zeroCopy && !n.splices }},
	{"guard_recvmsg", func(n needs) bool { return n.zeroCopy && !n.splices }},
	{"strict_exec", needs.strictly},
	{"strict_started", needs.strictly},
	{"strict_child", needs.strictly},
	{"strict_traced", needs.strictly},
}

func (n needs) strictly() bool { return n.strict && n.attachment == LSM }

// pinnedMaps outlive a load.
var pinnedMaps = []string{"slot", "containers", "uses", "trails", "unit_names", "marks", "tainted", "counters", "clean"}

func linkPin(dir, program string) string { return filepath.Join(dir, "link_"+program) }
func mapPin(dir, name string) string     { return filepath.Join(dir, "map_"+name) }

const family = afalg.Family
