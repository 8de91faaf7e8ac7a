package vmtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/testing/machine/wire"
)

// initramfs builds the archive that the kernel unpacks and starts: the agent,
// its configuration, and the modules that it loads.
func (k kernel) initramfs(b board, c wire.Config) ([]byte, error) {
	agent, err := b.agent()
	if err != nil {
		return nil, err
	}
	config, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	modules, err := k.closure(b.modules...)
	if err != nil {
		return nil, err
	}
	var a archive
	a.dir(wire.ModulesDir)
	a.file("/init", 0o755, agent)
	a.file(wire.ConfigPath, 0o644, config)
	for i, file := range modules {
		data, err := k.readModule(file)
		if err != nil {
			return nil, err
		}
		a.file(path.Join(wire.ModulesDir, fmt.Sprintf("%02d-%s.ko", i, moduleName(file))), 0o644, data)
	}
	return a.finish(), nil
}

// archive is a cpio archive in the "newc" format, the one that the kernel
// reads (Documentation/driver-api/early-userspace/buffer-format.rst).
type archive struct {
	buf    bytes.Buffer
	inodes int
}

const (
	modeDir     = 0o040000
	modeRegular = 0o100000
)

func (a *archive) dir(name string)                            { a.entry(name, modeDir|0o755, nil) }
func (a *archive) file(name string, mode uint32, data []byte) { a.entry(name, modeRegular|mode, data) }

func (a *archive) entry(name string, mode uint32, data []byte) {
	name = strings.TrimPrefix(name, "/")
	a.inodes++
	const links = 1
	fmt.Fprintf(&a.buf, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
		a.inodes, mode, 0, 0, links, 0, len(data), 0, 0, 0, 0, len(name)+1, 0, name)
	a.align()
	a.buf.Write(data)
	a.align()
}

// align pads to the four bytes at which names end and data begins.
func (a *archive) align() {
	for a.buf.Len()%4 != 0 {
		a.buf.WriteByte(0)
	}
}

func (a *archive) finish() []byte {
	a.entry("TRAILER!!!", 0, nil)
	return a.buf.Bytes()
}
