// Package dist holds what is installed beside the program; data only.
package dist

import _ "embed"

// AgentService and AgentSocket are the units of the agent.
var (
	//go:embed afalg-policy-agent.service
	AgentService string
	//go:embed afalg-policy-agent.socket
	AgentSocket string
)
