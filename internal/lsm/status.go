package lsm

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/lsm/guard"
)

// Status is what is in force now, as the kernel says. The zero value is
// nothing.
type Status struct {
	State    *State            `json:"state"` // what the load wrote; nil if nothing is loaded
	Host     Host              `json:"host"`
	Faults   []string          `json:"faults,omitempty"` // why it is not in force as it was loaded
	Counters map[string]uint64 `json:"counters,omitempty"`
	Misses   uint64            `json:"misses"` // calls that went by unasked
	Old      []Socket          `json:"old,omitempty"`
}

// InForce reports whether the policy decides, not only records.
func (s *Status) InForce() bool { return s.State != nil && len(s.Faults) == 0 && !s.State.Audit }

// Socket is a socket of AF_ALG from before the load.
type Socket struct {
	PID       int    `json:"pid"`
	FD        int    `json:"fd"`
	Operation bool   `json:"operation"` // it works on; a parent is refused at bind and accept
	Shown     string `json:"shown"`     // the executable of the holder
}

// counterNames are the metrics, by index.
var counterNames = map[int]string{
	guard.CountAllowed: "allowed", guard.CountDenied: "denied", guard.CountNoTable: "denied-without-table",
	guard.CountUnmarked: "denied-old-socket", guard.CountFull: "denied-full", guard.CountLost: "lost-records",
	guard.CountZeroCopy: "denied-zero-copy",
}

// ReadStatus asks the kernel. It waits for a load that is under way.
func ReadStatus() (*Status, error) {
	unlock, err := lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	return readStatus(FmodRet, sweepMarks)
}

// Inspect is ReadStatus for one who changes nothing: it makes no file, forgets no
// socket, and asks about preemption only where that matters to what is loaded. It
// fails while a load is under way.
func Inspect() (*Status, error) {
	if err := initialNamespaces(); err != nil {
		return nil, err
	}
	if f, err := os.Open(lockFile()); err == nil {
		defer f.Close()
		if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil {
			return nil, hosterr.Errorf("a load of the kernel half is under way: %w", err)
		}
	}
	attachment := LSM
	if st, err := ReadState(); err == nil {
		attachment = st.Attachment
	}
	return readStatus(attachment, func(pinned) error { return nil })
}

func readStatus(a Attachment, sweep func(pinned) error) (*Status, error) {
	h, err := lookFor(a)
	if err != nil {
		return nil, err
	}
	s := &Status{Host: h}
	s.State, err = ReadState()
	if errors.Is(err, ErrNotLoaded) {
		if kept, _ := pins(); len(kept) > 0 {
			s.Faults = []string{stateFile() + " is gone, and programs are pinned: load the policy again"}
		}
		held, err := unpinned()
		if len(held) > 0 {
			s.fault("%s: nothing is loaded, and it decides: somebody holds it, as the service manager for afalg-policy-lsm.service; stop that", strings.Join(held, ", "))
		}
		return s, err
	}
	if err != nil {
		return nil, err
	}
	held, err := unpinned()
	if err != nil {
		return nil, err
	}
	s.check(held)
	m, err := openPinned()
	if err != nil {
		s.fault("the maps under %s are gone, or are of another version: load the policy again", Dir)
		return s, nil
	}
	defer m.close()
	s.checkTable(m)
	if s.Counters, err = counters(m["counters"]); err != nil {
		return nil, err
	}
	if s.Old, err = oldSockets(m["marks"]); err != nil {
		return nil, err
	}
	return s, sweep(m)
}

func (s *Status) fault(format string, args ...any) {
	s.Faults = append(s.Faults, fmt.Sprintf(format, args...))
}

// check compares what is attached with what was loaded. held are the programs
// that are attached without a pin.
func (s *Status) check(held []string) {
	want, err := s.Host.Choose()
	switch {
	case err != nil:
		s.fault("%v", err)
	case want != s.State.Attachment && s.State.Attachment == LSM:
		s.fault("the programs are attached as an LSM, and bpf is not among the active ones: they never run")
	case s.State.Attachment == FmodRet && !s.Host.Preemption.Never():
		s.fault("the kernel's preemption is %s now, and programs that are attached by fmod_ret are skipped: load the policy again", s.Host.Preemption)
	}
	for _, name := range s.State.Programs {
		misses, err := linkInfo(name)
		s.Misses += misses
		switch {
		case errors.Is(err, errNoPin) && slices.Contains(held, name):
			s.fault("%s: its pin is gone: it decides for as long as somebody holds it, as the service manager does; load the policy again", name)
		case err != nil:
			s.fault("%s: %v", name, err)
		case slices.Contains(held, name):
			s.fault("%s: that of an earlier load decides too, since somebody holds it: run \"systemctl reload afalg-policy-lsm\"", name)
		}
	}
	if s.Misses > 0 {
		s.fault("%d calls went by unasked, since the kernel skipped a program", s.Misses)
	}
}

// checkTable compares the table in force with the one that was loaded.
func (s *Status) checkTable(m pinned) {
	t := inSlot(m["slot"])
	if t == nil {
		s.fault("no table is in the slot: everything is denied; load the policy again")
		return
	}
	defer t.Close()
	var meta guard.Meta
	if err := t.Lookup(guard.Key{Kind: guard.KindMeta}, &meta); err != nil || meta.Generation != s.State.Generation {
		s.fault("another table is in the slot than the one that was loaded: load the policy again")
	}
}

var errNoPin = errors.New("its pin is gone: it decides no more; load the policy again")

// linkInfo asks about a pinned program. A pin whose link was detached is as
// good as none.
func linkInfo(program string) (misses uint64, err error) {
	l, err := link.LoadPinnedLink(linkPin(Dir, program), nil)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, errNoPin
	}
	if err != nil {
		return 0, err
	}
	defer l.Close()
	info, err := l.Info()
	if err != nil {
		return 0, err
	}
	p, err := ebpf.NewProgramFromID(info.Program)
	if err != nil {
		return 0, err
	}
	defer p.Close()
	stats, err := p.Stats()
	if err != nil {
		return 0, nil // only a metric
	}
	return stats.RecursionMisses, nil
}

func counters(m *ebpf.Map) (map[string]uint64, error) {
	all := map[string]uint64{}
	for i, name := range counterNames {
		var each []uint64
		if err := m.Lookup(uint32(i), &each); err != nil {
			return nil, hosterr.Errorf("read the counters: %w", err)
		}
		for _, n := range each {
			all[name] += n
		}
	}
	return all, nil
}

// oldSockets lists the sockets of AF_ALG that were not bound under guard.
func oldSockets(marks *ebpf.Map) ([]Socket, error) {
	list, err := loadLister(marks)
	if err != nil {
		return nil, err
	}
	defer list.Close()
	files, err := run(list)
	if err != nil {
		return nil, err
	}
	var all []Socket
	for _, f := range files {
		if f.Family != family || f.Marked != 0 {
			continue
		}
		shown, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", f.Process))
		all = append(all, Socket{int(f.Process), int(f.Descriptor), f.Parent != 0, shown})
	}
	return all, nil
}

// Unload takes the policy out of the kernel.
func Unload() error {
	unlock, err := lock()
	if err != nil {
		return err
	}
	defer unlock()
	if err := os.RemoveAll(Dir); err != nil {
		return err
	}
	if err := os.Remove(stateFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
