package node

import (
	"context"
	"fmt"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/kube"
)

// Marks are the label and the taint of one node.
type Marks struct {
	API  *API
	Node string
}

// Closed sets the label and takes the taint off. Nothing puts the taint back: it
// is for a node that starts, and one false alarm would close a whole cluster.
func (m *Marks) Closed(ctx context.Context) error {
	return m.change(ctx, func(n *node) []operation {
		return append(n.setLabel("true"), n.untaint()...)
	})
}

// Open sets the label to false.
func (m *Marks) Open(ctx context.Context) error {
	return m.change(ctx, func(n *node) []operation { return n.setLabel("false") })
}

// Unlabel takes the label off.
func (m *Marks) Unlabel(ctx context.Context) error {
	return m.change(ctx, (*node).unlabel)
}

// Clear takes off both: no node waits for a program that is not there any more.
func (m *Marks) Clear(ctx context.Context) error {
	return m.change(ctx, func(n *node) []operation { return append(n.unlabel(), n.untaint()...) })
}

// change asks for the node anew after each conflict.
func (m *Marks) change(ctx context.Context, wanted func(*node) []operation) error {
	return m.API.retry(ctx, func(ctx context.Context) error {
		n, err := m.API.node(ctx, m.Node)
		if err != nil {
			return err
		}
		ops := wanted(n)
		if len(ops) == 0 {
			return nil
		}
		if n.Metadata.ResourceVersion == "" {
			return fmt.Errorf("node %s: the API server names no resourceVersion", m.Node)
		}
		// The indices below count only in the object that was read.
		same := operation{"op": "test", "path": "/metadata/resourceVersion", "value": n.Metadata.ResourceVersion}
		return m.API.patch(ctx, m.Node, append([]operation{same}, ops...))
	})
}

// node is what we read of a node.
type node struct {
	Metadata struct {
		Name            string            `json:"name"`
		ResourceVersion string            `json:"resourceVersion"`
		Labels          map[string]string `json:"labels"`
	} `json:"metadata"`
	Spec struct {
		Taints []struct {
			Key string `json:"key"`
		} `json:"taints"`
	} `json:"spec"`
}

// operation is one of a JSON patch (RFC 6902).
type operation map[string]any

var labelPath = "/metadata/labels/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(kube.LabelClosed)

func (n *node) setLabel(value string) []operation {
	switch now, found := n.Metadata.Labels[kube.LabelClosed]; {
	case found && now == value:
		return nil
	case len(n.Metadata.Labels) == 0:
		return []operation{{"op": "add", "path": "/metadata/labels", "value": map[string]string{kube.LabelClosed: value}}}
	}
	return []operation{{"op": "add", "path": labelPath, "value": value}}
}

func (n *node) unlabel() []operation {
	if _, found := n.Metadata.Labels[kube.LabelClosed]; !found {
		return nil
	}
	return []operation{{"op": "remove", "path": labelPath}}
}

// untaint removes from the end, so that the indices before stay. A key may occur
// once with each effect.
func (n *node) untaint() []operation {
	var ops []operation
	for i := len(n.Spec.Taints) - 1; i >= 0; i-- {
		if n.Spec.Taints[i].Key == kube.TaintOpen {
			ops = append(ops, operation{"op": "remove", "path": fmt.Sprintf("/spec/taints/%d", i)})
		}
	}
	return ops
}
