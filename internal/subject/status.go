package subject

import (
	"bytes"
	"fmt"
	"math"
)

// status is what is used of /proc/TID/status.
type status struct {
	pid, tgid, tracer       int
	uid                     uint32 // effective, as the reader's user namespace maps it
	inh, prm, eff, bnd, amb uint64
	noNewPrivs              bool
}

var (
	keyTgid       = []byte("\nTgid:\t")
	keyPid        = []byte("\nPid:\t")
	keyTracerPid  = []byte("\nTracerPid:\t")
	keyUID        = []byte("\nUid:\t")
	keyCapInh     = []byte("\nCapInh:\t")
	keyCapPrm     = []byte("\nCapPrm:\t")
	keyCapEff     = []byte("\nCapEff:\t")
	keyCapBnd     = []byte("\nCapBnd:\t")
	keyCapAmb     = []byte("\nCapAmb:\t")
	keyNoNewPrivs = []byte("\nNoNewPrivs:\t")
)

// parseStatus reads the fields in the order in which fs/proc/array.c prints
// them. The name of the thread, the one text that a thread chooses, comes
// first, with its newlines escaped.
func parseStatus(text []byte) (status, error) {
	p := statusParser{rest: text}
	var st status
	st.tgid = p.decimal(keyTgid)
	st.pid = p.decimal(keyPid)
	st.tracer = p.decimal(keyTracerPid)
	st.uid = p.second(keyUID)
	st.inh = p.hex(keyCapInh)
	st.prm = p.hex(keyCapPrm)
	st.eff = p.hex(keyCapEff)
	st.bnd = p.hex(keyCapBnd)
	st.amb = p.hex(keyCapAmb)
	st.noNewPrivs = p.flag(keyNoNewPrivs)
	if p.err != nil {
		return status{}, p.err
	}
	if st.pid == 0 || st.tgid == 0 {
		return status{}, fmt.Errorf("thread %d of process %d", st.pid, st.tgid)
	}
	return st, nil
}

// statusParser keeps the first error.
type statusParser struct {
	rest []byte
	err  error
}

// field returns the value of the next line that starts with key, and leaves the
// newline that ends it.
func (p *statusParser) field(key []byte) []byte {
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

func (p *statusParser) decimal(key []byte) int {
	return int(p.number(key, p.field(key), 10, math.MaxInt32))
}

func (p *statusParser) hex(key []byte) uint64 {
	return p.number(key, p.field(key), 16, math.MaxUint64)
}

func (p *statusParser) flag(key []byte) bool {
	return p.number(key, p.field(key), 10, 1) == 1
}

// second reads the second of four numbers: real, effective, saved, file system.
func (p *statusParser) second(key []byte) uint32 {
	value := p.field(key)
	_, value, _ = bytes.Cut(value, []byte("\t"))
	value, _, _ = bytes.Cut(value, []byte("\t"))
	return uint32(p.number(key, value, 10, math.MaxUint32))
}

func (p *statusParser) number(key, digits []byte, base, most uint64) uint64 {
	if p.err != nil {
		return 0
	}
	var n uint64
	for _, c := range digits {
		d := digit(c)
		if d >= base || d > most || n > (most-d)/base {
			p.err = fmt.Errorf("%s is %q", name(key), digits)
			return 0
		}
		n = n*base + d
	}
	if len(digits) == 0 {
		p.err = fmt.Errorf("%s is empty", name(key))
	}
	return n
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
