package source

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/live"
)

// FromProcess reads the filters of a running process: one source for each distinct
// stack that its threads are under. Errors are those of
// live.Read and live.Machine.
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
	machine, abis, err := live.Machine()
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
