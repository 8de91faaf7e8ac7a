package lsm

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/afalg-policy/afalg-policy/internal/hosterr"
)

// Links calls use with descriptors of the pinned links. Whoever keeps a copy of
// them keeps the programs attached, whatever becomes of the pins.
func Links(use func(fds ...int) error) error {
	s, err := ReadState()
	if err != nil {
		return err
	}
	var fds []int
	for _, name := range s.Programs {
		l, err := link.LoadPinnedLink(linkPin(Dir, name), nil)
		if err != nil {
			return hosterr.Errorf("open the pin of %s: %w", name, err)
		}
		defer l.Close()
		open, ok := l.(interface{ FD() int })
		if !ok {
			return hosterr.Errorf("the link of %s has no descriptor", name)
		}
		fds = append(fds, open.FD())
	}
	return use(fds...)
}

// unpinned lists the programs of ours that are attached by links without a pin:
// somebody holds these open.
func unpinned() ([]string, error) {
	pins := map[link.ID]bool{}
	for _, h := range hooks {
		l, err := link.LoadPinnedLink(linkPin(Dir, h.program), nil)
		if err != nil {
			continue // there is none, or it is reported
		}
		info, err := l.Info()
		l.Close()
		if err != nil {
			return nil, hosterr.Errorf("read the links of programs: %w", err)
		}
		pins[info.ID] = true
	}
	var names []string
	all := new(link.Iterator)
	defer all.Close()
	for all.Next() {
		info, err := all.Link.Info()
		if err != nil {
			return nil, hosterr.Errorf("read the links of programs: %w", err)
		}
		if info.Type != link.TracingType || pins[info.ID] {
			continue
		}
		name, err := programName(info.Program)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(hooks, func(h hook) bool { return h.program == name }) && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if err := all.Err(); err != nil {
		return nil, hosterr.Errorf("read the links of programs: %w", err)
	}
	slices.Sort(names)
	return names, nil
}

func programName(id ebpf.ProgramID) (string, error) {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return "", fmt.Errorf("open program %d: %w", id, err)
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return "", fmt.Errorf("read program %d: %w", id, err)
	}
	return info.Name, nil
}

// releaseTime is how long a load waits for those who hold links of an earlier one:
// the service manager forgets them, and the kernel frees them, a little later.
const releaseTime = 20 * time.Second

// AwaitRelease waits until no program of an earlier load decides any more. Where
// somebody goes on holding one, status says so.
func AwaitRelease(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, releaseTime)
	defer cancel()
	for {
		held, err := unpinned()
		if err != nil || len(held) == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(100 * time.Millisecond):
		}
	}
}
