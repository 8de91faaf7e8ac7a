package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/notify"
)

// record describes a container. It lies beside the listener in the service
// manager's store, in memory that nobody can change any more.
type record struct {
	Version int      `json:"version"`
	ID      string   `json:"id"`
	PID     int      `json:"pid"` // of its first process, for people
	UID     uint32   `json:"uid"` // of the peer that brought it
	Trusted bool     `json:"trusted"`
	Grants  []string `json:"grants"` // names of rules
}

const (
	recordVersion = 1
	recordName    = "afalg-policy-container"
	recordSeals   = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	maxRecord     = maxState
	keyPrefix     = "C"
)

// keys names what goes to the store. A container's key is not its id, which the peer
// chose. The next agent gets the name of every descriptor in one variable, and Linux
// takes no longer one than 128 KiB (MAX_ARG_STRLEN). So a key is a letter and a number,
// which has six digits at most for the first two billion keys.
type keys struct{ last atomic.Uint32 }

func (k *keys) next(prefix string) string {
	return prefix + strconv.FormatUint(uint64(k.last.Add(1)), keyBase)
}

// keyBase is that of a key's number.
const keyBase = 36

// follow has the numbers go on behind those of stored names.
func (k *keys) follow(stored map[string][]int) {
	for name := range stored {
		// A name of another form is never given.
		if n, err := strconv.ParseUint(name[1:], keyBase, 32); err == nil {
			k.last.Store(max(k.last.Load(), uint32(n)))
		}
	}
}

// seal writes the record to memory, and forbids changes to it.
func (r record) seal() (*os.File, error) {
	r.Version = recordVersion
	return seal(r)
}

func seal(record any) (*os.File, error) {
	text, err := json.Marshal(record)
	if err != nil {
		return nil, err
	}
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate(recordName, flags|unix.MFD_NOEXEC_SEAL)
	if err == unix.EINVAL { // before 6.3
		fd, err = unix.MemfdCreate(recordName, flags)
	}
	if err != nil {
		return nil, fmt.Errorf("write a record: %w", err)
	}
	f := os.NewFile(uintptr(fd), recordName)
	if _, err = f.Write(text); err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, recordSeals)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("write a record: %w", err)
	}
	return f, nil
}

// unseal reads a record.
func unseal(fd int) (record, error) {
	r, err := readRecord(fd)
	if err != nil {
		return record{}, fmt.Errorf("read a record: %w", err)
	}
	return r, nil
}

func readRecord(fd int) (r record, err error) {
	text, err := sealed(fd)
	if err != nil {
		return r, err
	}
	return parseRecord(text)
}

// sealed reads memory that nobody can have changed.
func sealed(fd int) ([]byte, error) {
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil {
		return nil, err
	}
	if seals&recordSeals != recordSeals {
		return nil, fmt.Errorf("it could have been changed (seals %#x)", seals)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Size > maxRecord {
		return nil, fmt.Errorf("it has %d bytes", st.Size)
	}
	text := make([]byte, st.Size)
	if n, err := unix.Pread(fd, text, 0); err != nil || n != len(text) {
		return nil, errors.Join(err, io.ErrUnexpectedEOF)
	}
	return text, nil
}

func parseRecord(text []byte) (r record, err error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return record{}, err
	}
	switch {
	case d.More():
		return record{}, errors.New("more than a record")
	case r.Version != recordVersion:
		return record{}, fmt.Errorf("version %d, and this program reads version %d", r.Version, recordVersion)
	case r.ID == "" || len(r.ID) > maxID:
		return record{}, errors.New("no container is named")
	case !r.Trusted && len(r.Grants) > 0:
		return record{}, errors.New("grants of a peer that is not trusted")
	}
	return r, nil
}

// inheritance is what the service manager passed in.
type inheritance struct {
	sockets []int // named "listen"
	stored  map[string][]int
	other   []string // names, closed already
}

