package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/broker"
	"github.com/afalg-policy/afalg-policy/internal/notify"
)

// A session that is open when the agent stops goes to the store as well, so
// that a client with an open session does not notice: the kept end, the parent,
// and this record of them, under one name. The next agent takes it back and out
// of the store. The sessions of a killed agent are lost; the client's next call
// fails.
type sessionRecord struct {
	Version   int        `json:"version"`
	Container string     `json:"container"` // key of its container
	Inode     uint64     `json:"inode"`
	Cookie    uint64     `json:"cookie"`
	Type      afalg.Type `json:"type"` // with an empty name: not bound
	Name      string     `json:"name"`
}

const sessionPrefix = "S"

// keepSessions stores the open sessions of a container, and closes them here.
func (a *Agent) keepSessions(c *container) {
	lost := 0
	for _, v := range c.workload.Save() {
		if !a.manager.Present() || a.keepSession(c, v) != nil {
			lost++
		}
		v.Close()
	}
	if lost > 0 {
		a.failed("store", fmt.Errorf("container %q: %d open sessions are lost", c.ID, lost))
	}
}

func (a *Agent) keepSession(c *container, v broker.Saved) error {
	f, err := seal(sessionRecord{recordVersion, c.key, v.Inode, v.Cookie, v.Bound.Type, v.Bound.Name})
	if err != nil {
		return err
	}
	defer f.Close()
	return a.manager.Keep(a.keys.next(sessionPrefix), v.Kept, v.Parent, int(f.Fd()))
}

// recallSessions sorts the sessions of the store by the key of their container.
// An incomplete one belongs to a placeholder that was closed meanwhile.
func (a *Agent) recallSessions(stored map[string][]int) map[string][]broker.Saved {
	found := map[string][]broker.Saved{}
	for key, fds := range stored {
		if !strings.HasPrefix(key, sessionPrefix) {
			continue
		}
		delete(stored, key)
		container, v, err := recallSession(fds)
		if err == nil {
			found[container] = append(found[container], v)
		} else {
			notify.CloseAll(fds)
		}
		a.discard(key, nil)
	}
	return found
}

// recallSession takes over the descriptors unless it fails.
func recallSession(fds []int) (container string, v broker.Saved, err error) {
	v = broker.Saved{Kept: -1, Parent: -1}
	record := -1
	for _, fd := range fds {
		switch domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); {
		case err != nil:
			record = fd
		case domain == unix.AF_UNIX:
			v.Kept = fd
		case domain == afalg.Family:
			v.Parent = fd
		}
	}
	if len(fds) != 3 || record < 0 || v.Kept < 0 || v.Parent < 0 {
		return "", v, errors.New("not a kept end, a parent and a record")
	}
	text, err := sealed(record)
	if err != nil {
		return "", v, err
	}
	var r sessionRecord
	if err := json.Unmarshal(text, &r); err != nil {
		return "", v, err
	}
	if r.Version != recordVersion {
		return "", v, fmt.Errorf("version %d", r.Version)
	}
	unix.Close(record)
	v.Inode, v.Cookie = r.Inode, r.Cookie
	v.Bound = afalg.Algorithm{Type: r.Type, Name: r.Name}
	return r.Container, v, nil
}
