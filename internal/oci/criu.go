package oci

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/afalg-policy/afalg-policy/internal/bounded"
	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
)

// checkpoint is what CRIU's images say of the processes that it will restore.
type checkpoint struct {
	stacks     []cbpf.Filter // each distinct one
	unfiltered bool          // a thread comes back without any
}

// The images are files of a machine's own byte order: two magic numbers, and
// records of protocol buffers, each behind its length (criu/image.c).
const (
	anyImage     = 0x54564319
	coreImage    = 0x55053847 // core-ID.img: one record, core_entry, for each thread
	seccompImage = 0x64413049 // seccomp.img: one record, seccomp_entry
	maxImage     = 64 << 20
	imageHeader  = 12
	seccompFile  = "seccomp.img"
	corePattern  = "core-*.img"
	maxThreads   = 1 << 16
)

// Fields of the images, by the number that they have in images/*.proto.
const (
	coreTask   protowire.Number = 3 // in core_entry, of a process' first thread
	coreThread protowire.Number = 5 // in core_entry, of each thread that is not dead

	taskState     protowire.Number = 1 // in task_core_entry
	taskOldMode   protowire.Number = 11
	taskOldFilter protowire.Number = 12

	threadMode   protowire.Number = 11 // in thread_core_entry
	threadFilter protowire.Number = 12

	seccompFilters protowire.Number = 1 // in seccomp_entry

	filterProgram  protowire.Number = 1 // in seccomp_filter
	filterPrevious protowire.Number = 2
	filterFlags    protowire.Number = 3
)

const taskDead = 2 // COMPEL_TASK_DEAD

const changeable = "who could change it before the runtime reads it"

// errStrange is an image that CRIU does not write, and might read in another
// way than this program.
var errStrange = errors.New("it is not as CRIU writes it")

// readCheckpoint reads the filters of every process in a checkpoint. Each core
// image counts, whether or not it belongs to a process of the tree.
func readCheckpoint(dir string) (*checkpoint, error) {
	if err := ownOnly(dir, changeable); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	r := restoring{distinct: map[string]bool{}}
	if path := filepath.Join(dir, seccompFile); !gone(path) { // as where nobody has a filter
		if err := read(path, seccompImage, r.takeFilters); err != nil {
			return nil, err
		}
	}
	for _, e := range entries {
		if core, _ := filepath.Match(corePattern, e.Name()); !core {
			continue
		}
		if err := read(filepath.Join(dir, e.Name()), coreImage, r.core); err != nil {
			return nil, err
		}
	}
	if err := r.end(); err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return &r.checkpoint, nil
}

// restoring goes through the threads of a checkpoint.
type restoring struct {
	checkpoint
	filters  []savedFilter
	distinct map[string]bool
	threads  int
	process  bool // one is alive
	// CRIU has the first thread of a process load filters for all of them
	// (SECCOMP_FILTER_FLAG_TSYNC) where they had the same. The process that a thread
	// belongs to is not read: it does not matter where all processes are alike.
	follows bool // a thread has no filters of its own
	own     bool // a thread that is not the first has
	shared  bool // a filter is loaded for all threads
	alone   bool // the filters of a first thread are not all loaded so
}

// core takes what there is of one thread.
func (r *restoring) core(core message) error {
	task, first, err := core.message(coreTask)
	if err != nil {
		return err
	}
	thread, alive, err := core.message(coreThread)
	if err != nil {
		return err
	}
	if r.threads++; r.threads > maxThreads {
		return errors.New("there are too many threads")
	}
	if first {
		state, _, err := task.number(taskState)
		if err != nil {
			return err
		}
		if !alive && state == taskDead {
			return nil
		}
		// There CRIU had them until 3.9, and would prefer them.
		if len(task[taskOldMode]) > 0 || len(task[taskOldFilter]) > 0 {
			return errors.New("it was written by a CRIU before 3.10, which is not read here")
		}
	}
	if !alive {
		return errStrange
	}
	r.process = r.process || first
	return r.thread(thread, first)
}

// thread takes a thread's mode (prctl(2), PR_GET_SECCOMP) and filters.
func (r *restoring) thread(thread message, first bool) error {
	mode, _, err := thread.number(threadMode)
	if err != nil {
		return err
	}
	at, numbered, err := thread.number(threadFilter)
	if err != nil {
		return err
	}
	switch mode {
	case unix.SECCOMP_MODE_DISABLED:
		r.unfiltered = r.unfiltered || first
		r.follows = r.follows || !first
	case unix.SECCOMP_MODE_STRICT:
		r.alone, r.own = r.alone || first, r.own || !first
	case unix.SECCOMP_MODE_FILTER:
		if !numbered {
			return errStrange
		}
		r.own = r.own || !first
		return r.stack(at, first)
	default:
		return errStrange
	}
	return nil
}

