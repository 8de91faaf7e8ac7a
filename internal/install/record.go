package install

import "github.com/afalg-policy/afalg-policy/internal/install/host"

// agentName is the platform that installs the agent's units. Before "systemd"
// meant closing all services, it was the agent's name, and hosts have records
// under it.
const (
	agentName   = "agent"
	systemdName = "systemd"
)

// readRecord returns the record of a platform, or nil. The agent's may have its
// former name.
func readRecord(h *host.Host, name string) (*host.Record, error) {
	r, err := h.ReadRecord(name)
	switch {
	case err != nil:
		return nil, err
	case name == systemdName && ofAgent(r):
		return nil, nil
	case name == agentName && r == nil:
		if r, err = h.ReadRecord(systemdName); err != nil || !ofAgent(r) {
			return nil, err
		}
	}
	return r, nil
}

// ofAgent reports whether a record is about the units of the agent.
func ofAgent(r *host.Record) bool { return r.Entry(unitDir+"/"+agentService) != nil }

// renameRecord gives the agent's record its present name. A kill in between
// leaves both: the one of the right name counts, and the next run removes the
// other.
func renameRecord(h *host.Host) error {
	r, err := h.ReadRecord(systemdName)
	if err != nil || !ofAgent(r) {
		return err
	}
	return h.RenameRecord(r, agentName)
}
