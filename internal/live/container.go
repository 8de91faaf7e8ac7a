package live

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/afalg-policy/afalg-policy/internal/hosterr"
)

// Container is the first process of a running container.
type Container struct {
	ID     string
	Engine string // "runc"; the first that knows the container
	PID    int
}

// engine is a program that knows containers.
type engine struct {
	name string
	args []string // before the container
	// roots are patterns of directories, besides this engine's own default, in
	// which other engines have it keep its state.
	roots []string
	read  func(out []byte) (pid int, state string, err error)
}

var inspect = []string{"inspect", "--type", "container", "--format", "{{.State.Pid}} {{.State.Status}}"}

// engines are asked in this order. For a container that runc started for
// docker, both return the same process.
var engines = []engine{
	{"docker", inspect, nil, readInspect},
	{"podman", inspect, nil, readInspect},
	{"runc", []string{"state"}, []string{"/run/containerd/runc/*", "/run/docker/runtime-runc/*"}, readState},
	{"crun", []string{"state"}, nil, readState},
}

// Engines lists the programs that are asked for containers.
func Engines() []string { return names(engines) }

func names(list []engine) []string {
	var names []string
	for _, e := range list {
		names = append(names, e.name)
	}
	return names
}

// engineTimeout bounds one question to one engine.
const engineTimeout = 10 * time.Second

// legal is what the runtimes take for a container's name. It cannot be an
// option, nor lead out of a directory.
var legal = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_+.-]*$`) })

// FindContainer asks the installed engines for a container, by its id or their
// name for it. "runc:ID" asks one of them. It fails unless exactly one process
// is meant, with a *hosterr.Error if there is no engine.
func FindContainer(ctx context.Context, name string) (Container, error) {
	id, asked := name, engines
	if prefix, rest, ok := strings.Cut(name, ":"); ok {
		id, asked = rest, slices.DeleteFunc(slices.Clone(engines), func(e engine) bool { return e.name != prefix })
		if len(asked) == 0 {
			return Container{}, fmt.Errorf("container %s: no such engine; there are %s", name, strings.Join(Engines(), ", "))
		}
	}
	if !legal().MatchString(id) {
		return Container{}, fmt.Errorf("container %q: not a container's name", id)
	}
	var found []Container
	var refusals []error
	for _, e := range asked {
		path, err := exec.LookPath(e.name)
		if err != nil {
			continue
		}
		some, err := e.find(ctx, path, id)
		if err != nil {
			refusals = append(refusals, err)
		}
		found = append(found, some...)
	}
	return choose(id, names(asked), found, refusals)
}

func choose(id string, asked []string, found []Container, refusals []error) (Container, error) {
	same := func(a, b Container) bool { return a.PID == b.PID }
	switch distinct := slices.CompactFunc(slices.SortedStableFunc(slices.Values(found), byPID), same); {
	case len(distinct) == 1:
		return found[0], nil
	case len(distinct) > 1:
		var names []string
		for _, c := range distinct {
			names = append(names, fmt.Sprintf("process %d of %s", c.PID, c.Engine))
		}
		return Container{}, fmt.Errorf("container %s may be %s: name the engine, as in %s:%s, or the process", id, strings.Join(names, " or "), distinct[0].Engine, id)
	case len(refusals) == 0:
		return Container{}, hosterr.Errorf("container %s: there is no %s here to ask; name its process instead", id, strings.Join(asked, ", "))
	}
	return Container{}, fmt.Errorf("container %s: %w", id, joined(refusals))
}

func byPID(a, b Container) int { return cmp.Compare(a.PID, b.PID) }

// joined writes errors on one line.
func joined(errs []error) error {
	var texts []string
	for _, err := range errs {
		texts = append(texts, err.Error())
	}
	return errors.New(strings.Join(texts, "; "))
}

// find asks an engine, in each place where it may keep its state. refusal says
// why it found none.
func (e engine) find(ctx context.Context, path, id string) (found []Container, refusal error) {
	places := [][]string{nil}
	for _, pattern := range e.roots {
		dirs, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		for _, dir := range dirs {
			places = append(places, []string{"--root", dir})
		}
	}
	for _, place := range places {
		pid, err := e.ask(ctx, path, slices.Concat(place, e.args, []string{id}))
		switch {
		case err == nil:
			found = append(found, Container{id, e.name, pid})
		case refusal == nil:
			refusal = fmt.Errorf("%s: %w", e.name, err)
		}
	}
	return found, refusal
}

func (e engine) ask(ctx context.Context, path string, args []string) (pid int, err error) {
	ctx, cancel := context.WithTimeout(ctx, engineTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &stdout, &stderr, time.Second
	if err := cmd.Run(); err != nil {
		return 0, fmt.Errorf("%w: %s", err, lastLine(stderr.String()))
	}
	pid, state, err := e.read(stdout.Bytes())
	switch {
	case err != nil:
		return 0, fmt.Errorf("read its answer: %w", err)
	case pid <= 0:
		return 0, fmt.Errorf("the container is %s and has no process", cmp.Or(state, "not running"))
	case state == "created":
		return 0, errors.New("the container is created but not started: its filter is not in place yet")
	}
	return pid, nil
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndexByte(s, '\n')+1:]
}

// readInspect reads "4711 running".
func readInspect(out []byte) (pid int, state string, err error) {
	text, state, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
	pid, err = strconv.Atoi(text)
	return pid, state, err
}

// readState reads a state as the OCI runtime specification describes it.
func readState(out []byte) (pid int, state string, err error) {
	var s struct {
		PID    int    `json:"pid"`
		Status string `json:"status"`
	}
	err = json.Unmarshal(out, &s)
	return s.PID, s.Status, err
}
