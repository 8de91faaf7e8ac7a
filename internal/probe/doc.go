// Package probe asks the running kernel, route by route, whether this process
// can obtain an AF_ALG socket, or what else a policy closes. It makes sockets and
// binds them, and children that end at once, nothing else. It makes the kernel
// load no module unless Options.Load says so.
//
// # The questions
//
// A filter and a kernel without AF_ALG both answer EAFNOSUPPORT, and a real
// socket call would load the module. So each call is put as a set of
// questions, each with the family spelled the same way:
//
//   - alive: getpid by the same ABI. SIGSEGV on int $0x80 means no IA32
//     emulation; ENOSYS by x32 means no x32.
//   - control: a socket of a family that everybody may have. Its success proves
//     that the route exists and that the prober can walk it. AF_INET comes
//     first; AF_UNIX and AF_NETLINK stand in where a filter or the kernel
//     denies AF_INET. socketpair is controlled by AF_UNIX, which is the only
//     family here that can pair.
//   - gate: the call with AF_ALG and type 15, which no kernel knows. The kernel
//     checks the range of the type before it asks the LSM, loads a module or
//     looks up the family. So EINVAL means that the filters let the family
//     pass, and anything else is a filter's answer. The control's family is
//     asked with type 15 too: unless that gives EINVAL, a filter looks at types
//     and the gate proves nothing.
//   - real: the call with SOCK_SEQPACKET, with and without SOCK_CLOEXEC. It is
//     made only if the family is registered already, if nothing can load it,
//     or if Options.Load is set.
//   - bind, on a socket obtained: under the same conditions, for the module of
//     the algorithm.
//
// # The verdicts
//
//   - open: a socket was obtained. For socketpair, which yields none: the
//     kernel's own EOPNOTSUPP, so that the call got as far as loading the
//     module.
//   - loadable: filters let the call pass, and the real call was not made. An
//     LSM may still deny it, or the module may be missing; Options.Load asks.
//     Counts as open.
//   - undecided: the answers do not fit together, the prober cannot make the
//     call in this build, or something was short (memory, descriptors, time).
//     Counts as open.
//   - absent: the filters let the call pass, and the kernel has no AF_ALG.
//   - brokered: a socket of another family was handed out, a placeholder of a
//     broker that decides at bind.
//   - closed: a policy denied it. The errno shows which: SIGSYS or any errno at
//     the gate is a filter; past the gate, EACCES or EPERM is an LSM, and
//     EAFNOSUPPORT from a registered family is the kernel's own
//     crypto.af_alg_restrict=2, or a policy in the kernel. A control that is
//     denied like the gate means that the whole route is closed.
//   - unavailable: this kernel or machine does not have the route: no IA32
//     emulation, no x32, no io_uring, or no IORING_OP_SOCKET (EINVAL as the
//     operation's result; Linux 5.19). ENOSYS from io_uring_setup is a denial
//     where the kernel is known to have it (the sysctl kernel.io_uring_disabled,
//     a symbol), and unavailability otherwise.
//
// A route has several calls (socketpair has one an ABI, highbits has several
// patterns); the route's verdict is that of its most worrying call, in the
// order open, loadable, undecided, absent, brokered, closed, unavailable.
//
// A bind that gives ENOENT was denied by a policy (Linux 7.3's
// crypto.af_alg_restrict=1, a broker), or the algorithm is missing.
//
// # Denied classes
//
// What a policy closes besides AF_ALG (Options.Classes) is asked about in the
// same way. The gate belongs to the class and is refused by the kernel before it
// does anything: a type that no kernel knows (EINVAL); for a socket option, a
// descriptor that nobody has (EBADF). Where a class has a type, the call is made
// under a filter of the prober's own that answers TRACE: it is skipped with
// ENOSYS unless an earlier filter denies it. User namespaces are really made, by a child that ends at once. A
// lack of capabilities (EPERM behind the filters) is undecided: a user namespace
// may give them.
//
// # What it cannot see
//
// Only the program of a filter shows that it allows AF_ALG with one socket type,
// or with flags that are not asked. Nor does the prober see descriptors that
// somebody may still pass over a Unix socket.
//
// # How it asks
//
// A filter may kill, so a child asks the questions: the same binary, with
// Options.Child and the questions as arguments, which calls Answer. It answers
// on stdout, one line a question. If a question kills it, the signal is the
// answer, and another child gets the rest. All of it works without /proc,
// without privileges and in a user namespace.
package probe