// takeOver takes the descriptors from the environment.
func takeOver() inheritance {
	in := inheritance{stored: map[string][]int{}}
	for _, f := range activation.Files(true) {
		name := f.Name()
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		f.Close()
		switch {
		case err != nil:
			in.other = append(in.other, fmt.Sprintf("%s (%v)", name, err))
		case name == listenName:
			in.sockets = append(in.sockets, fd)
		case strings.HasPrefix(name, keyPrefix), strings.HasPrefix(name, sessionPrefix):
			in.stored[name] = append(in.stored[name], fd)
		default:
			unix.Close(fd)
			in.other = append(in.other, name)
		}
	}
	return in
}

// close closes the unused descriptors. The store keeps its own.
func (in inheritance) close() {
	for _, fds := range in.stored {
		notify.CloseAll(fds)
	}
}

// restore serves the stored containers again. It does not ask whether they hold
// sockets of AF_ALG: by now they may, from us.
func (a *Agent) restore(in inheritance) {
	for _, name := range in.other {
		a.failed("store", fmt.Errorf("descriptor %q was passed in, and is not one of ours: it was closed", name))
	}
	sessions := a.recallSessions(in.stored)
	restored := 0
	for key, fds := range in.stored {
		c, err := recall(key, fds)
		if c == nil {
			a.discard(key, err)
			continue
		}
		if err != nil {
			a.failed("store", fmt.Errorf("%s is served without grants: %w", key, err))
		}
		c.sessions = sessions[key]
		delete(sessions, key)
		if !a.admitted.enter(c.peer()) {
			c.close()
			a.discard(key, errors.New("there are too many containers"))
			continue
		}
		restored++
		a.endLost(c)
		a.serve(c)
	}
	for _, left := range sessions { // of containers that have ended
		for _, v := range left {
			v.Close()
		}
	}
	if restored > 0 {
		a.note("%s taken back from the service manager's store", containers(restored))
	}
}

// endLost ends the calls that a killed agent was answering.
func (a *Agent) endLost(c *container) {
	if c.slots == nil {
		return
	}
	if lost := c.listener.FailLost(c.slots, unix.ENOSYS); lost > 0 {
		a.failed("store", fmt.Errorf("container %q: %d calls were under way when the agent was killed, and fail with ENOSYS", c.ID, lost))
	}
}

func (a *Agent) discard(key string, err error) {
	if err != nil {
		a.failed("store", fmt.Errorf("%s is dropped: %w", key, err))
	}
	if err := a.manager.Forget(key); err != nil {
		a.failed("store", err)
	}
}

// recall makes a container from the descriptors under one name, and takes them
// over. On an error the container holds no grant. It is nil, without an error,
// if the listener of one that ended is gone.
func recall(key string, fds []int) (*container, error) {
	var listeners, slots, records []int
	for _, fd := range fds {
		switch link := linkOf(fd); {
		case strings.HasSuffix(link, "seccomp notify"): // checked again later
			listeners = append(listeners, fd)
		case strings.HasPrefix(link, "/memfd:"+notify.SlotsName+" "):
			slots = append(slots, fd)
		default:
			records = append(records, fd)
		}
	}
	defer notify.CloseAll(records)
	if len(listeners) != 1 {
		notify.CloseAll(append(listeners, slots...))
		if len(listeners) > 1 {
			return nil, fmt.Errorf("%d listeners", len(listeners))
		}
		return nil, nil
	}
	l, err := notify.NewListener(listeners[0])
	if err != nil {
		notify.CloseAll(slots)
		return nil, err
	}
	c := &container{key: key, listener: l, record: record{ID: "unknown (" + key + ")"}}
	if len(slots) == 1 {
		c.slots, _ = notify.OpenSlots(slots[0]) // without it, lost calls wait
	} else {
		notify.CloseAll(slots)
	}
	if len(records) != 1 {
		return c, fmt.Errorf("%d records", len(records))
	}
	r, err := unseal(records[0])
	if err != nil {
		return c, err
	}
	c.record = r
	return c, nil
}

func linkOf(fd int) string {
	link, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return ""
	}
	return link
}
