package install

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/subject"
	"github.com/afalg-policy/afalg-policy/internal/unit"
)

// serviceStops lists what drop-ins would stop, by the settings of units and by
// what runs.
func serviceStops(facts unit.Facts, c closure) []string {
	found := map[string]bool{}
	for name, s := range facts {
		if f := c.of(name); f != nil && strings.HasSuffix(name, ".service") && s.Values["LoadState"] != "masked" {
			for _, text := range unitStops(s, *f) {
				found[name+": "+text] = true
			}
		}
	}
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		processes = nil
	}
	for _, dir := range processes {
		name, f := placeOf(dir, c)
		if f == nil {
			continue
		}
		for _, text := range processStops(dir, *f) {
			found[name+": "+text] = true
		}
	}
	if len(found) == 0 {
		return []string{"nothing found: no 32-bit program, io_uring, setuid program or socket of AF_ALG in use, among what runs and what units start"}
	}
	return slices.Sorted(maps.Keys(found))
}

// Things that stop, and how.
const (
	stop32    = "a 32-bit program: it is killed by SIGSYS at its first call"
	stopRing  = "io_uring: it finds that absent (ENOSYS)"
	stopSUID  = "setuid programs gain nothing any more: it runs as %s without CAP_SYS_ADMIN, and gets NoNewPrivileges="
	stopNamed = "AF_ALG, which it names itself: it is refused (EAFNOSUPPORT)"
	stopUsed  = "AF_ALG, of which it has a socket: it is refused (EAFNOSUPPORT)"
)

// unitStops lists what stops by a unit's settings.
func unitStops(s unit.Shown, f unit.Families) []string {
	var found []string
	closed := !f.Lists("AF_ALG")
	if s.Families.Lists("AF_ALG") && closed {
		found = append(found, stopNamed)
	}
	if user := losesSetuid(s.Values); user != "" {
		found = append(found, fmt.Sprintf(stopSUID, user))
	}
	files := append([]string{s.Values["FragmentPath"]}, strings.Fields(s.Values["DropInPaths"])...)
	for _, program := range unit.Assigned("Service", "ExecStart", files) {
		program, _, _ = strings.Cut(strings.TrimLeft(program, "@-:+!|"), " ")
		if is32bit(program) {
			found = append(found, stop32+" ("+program+")")
		}
	}
	for _, calls := range unit.Assigned("Service", "SystemCallFilter", files) {
		if !strings.HasPrefix(calls, "~") && strings.Contains(calls, "io_uring") {
			found = append(found, stopRing)
		}
	}
	return found
}

// seccompSettings imply NoNewPrivileges for a unit that runs without
// CAP_SYS_ADMIN.
var seccompSettings = []string{
	"LockPersonality", "MemoryDenyWriteExecute", "PrivateDevices", "ProtectClock", "ProtectHostname",
	"ProtectKernelLogs", "ProtectKernelModules", "ProtectKernelTunables", "RestrictNamespaces",
	"RestrictRealtime", "RestrictSUIDSGID", "SystemCallArchitectures", "SystemCallFilter", "RestrictAddressFamilies",
}

// losesSetuid returns the user of a unit whose setuid programs work until now,
// and gain nothing under a filter.
func losesSetuid(values map[string]string) string {
	set := func(name string) bool { return !slices.Contains([]string{"", "no", "~"}, values[name]) }
	if set("NoNewPrivileges") || slices.ContainsFunc(seccompSettings, set) {
		return ""
	}
	user := values["User"]
	switch bounds := values["CapabilityBoundingSet"]; {
	case user == unit.TemplateInstance: // User=%i
		return "its user"
	case user != "" && user != "root" && user != "0":
		return user
	case bounds != "" && !strings.Contains(bounds, "cap_sys_admin"):
		return "root"
	}
	return ""
}

// placeOf describes the place of a process, and returns what may be opened
// there. A process outside services inherits from one: a session from sshd or
// getty, a container from containerd.
func placeOf(dir string, c closure) (string, *unit.Families) {
	text, err := os.ReadFile(dir + "/cgroup")
	if err != nil {
		return "", nil
	}
	every := c[unit.EveryService]
	name, err := subject.UnitOf(string(text))
	switch {
	case err != nil:
		_, place, _ := strings.Cut(strings.TrimSpace(string(text)), "::")
		return "a process of no unit, in " + place, every
	case strings.HasSuffix(name, ".service"):
		return name, c.of(name)
	}
	return name, every
}

// processStops lists what stops by a process's actions.
func processStops(dir string, f unit.Families) []string {
	program, err := os.Readlink(dir + "/exe")
	if err != nil { // a kernel thread, or gone
		return nil
	}
	if filepath.Base(dir) == "1" {
		return nil
	}
	pid := fmt.Sprintf(" (process %s, %s)", filepath.Base(dir), program)
	var found []string
	if is32bit(dir + "/exe") {
		found = append(found, stop32+pid)
	}
	entries, err := os.ReadDir(dir + "/fd")
	if err != nil {
		return found
	}
	for _, e := range entries {
		switch fd := filepath.Join(dir, "fd", e.Name()); {
		case isRing(fd):
			found = append(found, stopRing+pid)
		case !f.Lists("AF_ALG") && protocolOf(fd) == "ALG":
			found = append(found, stopUsed+pid)
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

func isRing(fd string) bool {
	target, err := os.Readlink(fd)
	return err == nil && target == "anon_inode:[io_uring]"
}

// protocolOf returns the kernel's name for the protocol of a socket.
func protocolOf(fd string) string {
	buf := make([]byte, 64)
	n, err := unix.Getxattr(fd, "system.sockprotoname", buf)
	if err != nil {
		return ""
	}
	return string(bytes.TrimRight(buf[:n], "\x00"))
}

// is32bit reports whether a program is for a 32-bit machine.
func is32bit(program string) bool {
	info, err := os.Stat(program)
	if err != nil || info.Mode()&fs.ModeType != 0 {
		return false
	}
	f, err := os.Open(program)
	if err != nil {
		return false
	}
	defer f.Close()
	head := make([]byte, elf.EI_NIDENT)
	if _, err := io.ReadFull(f, head); err != nil {
		return false
	}
	return string(head[:4]) == elf.ELFMAG && elf.Class(head[elf.EI_CLASS]) == elf.ELFCLASS32
}
