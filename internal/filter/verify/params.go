package verify

// param is a parameter of a system call as the kernel declares it
// (include/linux/syscalls.h).
type param struct {
	name string
	// narrow parameters are int, unsigned int or u32: the kernel ignores the
	// upper half of the register, and a filter sees it.
	narrow bool
}

func narrow(names ...string) []param { return params(true, names) }
func wide(names ...string) []param   { return params(false, names) }

func params(isNarrow bool, names []string) []param {
	var list []param
	for _, n := range names {
		list = append(list, param{n, isNarrow})
	}
	return list
}

// signatures lists the calls whose arguments profiles compare, or that reach a
// socket. The argument types of other calls are unknown, and nothing is said
// about them.
var signatures = map[string][]param{
	"socket":            narrow("family", "type", "protocol"),
	"socketpair":        append(narrow("family", "type", "protocol"), wide("sv")...),
	"socketcall":        append(narrow("call"), wide("args")...),
	"bind":              append(append(narrow("fd"), wide("addr")...), narrow("addrlen")...),
	"setsockopt":        append(append(narrow("fd", "level", "optname"), wide("optval")...), narrow("optlen")...),
	"accept4":           append(append(narrow("fd"), wide("addr", "addrlen")...), narrow("flags")...),
	"io_uring_setup":    append(narrow("entries"), wide("params")...),
	"io_uring_enter":    append(narrow("fd", "to_submit", "min_complete", "flags"), wide("argp", "argsz")...),
	"io_uring_register": append(append(narrow("fd", "opcode"), wide("arg")...), narrow("nr_args")...),
	"seccomp":           append(narrow("operation", "flags"), wide("args")...),
	"personality":       narrow("personality"),
	"ioctl":             append(narrow("fd", "cmd"), wide("arg")...),
	"fcntl":             append(narrow("fd", "cmd"), wide("arg")...),
	"prctl":             narrow("option"),
	"keyctl":            narrow("option"),
	"bpf":               append(append(narrow("cmd"), wide("attr")...), narrow("size")...),
	"setns":             narrow("fd", "nstype"),
	"kill":              narrow("pid", "sig"),
	"clone":             narrow("flags"), // the second argument on s390x
	"unshare":           wide("flags"),
	"ptrace":            wide("request", "pid", "addr", "data"),
}

// isNarrow reports whether the kernel is known to take 32 bits of an argument.
func isNarrow(call string, arg int) bool {
	p := signatures[call]
	return arg < len(p) && p[arg].narrow
}

// familyArgument reports whether argument 0 of a call is a socket family.
func familyArgument(call string) bool { return call == "socket" || call == "socketpair" }
