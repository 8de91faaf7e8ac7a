// Package subject tells who a thread is: its executable, the digest of it, its
// user, capabilities and systemd unit. Everything is read from the kernel,
// nothing from the thread, and what cannot be established stays empty, with a
// reason.
//
// An executable says which program a process was started as, not what it does
// now. LD_PRELOAD, a write to /proc/PID/mem by another process of the user, or
// PR_SET_MM_MAP in a user namespace of one's own change the second and not the
// first.
package subject

import "fmt"

// Subject is what is known of a thread. The zero value is a thread of which
// nothing is known.
type Subject struct {
	TID int
	PID int // the thread group; 0 if not known

	Binary        string // the path of the executable in the mount namespace of the thread
	Shown         string // what the kernel calls the executable: for logs, quoted, never for a decision
	Device, Inode uint64 // of the executable; 0 if not known
	// Claimed tells that nobody but the subject vouches for Binary: it is a
	// name in a mount namespace, or of a process in a user namespace, that is
	// not the reader's. Only a digest makes it mean anything.
	Claimed bool
	SHA256  string // of the executable, in lower-case hex

	UID *uint32 // effective, in the initial user namespace
	// Capabilities are the effective ones, by name, and only those that count
	// in the initial user namespace. The slice is shared: do not change it.
	Capabilities []string
	Unit         string // of the system manager: what a user's manager started is its user@UID.service

	// Contained tells that the thread neither holds CAP_SYS_PTRACE over the
	// reader nor can come by it. One that is not contained can take the reader
	// apart.
	Contained bool
	Tracer    int // the thread that traces it; 0 if none that the reader can see

	Recent  bool // some of this may be of a moment ago; see Look
	Unknown []Reason
}

// Fact names what a Reason is about.
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

// Reason tells why a fact is not established. Facts that the options leave out
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
