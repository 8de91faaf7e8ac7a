package report

import (
	"context"
	"fmt"
	"runtime"
	"strconv"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/live"
)

// FromProcess reads the filters of a running process: one source for each distinct
// stack that its threads are under. Errors are those of live.Read, and a
// *hosterr.Error where this machine is not known.
func FromProcess(pid int) ([]Source, error) {
	return fromProcess(pid, fmt.Sprintf("process %d", pid))
}

// FromContainer is FromProcess for the first process of a running container, which is
// named as for live.FindContainer.
func FromContainer(ctx context.Context, name string) ([]Source, error) {
	c, err := live.FindContainer(ctx, name)
	if err != nil {
		return nil, err
	}
	return fromProcess(c.PID, fmt.Sprintf("container %s of %s, process %d", c.ID, c.Engine, c.PID))
}

func fromProcess(pid int, name string) ([]Source, error) {
	p, err := live.Read(pid)
	if err != nil {
		return nil, err
	}
	machine, abis, err := thisMachine()
	if err != nil {
		return nil, err
	}
	groups := p.Groups()
	var sources []Source
	for _, g := range groups {
		s := Source{Name: fmt.Sprintf("%s (%s)", name, p.Command), Kind: "process", Machine: machine, Filter: g.Stack.Filter, ABIs: abis}
		if len(groups) > 1 {
			s.Name += ", " + threadList(g.TIDs)
		}
		sources = append(sources, s)
	}
	return sources, nil
}

// threadList names threads, and counts them where they are many.
func threadList(tids []int) string {
	const most = 4
	var texts []string
	for _, tid := range tids[:min(most, len(tids))] {
		texts = append(texts, strconv.Itoa(tid))
	}
	text := "threads " + strings.Join(texts, ", ")
	if rest := len(tids) - most; rest > 0 {
		text += fmt.Sprintf(" and %d more", rest)
	}
	if len(tids) == 1 {
		return "thread " + texts[0]
	}
	return text
}

// thisMachine is the machine whose kernel runs the filters that it shows. A
// kernel takes calls by all of its ABIs, whatever a filter's author thought of.
func thisMachine() (string, []afalg.ABI, error) {
	arch, err := profile.ArchByName(runtime.GOARCH)
	if err != nil {
		return "", nil, hosterr.Errorf("verify running processes: %w", err)
	}
	abis := afalg.Machine(string(arch))
	if abis == nil {
		return "", nil, hosterr.Errorf("verify running processes: the system calls of %s are not known", runtime.GOARCH)
	}
	return runtime.GOARCH, abis, nil
}
