package cbpf

import (
	"fmt"
	"strings"
)

// Data is a filter's view of a system call: struct seccomp_data.
type Data struct {
	Nr   uint32 // an int in the kernel
	Arch uint32 // AUDIT_ARCH_*
	IP   uint64 // instruction pointer
	Args [6]uint64
}

// String writes the call as one line, without zero fields.
func (d Data) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "arch=%#08x nr=%d", d.Arch, int32(d.Nr))
	for i, a := range d.Args {
		if a != 0 {
			fmt.Fprintf(&b, " args[%d]=%s", i, number64(a))
		}
	}
	if d.IP != 0 {
		fmt.Fprintf(&b, " ip=%#x", d.IP)
	}
	return b.String()
}

func number64(v uint64) string {
	if v < 4096 {
		return fmt.Sprint(v)
	}
	return fmt.Sprintf("%#x", v)
}

// dataSize is sizeof(struct seccomp_data).
const dataSize = 64

// Field names one of the 32-bit words of Data, whatever the byte order.
type Field int

// The fields, in the order in which programs read them. The two words of
// argument i are ArgHigh(i) and ArgLow(i).
const (
	Arch Field = iota
	Nr
	arg0High
	NumFields = arg0High + 14
	IPHigh    = NumFields - 2
)

// ArgHigh is the upper half of argument i, 0 to 5.
func ArgHigh(i int) Field { return arg0High + Field(2*i) }

// ArgLow is the lower half of argument i, 0 to 5: the only half that the kernel
// reads where a system call takes an int.
func ArgLow(i int) Field { return ArgHigh(i) + 1 }

func (f Field) String() string {
	half := [2]string{".hi", ".lo"}[f&1]
	switch {
	case f == Arch:
		return "arch"
	case f == Nr:
		return "nr"
	case f >= IPHigh:
		return "ip" + half
	}
	return fmt.Sprintf("args[%d]%s", (f-arg0High)/2, half)
}

// Get returns the field's value.
func (d Data) Get(f Field) uint32 {
	switch f {
	case Arch:
		return d.Arch
	case Nr:
		return d.Nr
	}
	return uint32(*d.pair(f) >> (32 * (1 - f&1)))
}

// Set changes the field's value.
func (d *Data) Set(f Field, v uint32) {
	switch f {
	case Arch:
		d.Arch = v
	case Nr:
		d.Nr = v
	default:
		p, shift := d.pair(f), 32*(1-f&1)
		*p = *p&^(0xffffffff<<shift) | uint64(v)<<shift
	}
}

// pair finds the 64-bit value that holds the field.
func (d *Data) pair(f Field) *uint64 {
	if f >= IPHigh {
		return &d.IP
	}
	return &d.Args[(f-arg0High)/2]
}

// fieldAt returns the field that a load finds at the word's index, its offset
// divided by 4. struct seccomp_data is in the machine's own byte order.
func fieldAt(word uint32, e Endian) Field {
	switch word {
	case 0:
		return Nr
	case 1:
		return Arch
	}
	first := ArgHigh(int(word)/2 - 2)
	if word < 4 {
		first = IPHigh
	}
	if (word%2 == 1) == (e == Little) {
		return first
	}
	return first + 1
}

// words lays the data out as the program sees it.
func (d Data) words(e Endian) (w [dataSize / 4]uint32) {
	for i := range w {
		w[i] = d.Get(fieldAt(uint32(i), e))
	}
	return w
}
