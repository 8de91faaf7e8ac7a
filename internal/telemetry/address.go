package telemetry

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxPath is the longest path that fits into sun_path with its NUL
// (linux/un.h).
const maxPath = 107

// Listen opens an address for metrics: "unix:/PATH", for the user that the
// program runs as, or a loopback "127.0.0.1:PORT" or "[::1]:PORT", for every
// user of the machine. It refuses any other: a scrape needs no password.
func Listen(address string) (net.Listener, error) {
	l, err := listen(address)
	if err != nil {
		return nil, fmt.Errorf("metrics address %q: %w", address, err)
	}
	return l, nil
}

func listen(address string) (net.Listener, error) {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		return listenUnix(path)
	}
	where, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, errors.New(notAnAddress(address))
	}
	if ip := where.Addr(); ip != netip.AddrFrom4([4]byte{127, 0, 0, 1}) && ip != netip.IPv6Loopback() {
		return nil, fmt.Errorf("%s may be reached from elsewhere, and a scrape needs no password: use 127.0.0.1, [::1] or unix:/PATH, and a proxy that asks for one if metrics must leave the machine", ip)
	}
	return net.Listen("tcp", where.String())
}

func notAnAddress(address string) string {
	const use = "write unix:/PATH, 127.0.0.1:PORT or [::1]:PORT"
	host, _, err := net.SplitHostPort(address)
	switch {
	case strings.HasPrefix(address, "/"):
		return fmt.Sprintf("a path needs a prefix: write unix:%s", address)
	case err != nil:
		return "it is no address and port: " + use
	case host == "":
		return "without a host it would be reached from elsewhere, and a scrape needs no password: " + use
	case net.ParseIP(host) == nil:
		return "a name may stand for any address: " + use
	default:
		return "it has no valid port: " + use
	}
}

// listenUnix makes a socket to which only its owner may connect. It replaces an
// existing socket if the process of that is gone. It follows no link at the end
// of the path.
func listenUnix(path string) (net.Listener, error) {
	switch {
	case strings.HasPrefix(path, "@"):
		return nil, errors.New("an abstract socket has no owner, so that any process could connect: use a path")
	case !filepath.IsAbs(path) || filepath.Clean(path) != path || path == "/":
		return nil, errors.New("the path must be absolute, without \".\", \"..\" and double or final slashes")
	case strings.ContainsRune(path, 0):
		return nil, errors.New("the path holds a NUL")
	case len(path) > maxPath:
		return nil, fmt.Errorf("the path has %d bytes; a socket takes %d at most", len(path), maxPath)
	}
	l, err := bindUnix(path)
	if errors.Is(err, unix.EADDRINUSE) {
		if err := removeStale(path); err != nil {
			return nil, err
		}
		l, err = bindUnix(path)
	}
	return l, err
}

// removeStale removes a socket that nobody listens on, and nothing else.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != os.ModeSocket {
		return errors.New("there is something that is no socket: remove it, or use another path")
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		c.Close()
		return errors.New("a running process listens there: end it, or use another path")
	case errors.Is(err, os.ErrNotExist):
		return nil
	case !errors.Is(err, unix.ECONNREFUSED):
		return fmt.Errorf("whether a process listens there is not known: %w", err)
	}
	if now, err := os.Lstat(path); err != nil || !os.SameFile(info, now) {
		return errors.New("another process is making a socket there: end it, or use another path")
	}
	return os.Remove(path)
}

// bindUnix binds without following a link. The mode of the new file is that of
// the socket (unix_bind_bsd in net/unix/af_unix.c), so others may not connect
// at any moment.
func bindUnix(path string) (net.Listener, error) {
	var failed error
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		err := c.Control(func(fd uintptr) { failed = unix.Fchmod(int(fd), 0o600) })
		return errors.Join(err, failed)
	}}
	l, err := config.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	u := l.(*net.UnixListener)
	u.SetUnlinkOnClose(false)
	info, err := os.Lstat(path)
	if err == nil && info.Mode().Perm() != 0o600 {
		err = fmt.Errorf("the socket got the mode %04o, not 0600", info.Mode().Perm())
	}
	if err != nil {
		u.Close()
		return nil, err
	}
	return &unixListener{UnixListener: u, path: path, info: info}, nil
}

// unixListener removes its own file when it is closed, and no other in its
// place.
type unixListener struct {
	*net.UnixListener
	path string
	info os.FileInfo
}

func (l *unixListener) Close() error {
	if now, err := os.Lstat(l.path); err == nil && os.SameFile(l.info, now) {
		os.Remove(l.path)
	}
	return l.UnixListener.Close()
}
