//go:build vm

package vmtest

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The keys of libkcapi's digests (apps/kcapi-hasher.c).
const (
	hmaccalcKey  = "FIPS-FTW-RHT2009"
	fipscheckKey = "orboDeJITITejsirpADONivirpUkvarP"
)

// dracutScript makes an initramfs with dracut's module for FIPS. $1 is a directory
// with sha512hmac in bin, which is laid over /usr/bin for dracut to find.
const dracutScript = `set -e
mount -t overlay overlay -o "lowerdir=$1/bin:/usr/bin" /usr/bin
exec dracut --force --no-hostonly --no-hostonly-cmdline --no-compress --no-early-microcode --tmpdir "$1" \
	--kver "$2" --kmoddir "$3" --modules "bash systemd systemd-initrd dracut-systemd base fs-lib shutdown fips virtfs udev-rules rootfs-block" \
	--drivers "virtio_pci 9p 9pnet_virtio af_alg algif_hash algif_aead algif_skcipher crypto_user hmac sha512_generic sha256_generic" \
	--include "$1/sha512hmac.hmac" /usr/bin/.sha512hmac.hmac \
	--include "$1/libkcapi.hmac" /usr/lib/x86_64-linux-gnu/.libkcapi.so.1.hmac "$1/initrd"`

// finalInit is process 1 of the real root.
const finalInit = `#!/bin/busybox sh
echo "REAL ROOT, fips $(/bin/busybox cat /proc/sys/crypto/fips_enabled)" >/dev/console
/bin/busybox poweroff -f
`

// fipsHost is a host that boots with fips=1: a kernel, an initramfs, a root.
type fipsHost struct {
	kernel kernel
	initrd []byte
	root   string
}

