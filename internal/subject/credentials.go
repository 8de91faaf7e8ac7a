package subject

import (
	"math"
	"strconv"

	"golang.org/x/sys/unix"
)

// credentials fills in the user, the capabilities and whether the thread is
// contained. users is its user namespace, unless err says that it cannot be
// seen.
func (r *Reader) credentials(s *Subject, t *task, st *status, users namespace, err error) {
	r.user(s, st)
	switch {
	case err != nil:
		s.unknown(Capabilities, "its user namespace: %v", err)
	case users == initialUser:
		s.Capabilities = t.capabilityNames(st.eff)
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
func (r *Reader) user(s *Subject, st *status) {
	switch {
	case r.self.users != initialUser:
		s.unknown(User, "the reader is in a user namespace of its own")
	case st.uid == math.MaxUint32:
		s.unknown(User, "no user has the id %d", st.uid)
	default:
		uid := st.uid
		s.UID = &uid
	}
}

// powers tells how the thread could come to hold CAP_SYS_PTRACE over the
// reader, or "" if it cannot.
func (r *Reader) powers(t *task, st *status, users namespace, err error) string {
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
	// namespace above. The first one is above all.
	if r.self.users == initialUser || t.below(r.self.users) {
		return ""
	}
	return "CAP_SYS_PTRACE in " + set + ", and its user namespace is not below the reader's"
}

// ptraceSet names a set through which the thread has CAP_SYS_PTRACE or can gain
// it. Without no_new_privs a set-user-ID program gives what the bounding set
// lets through.
func ptraceSet(st *status) string {
	const bit = 1 << unix.CAP_SYS_PTRACE
	switch {
	case st.eff&bit != 0:
		return "CapEff"
	case st.prm&bit != 0:
		return "CapPrm"
	case st.inh&bit != 0:
		return "CapInh"
	case st.amb&bit != 0:
		return "CapAmb"
	case st.bnd&bit != 0 && !st.noNewPrivs:
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

// capabilities are those of include/uapi/linux/capability.h (6.18), by number.
var capabilities = [...]string{
	unix.CAP_CHOWN:              "CAP_CHOWN",
	unix.CAP_DAC_OVERRIDE:       "CAP_DAC_OVERRIDE",
	unix.CAP_DAC_READ_SEARCH:    "CAP_DAC_READ_SEARCH",
	unix.CAP_FOWNER:             "CAP_FOWNER",
	unix.CAP_FSETID:             "CAP_FSETID",
	unix.CAP_KILL:               "CAP_KILL",
	unix.CAP_SETGID:             "CAP_SETGID",
	unix.CAP_SETUID:             "CAP_SETUID",
	unix.CAP_SETPCAP:            "CAP_SETPCAP",
	unix.CAP_LINUX_IMMUTABLE:    "CAP_LINUX_IMMUTABLE",
	unix.CAP_NET_BIND_SERVICE:   "CAP_NET_BIND_SERVICE",
	unix.CAP_NET_BROADCAST:      "CAP_NET_BROADCAST",
	unix.CAP_NET_ADMIN:          "CAP_NET_ADMIN",
	unix.CAP_NET_RAW:            "CAP_NET_RAW",
	unix.CAP_IPC_LOCK:           "CAP_IPC_LOCK",
	unix.CAP_IPC_OWNER:          "CAP_IPC_OWNER",
	unix.CAP_SYS_MODULE:         "CAP_SYS_MODULE",
	unix.CAP_SYS_RAWIO:          "CAP_SYS_RAWIO",
	unix.CAP_SYS_CHROOT:         "CAP_SYS_CHROOT",
	unix.CAP_SYS_PTRACE:         "CAP_SYS_PTRACE",
	unix.CAP_SYS_PACCT:          "CAP_SYS_PACCT",
	unix.CAP_SYS_ADMIN:          "CAP_SYS_ADMIN",
	unix.CAP_SYS_BOOT:           "CAP_SYS_BOOT",
	unix.CAP_SYS_NICE:           "CAP_SYS_NICE",
	unix.CAP_SYS_RESOURCE:       "CAP_SYS_RESOURCE",
	unix.CAP_SYS_TIME:           "CAP_SYS_TIME",
	unix.CAP_SYS_TTY_CONFIG:     "CAP_SYS_TTY_CONFIG",
	unix.CAP_MKNOD:              "CAP_MKNOD",
	unix.CAP_LEASE:              "CAP_LEASE",
	unix.CAP_AUDIT_WRITE:        "CAP_AUDIT_WRITE",
	unix.CAP_AUDIT_CONTROL:      "CAP_AUDIT_CONTROL",
	unix.CAP_SETFCAP:            "CAP_SETFCAP",
	unix.CAP_MAC_OVERRIDE:       "CAP_MAC_OVERRIDE",
	unix.CAP_MAC_ADMIN:          "CAP_MAC_ADMIN",
	unix.CAP_SYSLOG:             "CAP_SYSLOG",
	unix.CAP_WAKE_ALARM:         "CAP_WAKE_ALARM",
	unix.CAP_BLOCK_SUSPEND:      "CAP_BLOCK_SUSPEND",
	unix.CAP_AUDIT_READ:         "CAP_AUDIT_READ",
	unix.CAP_PERFMON:            "CAP_PERFMON",
	unix.CAP_BPF:                "CAP_BPF",
	unix.CAP_CHECKPOINT_RESTORE: "CAP_CHECKPOINT_RESTORE",
}
