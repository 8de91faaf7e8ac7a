package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/install/host"
	"github.com/afalg-policy/afalg-policy/internal/kube"
	"github.com/afalg-policy/afalg-policy/internal/node"
	"github.com/afalg-policy/afalg-policy/internal/probe"
)

const (
	// nodeNameVariable has the node's name, from the downward API.
	nodeNameVariable = "NODE_NAME"
	// tokenDir is where the chart has the kubelet put a token.
	tokenDir    = "/var/run/secrets/afalg-policy"
	policyInPod = "/etc/afalg-policy/policy.yaml"
)

const nodeLong = `Node is what the pods of the chart run on each node of a cluster, besides the
agent: see docs/chart.md.`

func newNode(t *tui) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "node",
		Short:   "Do what a pod of the chart does on its node of Kubernetes",
		Long:    nodeLong,
		Example: "  afalg-policy node watch\n  afalg-policy node remove --root /host",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usagef("name what to do: watch, install, remove, rest or answers")
		},
	}
	cmd.AddCommand(newNodeWatch(t), newNodeInstall(t), newNodeRemove(t), newNodeRest(t), newNodeAnswers())
	return cmd
}

func newNodeWatch(t *tui) *cobra.Command {
	var every, renew time.Duration
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "Probe this container, and mark the node",
		Long: `Watch probes the container that it runs in, by every route: an ordinary one that
this node started. It ends with status 1 when that is open: no filter can be
added to it, and the kubelet starts another one. After --renew it ends as well,
since only a new container shows what new containers get.

Where ` + nodeNameVariable + ` names the node, and ` + tokenDir + ` has the files
token and ca.crt of a service account, the node is marked: the label
` + kube.LabelClosed + `=true, and the taint ` + kube.TaintOpen + ` taken off,
once it is closed; the label =false when it is open, and no label when nobody
looks any more. The taint is not put back.

Readiness is asked by "afalg-policy probe", in the same container.`,
		Example: "  afalg-policy node watch --renew 1h",
		Args:    cobra.NoArgs,
	}
	cmd.Flags().DurationVar(&every, "every", time.Minute, "`TIME` between two probes")
	cmd.Flags().DurationVar(&renew, "renew", 0, "end after this `TIME`, to be started anew; 0 is never")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if every < time.Second {
			return usagef("--every %v: at least 1s", every)
		}
		if renew < 0 || renew > 0 && renew < 10*time.Minute {
			return usagef("--renew %v: at least 10m, below which the kubelet waits longer after each end", renew)
		}
		marks, err := nodeMarks()
		if err != nil {
			return err
		}
		ctx, stop := untilStopped(cmd.Context())
		defer stop()
		w := &node.Watch{Probe: probeHere, Marks: marks, Every: every, Renew: renew, Note: nodeNote(t)}
		return w.Run(ctx)
	}
	return cmd
}

func newNodeInstall(t *tui) *cobra.Command {
	var root, policy string
	cmd := &cobra.Command{
		Use:   "install " + strings.Join(node.HostPlatforms(), "|"),
		Short: "Install platforms on the host of this container",
		Long: `Install puts this program and the policy into ` + node.HostDir + ` of the host
below --root, runs "install PLATFORM" there, and restarts what has to be
restarted. The container must see the host's processes, and be root of it.

A platform that is not in force a minute after its restart is taken back, and
the command waits to be ended: the runtime is not restarted again and again.
What an administrator installed by hand is refused.`,
		Example: "  afalg-policy node install containerd --root /host",
		Args:    cobra.MinimumNArgs(1),
	}
	addNodeRoot(cmd, &root)
	cmd.Flags().StringVar(&policy, "policy", policyInPod, "`FILE` with the policy, in the container")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		h, err := newNodeHost(t, root)
		if err != nil {
			return err
		}
		ctx, stop := untilStopped(cmd.Context())
		defer stop()
		err = h.Install(ctx, policy, args)
		if errors.Is(err, node.ErrTakenBack) {
			t.Notef("afalg-policy: %v; this waits to be ended", err)
			<-ctx.Done()
		}
		return nodeError(err)
	}
	return cmd
}

