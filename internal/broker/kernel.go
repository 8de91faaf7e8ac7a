package broker

import (
	"runtime"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/notify"
)

// Crypto is the kernel's side of a session.
type Crypto interface {
	Socket() (fd int, err error)
	// Bind chooses the algorithm, with privilege or without.
	Bind(fd int, a *unix.SockaddrALG, privileged bool) error
	SetOption(fd, name int, value []byte, length uint32) error
	Accept(fd int, flags int) (operation int, err error)
}

// Kernel is AF_ALG itself.
type Kernel struct{}

// Socket makes a parent socket.
func (Kernel) Socket() (int, error) {
	return unix.Socket(unix.AF_ALG, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
}

// Bind binds with the privilege of the caller, not with ours: since Linux 7.3
// the kernel allows some algorithms only to callers with one of two
// capabilities (crypto.af_alg_restrict). That is stricter than the plan, never
// wider.
func (Kernel) Bind(fd int, a *unix.SockaddrALG, privileged bool) (err error) {
	if privileged {
		return unix.Bind(fd, a)
	}
	lowered := unprivileged(func() { err = unix.Bind(fd, a) })
	if lowered != nil {
		return unix.EPERM
	}
	return err
}

// SetOption sets a key or a size.
func (Kernel) SetOption(fd, name int, value []byte, length uint32) error {
	return notify.Setsockopt(fd, unix.SOL_ALG, name, value, length)
}

// Accept makes an operation socket.
func (Kernel) Accept(fd, flags int) (int, error) { return notify.Accept(fd, flags) }

// adminCaps are the capabilities that AF_ALG asks for.
const adminCaps = 1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_SYS_ADMIN

func isPrivileged(capabilities []string) bool {
	return slices.Contains(capabilities, "CAP_NET_ADMIN") || slices.Contains(capabilities, "CAP_SYS_ADMIN")
}

// unprivileged calls f on a thread that has none of adminCaps, or not at all.
func unprivileged(f func()) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	runtime.LockOSThread()
	if err := unix.Capget(&header, &caps[0]); err != nil {
		runtime.UnlockOSThread()
		return err
	}
	if caps[0].Effective&adminCaps == 0 {
		defer runtime.UnlockOSThread()
		f()
		return nil
	}
	less := caps
	less[0].Effective &^= adminCaps
	if err := unix.Capset(&header, &less[0]); err != nil {
		runtime.UnlockOSThread()
		return err
	}
	f()
	if err := unix.Capset(&header, &caps[0]); err != nil {
		return err // the thread stays locked, and ends with its goroutine
	}
	runtime.UnlockOSThread()
	return nil
}
