package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// LSMs lists the active ones, in their order; none if the kernel does not say.
func (v View) LSMs() []string {
	text, err := os.ReadFile(filepath.Join(v.Sys, "kernel/security/lsm"))
	if err != nil {
		return nil
	}
	return strings.Split(strings.TrimSpace(string(text)), ",")
}

// Lockdown is "none", "integrity" or "confidentiality"; empty if the kernel has
// none.
func (v View) Lockdown() string {
	text, err := os.ReadFile(filepath.Join(v.Sys, "kernel/security/lockdown"))
	if err != nil {
		return ""
	}
	return between(string(text), "[", "]")
}

// HasTypes reports whether the kernel describes its types (BTF).
func (v View) HasTypes() bool { return exists(filepath.Join(v.Sys, "kernel/btf/vmlinux")) }

// Preemption says whether the kernel preempts a task that runs in it.
type Preemption string

const (
	PreemptNone      Preemption = "none"
	PreemptVoluntary Preemption = "voluntary"
	PreemptFull      Preemption = "full"
	PreemptLazy      Preemption = "lazy"
	PreemptRealtime  Preemption = "realtime"
	PreemptUnknown   Preemption = "unknown"
)

// dynamicModes are those of preempt_dynamic_mode, by number.
var dynamicModes = []Preemption{PreemptNone, PreemptVoluntary, PreemptFull, PreemptLazy}

// Never reports whether no task is preempted while it runs in the kernel.
func (p Preemption) Never() bool { return p == PreemptNone || p == PreemptVoluntary }

// Build returns the words after the number in the version of the running kernel, as
// uname -v prints it.
func Build() (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", fmt.Errorf("uname: %w", err)
	}
	return unix.ByteSliceToString(u.Version[:]), nil
}

// Preemption returns the mode of a kernel with such a build. One that can change
// its mode says it in debugfs or, where that is closed, as under lockdown, in a
// variable, which peek reads at an address: to find that takes time.
func (v View) Preemption(build string, peek func(address uint64) (int32, error)) (Preemption, error) {
	words := strings.Fields(build)
	switch {
	case slices.Contains(words, "PREEMPT_RT"):
		return PreemptRealtime, nil
	case slices.Contains(words, "PREEMPT_LAZY"):
		return PreemptLazy, nil
	case slices.Contains(words, "PREEMPT"):
		return PreemptFull, nil
	case !slices.Contains(words, "PREEMPT_DYNAMIC"):
		return PreemptVoluntary, nil // or none
	}
	if text, err := os.ReadFile(filepath.Join(v.Sys, "kernel/debug/sched/preempt")); err == nil {
		if mode := Preemption(between(string(text), "(", ")")); slices.Contains(dynamicModes, mode) {
			return mode, nil
		}
	}
	address, err := v.symbol("preempt_dynamic_mode")
	if err != nil {
		return PreemptUnknown, nil
	}
	mode, err := peek(address)
	if err != nil || mode < 0 || int(mode) >= len(dynamicModes) {
		return PreemptUnknown, err
	}
	return dynamicModes[mode], nil
}

// between returns what stands between two marks, as in "none [integrity]".
func between(text, open, end string) string {
	_, rest, _ := strings.Cut(text, open)
	inside, _, _ := strings.Cut(rest, end)
	return inside
}

// symbol finds the address of a variable of the kernel.
func (v View) symbol(name string) (address uint64, err error) {
	err = fs.ErrNotExist
	anyLine(filepath.Join(v.Proc, "kallsyms"), func(line string) bool {
		fields := strings.Fields(line)
		if len(fields) < 3 || fields[2] != name {
			return false
		}
		if address, err = strconv.ParseUint(fields[0], 16, 64); err == nil && address == 0 {
			err = errors.New("the kernel hides its addresses")
		}
		return true
	})
	return address, err
}
