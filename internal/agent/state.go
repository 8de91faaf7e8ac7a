package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"unicode"
	"unicode/utf8"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/bounded"
)

const (
	maxState = 1 << 20 // bytes of JSON
	maxFDs   = 16      // with one message; the specification names one
	maxID    = 256     // bytes
	maxPID   = 1 << 22 // PID_MAX_LIMIT (linux/threads.h)
)

// errSilent is for a peer that only asks whether somebody listens, as the hooks
// do before they make a container depend on it.
var errSilent = errors.New("closed without a word")

// readState reads a ContainerProcessState, which may come in pieces, and stops
// at its end: a peer need not close. It ignores the unknown keys of another
// version.
func readState(r io.Reader) (*specs.ContainerProcessState, error) {
	d := json.NewDecoder(bounded.Reader(r, maxState))
	var s specs.ContainerProcessState
	switch err := d.Decode(&s); {
	case errors.Is(err, io.EOF):
		return nil, errSilent
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, errors.New("closed in the middle of its state")
	case err != nil:
		return nil, fmt.Errorf("read the state: %w", err)
	}
	rest, err := io.ReadAll(d.Buffered())
	if err != nil || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("more than a state in the message")
	}
	return &s, checkState(&s)
}

func checkState(s *specs.ContainerProcessState) error {
	id := s.State.ID
	prints := utf8.ValidString(id) && !bytes.ContainsFunc([]byte(id), func(r rune) bool { return !unicode.IsPrint(r) })
	switch {
	case id == "" || len(id) > maxID || !prints:
		return fmt.Errorf("the container's id %.64q is not one", id)
	case s.Pid < 1 || s.Pid > maxPID:
		return fmt.Errorf("container %q: its process %d is not one", id, s.Pid)
	}
	return nil
}

// listenerIndex returns the index of the listener among the descriptors.
func listenerIndex(names []string, fds int) (int, error) {
	i := slices.Index(names, specs.SeccompFdName)
	switch {
	case fds == 0:
		return -1, errors.New("no descriptor came with the state")
	case fds != len(names):
		return -1, fmt.Errorf("%d descriptors came with a state that names %d", fds, len(names))
	case i < 0:
		return -1, fmt.Errorf("none of the descriptors is named %s", specs.SeccompFdName)
	case slices.Contains(names[i+1:], specs.SeccompFdName):
		return -1, fmt.Errorf("more than one descriptor is named %s", specs.SeccompFdName)
	}
	return i, nil
}
