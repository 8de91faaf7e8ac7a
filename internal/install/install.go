// Package install puts a policy into the configuration of container platforms,
// and takes it back.
//
// A platform is an entry of a table: how it is found on a host, and a function
// that turns options into the files that it wants, by edits of what is there.
// What is done with the files is the job of package host, which knows no
// platform.
package install

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/install/host"
)

// Result is what an installation did, or would do.
type Result struct {
	Changes   []Change
	Notes     []string // what the installation does not reach, and why
	Restart   []string // commands that make the platform read its files again
	Recovered bool     // an earlier run had been interrupted
}

// What callers tell apart, under the names of this package.
type (
	Change       = host.Change
	ChangedError = host.ChangedError
	HostError    = host.HostError
	OptionError  = host.OptionError
)

// ErrBusy tells that another process is at it.
var ErrBusy = host.ErrBusy

// platform is one way in which containers reach a host.
type platform struct {
	name     string
	programs []string // any of them in PATH, or
	configs  []string // any of these directories, tell that it is here
	files    func(*host.Host, Options) (job, error)
	restart  []string                                        // commands that make it read its files again
	removed  []string                                        // instead, after uninstall
	unit     string                                          // of the daemon; none if there is no daemon
	active   func(context.Context, *host.Record) error       // why what is installed is not in use
	prove    func(ctx context.Context, program string) error // why a container is not known to be closed
}

// platforms in the order in which they are shown. A table that is a variable
// would be an initialization cycle.
func platforms() []platform {
	return []platform{docker(), podman(), containerd(), crio(), systemd()}
}

// Platforms lists their names.
func Platforms() []string {
	var names []string
	for _, p := range platforms() {
		names = append(names, p.name)
	}
	return names
}

func platformOf(name string) (platform, error) {
	i := slices.IndexFunc(platforms(), func(p platform) bool { return p.name == name })
	if i < 0 {
		return platform{}, host.Usage("platform %q: there is no such platform; there are %s", name, strings.Join(Platforms(), ", "))
	}
	return platforms()[i], nil
}

func (p platform) found(h *host.Host) bool {
	for _, name := range p.programs {
		if _, err := h.LookPath(name); err == nil {
			return true
		}
	}
	return slices.ContainsFunc(p.configs, func(dir string) bool {
		info, err := h.Stat(dir)
		return err == nil && info.IsDir()
	})
}

func (p platform) afterRemoval() []string {
	if p.removed != nil {
		return p.removed
	}
	return p.restart
}

// job is what a platform wants.
type job struct {
	files []host.File // in the order in which they are put in place: what is referred to comes first
	notes []string
}

// Install puts a platform's files in place.
func Install(name string, o Options) (*Result, error) {
	p, err := platformOf(name)
	if err != nil {
		return nil, err
	}
	h, err := host.Open(o.Root)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	if !o.DryRun {
		unlock, err := h.Lock()
		if err != nil {
			return nil, err
		}
		defer unlock()
	}
	old, err := h.ReadRecord(name)
	if err != nil {
		return nil, err
	}
	if !p.found(h) {
		return nil, notFound(h, p)
	}
	if err := o.check(h); err != nil {
		return nil, err
	}
	h.Before(old)
	j, err := p.files(h, o)
	if err != nil {
		return nil, err
	}
	c, err := h.Plan(old, j.files, host.NewRecord(name, o.Version, o.saved()))
	if err != nil {
		return nil, err
	}
	return finish(h, c, o.DryRun, &Result{Notes: j.notes, Restart: p.restart, Recovered: old.Interrupted()})
}

// Uninstall restores what was there before Install.
func Uninstall(name, root string, dryRun bool) (*Result, error) {
	p, err := platformOf(name)
	if err != nil {
		return nil, err
	}
	h, err := host.Open(root)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	if !dryRun {
		unlock, err := h.Lock()
		if err != nil {
			return nil, err
		}
		defer unlock()
	}
	old, err := h.ReadRecord(name)
	if err != nil {
		return nil, err
	}
	if old == nil {
		return nil, fmt.Errorf("%s is not installed: there is no %s", name, h.Shown(host.RecordPath(name)))
	}
	c, err := h.Plan(old, nil, nil)
	if err != nil {
		return nil, err
	}
	return finish(h, c, dryRun, &Result{Restart: p.afterRemoval(), Recovered: old.Interrupted()})
}

// finish carries a plan out, unless it is a dry run, and completes the result.
func finish(h *host.Host, c *host.Changes, dryRun bool, r *Result) (*Result, error) {
	r.Changes = c.Show()
	if h.Dir != "/" || len(r.Changes) == 0 {
		r.Restart = nil
	}
	if dryRun {
		return r, nil
	}
	return r, c.Apply()
}

func notFound(h *host.Host, p platform) error {
	where := "no " + strings.Join(p.programs, " or ") + " in " + host.SystemPath
	if len(p.configs) > 0 {
		where += ", and no " + strings.Join(p.configs, " or ")
	}
	if h.Dir != "/" {
		where += " of " + h.Dir
	}
	return host.Unable("%s was not found: %s; install it first", p.name, where)
}
