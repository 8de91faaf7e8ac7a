package lsm

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/lsm/guard"
)

// spec returns the objects of an attachment.
func spec(a Attachment) (*ebpf.CollectionSpec, error) {
	if a == FmodRet {
		return guard.LoadFmodRet()
	}
	return guard.LoadLSM()
}

// pinned are the maps that outlive a load.
type pinned map[string]*ebpf.Map

func (m pinned) close() {
	for _, one := range m {
		one.Close()
	}
}

// openMaps opens the pinned maps. It returns nil if there is none that fits the
// programs of this build.
func openMaps(s *ebpf.CollectionSpec) pinned {
	all := pinned{}
	for _, name := range pinnedMaps {
		m, err := ebpf.LoadPinnedMap(mapPin(Dir, name), nil)
		if err == nil {
			err = s.Maps[name].Compatible(m)
			all[name] = m
		}
		if err != nil {
			all.close()
			return nil
		}
	}
	return all
}

// makeMaps makes the maps, with room for a table in the slot, and pins none.
func makeMaps(s *ebpf.CollectionSpec) (pinned, error) {
	all := pinned{}
	for _, name := range pinnedMaps {
		m, err := ebpf.NewMap(s.Maps[name])
		if err != nil {
			all.close()
			return nil, hosterr.Errorf("make the map %s: %w", name, err)
		}
		all[name] = m
	}
	return all, nil
}

func (m pinned) pin() error {
	for _, name := range pinnedMaps {
		if err := replacePin(mapPin(Dir, name), m[name].Pin); err != nil {
			return fmt.Errorf("pin the map %s: %w", name, err)
		}
	}
	return nil
}

// replacePin pins beside a place and renames over it, so that something is
// pinned there at every moment.
func replacePin(path string, pin func(string) error) error {
	next := path + "_new"
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := pin(next); err != nil {
		return err
	}
	return unix.Rename(next, path)
}

// attached are links, by program.
type attached map[string]link.Link

func (all attached) close() {
	for _, l := range all {
		l.Close()
	}
}

// attach loads the programs on the maps and attaches them. They decide from
// then on, for as long as the links are open or pinned.
func attach(s *ebpf.CollectionSpec, m pinned, n needs, families uint64) (attached, error) {
	s = s.Copy()
	wanted := programsFor(n)
	for name := range s.Programs {
		if !slices.Contains(wanted, name) {
			delete(s.Programs, name)
		}
	}
	for name := range s.Maps {
		if m[name] == nil && !strings.HasPrefix(name, ".") {
			delete(s.Maps, name)
		}
	}
	if err := s.Variables["families"].Set(families); err != nil {
		return nil, err
	}
	c, err := ebpf.NewCollectionWithOptions(s, ebpf.CollectionOptions{MapReplacements: m})
	if err != nil {
		return nil, loadError(err)
	}
	defer c.Close()
	links := attached{}
	for _, name := range wanted {
		l, err := attachOne(c.Programs[name])
		if err != nil {
			links.close()
			return nil, attachError(name, err)
		}
		links[name] = l
	}
	return links, nil
}

func attachOne(p *ebpf.Program) (link.Link, error) {
	if p.Type() == ebpf.LSM {
		return link.AttachLSM(link.LSMOptions{Program: p})
	}
	return link.AttachTracing(link.TracingOptions{Program: p})
}

func attachError(program string, err error) error {
	why := ""
	switch {
	case errors.Is(err, unix.E2BIG):
		why = ": too many programs are attached to the same function"
	case errors.Is(err, unix.EBUSY):
		why = ": another program changes the same function (live patching, or ftrace)"
	case errors.Is(err, unix.Errno(524)): // ENOTSUPP
		why = ": this kernel has no trampolines on this machine"
	case errors.Is(err, btf.ErrNotFound):
		why = ": the kernel has no such hook"
	}
	return hosterr.Errorf("attach %s%s: %w", program, why, err)
}

func programsFor(n needs) []string {
	var names []string
	for _, h := range hooks {
		if h.needed(n) {
			names = append(names, h.program)
		}
	}
	return names
}

// pin keeps the links, each in place of the one before, and drops those of
// programs that are not needed any more.
func (all attached) pin() error {
	for name, l := range all {
		if err := replacePin(linkPin(Dir, name), l.Pin); err != nil {
			return fmt.Errorf("pin %s: %w", name, err)
		}
	}
	kept, err := pins()
	if err != nil {
		return err
	}
	for _, pin := range kept {
		if _, keep := all[strings.TrimPrefix(filepath.Base(pin), "link_")]; !keep {
			if err := os.Remove(pin); err != nil {
				return err
			}
		}
	}
	return nil
}

// pins lists the pins of links: something decides while there are any.
func pins() ([]string, error) { return filepath.Glob(linkPin(Dir, "*")) }
