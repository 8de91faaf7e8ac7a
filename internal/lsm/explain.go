package lsm

import (
	"fmt"
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/lsm/guard"
	"github.com/afalg-policy/afalg-policy/internal/lsm/table"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// OnHost returns an error unless this process is root of the host itself.
func OnHost() error { return initialNamespaces() }

// Why says why a host has an attachment.
func (h Host) Why(a Attachment) string {
	active := strings.Join(h.LSMs, ",")
	if a == LSM {
		return fmt.Sprintf("bpf is among the active LSMs (%s)", active)
	}
	return fmt.Sprintf("bpf is not among the active LSMs (%s), and the kernel's preemption is %s", active, h.Preemption)
}

// Gaps returns the gaps that a load of a plan would have, and loads nothing. Where
// this host cannot be asked, unasked says why: the gaps are then those of a host
// that has all users and executables, and every feature.
func Gaps(p *plan.Plan) (gaps []plan.Gap, unasked error, err error) {
	host, unasked := Look()
	var attachment Attachment
	if unasked == nil {
		attachment, unasked = host.Choose()
	}
	var names table.Host
	if unasked == nil {
		names, unasked = ask(p)
	}
	if unasked != nil {
		_, gaps, err = table.Compile(p, assumed(p), table.Options{})
		return append(gaps, classGaps(p)...), unasked, err
	}
	if _, gaps, err = table.Compile(p, names, table.Options{}); err != nil {
		return nil, nil, err
	}
	return slices.Concat(gaps, hostGaps(p, host, needsOf(p, host, attachment, Options{})), classGaps(p)), nil, nil
}

// assumed is a host that has whatever a plan names.
func assumed(p *plan.Plan) table.Host {
	h := table.Host{Users: map[string]uint32{}, Files: map[string]table.File{}}
	for _, r := range p.Rules {
		for _, name := range r.Users {
			h.Users[name] = 0
		}
		for _, b := range r.Binaries {
			f := h.Files[b.Path]
			f.Binary = guard.Binary{Inode: uint64(len(h.Files) + 1)}
			if b.SHA256 != "" {
				f.SHA256 = b.SHA256
			}
			h.Files[b.Path] = f
		}
	}
	return h
}
