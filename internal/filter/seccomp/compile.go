// Package seccomp compiles OCI seccomp profiles to the BPF programs that the
// container runtimes load, through libseccomp. It is the only package that uses
// cgo. It uses no host facts: the machine that will run the profile is an
// input, so a program for s390x can be made on x86-64.
package seccomp

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"
	libseccomp "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
)

// Runtime is a container runtime whose way of compiling is followed.
type Runtime string

const (
	// Runc adds the ENOSYS stub and turns on the binary tree above 32 rules.
	Runc Runtime = "runc"
	// Crun compiles at level 1 and adds no stub.
	Crun Runtime = "crun"
)

// Runtimes lists every runtime for which a profile is proved.
func Runtimes() []Runtime { return []Runtime{Runc, Crun} }

// treeThreshold is the number of rules above which runc asks libseccomp for a
// binary tree (libcontainer/seccomp, since runc 1.1).
const treeThreshold = 32

// Options are the inputs besides the profile.
type Options struct {
	Runtime Runtime
	// Native is the OCI name of the machine's own architecture. libseccomp
	// admits it whether or not the profile lists it.
	Native specs.Arch
	// Level overrides the runtime's optimisation level: 1 is a list, 2 a binary
	// tree.
	Level int
}

// Program is a compiled filter.
type Program struct {
	Insns  []unix.SockFilter // in host byte order
	Level  int               // the optimisation level that it was compiled at
	Arches []specs.Arch      // those that the filter admits, the native one first
}

// Version returns the version of libseccomp, "2.5.4".
func Version() string {
	major, minor, micro := libseccomp.GetLibraryVersion()
	return fmt.Sprintf("%d.%d.%d", major, minor, micro)
}

// compileEach has libseccomp compile a profile in this process, in several ways for
// one machine. It makes libseccomp's collection of rules, which they share, once.
// It may never return, and may take the process down with it.
func compileEach(profile *specs.LinuxSeccomp, ways []Options) ([]*Program, error) {
	native := ways[0].Native
	rules, err := expand(profile)
	if err != nil {
		return nil, err
	}
	def, err := action(profile.DefaultAction, profile.DefaultErrnoRet)
	if err != nil {
		return nil, fmt.Errorf("default action: %w", err)
	}
	if def == libseccomp.ActNotify {
		return nil, fmt.Errorf("SCMP_ACT_NOTIFY cannot be the default action: no runtime loads such a profile")
	}
	filter, err := libseccomp.NewFilter(def)
	if err != nil {
		return nil, fmt.Errorf("creating a filter: %w", err)
	}
	defer filter.Release()
	admitted, err := setArches(filter, native, profile.Architectures)
	if err != nil {
		return nil, err
	}
	for _, r := range rules {
		if err := r.add(filter, def); err != nil {
			return nil, err
		}
	}
	var programs []*Program
	for _, o := range ways {
		level := cmp.Or(o.Level, defaultLevel(o.Runtime, len(rules)))
		if err := filter.SetOptimize(level); err != nil {
			return nil, fmt.Errorf("setting optimisation level %d: %w", level, err)
		}
		insns, err := export(filter, abiOf(native).BigEndian())
		if err != nil {
			return nil, err
		}
		rename(insns, admitted)
		if o.Runtime == Runc && !permissive(profile.DefaultAction) {
			stub, err := enosysStub(rules, admitted)
			if err != nil {
				return nil, err
			}
			insns = append(stub, insns...)
		}
		programs = append(programs, &Program{insns, level, admitted})
	}
	return programs, nil
}

func defaultLevel(r Runtime, rules int) int {
	if r == Runc && rules > treeThreshold {
		return 2
	}
	return 1
}

// setArches makes the filter one for the native architecture and those that
// the profile lists; libseccomp starts with the build machine's own.
func setArches(filter *libseccomp.ScmpFilter, native specs.Arch, listed []specs.Arch) ([]specs.Arch, error) {
	host, err := libseccomp.GetNativeArch()
	if err != nil {
		return nil, fmt.Errorf("asking for the native architecture: %w", err)
	}
	own, err := archOf(native)
	if err != nil {
		return nil, err
	}
	if own != host {
		// An empty collection takes an architecture of either byte order.
		if err := filter.RemoveArch(host); err != nil {
			return nil, fmt.Errorf("removing architecture %s: %w", host, err)
		}
		if err := filter.AddArch(own); err != nil {
			return nil, fmt.Errorf("adding architecture %s: %w", native, err)
		}
	}
	admitted := []specs.Arch{native}
	for _, name := range listed {
		a, err := archOf(name)
		if err != nil {
			return nil, err
		}
		present, err := filter.IsArchPresent(a)
		if err != nil {
			return nil, fmt.Errorf("asking for architecture %s: %w", name, err)
		}
		if present {
			continue
		}
		if err := filter.AddArch(a); err != nil {
			return nil, fmt.Errorf("adding architecture %s to a filter for %s: %w", name, native, err)
		}
		admitted = append(admitted, name)
	}
	return admitted, nil
}

// standIns replace a machine that the linked libseccomp may be too old to know
// by one with the same call numbers (asm-generic), word size and byte order.
var standIns = map[specs.Arch]specs.Arch{specs.ArchLOONGARCH64: specs.ArchRISCV64}

