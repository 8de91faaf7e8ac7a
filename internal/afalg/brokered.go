package afalg

import "golang.org/x/sys/unix"

// BrokeredCall is a call that a profile leaves to a broker. The profile tells
// its part of the call from the rest by one argument; the comparison need not be
// exact, since a workload with a broker holds no AF_ALG socket on which the call
// could do harm.
type BrokeredCall struct {
	Name  string
	Makes bool   // a socket, of the family in argument 0; the others are about one
	Arg   uint   // that tells the broker's part of the call
	Value uint64 // that it then has
	Int   bool   // the kernel takes an int, and ignores the upper half
	// Socketcall is the number by which socketcall(2) makes the call
	// (include/uapi/linux/net.h), Args how many arguments lie behind its pointer.
	Socketcall uint64
	Args       int
}

// BrokeredCalls lists what a broker answers. It is asked for socketpair by
// socketcall alone, where the family cannot be seen: by itself the call is
// closed.
func BrokeredCalls() []BrokeredCall {
	return []BrokeredCall{
		{"socket", true, 0, Family, true, socketcallSocket, 3},
		{"socketpair", true, 0, Family, true, socketcallSocketpair, 4},
		{"bind", false, 2, SockaddrSize, true, 2, 3},
		{"setsockopt", false, 1, unix.SOL_ALG, true, 14, 5},
		{"accept", false, 1, 0, false, 5, 3}, // no address: AF_ALG has none to give
		{"accept4", false, 1, 0, false, 18, 4},
	}
}

// Number returns the number of a call on the ABI as a filter sees it, 0 if the
// ABI lacks the call. A call that the table does not have is not known.
func (a ABI) Number(call string) (nr uint32, known bool) {
	switch call {
	case "socket":
		nr = a.Socket
	case "socketpair":
		nr = a.Socketpair
	case "socketcall":
		nr = a.Socketcall
	case "bind":
		nr = a.Bind
	case "setsockopt":
		nr = a.Setsockopt
	case "accept":
		nr = a.Accept
	case "accept4":
		nr = a.Accept4
	default:
		return 0, false
	}
	if nr == 0 {
		return 0, true
	}
	return a.Bit | nr, true
}
