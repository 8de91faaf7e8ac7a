package seccomp

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// request asks a compiler for a profile in several ways for a machine.
type request struct {
	Profile *specs.LinuxSeccomp
	Ways    []Options
}

// reply is its answer: an error, or a program for each way.
type reply struct {
	Error    string   `json:",omitempty"`
	Programs []packed `json:",omitempty"`
}

type packed struct {
	Insns  []byte // as the kernel lays them out on this machine
	Level  int
	Arches []specs.Arch
}

// The longest messages. A longer profile has more rules than MaxRules, or names
// that no kernel knows.
const (
	maxRequest = 16 << 20
	maxReply   = 4 << 20
	// maxProgram is larger than the kernel's limit, so that errors name the
	// kernel's.
	maxProgram = 1 << 20
)

// frame begins a message. The output of a dying process does not begin so.
const frame uint32 = 0xaf5ec001

func encode(message any, most int) ([]byte, error) {
	body, err := json.Marshal(message)
	if err != nil {
		return nil, err
	}
	if len(body) > most {
		return nil, fmt.Errorf("%d bytes: the limit is %d", len(body), most)
	}
	head := binary.NativeEndian.AppendUint32(nil, frame)
	head = binary.NativeEndian.AppendUint32(head, uint32(len(body)))
	return append(head, body...), nil
}

const headSize = 8

// decode reads a message. An error of the reader comes back as it is.
func decode(r io.Reader, message any, most int) error {
	head := make([]byte, headSize)
	if n, err := io.ReadFull(r, head); err != nil {
		return garbled(head[:n], r, err)
	}
	size := binary.NativeEndian.Uint32(head[4:])
	if binary.NativeEndian.Uint32(head) != frame || uint64(size) > uint64(most) {
		return garbled(head, r, nil)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return err
	}
	return json.Unmarshal(body, message)
}

func packInsns(insns []unix.SockFilter) []byte {
	var raw []byte
	for _, in := range insns {
		raw = binary.NativeEndian.AppendUint16(raw, in.Code)
		raw = append(raw, in.Jt, in.Jf)
		raw = binary.NativeEndian.AppendUint32(raw, in.K)
	}
	return raw
}

func unpackInsns(raw []byte) []unix.SockFilter {
	insns := make([]unix.SockFilter, len(raw)/unix.SizeofSockFilter)
	for i := range insns {
		b := raw[i*unix.SizeofSockFilter:]
		insns[i] = unix.SockFilter{
			Code: binary.NativeEndian.Uint16(b), Jt: b[2], Jf: b[3],
			K: binary.NativeEndian.Uint32(b[4:]),
		}
	}
	return insns
}
