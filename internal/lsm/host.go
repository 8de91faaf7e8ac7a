package lsm

import (
	"errors"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/kernel"
	"github.com/afalg-policy/afalg-policy/internal/lsm/guard"
)

// Host is what decides how the programs can be attached.
type Host struct {
	Release string   `json:"release"`
	LSMs    []string `json:"lsms"` // active, in their order
	// Preemption must be none for FmodRet: the kernel skips a second call of such a
	// program on the same processor, and what is skipped is allowed.
	Preemption kernel.Preemption `json:"preemption"`
	Lockdown   string            `json:"lockdown"` // as kernel.View has it
	Types      bool              `json:"btf"`      // the kernel describes its types
	Bpffs      bool              `json:"bpffs"`    // /sys/fs/bpf is one
	Splices    bool              `json:"-"`        // Linux 6.5: pages go in by sendmsg
	Unified    bool              `json:"unified"`  // systemd keeps the units in the unified hierarchy
}

// Look reads them. It needs root in the initial namespaces, for it loads a
// program that asks about preemption.
func Look() (Host, error) { return lookFor(FmodRet) }

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
	view := kernel.Running()
	h := Host{
		Release: release, LSMs: view.LSMs(), Preemption: kernel.PreemptUnknown, Lockdown: view.Lockdown(), Types: view.HasTypes(),
		Splices: kernel.Require("splice", kernel.Version{Major: 6, Minor: 5}) == nil,
	}
	var st unix.Statfs_t
	h.Bpffs = unix.Statfs("/sys/fs/bpf", &st) == nil && int64(st.Type) == unix.BPF_FS_MAGIC
	if cgroup, err := os.ReadFile("/proc/1/cgroup"); err == nil {
		h.Unified = strings.Contains(string(cgroup), "0::/init.scope")
	}
	if a != FmodRet {
		return h, nil
	}
	build, err := kernel.Build()
	if err != nil {
		return h, err
	}
	h.Preemption, err = view.Preemption(build, peek)
	return h, err
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
