package plan

import "time"

// Record is one decision as it was carried out, whoever did so: what logs, metrics
// and the learner are told.
type Record struct {
	Time       time.Time
	Workload   string
	Call       string // "socket", "bind", "setsockopt", "accept"
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

// Observer receives what happens. Its methods are called from many goroutines,
// while the one who asked waits: they must be quick.
type Observer interface {
	// Decided receives a decision.
	Decided(Record)
	// Answered receives how long a call took, decision or not.
	Answered(call string, took time.Duration)
	// Sessions receives the change of their number.
	Sessions(change int)
	// Failed receives an error; the call was denied.
	Failed(what string, err error)
}