func newFIPSHost(t *testing.T) fipsHost {
	k, err := findKernel("6.12", amd64)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	release := filepath.Base(k.modules)
	copyFile(t, hasher(t), filepath.Join(dir, "bin", "sha512hmac"), 0o755)
	write(t, filepath.Join(dir, "sha512hmac.hmac"), hmacOf(t, sha512.New, hmaccalcKey, filepath.Join(dir, "bin", "sha512hmac"))+"\n", 0o644)
	write(t, filepath.Join(dir, "libkcapi.hmac"), hmacOf(t, sha256.New, fipscheckKey, "/usr/lib/x86_64-linux-gnu/libkcapi.so.1")+"\n", 0o644)
	dracut := exec.Command("sh", "-c", dracutScript, "sh", dir, release, k.modules)
	dracut.SysProcAttr = &unix.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	if out, err := dracut.CombinedOutput(); err != nil {
		t.Fatalf("dracut: %v: run scripts/install vm\n%s", err, out)
	}
	initrd, err := os.ReadFile(filepath.Join(dir, "initrd"))
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(dir, "root")
	for _, d := range []string{"dev", "proc", "sys", "run", "tmp"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	copyFile(t, k.image, filepath.Join(root, "boot", "vmlinuz-"+release), 0o644)
	write(t, filepath.Join(root, "boot", ".vmlinuz-"+release+".hmac"), hmacOf(t, sha512.New, hmaccalcKey, k.image)+"  vmlinuz-"+release+"\n", 0o644)
	copyFile(t, "/bin/busybox", filepath.Join(root, "bin", "busybox"), 0o755)
	write(t, filepath.Join(root, "sbin", "init"), finalInit, 0o755)
	write(t, filepath.Join(root, "usr", "lib", "os-release"), "ID=test\n", 0o644)
	return fipsHost{k, initrd, root}
}

// boot boots with more files in the initramfs, and returns the console's
// output.
func (h fipsHost) boot(t *testing.T, files map[string][]byte) string {
	t.Helper()
	var a archive
	for name, data := range files {
		var above []string
		for d := path.Dir(name); d != "."; d = path.Dir(d) {
			above = append([]string{d}, above...)
		}
		for _, d := range above {
			a.dir(d)
		}
		a.file(name, 0o644, data)
	}
	// dracut takes a name that begins so for a root of its module virtfs, and
	// systemd takes all of it for the source of the mount.
	const tag = "virtfs:root"
	initrd := filepath.Join(t.TempDir(), "initrd")
	write(t, initrd, string(append(bytes.Clone(h.initrd), a.finish()...)), 0o600)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	qemu := exec.CommandContext(ctx, "qemu-system-x86_64",
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio",
		"-M", "q35", "-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", "1024",
		"-kernel", h.kernel.image, "-initrd", initrd,
		"-append", "console=ttyS0 fips=1 root="+tag+" rootfstype=9p rootflags=trans=virtio,version=9p2000.L ro rd.shell=0 rd.emergency=poweroff panic=-1 systemd.journald.forward_to_console=1",
		"-fsdev", "local,id=root,path="+h.root+",security_model=none,readonly=on,multidevs=remap",
		"-device", "virtio-9p-pci,fsdev=root,mount_tag="+tag)
	out := console{halted: cancel}
	qemu.Stdout, qemu.Stderr = &out, &out
	if err := qemu.Run(); err != nil && !out.isHalted() {
		t.Errorf("qemu: %v", err)
	}
	return out.text.String()
}

// console keeps a machine's output. A machine that halts stays on, so the test
// waits for its last line.
type console struct {
	text   bytes.Buffer
	halted func()
}

func (c *console) Write(p []byte) (int, error) {
	n, err := c.text.Write(p)
	if c.isHalted() {
		c.halted()
	}
	return n, err
}

func (c *console) isHalted() bool {
	return bytes.Contains(c.text.Bytes(), []byte("reboot: System halted"))
}

// TestLongFIPSBoot boots dracut's initramfs with fips=1, each time with another
// mitigation in it.
func TestLongFIPSBoot(t *testing.T) {
	t.Parallel()
	h := newFIPSHost(t)
	modprobe := func(line string) map[string][]byte {
		return map[string][]byte{"etc/modprobe.d/mitigation.conf": []byte(line + "\n")}
	}
	for _, test := range []struct {
		name  string
		files map[string][]byte
		says  string // "" means that it boots
	}{
		{"nothing", nil, ""},
		{"the settings of a host", hostFiles(t, "builtin:fips", "--accept", "dracut-fips", "--accept", "fips-integrity-check", "--accept", "hmaccalc"), ""},
		{"install algif_hash /bin/false", modprobe("install algif_hash /bin/false"), "Allocation of hmac(sha512) cipher failed (-2)"},
		{"install af_alg /bin/false", modprobe("install af_alg /bin/false"), "Allocation of hmac(sha512) cipher failed (-97)"},
		{"drop-in for all services", dropInsOf(t, "builtin:baseline"), "Allocation of hmac(sha512) cipher failed (-97)"},
		{"drop-ins with the grant, unasked", dropInsOf(t, "builtin:fips"), ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			console := h.boot(t, test.files)
			checked := strings.Contains(console, "All initrd crypto checks done")
			booted := strings.Contains(console, "REAL ROOT, fips 1")
			failed := strings.Contains(console, "FATAL: FIPS integrity test failed")
			if want := test.says == ""; checked != want || booted != want || failed == want || !strings.Contains(console, test.says) {
				t.Errorf("checked %v, booted %v, failed %v, want %q\n%s", checked, booted, failed, test.says, console)
			}
		})
	}
}

// dropInsOf are the drop-ins of a policy, where an initramfs keeps them.
func dropInsOf(t *testing.T, policy string) map[string][]byte {
	t.Helper()
	out, facts := t.TempDir(), filepath.Join(t.TempDir(), "units.txt")
	write(t, facts, "Id=systemd-udevd.service\nRestrictAddressFamilies=~\n", 0o600)
	generate(t, "systemd", policy, "--show", facts, "-o", out)
	files := map[string][]byte{}
	err := fs.WalkDir(os.DirFS(out), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(filepath.Join(out, name))
		files[path.Join("etc/systemd/system", name)] = data
		return err
	})
	if err != nil || len(files) == 0 {
		t.Fatalf("%d drop-ins, %v", len(files), err)
	}
	return files
}

func hmacOf(t *testing.T, h func() hash.Hash, key, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(h, []byte(key))
	fmt.Fprintf(mac, "%s", data)
	return hex.EncodeToString(mac.Sum(nil))
}

func copyFile(t *testing.T, from, to string, mode os.FileMode) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	write(t, to, string(data), mode)
}

func write(t *testing.T, file, text string, mode os.FileMode) {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(file), 0o755)
	if err == nil {
		err = os.WriteFile(file, []byte(text), mode)
	}
	if err != nil {
		t.Fatal(err)
	}
}
