// Package proc reads /proc: the status of a thread, and which processes and threads
// there are.
package proc

import (
	"bytes"
	"fmt"
	"math"
	"os"
)

// Status is what is used of /proc/TID/status. Its texts lie in what was parsed.
type Status struct {
	Name   []byte // as the thread calls itself, newlines and backslashes escaped
	State  byte   // 'R', 'S', 'Z', …
	TGID   int    // the process that it belongs to
	PID    int    // of the thread
	Tracer int    // the thread that traces it; 0 if none that the reader can see
	UID    IDs    // as the reader's user namespace maps them
	GID    IDs
	groups []byte
	// NamespaceIDs is how many PID namespaces give it a number, from the
	// reader's down; 0 if the kernel does not tell.
	NamespaceIDs                                         int
	Inheritable, Permitted, Effective, Bounding, Ambient uint64
	NoNewPrivs                                           bool
	// Seccomp is the mode: 0 for none, 1 for strict, 2 for filters; -1 if the
	// kernel does not tell.
	Seccomp int
	// Filters counts the filters; -1 if the kernel does not tell (before 5.9).
	Filters int
}

// IDs are the users or the groups that a thread runs as.
type IDs struct{ Real, Effective, Saved, FS uint32 }

// ModeFilter is SECCOMP_MODE_FILTER.
const ModeFilter = 2

// ReadStatus reads the status in a directory of a thread: "/proc/1".
func ReadStatus(dir string) (Status, error) {
	text, err := os.ReadFile(dir + "/status")
	if err != nil {
		return Status{}, err
	}
	s, err := ParseStatus(text)
	if err != nil {
		return Status{}, fmt.Errorf("%s/status: %w", dir, err)
	}
	return s, nil
}

var (
	keyName       = []byte("Name:\t")
	keyState      = []byte("\nState:\t")
	keyTgid       = []byte("\nTgid:\t")
	keyPid        = []byte("\nPid:\t")
	keyTracerPid  = []byte("\nTracerPid:\t")
	keyUID        = []byte("\nUid:\t")
	keyGID        = []byte("\nGid:\t")
	keyGroups     = []byte("\nGroups:\t")
	keyNSpid      = []byte("\nNSpid:\t")
	keyCapInh     = []byte("\nCapInh:\t")
	keyCapPrm     = []byte("\nCapPrm:\t")
	keyCapEff     = []byte("\nCapEff:\t")
	keyCapBnd     = []byte("\nCapBnd:\t")
	keyCapAmb     = []byte("\nCapAmb:\t")
	keyNoNewPrivs = []byte("\nNoNewPrivs:\t")
	keySeccomp    = []byte("\nSeccomp:\t")
	keyFilters    = []byte("\nSeccomp_filters:\t")
)

// ParseStatus reads the fields in the order in which fs/proc/array.c prints
// them. The name of the thread, the one text that a thread chooses, comes
// first, with its newlines escaped.
func ParseStatus(text []byte) (Status, error) {
	p := parser{rest: text}
	var s Status
	s.Name = p.field(keyName)
	s.State = p.letter(keyState)
	s.TGID = p.decimal(keyTgid)
	s.PID = p.decimal(keyPid)
	s.Tracer = p.decimal(keyTracerPid)
	s.UID = p.ids(keyUID)
	s.GID = p.ids(keyGID)
	s.groups = p.field(keyGroups)
	if p.has(keyNSpid) {
		s.NamespaceIDs = 1 + bytes.Count(p.field(keyNSpid), []byte("\t"))
	}
	s.Inheritable = p.hex(keyCapInh)
	s.Permitted = p.hex(keyCapPrm)
	s.Effective = p.hex(keyCapEff)
	s.Bounding = p.hex(keyCapBnd)
	s.Ambient = p.hex(keyCapAmb)
	s.NoNewPrivs = p.number(keyNoNewPrivs, p.field(keyNoNewPrivs), 10, 1) == 1
	s.Seccomp = p.optional(keySeccomp)
	s.Filters = p.optional(keyFilters)
	if p.err != nil {
		return Status{}, p.err
	}
	if s.PID == 0 || s.TGID == 0 {
		return Status{}, fmt.Errorf("thread %d of process %d", s.PID, s.TGID)
	}
	return s, nil
}

// Groups are the supplementary groups.
func (s *Status) Groups() ([]int, error) {
	p := parser{}
	var all []int
	for _, digits := range bytes.Fields(s.groups) {
		all = append(all, int(p.number(keyGroups, digits, 10, math.MaxUint32)))
	}
	return all, p.err
}

// parser keeps the first error.
type parser struct {
	rest []byte
	err  error
}

// has reports whether a line that starts with key comes.
func (p *parser) has(key []byte) bool { return bytes.Contains(p.rest, key) }

// field returns the value of the next line that starts with key, and leaves the
// newline that ends it.
func (p *parser) field(key []byte) []byte {
	if p.err != nil {
		return nil
	}
	i := bytes.Index(p.rest, key)
	if i < 0 {
		p.err = fmt.Errorf("no %s", name(key))
		return nil
	}
	p.rest = p.rest[i+len(key):]
	end := bytes.IndexByte(p.rest, '\n')
	if end < 0 {
		p.err = fmt.Errorf("%s is cut off", name(key))
		return nil
	}
	value := p.rest[:end]
	p.rest = p.rest[end:]
	return value
}

// optional reads a number that older kernels do not tell; -1 then.
func (p *parser) optional(key []byte) int {
	if !p.has(key) {
		return -1
	}
	return p.decimal(key)
}

func (p *parser) letter(key []byte) byte {
	value := p.field(key)
	if len(value) == 0 {
		p.fail("%s is empty", name(key))
		return 0
	}
	return value[0]
}

func (p *parser) decimal(key []byte) int {
	return int(p.number(key, p.field(key), 10, math.MaxInt32))
}

func (p *parser) hex(key []byte) uint64 {
	return p.number(key, p.field(key), 16, math.MaxUint64)
}

// ids reads four numbers.
func (p *parser) ids(key []byte) IDs {
	rest := p.field(key)
	var ids [4]uint32
	for i := range ids {
		var value []byte
		value, rest, _ = bytes.Cut(rest, []byte("\t"))
		ids[i] = uint32(p.number(key, value, 10, math.MaxUint32))
	}
	return IDs{ids[0], ids[1], ids[2], ids[3]}
}

func (p *parser) number(key, digits []byte, base, most uint64) uint64 {
	if p.err != nil {
		return 0
	}
	var n uint64
	for _, c := range digits {
		d := digit(c)
		if d >= base || d > most || n > (most-d)/base {
			p.fail("%s is %q", name(key), digits)
			return 0
		}
		n = n*base + d
	}
	if len(digits) == 0 {
		p.fail("%s is empty", name(key))
	}
	return n
}

func (p *parser) fail(format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf(format, args...)
	}
}

func digit(c byte) uint64 {
	switch {
	case '0' <= c && c <= '9':
		return uint64(c - '0')
	case 'a' <= c && c <= 'f':
		return uint64(c-'a') + 10
	}
	return math.MaxUint8
}

func name(key []byte) []byte { return bytes.Trim(key, "\n:\t") }
