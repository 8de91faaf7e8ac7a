package policy

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"go.yaml.in/yaml/v4"

	"github.com/afalg-policy/afalg-policy/internal/yamltext"
	"github.com/afalg-policy/afalg-policy/policies"
)

// Class is what is known of a class that a policy may deny. It is sockets, a
// socket option, or user namespaces.
type Class struct {
	Socket         *Socket
	SocketOption   *SocketOption
	UserNamespaces bool
	Presets        []string // that deny it
	Why            string   // it may be denied
	Breaks         string   // who is known to use it; empty: nobody
	Source         string   // of both
	Modules        []string // of the kernel that make it; of a class within a family, those that make nothing else
	Initcalls      []string // of these modules, where they are built in
}

// String names the class as reports do.
func (c Class) String() string {
	switch {
	case c.Socket != nil:
		return c.Socket.Class().String()
	case c.SocketOption != nil:
		return c.SocketOption.Numbers().String()
	}
	return "user namespaces"
}

// PresetInfo describes a preset.
type PresetInfo struct{ Name, Summary string }

// catalogue is policies/presets/classes.yaml.
type catalogue struct {
	presets []PresetInfo
	classes []Class
}

// shipped reads the shipped catalogue. A test sees that it has no fault; with
// one it would be empty, and no policy could name a preset.
var shipped = sync.OnceValue(func() catalogue {
	c, _ := readCatalogue(policies.Classes())
	return c
})

// Classes lists what is known of classes, in the order of the shipped catalogue.
func Classes() []Class { return slices.Clone(shipped().classes) }

// PresetInfos lists the presets, in the order of the shipped catalogue.
func PresetInfos() []PresetInfo { return slices.Clone(shipped().presets) }

// Presets lists the names of the presets.
func Presets() []string {
	var names []string
	for _, p := range shipped().presets {
		names = append(names, p.Name)
	}
	return names
}

// ClassesOf lists the classes that a preset denies.
func ClassesOf(preset string) []Class {
	return slices.DeleteFunc(Classes(), func(c Class) bool { return !slices.Contains(c.Presets, preset) })
}

func readCatalogue(src []byte) (catalogue, error) {
	var c catalogue
	docs, err := yamltext.Documents(src, "catalogue", maxDepth, 1)
	if err != nil || len(docs) != 1 {
		return c, fmt.Errorf("the catalogue of classes: %d documents, %v", len(docs), err)
	}
	d := &decoder{file: "classes.yaml"}
	d.mapping(docs[0].Content[0], "the catalogue", []field{
		{"presets", required, func(n *yaml.Node) {
			for _, item := range d.entries(n, "presets", "preset", 100) {
				c.presets = append(c.presets, d.presetInfo(item))
			}
		}},
		{"classes", required, func(n *yaml.Node) {
			for _, item := range d.entries(n, "classes", "class", 1000) {
				c.classes = append(c.classes, d.class(item, c.presets))
			}
		}},
	})
	if len(d.errs) > 0 {
		return catalogue{}, sorted(d.errs)
	}
	return c, nil
}

func (d *decoder) presetInfo(n *yaml.Node) (p PresetInfo) {
	d.mapping(n, "a preset", []field{
		{"preset", required, func(n *yaml.Node) { p.Name, _ = d.text(n, "preset", checkRuleName) }},
		{"summary", required, func(n *yaml.Node) { p.Summary = d.sentence(n, "summary") }},
	})
	return p
}

func (d *decoder) class(n *yaml.Node, presets []PresetInfo) Class {
	var c Class
	var s Socket
	var protocol *yaml.Node
	var names []string
	for _, p := range presets {
		names = append(names, p.Name)
	}
	word := func(n *yaml.Node) (string, bool) { return d.text(n, "a name", anything) }
	fields := append(socketFields(d, &s, &protocol), []field{
		{"socket-option", optional, func(n *yaml.Node) {
			if o, ok := d.socketOption(n); ok {
				c.SocketOption = &o
			}
		}},
		{"user-namespaces", optional, func(n *yaml.Node) { c.UserNamespaces = d.onlyTrue(n, "user-namespaces") }},
		{"presets", optional, func(n *yaml.Node) {
			c.Presets = d.strings(n, "presets", func(n *yaml.Node) (string, bool) { return d.constant(n, "preset", names) })
		}},
		{"why", required, func(n *yaml.Node) { c.Why = d.sentence(n, "why") }},
		{"breaks", optional, func(n *yaml.Node) { c.Breaks = d.sentence(n, "breaks") }},
		{"source", required, func(n *yaml.Node) { c.Source = d.sentence(n, "source") }},
		{"modules", optional, func(n *yaml.Node) { c.Modules = d.strings(n, "modules", word) }},
		{"initcalls", optional, func(n *yaml.Node) { c.Initcalls = d.strings(n, "initcalls", word) }},
	}...)
	fields[0].need = optional // a class need not be one of sockets
	d.mapping(n, "a class", fields)
	if s.Family != "" {
		if protocol != nil {
			s.Protocol = d.protocol(protocol, s.Family)
		}
		c.Socket = &s
	}
	if s.Family == "" && c.SocketOption == nil && !c.UserNamespaces {
		d.errorf(n, "a class has a family, a socket-option or user-namespaces")
	}
	return c
}

// sentence reads a text for people, folded to one line.
func (d *decoder) sentence(n *yaml.Node, what string) string {
	s, _ := d.text(n, what, anything)
	return strings.Join(strings.Fields(s), " ")
}
