// Package wire defines the messages between the host and the agent in a test
// machine: a stream of JSON values. The agent begins with a Hello. It answers
// each Command with Replies, the last of which has the Result.
package wire

import (
	"os"
	"time"
)

// Port names the virtio port that connects the two in an emulated machine.
const Port = "afalg-policy.agent"

// Paths in the test machine.
const (
	ConfigPath = "/config.json" // in the initramfs
	ModulesDir = "/modules"     // in the initramfs: modules to load, in the order of their names
	RunDir     = "/run/vmtest"  // in the running system
	BoxDir     = "/run/box"     // in a box: shared with the host
	BoxSocket  = BoxDir + "/agent.sock"
)

// Config tells the agent how to set up an emulated machine.
type Config struct {
	Alone      bool   // the root is empty, and not the host's
	ModuleTree string // directory of the kernel's modules on the host; "" if Alone
	Systemd    bool   // systemd is process 1
	Shell      bool   // a shell on the console takes the agent's place
	Before     string // a shell script that changes the root before systemd starts
}

// Hello is the agent's first message.
type Hello struct {
	Release string        // uname -r
	Uptime  time.Duration // since the kernel started
}

// Command is a program to run in the test machine, or a file to write or to read
// there.
type Command struct {
	File  *File  // if set, nothing else is
	Read  string // path of a file, the content of which is the Result's Stdout; if set, nothing else is
	Args  []string
	Env   []string // added to PATH and HOME
	Stdin []byte
	// Timeout bounds the time that the machine is idle meanwhile, or ten times
	// as long at work; then the whole process group is killed. A command that
	// hangs leaves the machine idle, and a slow one does not.
	Timeout time.Duration
}

// File is written with the directories above it.
type File struct {
	Path string
	Data []byte
	Mode os.FileMode
}

// Reply is a sign of life while a command runs, or its result.
type Reply struct {
	Result *Result
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
