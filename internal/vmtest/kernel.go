package vmtest

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Kernels lists the versions that the tests boot, oldest first.
func Kernels() []string { return []string{"6.1", "6.12"} }

// kernel is an unpacked Debian kernel package.
type kernel struct {
	image   string // the bootable file
	modules string // directory of its modules, named like the release
}

// findKernel finds the board's kernel of a version such as "6.12" in the cache
// that scripts/install fills.
func findKernel(version string, b board) (kernel, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return kernel{}, err
	}
	cache = filepath.Join(cache, "afalg-policy", b.kernels)
	images, err := filepath.Glob(filepath.Join(cache, "linux-image-"+version+".*", "boot", "vmlinuz-*"))
	if err != nil {
		return kernel{}, err
	}
	if len(images) == 0 {
		return kernel{}, fmt.Errorf("no kernel %s in %s: run scripts/install %s", version, cache, b.group)
	}
	image := images[len(images)-1]
	release := strings.TrimPrefix(filepath.Base(image), "vmlinuz-")
	tree := filepath.Join(filepath.Dir(filepath.Dir(image)), "lib", "modules", release)
	return kernel{image, tree}, nil
}

// closure lists the files of the named modules and of their dependencies, in
// the order in which they load. It leaves out modules built into the kernel.
func (k kernel) closure(names ...string) ([]string, error) {
	dependencies, err := k.dependencies()
	if err != nil {
		return nil, err
	}
	builtin, err := k.builtin()
	if err != nil {
		return nil, err
	}
	var files []string
	for _, name := range names {
		if builtin[name] {
			continue
		}
		line, ok := dependencies[name]
		if !ok {
			return nil, fmt.Errorf("kernel %s has no module %s", filepath.Base(k.modules), name)
		}
		for _, file := range slices.Backward(line) {
			if !slices.Contains(files, file) {
				files = append(files, file)
			}
		}
	}
	return files, nil
}

// dependencies reads modules.dep: for each module its file and those of the
// modules it needs, which load from the last to the first.
func (k kernel) dependencies() (map[string][]string, error) {
	data, err := os.ReadFile(filepath.Join(k.modules, "modules.dep"))
	if err != nil {
		return nil, err
	}
	dependencies := map[string][]string{}
	for line := range strings.Lines(string(data)) {
		file, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		dependencies[moduleName(file)] = append([]string{file}, strings.Fields(rest)...)
	}
	return dependencies, nil
}

func (k kernel) builtin() (map[string]bool, error) {
	f, err := os.Open(filepath.Join(k.modules, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	builtin := map[string]bool{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		builtin[moduleName(lines.Text())] = true
	}
	return builtin, lines.Err()
}

// moduleName is the name of the module in a file: "virtio_pci" for
// ".../virtio-pci.ko.xz".
func moduleName(file string) string {
	name, _, _ := strings.Cut(filepath.Base(file), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// readModule returns a module as the kernel loads it, uncompressed.
func (k kernel) readModule(file string) ([]byte, error) {
	path := filepath.Join(k.modules, file)
	if !strings.HasSuffix(path, ".xz") {
		return os.ReadFile(path)
	}
	cmd := exec.Command("xz", "-dc", path)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	data, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("unpack %s: %w: %s", path, err, stderr.Bytes())
	}
	return data, nil
}