func newNodeRemove(t *tui) *cobra.Command {
	var root string
	cmd := &cobra.Command{
		Use:   "remove",
		Short: "Take back what pods installed on the host of this container",
		Long: `Remove restores the host below --root: what "node install" installed there is
uninstalled, and what has to be restarted is; Localhost profiles are removed,
and ` + node.HostDir + `. What an administrator installed by hand stays. It can
be run again.`,
		Example: "  afalg-policy node remove --root /host",
		Args:    cobra.NoArgs,
	}
	addNodeRoot(cmd, &root)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		h, err := newNodeHost(t, root)
		if err != nil {
			return err
		}
		ctx, stop := untilStopped(cmd.Context())
		defer stop()
		return nodeError(h.Remove(ctx))
	}
	return cmd
}

func newNodeRest(t *tui) *cobra.Command {
	return &cobra.Command{
		Use:   "rest",
		Short: "Take the marks off the node, and wait to be ended",
		Long: `Rest takes the label and the taint off the node, where "node watch" would set
them, and waits: a DaemonSet's pods have to run.`,
		Example: "  afalg-policy node rest",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			marks, err := nodeMarks()
			if err != nil {
				return err
			}
			ctx, stop := untilStopped(cmd.Context())
			defer stop()
			if marks != nil {
				if err := marks.Clear(ctx); err != nil {
					return hosterr.Errorf("take the marks off the node: %w", err)
				}
			}
			t.Notef("afalg-policy: this node is restored; the pod waits to be deleted")
			<-ctx.Done()
			return nil
		},
	}
}

func newNodeAnswers() *cobra.Command {
	return &cobra.Command{
		Use:     "answers SOCKET",
		Short:   "Report whether something listens at a socket",
		Long:    "Answers connects to a Unix socket, and closes it again.\nAn image without a shell is probed so when it starts.",
		Example: "  afalg-policy node answers /run/afalg-policy/agent.sock",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d := net.Dialer{Timeout: 5 * time.Second}
			c, err := d.DialContext(cmd.Context(), "unix", args[0])
			if err != nil {
				return err
			}
			return c.Close()
		},
	}
}

func addNodeRoot(cmd *cobra.Command, root *string) {
	cmd.Flags().StringVar(root, "root", "/host", "`DIR` where the container has the root of the host")
}

func newNodeHost(t *tui, root string) (*node.Host, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, hosterr.Errorf("find this program: %w", err)
	}
	return &node.Host{Root: filepath.Clean(root), Self: self, Note: nodeNote(t)}, nil
}

func nodeNote(t *tui) func(string, ...any) {
	return func(format string, args ...any) { t.Notef("afalg-policy: "+format, args...) }
}

// nodeMarks returns nil where the chart gave this pod no right to mark its node.
func nodeMarks() (*node.Marks, error) {
	name := os.Getenv(nodeNameVariable)
	if name == "" {
		return nil, nil
	}
	api, err := node.InCluster(tokenDir)
	if err != nil {
		return nil, err
	}
	return &node.Marks{API: api, Node: name}, nil
}

// probeHere says what is open in this process's container.
func probeHere(ctx context.Context) (string, error) {
	r, err := probe.Run(ctx, probe.Options{Child: []string{"probe", "answer"}})
	if err != nil || !r.Open {
		return "", err
	}
	var open []string
	for _, route := range r.Routes {
		if route.Verdict.Open() {
			open = append(open, fmt.Sprintf("%s (%s)", route.Route, route.Verdict))
		}
	}
	return strings.Join(open, ", "), nil
}

func untilStopped(ctx context.Context) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(ctx, unix.SIGTERM, unix.SIGINT)
}

// nodeError gives an option that cannot be its exit status.
func nodeError(err error) error {
	var option *host.OptionError
	if errors.As(err, &option) {
		return usagef("%w", err)
	}
	return err
}
