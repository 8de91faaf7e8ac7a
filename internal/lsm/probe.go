package lsm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/lsm/guard"
	"github.com/afalg-policy/afalg-policy/internal/lsm/table"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// A program may be attached and never run. So each load asks: a copy of this
// executable, which no rule lists, is started twice. Under the policy it must be
// denied; with one rule more, which lists it, it must be allowed.

// probeName is the name under which the executable is the probe.
const probeName = "afalg-policy-lsm-probe"

// probeUser is nobody's id. It keeps rules about users out of the answer.
const probeUser = 1<<32 - 3

// probeAnswer is what the probe met: 0, or an errno.
type probeAnswer struct {
	Socket, Bind unix.Errno
}

func init() {
	if len(os.Args) != 1 || os.Args[0] != probeName {
		return
	}
	if json.NewEncoder(os.Stdout).Encode(askKernel()) != nil {
		os.Exit(1)
	}
	os.Exit(0)
}

// askKernel makes a socket and binds it, and does nothing with it.
func askKernel() (a probeAnswer) {
	fd, err := unix.Socket(unix.AF_ALG, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if errors.As(err, &a.Socket) {
		a.Bind = a.Socket
		return a
	}
	defer unix.Close(fd)
	address := &unix.SockaddrALG{Type: string(table.ProbeAlgorithm.Type), Name: table.ProbeAlgorithm.Name}
	errors.As(unix.Bind(fd, address), &a.Bind)
	return a
}

// probe shows that the programs decide by the table in force, and by another one
// as soon as that is. The table of the policy is in force at the end.
func (c *change) probe(ctx context.Context, s *ebpf.CollectionSpec, m pinned) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	copied, err := ownCopy()
	if err != nil {
		return hosterr.Errorf("copy this executable for a probe: %w", err)
	}
	defer copied.Close()
	file, err := keyOf(copied)
	if err != nil {
		return err
	}
	binary := file.Binary
	if err := c.probeDenied(ctx, copied, binary, m); err != nil {
		return err
	}
	listed, _, err := table.Compile(c.plan, c.names, table.Options{Generation: c.table.Generation, Audit: c.state.Audit, Probe: &file})
	if err != nil {
		return err
	}
	if _, err := c.swap(s, m, listed); err != nil {
		return err
	}
	err = c.probeAllowed(ctx, copied, binary, m)
	_, back := c.swap(s, m, c.table)
	forget(m, binary)
	return errors.Join(err, back)
}

var errNeverRuns = errors.New("the programs are attached, and do not run")

func (c *change) probeDenied(ctx context.Context, copied *os.File, binary guard.Binary, m pinned) error {
	defer forget(m, binary)
	a, err := runProbe(ctx, copied)
	if err != nil {
		return err
	}
	allowed, ok := answersTo(m, binary)[guard.HookSocket]
	switch want := unix.Errno(c.plan.SocketErrno.Number); {
	case !ok:
		return hosterr.Errorf("probe: %w: a socket of AF_ALG was not recorded; nothing is in force", errNeverRuns)
	case allowed && !slices.ContainsFunc(c.plan.Rules, openToAll):
		return hosterr.Errorf("probe: an executable that no rule lists was allowed a socket")
	case !allowed && !c.state.Audit && a.Socket != want:
		return hosterr.Errorf("probe: an executable that no rule lists met %v instead of %v; nothing is in force", a.Socket, want)
	}
	return nil
}

// openToAll reports whether a rule may be met by a process that is known for
// nothing but its unit.
func openToAll(r policy.Rule) bool { return len(r.Binaries)+len(r.Users)+len(r.Capabilities) == 0 }

func (c *change) probeAllowed(ctx context.Context, copied *os.File, binary guard.Binary, m pinned) error {
	a, err := runProbe(ctx, copied)
	if err != nil {
		return err
	}
	allowed := answersTo(m, binary)
	if !allowed[guard.HookSocket] {
		return hosterr.Errorf("probe: an executable that a rule lists was denied a socket (%v): the programs do not see which executable asks", a.Socket)
	}
	if a.Socket == 0 && !allowed[guard.HookBind] {
		return hosterr.Errorf("probe: an executable that a rule lists was denied its algorithm (%v): the programs do not see the algorithm", a.Bind)
	}
	return nil
}

func runProbe(ctx context.Context, copied *os.File) (a probeAnswer, err error) {
	cmd := exec.CommandContext(ctx, "/proc/self/fd/3") // nobody else may look into /proc of this process
	cmd.Args = []string{probeName}
	cmd.Env, cmd.ExtraFiles = []string{}, []*os.File{copied}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: probeUser, Gid: probeUser}}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return a, hosterr.Errorf("start the probe: %w: %s", err, errs.Bytes())
	}
	if err := json.Unmarshal(out.Bytes(), &a); err != nil {
		return a, hosterr.Errorf("the probe's answer: %w", err)
	}
	return a, nil
}

// ownCopy is an executable that no rule can list: it has no path.
func ownCopy() (*os.File, error) {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	defer self.Close()
	fd, err := unix.MemfdCreate(probeName, unix.MFD_CLOEXEC|unix.MFD_EXEC)
	if err == unix.EINVAL { // before 6.3
		fd, err = unix.MemfdCreate(probeName, unix.MFD_CLOEXEC)
	}
	if err != nil {
		return nil, err
	}
	written := os.NewFile(uintptr(fd), probeName)
	defer written.Close()
	if _, err := io.Copy(written, self); err != nil {
		return nil, err
	}
	if err := unix.Fchmod(fd, 0o555); err != nil {
		return nil, err
	}
	return os.Open(procFile(fd)) // what is open for writing cannot be started
}

// keyOf finds how the programs see an open file.
func keyOf(f *os.File) (table.File, error) {
	all, err := ownFiles()
	if err != nil {
		return table.File{}, err
	}
	file, ok := all[int(f.Fd())]
	if !ok {
		return table.File{}, hosterr.Errorf("the kernel does not list an open file of this process")
	}
	return file, nil
}

// usesOf returns what was recorded of an executable.
func usesOf(m pinned, binary guard.Binary) (mine []guard.Use) {
	var u guard.Use
	var times guard.Times
	for all := m["uses"].Iterate(); all.Next(&u, &times); {
		if u.Binary == binary {
			mine = append(mine, u)
		}
	}
	return mine
}

// answersTo returns whether an executable was allowed its calls, by hook.
func answersTo(m pinned, binary guard.Binary) map[uint8]bool {
	allowed := map[uint8]bool{}
	for _, u := range usesOf(m, binary) {
		allowed[u.Hook] = u.Allowed != 0
	}
	return allowed
}

// forget takes the probe out of the record.
func forget(m pinned, binary guard.Binary) {
	for _, u := range usesOf(m, binary) {
		m["uses"].Delete(u)
	}
	m["trails"].Delete(binary)
}
