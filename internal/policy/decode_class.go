package policy

import (
	"strconv"

	"go.yaml.in/yaml/v4"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
)

func (d *decoder) presets(n *yaml.Node) []Preset {
	var all []Preset
	read := func(n *yaml.Node) (string, bool) { return d.constant(n, "preset", Presets()) }
	d.distinct(n, "presets", read, func(name string, n *yaml.Node) { all = append(all, Preset{name, d.pos(n)}) })
	return all
}

// sockets reads a list of different classes.
func (d *decoder) sockets(n *yaml.Node) []Socket {
	var all []Socket
	seen := seenAt{}
	d.list(n, "sockets", func(item *yaml.Node) {
		if s, ok := d.socket(item); ok && d.unique(seen, s.Class().String(), item, s.Class().String()) {
			all = append(all, s)
		}
	})
	return all
}

func (d *decoder) socket(n *yaml.Node) (Socket, bool) {
	s := Socket{Pos: d.pos(n)}
	errs := len(d.errs)
	var protocol *yaml.Node
	d.mapping(n, "a class of sockets", socketFields(d, &s, &protocol))
	if protocol != nil && s.Family != "" {
		s.Protocol = d.protocol(protocol, s.Family)
	}
	return s, len(d.errs) == errs
}

func socketFields(d *decoder, s *Socket, protocol **yaml.Node) []field {
	return []field{
		{"family", required, func(n *yaml.Node) { s.Family, _ = d.family(n) }},
		{"type", optional, func(n *yaml.Node) { s.Type, _ = d.constant(n, "socket type", afalg.SocketTypes()) }},
		{"protocol", optional, func(n *yaml.Node) { *protocol = n }},
	}
}

// protocol reads a protocol of a family, and returns its name if it has one.
func (d *decoder) protocol(n *yaml.Node, familyName string) string {
	family, _ := afalg.FamilyByName(familyName)
	known := afalg.Protocols(family)
	if known == nil {
		d.errorf(n, "the protocol of an %s socket decides nothing, or is not known here; name the family, or its type", familyName)
		return ""
	}
	number, ok := d.named(n, "protocol of "+familyName, known)
	if !ok {
		return ""
	}
	return afalg.ProtocolName(family, numberOf(number, func(name string) (uint32, bool) { return afalg.ProtocolByName(family, name) }))
}

// socketOptions reads a list of different options.
func (d *decoder) socketOptions(n *yaml.Node) []SocketOption {
	var all []SocketOption
	seen := seenAt{}
	d.list(n, "socket-options", func(item *yaml.Node) {
		if o, ok := d.socketOption(item); ok && d.unique(seen, o.Numbers().String(), item, o.Numbers().String()) {
			all = append(all, o)
		}
	})
	return all
}

func (d *decoder) socketOption(n *yaml.Node) (SocketOption, bool) {
	o := SocketOption{Pos: d.pos(n)}
	errs := len(d.errs)
	var option *yaml.Node
	d.mapping(n, "a socket option", []field{
		{"level", required, func(n *yaml.Node) { o.Level, _ = d.named(n, "level", afalg.OptionLevels()) }},
		{"option", required, func(n *yaml.Node) { option = n }},
	})
	if option != nil && o.Level != "" {
		o.Option, _ = d.named(option, "option of "+o.Level, afalg.SocketOptions(o.Numbers().Level))
	}
	if len(d.errs) > errs {
		return o, false
	}
	o.Level, o.Option = o.Numbers().Names()
	return o, true
}

// named reads one of the kernel's names, or a decimal number.
func (d *decoder) named(n *yaml.Node, what string, all []string) (string, bool) {
	number := n.Kind == yaml.ScalarNode && n.Tag == intTag || decimal().MatchString(n.Value)
	if !number || isTagged(n) {
		return d.constant(n, what, all)
	}
	if _, err := strconv.ParseUint(n.Value, 10, 31); err != nil || !decimal().MatchString(n.Value) {
		d.errorf(n, "%s %s: write its name, or a decimal number below 2147483648", what, quote(n.Value))
		return "", false
	}
	return n.Value, true
}
