// Package subject identifies a thread: its executable, the digest of that, its
// user, capabilities and systemd unit. It reads everything from the kernel and
// nothing from the thread. A fact that cannot be established stays empty, with
// a reason.
//
// An executable says which program a process was started as, not what it does
// now. Three things change the second and not the first: LD_PRELOAD, a write to
// /proc/PID/mem by another process of the user, and PR_SET_MM_MAP in a user
// namespace of one's own.
package subject

import "fmt"

// Subject holds the known facts about a thread. The zero value has none.
type Subject struct {
	TID int
	PID int // the thread group; 0 if not known

	Binary        string // the path of the executable in the mount namespace of the thread
	Shown         string // the kernel's text for the executable: for logs, quoted, never for a decision
	Device, Inode uint64 // of the executable; 0 if not known
	// Claimed means that only the subject vouches for Binary: it is a name in a
	// mount namespace, or of a process in a user namespace, other than the
	// reader's. Only a digest gives it a meaning.
	Claimed bool
	SHA256  string // of the executable, in lower-case hex

	UID *uint32 // effective, in the initial user namespace
	// Capabilities are the effective ones, by name, and only those that count
	// in the initial user namespace. The slice is shared: do not change it.
	Capabilities []string
	Unit         string // of the system manager: a service of a user's manager counts as user@UID.service

	// Contained means that the thread neither holds CAP_SYS_PTRACE over the
	// reader nor can gain it. A thread that is not contained can take the
	// reader apart.
	Contained bool
	Tracer    int // the thread that traces it; 0 if the reader sees none

	Recent  bool // some facts may be a moment old; see Glance
	Pending bool // the digest is not known, and needs a Look
	Unknown []Reason
}

// Fact names the subject of a Reason.
type Fact string

const (
	Process      Fact = "process" // PID, Tracer
	Binary       Fact = "binary"  // Binary, Claimed
	Digest       Fact = "sha256"
	User         Fact = "user"
	Capabilities Fact = "capabilities"
	Unit         Fact = "unit"
	Containment  Fact = "containment"
)

// Reason says why a fact is not established. Facts that the options leave out
// have none.
type Reason struct {
	Fact Fact
	Why  string
}

func (r Reason) String() string { return string(r.Fact) + ": " + r.Why }

// Why returns the reason why a fact is not established, or "".
func (s *Subject) Why(f Fact) string {
	for _, r := range s.Unknown {
		if r.Fact == f {
			return r.Why
		}
	}
	return ""
}

func (s *Subject) unknown(f Fact, format string, args ...any) {
	s.Unknown = append(s.Unknown, Reason{f, fmt.Sprintf(format, args...)})
}
