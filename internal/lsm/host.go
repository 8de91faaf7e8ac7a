package lsm

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/kernel"
	"github.com/afalg-policy/afalg-policy/internal/lsm/guard"
)

// Preemption says whether the kernel preempts a task that runs in it.
type Preemption string

const (
	None      Preemption = "none"
	Voluntary Preemption = "voluntary"
	Full      Preemption = "full"
	Lazy      Preemption = "lazy"
	Realtime  Preemption = "realtime"
	Unknown   Preemption = "unknown"
)

// Never reports whether a program that is called by a trampoline is never
// interrupted by another task. The kernel skips a second call of such a program
// on the same processor, and what is skipped is allowed.
func (p Preemption) Never() bool { return p == None || p == Voluntary }

// Host is what decides how the programs can be attached.
type Host struct {
	Release    string     `json:"release"`
	LSMs       []string   `json:"lsms"` // active, in their order
	Preemption Preemption `json:"preemption"`
	Lockdown   string     `json:"lockdown"` // "none", "integrity", "confidentiality"; empty if the kernel has none
	Types      bool       `json:"btf"`      // the kernel describes its types
	Bpffs      bool       `json:"bpffs"`    // /sys/fs/bpf is one
	Splices    bool       `json:"-"`        // Linux 6.5: pages go in by sendmsg
	Unified    bool       `json:"unified"`  // systemd keeps the units in the unified hierarchy
}

// Look reads them. It needs root in the initial namespaces, for it loads a
// program that asks about preemption.
func Look() (Host, error) {
	h, err := lookFor("")
	if err != nil {
		return h, err
	}
	h.Preemption, err = preemption()
	return h, err
}

// lookFor reads what an attachment depends on. Preemption, which takes the most
// time, is Unknown for LSM: those programs do not mind.
func lookFor(a Attachment) (Host, error) {
	if err := initialNamespaces(); err != nil {
		return Host{}, err
	}
	release, err := kernel.Release()
	if err != nil {
		return Host{}, err
	}
	h := Host{Release: release, Preemption: Unknown}
	h.Splices = kernel.Require("splice", kernel.Version{Major: 6, Minor: 5}) == nil
	if text, err := os.ReadFile("/sys/kernel/security/lsm"); err == nil {
		h.LSMs = strings.Split(strings.TrimSpace(string(text)), ",")
	}
	if text, err := os.ReadFile("/sys/kernel/security/lockdown"); err == nil {
		_, rest, _ := strings.Cut(string(text), "[")
		h.Lockdown, _, _ = strings.Cut(rest, "]")
	}
	_, err = os.Stat("/sys/kernel/btf/vmlinux")
	h.Types = err == nil
	var st unix.Statfs_t
	h.Bpffs = unix.Statfs("/sys/fs/bpf", &st) == nil && int64(st.Type) == unix.BPF_FS_MAGIC
	if cgroup, err := os.ReadFile("/proc/1/cgroup"); err == nil {
		h.Unified = strings.Contains(string(cgroup), "0::/init.scope")
	}
	if a == FmodRet {
		h.Preemption, err = preemption()
		return h, err
	}
	return h, nil
}

// initialNamespaces have these numbers in every kernel. The programs tell
// containers by them, and files mean what the host calls them.
func initialNamespaces() error {
	for _, ns := range []struct{ name, inode string }{{"user", "4026531837"}, {"pid", "4026531836"}, {"cgroup", "4026531835"}} {
		link, err := os.Readlink("/proc/self/ns/" + ns.name)
		if err != nil {
			return hosterr.Errorf("the kernel half: %w", err)
		}
		if link != ns.name+":["+ns.inode+"]" {
			return hosterr.Errorf("the kernel half is about the whole host: run this on the host itself, not in a container (its %s namespace is not the initial one)", ns.name)
		}
	}
	if unix.Geteuid() != 0 {
		return hosterr.Errorf("the kernel half needs root")
	}
	return nil
}

