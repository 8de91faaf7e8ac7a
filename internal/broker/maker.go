package broker

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/notify"
)

// MakeSockets is the helper's side. It runs until the other side is closed.
func MakeSockets(socket int) error {
	buf := make([]byte, maxOrder)
	for {
		n, along, err := notify.ReceiveFDs(socket, buf, 2)
		if err != nil || n == 0 {
			return err
		}
		if len(along) == 0 {
			return errors.New("an order that nobody waits for")
		}
		// There are as many as calls under way, which are bounded.
		go answerOrder(bytes.Clone(buf[:n]), along[0], along[1:])
	}
}

func answerOrder(text []byte, reply int, along []int) {
	defer unix.Close(reply)
	fds, err := fulfil(text, along)
	defer notify.CloseAll(fds)
	notify.CloseAll(along)
	var errno unix.Errno
	message := make([]byte, 4)
	switch {
	case errors.As(err, &errno):
		binary.NativeEndian.PutUint32(message, uint32(errno))
	case err != nil:
		message = append(message, err.Error()...)
		message = message[:min(len(message), maxReply)]
	}
	notify.SendFDs(reply, message, fds...) // a caller that waits no more needs no answer
}

// fulfil returns an errno where the kernel refused the call itself, and another
// error where the caller's identity could not be taken on.
func fulfil(text []byte, along []int) (fds []int, err error) {
	var o order
	if err := json.Unmarshal(text, &o); err != nil || o.Same != (len(along) == 0) {
		return nil, errors.New("an order that cannot be read")
	}
	if o.Family == afalg.Family {
		return nil, unix.EAFNOSUPPORT
	}
	enter, err := o.elsewhere()
	if err != nil {
		return nil, err
	}
	onThread(func() {
		if err = o.enterNetwork(along); err != nil {
			return
		}
		if enter {
			fds, err = o.createIn()
			return
		}
		if err = o.takeOn(); err == nil {
			fds, err = o.create()
		}
	})
	return fds, err
}

// onThread calls f on a thread of its own, which ends afterwards: the goroutine
// ends without unlocking it. The main thread will not do: it would not end, and
// its identity shows as that of the process.
func onThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			onThread(f)
			runtime.UnlockOSThread()
			return
		}
		f()
	}()
	<-done
}

func (o order) create() ([]int, error) {
	kind := int(o.Kind) | unix.SOCK_CLOEXEC
	if o.Pair {
		ends, err := unix.Socketpair(int(o.Family), kind, int(o.Protocol))
		if err != nil {
			return nil, err
		}
		return ends[:], nil
	}
	fd, err := unix.Socket(int(o.Family), kind, int(o.Protocol))
	if err != nil {
		return nil, err
	}
	return []int{fd}, nil
}

func (o order) enterNetwork(namespace []int) error {
	if len(namespace) == 0 {
		return nil
	}
	if err := unix.Setns(namespace[0], unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter the caller's network namespace: %v", err)
	}
	return nil
}

// takeOn gives this thread the caller's identity. Only the raw calls act on one
// thread.
func (o order) takeOn() error {
	privileged, err := o.privileged()
	if err != nil {
		return err
	}
	if privileged {
		if err := o.identity(); err != nil {
			return fmt.Errorf("become user %d, group %d: %v", o.UID, o.GID, err)
		}
	}
	header, data, err := o.capabilities()
	if err == nil {
		err = unix.Capset(&header, &data[0])
	}
	if err != nil {
		return fmt.Errorf("take on the caller's capabilities: %v", err)
	}
	return nil
}

// privileged reports whether this process can take on any identity. Otherwise
// it serves its own user.
func (o order) privileged() (bool, error) {
	if unix.Geteuid() == 0 {
		return true, nil
	}
	if o.UID != unix.Geteuid() || o.GID != unix.Getegid() {
		return false, fmt.Errorf("become user %d, group %d: it takes root", o.UID, o.GID)
	}
	return false, nil
}

func (o order) identity() error {
	groups := make([]uint32, len(o.Groups)+1) // never empty, for its address
	for i, g := range o.Groups {
		groups[i] = uint32(g)
	}
	return errors.Join(
		unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0),
		notify.SetThreadIDs(o.UID, o.GID, groups[:len(o.Groups)]),
	)
}

// capabilities returns those capabilities of this thread that the caller has.
func (o order) capabilities() (header unix.CapUserHeader, data [2]unix.CapUserData, err error) {
	header.Version = unix.LINUX_CAPABILITY_VERSION_3
	if err := unix.Capget(&header, &data[0]); err != nil {
		return header, data, err
	}
	for i := range data {
		kept := data[i].Permitted & uint32(o.Caps>>(32*i))
		data[i] = unix.CapUserData{Effective: kept, Permitted: kept}
	}
	return header, data, nil
}
