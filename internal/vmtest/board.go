package vmtest

import "github.com/afalg-policy/afalg-policy/internal/testing/machine"

// board is what QEMU emulates. It has one processor: an emulated one notices late
// that another one patched the kernel's code, and now and then the kernel dies of
// it.
type board struct {
	arch    string
	group   string // of scripts/install, with the emulator and the kernels
	kernels string // their directory in the cache
	qemu    []string
	append  string   // begins the kernel's command line
	modules []string // loaded at boot
	agent   func() ([]byte, error)
	alone   bool // cannot run the host's programs, and has an empty root
}

var amd64 = board{
	arch: "amd64", group: "vm", kernels: "kernels", agent: machine.Agent,
	// Without cmpxchg16b: the kernel died in its allocator once, right behind that
	// instruction, with part of RAX in the flags.
	qemu: []string{"qemu-system-x86_64", "-M", "q35", "-cpu", "max,-cx16",
		"-virtfs", "local,path=/,mount_tag=host0,security_model=none,readonly=on,multidevs=remap"},
	// On a busy host the emulated timer is late now and then, and a kernel that
	// checks it panics.
	append: "console=ttyS0 no_timer_check syscall.x32=y",
	// They reach the host: its root by 9p, the test by a virtio port.
	modules: []string{"virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay"},
}

var arm64 = board{
	arch: "arm64", group: "arm64", kernels: "kernels-arm64", agent: machine.AgentARM64, alone: true,
	// The processor max signs pointers, and QEMU takes three times as long for it.
	qemu:   []string{"qemu-system-aarch64", "-M", "virt", "-cpu", "neoverse-n1"},
	append: "console=ttyAMA0",
	// AF_ALG as the kernel would load it if there were a modprobe, and what it
	// lacks of the usual algorithms. The kernel itself has the virtio port.
	modules: []string{"algif_hash", "algif_skcipher", "algif_aead", "algif_rng", "gcm"},
}

func (o Options) board() board {
	if o.ARM64 {
		return arm64
	}
	return amd64
}
