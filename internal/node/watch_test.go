package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/afalg-policy/afalg-policy/internal/kube"
)

// notes collects what is said.
type notes []string

func (n *notes) note(format string, args ...any) { *n = append(*n, fmt.Sprintf(format, args...)) }

func TestWatch(t *testing.T) {
	s, m := newServer(t)
	s.taints = []any{taint(kube.TaintOpen, "NoSchedule")}
	var said notes
	answers := []string{"", "", "socket (open)"}
	w := &Watch{Marks: m, Every: time.Millisecond, Note: said.note, Probe: func(context.Context) (string, error) {
		open := answers[0]
		if open != "" && (len(s.taints) > 0 || s.labels[kube.LabelClosed] != "true") {
			t.Errorf("closed, and %v %v", s.taints, s.labels)
		}
		answers = answers[1:]
		return open, nil
	}}
	if err := w.Run(t.Context()); !errors.Is(err, ErrOpen) {
		t.Errorf("open: %v", err)
	}
	if s.labels[kube.LabelClosed] != "false" || len(s.taints) > 0 {
		t.Errorf("open: %v %v", s.labels, s.taints)
	}
	if got := strings.Join(said, "\n"); got != "open: socket (open)" {
		t.Error(got)
	}
}

// TestWatchUnknown: what cannot be asked is open, and a cluster that cannot be told
// keeps nobody from ending.
func TestWatchUnknown(t *testing.T) {
	s, m := newServer(t)
	m.API.Server = "https://127.0.0.1:1"
	m.API.Deadline = 50 * time.Millisecond
	var said notes
	w := &Watch{Marks: m, Every: time.Hour, Note: said.note, Probe: func(context.Context) (string, error) { return "", errors.New("no /proc") }}
	if err := w.Run(t.Context()); !errors.Is(err, ErrOpen) {
		t.Error(err)
	}
	if got := strings.Join(said, "\n"); !strings.Contains(got, "open: no /proc") || !strings.Contains(got, "tell the cluster: ") {
		t.Error(got)
	}
	if s.labels[kube.LabelClosed] == "true" {
		t.Error("marked as closed")
	}
}

func TestWatchEnds(t *testing.T) {
	s, m := newServer(t)
	ctx, stop := context.WithCancel(t.Context())
	var said notes
	w := &Watch{Marks: m, Every: time.Hour, Note: said.note, Probe: func(context.Context) (string, error) { return "", nil }}
	w.Probe = func(context.Context) (string, error) { time.AfterFunc(50*time.Millisecond, stop); return "", nil }
	if err := w.Run(ctx); err != nil || s.labels[kube.LabelClosed] != nil {
		t.Errorf("told to end: %v; %v", err, s.labels)
	}
	w.Renew = time.Millisecond
	if err := w.Run(t.Context()); err != nil || s.labels[kube.LabelClosed] != "true" {
		t.Errorf("renewed: %v; %v", err, s.labels)
	}
}
