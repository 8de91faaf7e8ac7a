package subject

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// namespace is the number of a namespace. The kernel reuses it once the
// namespace is gone; the reader's own are not.
type namespace uint64

// The initial namespaces have these numbers (include/linux/proc_ns.h). Later
// ones have numbers from 0xF0000000 on.
const (
	initialUser   namespace = 0xEFFFFFFD
	initialCgroup namespace = 0xEFFFFFFB
)

// self holds the facts about the reader that its readings depend on.
type self struct {
	users, mounts namespace
	cgroups       namespace // 0 if the kernel has none
}

func readSelf(proc int) (self, error) {
	var s self
	for _, ns := range []struct {
		kind string
		to   *namespace
	}{{"user", &s.users}, {"mnt", &s.mounts}, {"cgroup", &s.cgroups}} {
		n, err := namespaceAt(proc, "self/ns/"+ns.kind, make([]byte, 64))
		if err != nil && (ns.kind != "cgroup" || err != unix.ENOENT) {
			return self{}, fmt.Errorf("namespace of the reader: self/ns/%s: %w", ns.kind, err)
		}
		*ns.to = n
	}
	return s, nil
}

// namespaceAt reads a link such as "ns/user", with the text
// "user:[4026531837]". A stat of its target would take the kernel three times
// as long: it makes the inode for that.
func namespaceAt(dir int, path string, buf []byte) (namespace, error) {
	link, err := readLink(dir, path, buf)
	if err != nil {
		return 0, err
	}
	text := string(link)
	number, ok := strings.CutPrefix(text, path[strings.LastIndexByte(path, '/')+1:]+":[")
	number, closed := strings.CutSuffix(number, "]")
	n, err := strconv.ParseUint(number, 10, 32)
	if !ok || !closed || err != nil || n == 0 {
		return 0, fmt.Errorf("%q is no namespace", text)
	}
	return namespace(n), nil
}

const (
	maxNesting  = 32     // the kernel's limit for user namespaces, kernel/user_namespace.c
	nsGetParent = 0xb702 // NS_GET_PARENT; on mips, ppc64 and sparc another number: ENOTTY, so nothing is below
)

// below reports whether the thread's user namespace is below the one given.
func (t *task) below(above namespace) bool {
	fd, err := openAt(t.dir, "ns/user", unix.O_RDONLY)
	if err != nil {
		return false
	}
	for depth := range maxNesting + 1 {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			break
		}
		if namespace(st.Ino) == above {
			unix.Close(fd)
			return depth > 0
		}
		// EPERM where the parent is neither the reader's namespace nor below
		// it.
		parent, err := unix.IoctlRetInt(fd, nsGetParent)
		if err != nil {
			break
		}
		unix.Close(fd)
		fd = parent
	}
	unix.Close(fd)
	return false
}