// archOf returns libseccomp's name for an architecture, or for its stand-in.
func archOf(name specs.Arch) (libseccomp.ScmpArch, error) {
	a, ok := arches[name]
	if !ok {
		return 0, fmt.Errorf("unknown architecture %q", name)
	}
	if _, err := libseccomp.GetSyscallFromNameByArch("read", a); err == nil {
		return a, nil
	}
	stand, ok := standIns[name]
	if !ok {
		return 0, fmt.Errorf("libseccomp %s does not know architecture %s", Version(), name)
	}
	return arches[stand], nil
}

// rename puts the architecture words of machines into a program that was
// compiled for their stand-ins.
func rename(insns []unix.SockFilter, admitted []specs.Arch) {
	for _, name := range admitted {
		stand := standIns[name]
		if scmp, err := archOf(name); err != nil || stand == "" || scmp != arches[stand] {
			continue
		}
		for i := range insns {
			if insns[i].Code == jumpEqual && insns[i].K == abiOf(stand).Audit {
				insns[i].K = abiOf(name).Audit
			}
		}
	}
}

// arches joins the OCI names with libseccomp's.
var arches = map[specs.Arch]libseccomp.ScmpArch{
	specs.ArchX86:         libseccomp.ArchX86,
	specs.ArchX86_64:      libseccomp.ArchAMD64,
	specs.ArchX32:         libseccomp.ArchX32,
	specs.ArchARM:         libseccomp.ArchARM,
	specs.ArchAARCH64:     libseccomp.ArchARM64,
	specs.ArchMIPS:        libseccomp.ArchMIPS,
	specs.ArchMIPS64:      libseccomp.ArchMIPS64,
	specs.ArchMIPS64N32:   libseccomp.ArchMIPS64N32,
	specs.ArchMIPSEL:      libseccomp.ArchMIPSEL,
	specs.ArchMIPSEL64:    libseccomp.ArchMIPSEL64,
	specs.ArchMIPSEL64N32: libseccomp.ArchMIPSEL64N32,
	specs.ArchPPC:         libseccomp.ArchPPC,
	specs.ArchPPC64:       libseccomp.ArchPPC64,
	specs.ArchPPC64LE:     libseccomp.ArchPPC64LE,
	specs.ArchS390:        libseccomp.ArchS390,
	specs.ArchS390X:       libseccomp.ArchS390X,
	specs.ArchRISCV64:     libseccomp.ArchRISCV64,
	specs.ArchLOONGARCH64: libseccomp.ArchLOONGARCH64,
}

// abiOf returns what the kernel fixes of an architecture that archOf knows.
func abiOf(name specs.Arch) afalg.ABI {
	abi, _ := afalg.ABIOf(string(name))
	return abi
}

// export reads the program from libseccomp, which writes it in the byte order
// of the machine that will run it.
func export(filter *libseccomp.ScmpFilter, big bool) ([]unix.SockFilter, error) {
	fd, err := unix.MemfdCreate("bpf", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("creating a buffer for the program: %w", err)
	}
	f := os.NewFile(uintptr(fd), "bpf")
	defer f.Close()
	if err := filter.ExportBPF(f); err != nil {
		return nil, fmt.Errorf("compiling with libseccomp %s: %w", Version(), err)
	}
	raw, err := io.ReadAll(io.NewSectionReader(f, 0, maxProgram))
	if err != nil {
		return nil, fmt.Errorf("reading the program: %w", err)
	}
	var order binary.ByteOrder = binary.LittleEndian
	if big {
		order = binary.BigEndian
	}
	insns := make([]unix.SockFilter, len(raw)/unix.SizeofSockFilter)
	if err := binary.Read(bytes.NewReader(raw), order, insns); err != nil {
		return nil, fmt.Errorf("reading the program: %w", err)
	}
	if binary.NativeEndian.Uint16([]byte{0, 1}) != order.Uint16([]byte{0, 1}) {
		return insns, mendReturns(insns)
	}
	return insns, nil
}

// mendReturns undoes a fault of libseccomp (2.5.4, _gen_bpf_action_hsh) that
// shows only when it compiles for a machine of the other byte order: the
// constant of a copied return instruction is converted twice.
func mendReturns(insns []unix.SockFilter) error {
	for i := range insns {
		in := &insns[i]
		if in.Code != ret || isAction(in.K) {
			continue
		}
		in.K = bits.ReverseBytes32(in.K)
		if !isAction(in.K) {
			return fmt.Errorf("instruction %d returns %#x, which is no action in either byte order", i, in.K)
		}
	}
	return nil
}

// isAction reports whether libseccomp returns such a value: only errnos and
// traces carry data.
func isAction(v uint32) bool {
	switch v & unix.SECCOMP_RET_ACTION_FULL {
	case unix.SECCOMP_RET_ERRNO, unix.SECCOMP_RET_TRACE:
		return true
	case unix.SECCOMP_RET_KILL_PROCESS, unix.SECCOMP_RET_KILL_THREAD, unix.SECCOMP_RET_TRAP,
		unix.SECCOMP_RET_USER_NOTIF, unix.SECCOMP_RET_LOG, unix.SECCOMP_RET_ALLOW:
		return v&unix.SECCOMP_RET_DATA == 0
	}
	return false
}
