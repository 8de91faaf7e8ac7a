package broker

import (
	"time"
)

// Record is one decision.
type Record struct {
	Time       time.Time
	Workload   string
	Call       string // "socket", "bind", "accept"
	PID, TID   int
	Executable string // as the kernel shows it, whether it counts or not
	Binary     string // the same, if it is established
	SHA256     string
	UID        *uint32
	User       string
	Unit       string
	Algorithm  string // "hash:hmac(sha512)"; empty for a socket
	Allowed    bool
	Rule       string // that allowed it
	Reason     string // why it was denied
	// Errno is what the caller got, 0 for success: the kernel's, if it was
	// allowed.
	Errno uint32
}

// Observer is told what happens. Its methods are called from many goroutines,
// while the caller of the broker waits: they must be quick.
type Observer interface {
	// Decided tells of a decision.
	Decided(Record)
	// Answered tells how long a trapped call took, decision or not.
	Answered(call string, took time.Duration)
	// Sessions tells that there are more or fewer.
	Sessions(change int)
	// Failed tells of something that went wrong; the call was denied.
	Failed(what string, err error)
}

type nobody struct{}

func (nobody) Decided(Record)                 {}
func (nobody) Answered(string, time.Duration) {}
func (nobody) Sessions(int)                   {}
func (nobody) Failed(string, error)           {}