// stack takes the filters that a thread loads, beginning with the one at an
// index.
func (r *restoring) stack(at uint32, first bool) error {
	var stack cbpf.Filter
	var key strings.Builder
	for more := true; more; {
		if int64(at) >= int64(len(r.filters)) || len(stack) == len(r.filters) {
			return errStrange
		}
		f := r.filters[at]
		stack = append(stack, f.program)
		fmt.Fprintf(&key, "%d\n%s", len(f.raw), f.raw)
		shared := f.flags&unix.SECCOMP_FILTER_FLAG_TSYNC != 0
		r.shared, r.alone = r.shared || shared, r.alone || first && !shared
		at, more = f.previous, f.more
	}
	if !r.distinct[key.String()] {
		r.distinct[key.String()] = true
		r.stacks = append(r.stacks, stack)
	}
	return nil
}

func (r *restoring) end() error {
	if !r.process {
		return errors.New("it has no process")
	}
	// The kernel does not load a filter for all threads if one has others. It
	// says so by a positive number, which CRIU takes for a success.
	if r.shared && (r.own || r.alone) {
		return errors.New("some threads have filters of their own, and others get those of their process")
	}
	r.unfiltered = r.unfiltered || r.follows && r.alone
	return nil
}

// savedFilter is a filter in an image, and which one is loaded after it.
type savedFilter struct {
	program  cbpf.Program
	raw      []byte
	flags    uint32
	previous uint32
	more     bool
}

// harmlessFlags change nothing about what a filter does. One with a listener
// would leave the answers to whoever finds the listener's descriptor.
const harmlessFlags = unix.SECCOMP_FILTER_FLAG_TSYNC | unix.SECCOMP_FILTER_FLAG_LOG | unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW

// takeFilters takes the filters of all threads.
func (r *restoring) takeFilters(record message) error {
	for _, v := range record[seccompFilters] {
		text, ok := v.([]byte)
		if !ok {
			return errStrange
		}
		f, err := readFilter(text)
		if err != nil {
			return fmt.Errorf("filter %d: %w", len(r.filters), err)
		}
		r.filters = append(r.filters, f)
	}
	return nil
}

func readFilter(text []byte) (f savedFilter, err error) {
	m, err := parse(text)
	if err != nil {
		return f, err
	}
	if f.raw, _, err = m.text(filterProgram); err != nil {
		return f, err
	}
	if f.program, err = cbpf.Parse(f.raw, cbpf.EndianOf(binary.NativeEndian.Uint16([]byte{0, 1}) == 1)); err != nil {
		return f, err
	}
	if f.previous, f.more, err = m.number(filterPrevious); err != nil {
		return f, err
	}
	if f.flags, _, err = m.number(filterFlags); err != nil {
		return f, err
	}
	if f.flags&^harmlessFlags != 0 {
		return f, fmt.Errorf("it would be loaded with the flags %#x, of which this program knows %#x", f.flags, harmlessFlags)
	}
	return f, nil
}

// read has the one record of an image taken.
func read(path string, kind uint32, take func(message) error) error {
	if err := ownOnly(path, changeable); err != nil {
		return err
	}
	record, err := readRecord(path, kind)
	if err == nil {
		err = take(record)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func readRecord(path string, kind uint32) (message, error) {
	if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(errStrange, err)
	}
	data, err := bounded.ReadFile(path, maxImage)
	if err != nil {
		return nil, err
	}
	number := func(at int) uint32 { return binary.NativeEndian.Uint32(data[4*at:]) }
	if len(data) < imageHeader || number(0) != anyImage || number(1) != kind || int64(number(2)) != int64(len(data)-imageHeader) {
		return nil, errStrange
	}
	return parse(data[imageHeader:])
}

// message is the fields of a message of protocol buffers: numbers as uint64,
// texts and messages as []byte, others as nil.
type message map[protowire.Number][]any

func parse(text []byte) (message, error) {
	m := message{}
	for len(text) > 0 {
		field, kind, n := protowire.ConsumeTag(text)
		if n < 0 {
			return nil, errStrange
		}
		text = text[n:]
		var v any
		switch kind {
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(text)
		case protowire.BytesType:
			v, n = protowire.ConsumeBytes(text)
		default:
			n = protowire.ConsumeFieldValue(field, kind, text)
		}
		if n < 0 {
			return nil, errStrange
		}
		m[field] = append(m[field], v)
		text = text[n:]
	}
	return m, nil
}

// once returns the value of a field that stands once, or not at all. Of two,
// parsers make what they like.
func once[T any](m message, field protowire.Number) (value T, there bool, err error) {
	if len(m[field]) == 0 {
		return value, false, nil
	}
	value, there = m[field][0].(T)
	if !there || len(m[field]) > 1 {
		return value, false, errStrange
	}
	return value, true, nil
}

// number returns a field of 32 bits.
func (m message) number(field protowire.Number) (uint32, bool, error) {
	v, there, err := once[uint64](m, field)
	if err == nil && v != uint64(uint32(v)) {
		err = errStrange
	}
	return uint32(v), there, err
}

func (m message) text(field protowire.Number) ([]byte, bool, error) {
	return once[[]byte](m, field)
}

func (m message) message(field protowire.Number) (message, bool, error) {
	text, there, err := m.text(field)
	if err != nil || !there {
		return nil, false, err
	}
	inner, err := parse(text)
	return inner, err == nil, err
}
