package kernel

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// View has the directories in which the kernel shows itself. Any of them may be
// missing, as in a container without /proc; an answer then is Unknown.
type View struct {
	Proc, Sys, Modules string
	// IsProc reports whether a directory is really a procfs: only there a
	// missing file proves something.
	IsProc func(dir string) bool
}

// Running is the kernel that this process runs on.
func Running() View {
	return View{Proc: "/proc", Sys: "/sys", Modules: "/lib/modules", IsProc: isProc}
}

func isProc(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && int64(st.Type) == unix.PROC_SUPER_MAGIC
}

// State is the known state of AF_ALG in a kernel.
type State string

const (
	Builtin  State = "builtin"  // part of the kernel image
	Loaded   State = "loaded"   // a module, registered now
	Loadable State = "loadable" // a module of this kernel, not loaded now
	Absent   State = "absent"   // not registered, and nothing can load it on demand
	Unknown  State = "unknown"  // not registered as far as can be seen; a request may load it
)

// AFALG is the state of the socket family.
type AFALG struct {
	State State
	Why   string // the fact behind it
}

// Registered reports whether a socket call finds the family without loading
// anything.
func (a AFALG) Registered() bool { return a.State == Builtin || a.State == Loaded }

// MayLoad reports whether a socket call could make the kernel load a module.
func (a AFALG) MayLoad() bool { return a.State == Loadable || a.State == Unknown }

// The protocol and the module have these names in crypto/af_alg.c.
const (
	algProtocol = "ALG"
	algModule   = "af_alg"
)

// AFALG returns the state of the family on this host.
//
// Registration shows in /proc/net/protocols, which every network namespace has,
// and in /sys/module, which containers see as well. The absence of a way to
// load it counts only where a real procfs shows it.
func (v View) AFALG(release string) AFALG {
	onDisk := v.moduleOnDisk(release, algModule)
	switch {
	case onDisk == Builtin:
		return AFALG{Builtin, "named in modules.builtin"}
	case v.hasProtocol(algProtocol):
		return AFALG{Loaded, "listed in /proc/net/protocols"}
	case v.HasModule(algModule):
		return AFALG{Loaded, "listed in /sys/module"}
	}
	if why, ok := v.NoAutoload(); ok {
		return AFALG{Absent, why}
	}
	if onDisk == Loadable {
		return AFALG{Loadable, "named in modules.dep, not loaded"}
	}
	return AFALG{Unknown, "not loaded as far as can be seen; the kernel may be able to load it"}
}

func (v View) hasProtocol(name string) bool {
	return anyLine(filepath.Join(v.Proc, "net/protocols"), func(line string) bool {
		fields := strings.Fields(line)
		return len(fields) > 0 && fields[0] == name
	})
}

// HasModule reports whether a module is loaded, or built in and visible.
func (v View) HasModule(name string) bool {
	if exists(filepath.Join(v.Sys, "module", name)) {
		return true
	}
	return anyLine(filepath.Join(v.Proc, "modules"), func(line string) bool {
		return strings.HasPrefix(line, name+" ")
	})
}

// NoAutoload reports whether a request for a module certainly loads nothing,
// and why. A procfs mounted with subset=pid lacks all these files, so one that
// every kernel has must be there.
func (v View) NoAutoload() (why string, ok bool) {
	sysctl := filepath.Join(v.Proc, "sys/kernel")
	if !v.IsProc(v.Proc) || !exists(filepath.Join(sysctl, "osrelease")) {
		return "", false
	}
	disabled, err1 := os.ReadFile(filepath.Join(sysctl, "modules_disabled"))
	modprobe, err2 := os.ReadFile(filepath.Join(sysctl, "modprobe"))
	switch {
	case err1 == nil && strings.TrimSpace(string(disabled)) == "1":
		return "not registered, and kernel.modules_disabled is 1", true
	case err2 == nil && strings.TrimSpace(string(modprobe)) == "":
		return "not registered, and kernel.modprobe is empty", true
	case missing(err1) && missing(err2) && absent(filepath.Join(v.Proc, "modules")):
		return "not registered, and the kernel has no modules", true
	}
	return "", false
}

// HasUserNamespaces reports whether the kernel is known to have user
// namespaces. False also means that nothing could be read.
func (v View) HasUserNamespaces() bool { return exists(filepath.Join(v.Proc, "self/ns/user")) }

// UserNamespacesOff reports whether a sysctl says that there may be none.
func (v View) UserNamespacesOff() bool {
	limit, err := os.ReadFile(filepath.Join(v.Proc, "sys/user/max_user_namespaces"))
	return err == nil && strings.TrimSpace(string(limit)) == "0"
}

// moduleOnDisk looks up a module in the tree of the release: Builtin, Loadable,
// or Unknown.
func (v View) moduleOnDisk(release, module string) State {
	named := func(index string) bool {
		return anyLine(filepath.Join(v.Modules, release, index), func(line string) bool {
			file, _, _ := strings.Cut(line, ":")
			base, _, _ := strings.Cut(filepath.Base(file), ".ko")
			return strings.ReplaceAll(base, "-", "_") == module
		})
	}
	switch {
	case release == "":
		return Unknown
	case named("modules.builtin"):
		return Builtin
	case named("modules.dep"):
		return Loadable
	}
	return Unknown
}

// HasAlgorithm reports whether the kernel already has an instance of the
// algorithm, so that binding to it asks for no module.
func (v View) HasAlgorithm(name string) bool {
	return anyLine(filepath.Join(v.Proc, "crypto"), func(line string) bool {
		key, value, ok := strings.Cut(line, ":")
		return ok && strings.TrimSpace(key) == "name" && strings.TrimSpace(value) == name
	})
}

// HasIOUring reports whether the kernel is known to be built with io_uring: it
// shows the sysctl (6.6), or a function of io_uring. False also means that
// nothing could be read.
func (v View) HasIOUring() bool {
	if exists(filepath.Join(v.Proc, "sys/kernel/io_uring_disabled")) {
		return true
	}
	return anyLine(filepath.Join(v.Proc, "kallsyms"), func(line string) bool {
		return strings.HasSuffix(line, " io_uring_release")
	})
}

// anyLine reports whether a line of the file satisfies the test; an unreadable
// file has no such line.
func anyLine(path string, test func(string) bool) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if test(s.Text()) {
			return true
		}
	}
	return false
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func absent(path string) bool {
	_, err := os.Lstat(path)
	return missing(err)
}

func missing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