// Choose returns the attachment that holds on the host, or says what to do for
// one.
func (h Host) Choose() (Attachment, error) {
	switch {
	case !h.Types:
		return "", hosterr.Errorf("this kernel does not describe its types (no /sys/kernel/btf/vmlinux; CONFIG_DEBUG_INFO_BTF): take the broker instead, see `afalg-policy run` and `afalg-policy agent`")
	case h.Lockdown == "confidentiality":
		return "", hosterr.Errorf("the kernel is locked down (confidentiality), and loads no program that reads its memory: load the policy before that, or boot with lockdown=integrity")
	case !h.Bpffs:
		return "", hosterr.Errorf("/sys/fs/bpf is no BPF file system: mount -t bpf bpf /sys/fs/bpf")
	case slices.Contains(h.LSMs, "bpf"):
		return LSM, nil
	case h.Preemption.Never():
		return FmodRet, nil
	}
	return "", hosterr.Errorf("bpf is not among the active LSMs (%s), and this kernel's preemption is %s: a program attached in another way would be skipped now and then, and what is skipped is allowed. "+
		"Either boot with lsm=%s; or take the preemption away, with preempt=voluntary on the kernel's command line or, now, echo voluntary >/sys/kernel/debug/sched/preempt; or take the broker instead, see `afalg-policy run` and `afalg-policy agent`",
		strings.Join(h.LSMs, ","), h.Preemption, strings.Join(append(slices.Clone(h.LSMs), "bpf"), ","))
}

// preemption reads the mode of a kernel that can change it from debugfs or, where
// that is closed, as under lockdown, out of the kernel's own variable: to find that
// takes longer than all the rest of a load. Other kernels say their mode in the
// version.
func preemption() (Preemption, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return Unknown, fmt.Errorf("uname: %w", err)
	}
	words := strings.Fields(unix.ByteSliceToString(u.Version[:]))
	switch {
	case slices.Contains(words, "PREEMPT_RT"):
		return Realtime, nil
	case slices.Contains(words, "PREEMPT_LAZY"):
		return Lazy, nil
	case slices.Contains(words, "PREEMPT"):
		return Full, nil
	case !slices.Contains(words, "PREEMPT_DYNAMIC"):
		return Voluntary, nil
	}
	if mode := modeOfDebugfs(); mode != Unknown {
		return mode, nil
	}
	address, err := symbol("preempt_dynamic_mode")
	if err != nil {
		return Unknown, nil
	}
	mode, err := peek(address)
	if err != nil {
		return Unknown, err
	}
	modes := []Preemption{None, Voluntary, Full, Lazy}
	if mode < 0 || int(mode) >= len(modes) {
		return Unknown, nil
	}
	return modes[mode], nil
}

// modeOfDebugfs reads "none (voluntary) full".
func modeOfDebugfs() Preemption {
	text, err := os.ReadFile("/sys/kernel/debug/sched/preempt")
	if err != nil {
		return Unknown
	}
	for _, mode := range []Preemption{None, Voluntary, Full, Lazy} {
		if strings.Contains(string(text), "("+string(mode)+")") {
			return mode
		}
	}
	return Unknown
}

// symbol finds the address of a variable of the kernel.
func symbol(name string) (uint64, error) {
	f, err := os.Open("/proc/kallsyms")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) >= 3 && fields[2] == name {
			address, err := strconv.ParseUint(fields[0], 16, 64)
			if err == nil && address == 0 {
				err = errors.New("the kernel hides its addresses")
			}
			return address, err
		}
	}
	return 0, fs.ErrNotExist
}

// peek reads a variable of the kernel.
func peek(address uint64) (int32, error) {
	spec, err := guard.LoadLSM()
	if err != nil {
		return 0, err
	}
	var programs struct {
		Peek *ebpf.Program `ebpf:"peek"`
	}
	if err := spec.LoadAndAssign(&programs, nil); err != nil {
		return 0, loadError(err)
	}
	defer programs.Peek.Close()
	v := guard.Variable{Address: address}
	if _, err := programs.Peek.Run(&ebpf.RunOptions{Context: &v, ContextOut: &v}); err != nil {
		return 0, hosterr.Errorf("ask the kernel for its preemption: %w", err)
	}
	if v.Error != 0 {
		return 0, hosterr.Errorf("ask the kernel for its preemption: %w", unix.Errno(-v.Error))
	}
	return v.Value, nil
}

// loadError says what the kernel said of a program, shortly.
func loadError(err error) error {
	var v *ebpf.VerifierError
	if errors.As(err, &v) {
		return hosterr.Errorf("the kernel refuses the program: %w", err)
	}
	return hosterr.Errorf("load the programs: %w", err)
}
