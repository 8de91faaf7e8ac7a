package subject

import (
	"math"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/proc"
)

// credentials fills in the user, the capabilities and whether the thread is
// contained. users is its user namespace, unless err says why that cannot be
// seen.
func (r *Reader) credentials(s *Subject, t *task, st *proc.Status, users namespace, err error) {
	r.user(s, st)
	switch {
	case err != nil:
		s.unknown(Capabilities, "its user namespace: %v", err)
	case users == initialUser:
		s.Capabilities = t.capabilityNames(st.Effective)
	}
	if why := r.powers(t, st, users, err); why != "" {
		s.unknown(Containment, "%s", why)
	} else {
		s.Contained = true
	}
}

// user: status shows a user as the reader's namespace maps it, and one that it
// does not map as the overflow user (65534). Only the initial namespace maps
// all, and there 65534 is the user of that number.
func (r *Reader) user(s *Subject, st *proc.Status) {
	switch {
	case r.self.users != initialUser:
		s.unknown(User, "the reader is in a user namespace of its own")
	case st.UID.Effective == math.MaxUint32:
		s.unknown(User, "no user has the id %d", st.UID.Effective)
	default:
		uid := st.UID.Effective
		s.UID = &uid
	}
}

// powers tells how the thread could come to hold CAP_SYS_PTRACE over the
// reader, or "" if it cannot.
func (r *Reader) powers(t *task, st *proc.Status, users namespace, err error) string {
	set := ptraceSet(st)
	if set == "" {
		return ""
	}
	if err != nil {
		return "CAP_SYS_PTRACE in " + set + ", and its user namespace: " + err.Error()
	}
	if users == r.self.users {
		return "CAP_SYS_PTRACE in " + set
	}
	// A capability counts in its namespace and below, and nobody enters a
	// namespace above. The initial one is above all.
	if r.self.users == initialUser || t.below(r.self.users) {
		return ""
	}
	return "CAP_SYS_PTRACE in " + set + ", and its user namespace is not below the reader's"
}

// ptraceSet names a set through which the thread has CAP_SYS_PTRACE or can gain
// it. Without no_new_privs a set-user-ID program gives what the bounding set
// lets through.
func ptraceSet(st *proc.Status) string {
	const bit = 1 << unix.CAP_SYS_PTRACE
	switch {
	case st.Effective&bit != 0:
		return "CapEff"
	case st.Permitted&bit != 0:
		return "CapPrm"
	case st.Inheritable&bit != 0:
		return "CapInh"
	case st.Ambient&bit != 0:
		return "CapAmb"
	case st.Bounding&bit != 0 && !st.NoNewPrivs:
		return "CapBnd, without no_new_privs"
	}
	return ""
}

func (t *task) capabilityNames(mask uint64) []string {
	if mask != t.mask {
		t.mask, t.capabilities = mask, capabilityNames(mask)
	}
	return t.capabilities
}

var capabilities = afalg.Capabilities()

func capabilityNames(mask uint64) []string {
	var names []string
	for bit := range 64 {
		switch {
		case mask&(1<<bit) == 0:
		case bit < len(capabilities):
			names = append(names, capabilities[bit])
		default:
			names = append(names, "CAP_"+strconv.Itoa(bit)) // newer than the table
		}
	}
	return names
}
