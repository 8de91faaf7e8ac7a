// Package dist holds the files that are installed beside the program; data
// only.
package dist

import _ "embed"

// AgentService and AgentSocket are the units of the agent.
var (
	//go:embed afalg-policy-agent.service
	AgentService string
	//go:embed afalg-policy-agent.socket
	AgentSocket string
	// AgentSocketcall is a drop-in of the service, for the sockets of 32-bit
	// programs.
	//go:embed afalg-policy-agent-socketcall.conf
	AgentSocketcall string
)

// The units of the policy in the kernel.
var (
	//go:embed afalg-policy-lsm.service
	LSMService string
	//go:embed afalg-policy-lsm-refresh.service
	LSMRefresh string
	//go:embed afalg-policy-lsm-check.service
	LSMCheck string
	//go:embed afalg-policy-lsm-check.timer
	LSMTimer string
)
