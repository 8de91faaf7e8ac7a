package kept

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/afalg-policy/afalg-policy/internal/bounded"
	"github.com/afalg-policy/afalg-policy/internal/filter/harden"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/filter/seccomp"
	"github.com/afalg-policy/afalg-policy/internal/jsontext"
	"github.com/afalg-policy/afalg-policy/internal/oci"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// Ahead is what containers of installed platforms will start under.
type Ahead struct {
	Plan       *plan.Plan
	Tool       string // name and version of this program
	Program    string // that will ask for the proofs: this one, for others count for nothing
	Agent      string // its socket
	Socketcall harden.Socketcall
	Hardened   [][]byte // the default profiles that were hardened for platforms
	// Seen is whether the profiles under which containers of pods came are proved as
	// well, for whatever a container may hold.
	Seen bool
}

// Prove proves the profiles that platforms will give to their containers, so
// that none of them waits for it: those that were hardened for the platform,
// and those that platforms have by themselves.
func (a Ahead) Prove() error {
	if !isThis(a.Program) {
		return fmt.Errorf("%s is another build", a.Program)
	}
	memo := OpenProofs(a.Tool)
	if memo == nil {
		return errors.New("there is no place to keep proofs")
	}
	defer memo.Close()
	arch, err := profile.ArchByName(runtime.GOARCH)
	if err != nil {
		return err
	}
	for _, dir := range proofDirs() {
		if err := oci.Forget(dir, buildIdentity(a.Tool)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	o := oci.Options{Plan: a.Plan, Tool: a.Tool, Arch: arch, Agent: a.Agent, Socketcall: a.Socketcall, Memo: memo}
	defer seccomp.Keep()()
	var seen error
	if a.Seen {
		seen = proveSeen(o)
	}
	return errors.Join(seen, proveDefaults(o, a.Hardened))
}

// mostHoldings bounds the work ahead.
const mostHoldings = 32

// proveSeen goes on after a profile that cannot be hardened: containers with it are
// refused one by one.
func proveSeen(o oci.Options) error {
	bases := OpenBases()
	defer bases.Close()
	all := bases.all()
	if o.Plan.Unconfined == plan.Harden {
		all = append(all, nil)
	}
	var errs []error
	for _, h := range o.Plan.Holdings("containerd", mostHoldings) {
		for _, base := range all {
			if !h.Left {
				errs = append(errs, o.Ahead(base, h.Rules, h.Brokered))
			}
		}
	}
	return errors.Join(errs...)
}

func proveDefaults(o oci.Options, hardened [][]byte) error {
	defaults, err := defaultProfiles(hardened)
	if err != nil {
		return err
	}
	for _, base := range defaults {
		for _, caps := range commonCaps() {
			resolved, err := base.On(profile.Host{Arch: o.Arch, Caps: caps})
			if err != nil {
				return err
			}
			if err := o.Ahead(resolved, nil, false); err != nil {
				return err
			}
		}
	}
	return nil
}

// commonCaps are bounding sets on which the default profiles of platforms
// depend: the default one of Docker and containerd, that of Podman, none, and
// what is often added. A set that leads to a profile of another one is proved
// with it.
func commonCaps() [][]string {
	docker := profile.DefaultCaps()
	podman := []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_NET_BIND_SERVICE",
		"CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
	}
	sets := [][]string{docker, podman, nil}
	for _, added := range []string{"CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_NET_ADMIN"} {
		for _, set := range [][]string{docker, podman} {
			sets = append(sets, append(set[:len(set):len(set)], added))
		}
	}
	return sets
}

// isThis reports whether a program is this very build.
func isThis(program string) bool {
	named, err1 := os.Stat(program)
	self, err2 := os.Stat("/proc/self/exe")
	return err1 == nil && err2 == nil && os.SameFile(named, self)
}

// containersProfiles are where containers-common, of Podman and CRI-O, has its
// default profile; each may be missing.
var containersProfiles = []string{"/etc/containers/seccomp.json", "/usr/share/containers/seccomp.json"}

func defaultProfiles(hardened [][]byte) ([]*profile.Profile, error) {
	all, err := parseAll(hardened)
	if err != nil {
		return nil, err
	}
	var texts [][]byte
	for _, path := range containersProfiles {
		if text, err := bounded.ReadFile(path, jsontext.Max); err == nil {
			texts = append(texts, text)
		}
	}
	others, err := parseAll(texts)
	return slices.Concat(all, []*profile.Profile{profile.Docker()}, others), err
}

func parseAll(texts [][]byte) ([]*profile.Profile, error) {
	var all []*profile.Profile
	for _, text := range texts {
		p, err := profile.Parse(text)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

// Process has what is ahead proved in a process of its own, one at a time: a
// compiler of filters is nothing to have in one that answers calls.
type Process struct {
	Args   []string          // of this program, which then proves
	Wanted func() bool       // whether there is anything to prove
	Note   func(text string) // is told how it went

	mu    sync.Mutex
	stop  context.CancelFunc
	ended chan struct{}
}

// Begin proves anew, and ends what runs.
func (a *Process) Begin() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.end()
	if !a.Wanted() {
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	a.stop, a.ended = stop, make(chan struct{})
	go func(ended chan struct{}) {
		defer close(ended)
		switch err := a.prove(ctx); {
		case ctx.Err() != nil: // for another policy, or no longer
		case err != nil:
			a.Note(fmt.Sprintf("the first containers will wait for their proofs: %v", err))
		default:
			a.Note("the default profiles of the installed platforms are proved")
		}
	}(a.ended)
}

func (a *Process) prove(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", a.Args...)
	cmd.Args[0] = os.Args[0]
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		return errors.Join(err, errors.New(strings.TrimSpace(said.String())))
	}
	return nil
}

// End leaves no such process behind.
func (a *Process) End() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.end()
}

func (a *Process) end() {
	if a.stop != nil {
		a.stop()
		<-a.ended
	}
}
