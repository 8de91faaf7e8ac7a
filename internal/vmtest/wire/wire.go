// Package wire is what the host and the agent in the test machine say to each
// other: a stream of JSON values, one Result for each Command, after one Hello.
package wire

import "time"

// Port names the virtio port that connects the two.
const Port = "afalg-policy.agent"

// Paths in the test machine.
const (
	ConfigPath = "/config.json" // in the initramfs
	ModulesDir = "/modules"     // in the initramfs: modules to load, in the order of their names
	RunDir     = "/run/vmtest"  // in the running system
)

// Config tells the agent how to set the machine up.
type Config struct {
	ModuleTree string // directory of the kernel's modules on the host
	Systemd    bool   // systemd is process 1
}

// Hello is the agent's first message.
type Hello struct {
	Release string        // uname -r
	Uptime  time.Duration // since the kernel started
}

// Command is a program to run in the test machine.
type Command struct {
	Args    []string
	Env     []string // added to PATH and HOME
	Stdin   []byte
	Timeout time.Duration // the whole process group is killed after it
}

// Result is how a command ended. A command that could not be started has
// Error set.
type Result struct {
	Stdout, Stderr []byte
	Exit           int    // exit status; 128 + number if a signal ended it, as in a shell
	Signal         string // name of the signal that ended it, "SIGSYS"
	TimedOut       bool
	Error          string
	Took           time.Duration
}
