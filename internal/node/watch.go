// Package node is what a pod does on a node of Kubernetes besides deciding: it
// probes its own container and tells the cluster, and it puts the program on the
// host and takes it away again.
package node

import (
	"context"
	"errors"
	"time"
)

// ErrOpen says that the container is open. No filter can be added to a container
// that runs: it has to end, and the kubelet starts another.
var ErrOpen = errors.New("this container is open, and so are others that this node starts: it ends, so that the kubelet starts another one and asks again")

// Watch probes one container until it is open, or until it is due for renewal.
type Watch struct {
	// Probe asks the kernel. The text says what is open.
	Probe func(context.Context) (open string, err error)
	// Marks is the node in the API; nil if this pod may not change it.
	Marks *Marks
	Every time.Duration // between two probes
	// Renew is how long a container lives; 0 is for ever. What it is allowed was
	// fixed when it was created. Only a new one shows what new ones get.
	Renew time.Duration
	Note  func(format string, args ...any)
}

// leaving bounds what is done after the pod was told to end.
const leaving = 10 * time.Second

// Run returns nil when the container is due for renewal or told to end.
func (w *Watch) Run(ctx context.Context) error {
	renew := make(<-chan time.Time)
	if w.Renew > 0 {
		renew = time.After(w.Renew)
	}
	tick := time.NewTicker(w.Every)
	defer tick.Stop()
	for {
		if err := w.once(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return w.leave()
		case <-renew:
			w.Note("this container ends after %v, so that the kubelet starts another one, and that is probed", w.Renew)
			return nil
		case <-tick.C:
		}
	}
}

// once probes, and tells the cluster. A kernel that cannot be asked is open. The
// cluster is told again at the next turn if it could not be told now.
func (w *Watch) once(ctx context.Context) error {
	open, err := w.Probe(ctx)
	switch {
	case ctx.Err() != nil:
		return nil // what was asked meanwhile has no answer
	case err != nil:
		open = err.Error()
	}
	if open != "" {
		w.Note("open: %s", open)
	}
	if err := w.mark(ctx, open == ""); err != nil {
		w.Note("tell the cluster: %v", err)
	}
	if open != "" {
		return ErrOpen
	}
	return nil
}

func (w *Watch) mark(ctx context.Context, closed bool) error {
	if w.Marks == nil {
		return nil
	}
	if closed {
		return w.Marks.Closed(ctx)
	}
	return w.Marks.Open(ctx)
}

// leave takes the label off: from now on nobody vouches for the node.
func (w *Watch) leave() error {
	if w.Marks == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), leaving)
	defer cancel()
	if err := w.Marks.Unlabel(ctx); err != nil {
		w.Note("take the label off the node: %v", err)
	}
	return nil
}
