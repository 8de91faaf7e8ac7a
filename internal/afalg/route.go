package afalg

// Route is a way to obtain an AF_ALG socket, or to load its module.
type Route string

// The routes, each measured open on Debian's 6.12 kernel.
const (
	RouteSocket           Route = "socket"
	RouteSocketHighbits   Route = "socket-highbits"
	RouteCompatSocket     Route = "compat-socket"
	RouteCompatSocketcall Route = "compat-socketcall"
	RouteX32Socket        Route = "x32-socket"
	RouteIOUring          Route = "io_uring"
	RouteSocketpair       Route = "socketpair"
	RouteInherited        Route = "inherited"
)

// RouteInfo describes a route for people.
type RouteInfo struct {
	Route   Route
	How     string // the call that a program makes
	Seccomp string // a seccomp filter's view of it
}

// Routes lists every route in the order in which reports show them.
func Routes() []RouteInfo {
	return []RouteInfo{
		{RouteSocket, "socket(AF_ALG, …)", "the call, the family in argument 0"},
		{RouteSocketHighbits, "socket(AF_ALG | 1<<32, …): the kernel takes an int", "argument 0 with high bits set"},
		{RouteCompatSocket, "the 32-bit socket call (int $0x80, AArch32, …)", "another architecture word and number"},
		{RouteCompatSocketcall, "socketcall(SYS_SOCKET, …)", "call number 1; the family is behind a pointer"},
		{RouteX32Socket, "the x32 socket call (syscall.x32=y)", "the x86-64 architecture, number with bit 30"},
		{RouteIOUring, "IORING_OP_SOCKET and IORING_OP_BIND", "only io_uring_setup, io_uring_enter, io_uring_register"},
		{RouteSocketpair, "socketpair(AF_ALG, …): no descriptor, but loads the module", "the call, the family in argument 0"},
		{RouteInherited, "a descriptor passed in from outside", "nothing"},
	}
}

// Call is one system call as a seccomp filter sees it: the low 32 bits of
// argument 0 are the route's family or call number.
type Call struct {
	Route Route
	ABI   ABI
	Name  string // the system call's name
	Nr    uint32
	// Arg0 is the value of the low 32 bits of argument 0; nil if the call
	// belongs to the route whatever its arguments are.
	Arg0 *uint32
	High High
}

// High says which high halves of argument 0 belong to a call.
type High int

const (
	// HighAny covers every value: the kernel ignores that half.
	HighAny High = iota
	// HighZero covers the canonical call only.
	HighZero
	// HighSet covers the calls whose high half is not zero.
	HighSet
)

const (
	socketcallSocket     = 1 // SYS_SOCKET, include/uapi/linux/net.h
	socketcallSocketpair = 8 // SYS_SOCKETPAIR
)

// Calls lists the calls by which the ABI reaches the family, each with the
// route that it belongs to. RouteInherited has none.
func (a ABI) Calls(family uint32) []Call {
	var calls []Call
	add := func(r Route, name string, nr uint32, arg0 *uint32, high High) {
		if nr != 0 {
			calls = append(calls, Call{r, a, name, a.Bit | nr, arg0, high})
		}
	}
	one, eight := uint32(socketcallSocket), uint32(socketcallSocketpair)
	switch a.Kind {
	case Native:
		add(RouteSocket, "socket", a.Socket, &family, HighZero)
		add(RouteSocketHighbits, "socket", a.Socket, &family, HighSet)
	case Compat:
		add(RouteCompatSocket, "socket", a.Socket, &family, HighAny)
	case X32:
		add(RouteX32Socket, "socket", a.Socket, &family, HighAny)
	}
	add(RouteCompatSocketcall, "socketcall", a.Socketcall, &one, HighAny)
	add(RouteSocketpair, "socketpair", a.Socketpair, &family, HighAny)
	add(RouteSocketpair, "socketcall", a.Socketcall, &eight, HighAny)
	for i, name := range []string{"io_uring_setup", "io_uring_enter", "io_uring_register"} {
		add(RouteIOUring, name, a.IOUring+uint32(i), nil, HighAny)
	}
	return calls
}
