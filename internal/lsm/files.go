package lsm

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"os/user"
	"strconv"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/lsm/guard"
	"github.com/afalg-policy/afalg-policy/internal/lsm/table"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// lister is the program that lists open files, loaded once a process. It takes
// the kernel some time to check it.
var lister = sync.OnceValues(func() (*ebpf.Program, error) { return loadLister(nil) })

func loadLister(marks *ebpf.Map) (*ebpf.Program, error) {
	spec, err := guard.LoadLSM()
	if err != nil {
		return nil, err
	}
	if err := spec.Variables["files_of"].Set(uint32(os.Getpid())); err != nil {
		return nil, err
	}
	o := &ebpf.CollectionOptions{}
	if marks != nil {
		o.MapReplacements = map[string]*ebpf.Map{"marks": marks}
	}
	var programs struct {
		List *ebpf.Program `ebpf:"list_files"`
	}
	if err := spec.LoadAndAssign(&programs, o); err != nil {
		return nil, loadError(err)
	}
	return programs.List, nil
}

// openFiles lists the files that this process has open, as the kernel sees them.
// stat would not do: on overlayfs it shows another device and inode than the
// programs see.
func openFiles() ([]guard.OpenFile, error) {
	list, err := lister()
	if err != nil {
		return nil, err
	}
	return run(list)
}

// ownFiles are those of this process, by descriptor.
func ownFiles() (map[int]table.File, error) {
	all, err := openFiles()
	if err != nil {
		return nil, err
	}
	own := map[int]table.File{}
	for _, f := range all {
		if f.Process == uint32(os.Getpid()) {
			own[int(f.Descriptor)] = table.File{Binary: f.File, ChangedSec: f.ChangedSec, ChangedNsec: f.ChangedNsec}
		}
	}
	return own, nil
}

// run lists the files of this process, and all sockets of AF_ALG.
func run(list *ebpf.Program) ([]guard.OpenFile, error) {
	iter, err := link.AttachIter(link.IterOptions{Program: list})
	if err != nil {
		return nil, hosterr.Errorf("list open files: %w", err)
	}
	defer iter.Close()
	r, err := iter.Open()
	if err != nil {
		return nil, hosterr.Errorf("list open files: %w", err)
	}
	defer r.Close()
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, hosterr.Errorf("list open files: %w", err)
	}
	files := make([]guard.OpenFile, len(text)/binary.Size(guard.OpenFile{}))
	return files, binary.Read(bytes.NewReader(text), binary.NativeEndian, files)
}

// ask finds what a host says of the names in a plan.
func ask(p *plan.Plan) (table.Host, error) {
	h := table.Host{Users: map[string]uint32{}, Files: map[string]table.File{}}
	paths := map[string]bool{} // to whether a rule asks for the digest
	for _, r := range p.Rules {
		for _, b := range r.Binaries {
			paths[b.Path] = paths[b.Path] || b.SHA256 != ""
		}
		for _, name := range r.Users {
			if u, err := user.Lookup(name); err == nil {
				if uid, err := strconv.ParseUint(u.Uid, 10, 32); err == nil {
					h.Users[name] = uint32(uid)
				}
			}
		}
	}
	return h, lookUp(paths, h.Files)
}

// lookUp finds executables by their paths. A path that is no regular file, or
// leads over a link, is that of no executable.
func lookUp(paths map[string]bool, files map[string]table.File) error {
	opened := map[string]int{}
	defer func() {
		for _, fd := range opened {
			unix.Close(fd)
		}
	}()
	for path := range paths {
		if fd, err := openExecutable(path); err == nil {
			opened[path] = fd
		}
	}
	if len(opened) == 0 {
		return nil
	}
	own, err := ownFiles()
	if err != nil {
		return err
	}
	for path, fd := range opened {
		file, ok := own[fd]
		if !ok {
			continue
		}
		if paths[path] {
			file.SHA256, _ = digest(fd) // without one no rule about the content holds
		}
		files[path] = file
	}
	return nil
}

func openExecutable(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	var st unix.Stat_t
	shown, err := os.Readlink(procFile(fd))
	if err == nil {
		err = unix.Fstat(fd, &st)
	}
	if err == nil && (shown != path || st.Mode&unix.S_IFMT != unix.S_IFREG) {
		err = errors.New("not the path of an executable")
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func procFile(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// digest reads a file that does not change meanwhile. The time of a change is as
// coarse as the kernel's tick: one that is younger than a second says nothing.
func digest(fd int) (string, error) {
	f, err := os.Open(procFile(fd))
	if err != nil {
		return "", err
	}
	defer f.Close()
	for range 3 {
		before, err := changed(f)
		if err != nil {
			return "", err
		}
		if age := time.Since(before); age < time.Second {
			time.Sleep(time.Second - max(age, 0))
		}
		h := sha256.New()
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return "", err
		}
		if _, err := io.Copy(h, f); err != nil {
			return "", err
		}
		if after, err := changed(f); err == nil && after.Equal(before) {
			return hex.EncodeToString(h.Sum(nil)), nil
		}
	}
	return "", errors.New("the file changes while it is read")
}

func changed(f *os.File) (time.Time, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return time.Time{}, err
	}
	return time.Unix(st.Ctim.Sec, st.Ctim.Nsec), nil
}
