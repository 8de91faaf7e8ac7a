package afalg

import (
	"slices"
	"strings"
)

// errnoNames is indexed by number: the table of x86 and of every architecture
// with the generic one (include/uapi/asm-generic/errno-base.h and errno.h).
// MIPS, SPARC, PA-RISC and Alpha number most of those above 34 differently.
var errnoNames = strings.Fields(`
	- EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF
	ECHILD EAGAIN ENOMEM EACCES EFAULT ENOTBLK EBUSY EEXIST EXDEV ENODEV
	ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG ENOSPC ESPIPE
	EROFS EMLINK EPIPE EDOM ERANGE EDEADLK ENAMETOOLONG ENOLCK ENOSYS ENOTEMPTY
	ELOOP - ENOMSG EIDRM ECHRNG EL2NSYNC EL3HLT EL3RST ELNRNG EUNATCH
	ENOCSI EL2HLT EBADE EBADR EXFULL ENOANO EBADRQC EBADSLT - EBFONT
	ENOSTR ENODATA ETIME ENOSR ENONET ENOPKG EREMOTE ENOLINK EADV ESRMNT
	ECOMM EPROTO EMULTIHOP EDOTDOT EBADMSG EOVERFLOW ENOTUNIQ EBADFD EREMCHG ELIBACC
	ELIBBAD ELIBSCN ELIBMAX ELIBEXEC EILSEQ ERESTART ESTRPIPE EUSERS ENOTSOCK EDESTADDRREQ
	EMSGSIZE EPROTOTYPE ENOPROTOOPT EPROTONOSUPPORT ESOCKTNOSUPPORT EOPNOTSUPP EPFNOSUPPORT EAFNOSUPPORT EADDRINUSE EADDRNOTAVAIL
	ENETDOWN ENETUNREACH ENETRESET ECONNABORTED ECONNRESET ENOBUFS EISCONN ENOTCONN ESHUTDOWN ETOOMANYREFS
	ETIMEDOUT ECONNREFUSED EHOSTDOWN EHOSTUNREACH EALREADY EINPROGRESS ESTALE EUCLEAN ENOTNAM ENAVAIL
	EISNAM EREMOTEIO EDQUOT ENOMEDIUM EMEDIUMTYPE ECANCELED ENOKEY EKEYEXPIRED EKEYREVOKED EKEYREJECTED
	EOWNERDEAD ENOTRECOVERABLE ERFKILL EHWPOISON`)

var errnoAliases = map[string]string{
	"EWOULDBLOCK": "EAGAIN",
	"EDEADLOCK":   "EDEADLK",
	"ENOTSUP":     "EOPNOTSUPP", // one number in glibc and musl
}

// ErrnoByName returns the number of an errno ("EAFNOSUPPORT" is 97) by the
// generic table, whatever the host is.
func ErrnoByName(name string) (uint32, bool) {
	if alias, ok := errnoAliases[name]; ok {
		name = alias
	}
	return indexOf(errnoNames, name)
}

// ErrnoName returns the name of an errno, or "" if the number has none.
func ErrnoName(n uint32) string { return nameAt(errnoNames, n) }

// Errnos lists every name that ErrnoByName knows, aliases last.
func Errnos() []string {
	return slices.Concat(named(errnoNames), []string{"EDEADLOCK", "ENOTSUP", "EWOULDBLOCK"})
}

// noName marks a number without a name in the tables of this package.
const noName = "-"

func indexOf(table []string, name string) (uint32, bool) {
	i := slices.Index(table, name)
	if i < 0 || name == noName {
		return 0, false
	}
	return uint32(i), true
}

func nameAt(table []string, n uint32) string {
	if uint64(n) >= uint64(len(table)) || table[n] == noName {
		return ""
	}
	return table[n]
}

func named(table []string) []string {
	return slices.DeleteFunc(slices.Clone(table), func(s string) bool { return s == noName })
}
