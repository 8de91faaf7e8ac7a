package lsm

import (
	"errors"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/lsm/guard"
)

// sweepGrants forgets the grants of tables that were in force before.
func sweepGrants(m pinned, generation uint64) error {
	var old []guard.Container
	var k guard.Container
	var v guard.Rules
	for all := m["containers"].Iterate(); all.Next(&k, &v); {
		if k.Generation != generation {
			old = append(old, k)
		}
	}
	for _, k := range old {
		if err := m["containers"].Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
	}
	return nil
}

// sweepMarks forgets sockets that nobody holds open, once they take half of the
// room: nothing tells the programs of a socket's end. A socket that is on its
// way between two processes is forgotten as well, and refused at its next
// accept.
func sweepMarks(m pinned) error {
	cookies := map[uint64]uint64{}
	var address uint64
	var mark guard.Mark
	for all := m["marks"].Iterate(); all.Next(&address, &mark); {
		cookies[address] = mark.Cookie
	}
	if len(cookies) < int(m["marks"].MaxEntries())/2 {
		return nil
	}
	files, err := openFiles() // after the marks were read: a socket that is made now is not among them
	if err != nil {
		return err
	}
	for _, f := range files {
		delete(cookies, f.Address)
		delete(cookies, f.Parent)
	}
	for address, cookie := range cookies {
		if m["marks"].Lookup(address, &mark) != nil || mark.Cookie != cookie {
			continue // another socket has the address
		}
		if err := m["marks"].Delete(address); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
	}
	return nil
}

// checkLayout compares what the programs take for granted of struct alg_sock
// with what af_alg says of itself, if it is there.
func checkLayout() error {
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		return hosterr.Errorf("the types of the kernel: %w", err)
	}
	var socket, alg *btf.Struct
	if err := kernel.TypeByName("sock", &socket); err != nil {
		return hosterr.Errorf("the types of the kernel: struct sock: %w", err)
	}
	if kernel.TypeByName("alg_sock", &alg) != nil {
		module, err := btf.LoadKernelModuleSpec("af_alg")
		if err != nil || module.TypeByName("alg_sock", &alg) != nil {
			return nil
		}
	}
	want := map[string]uint32{"parent": socket.Size, "type": socket.Size + 16}
	for _, member := range alg.Members {
		if offset, ok := want[member.Name]; ok {
			if member.Offset.Bytes() != offset {
				return hosterr.Errorf("the sockets of this kernel's af_alg look different (%s at %d, not at %d): this version of afalg-policy does not know them", member.Name, member.Offset.Bytes(), offset)
			}
			delete(want, member.Name)
		}
	}
	if len(want) > 0 {
		return hosterr.Errorf("the sockets of this kernel's af_alg look different: this version of afalg-policy does not know them")
	}
	return nil
}
