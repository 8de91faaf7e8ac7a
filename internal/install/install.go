// Package install puts a policy into the configuration of container platforms
// and services, and removes it again.
//
// Each platform is an entry of a table: how to find it on a host, and a
// function that turns options into the files that it wants, by edits of the
// existing ones. Package host does the rest with these files, and knows no
// platform.
package install

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/install/host"
)

// Result is what an installation did, or would do.
type Result struct {
	Changes   []Change
	Notes     []string // what the installation does not reach, and why
	Restart   []string // commands that make the platform read its files again
	Kept      string   // what goes on as it was started: "containers", "services", or "modules"
	Recovered bool     // an earlier run had been interrupted
}

// The types of package host that callers tell apart.
type (
	Change       = host.Change
	ChangedError = host.ChangedError
	OptionError  = host.OptionError
)

// ErrBusy means that another process installs or uninstalls.
var ErrBusy = host.ErrBusy

// platform is one way in which containers reach a host.
type platform struct {
	name     string
	programs []string // the platform is here if PATH has one of these,
	configs  []string // or if one of these directories exists
	files    func(*host.Host, Options) (job, error)
	starts   bool // it starts containers
	kubelet  bool // a kubelet may have it start pods
	dataOnly bool // no file names our program, which may be elsewhere
	// unfiltered lists the containers that run without a seccomp profile.
	unfiltered func(context.Context) []string
	restart    []string                                  // commands that make the platform read its files again
	commands   func(*host.Host, *host.Record) []string   // the same, where they depend on the host; in place of restart
	removed    []string                                  // the same after uninstall
	left       string                                    // what uninstall leaves behind
	unit       string                                    // of the daemon; empty if there is no daemon
	active     func(context.Context, *host.Record) error // returns why the platform does not use what is installed
	// besides lists, for status, what else is not in force.
	besides func(context.Context, *host.Record, StatusOptions, Status) []string
	probe   func(ctx context.Context, program string) error // returns why a container may not be closed
	start   func(context.Context, *host.Record) error       // puts the files in force at once, and shows that they are
	// stop takes them out of force when they are gone. It may leave what was in
	// force without them.
	stop func(ctx context.Context, r *host.Record, leave bool) error
}

// platforms lists the platforms in the order in which they are shown. A
// variable would be an initialization cycle.
func platforms() []platform {
	return []platform{docker(), podman(), containerd(), crio(), kubernetes(), agent(), systemd(), kernelHalf(), settings()}
}

// Platforms returns the names of the platforms.
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

// RestartCommands make a platform read its files again, after an installation or
// after its removal. They are those of platforms that need the same on every host.
func RestartCommands(name string, removed bool) []string {
	p, err := platformOf(name)
	if err == nil && removed && p.removed != nil {
		return p.removed
	}
	return p.restart
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

func (p platform) kept() string {
	switch p.name {
	case systemdName:
		return "services"
	case settingsName:
		return "modules"
	}
	return "containers"
}

// after are the commands that make the platform read its files again.
func (p platform) after(h *host.Host, r *host.Record) []string {
	if p.commands != nil {
		return p.commands(h, r)
	}
	return p.restart
}

func (p platform) afterRemoval(h *host.Host, r *host.Record) []string {
	if p.removed != nil {
		return p.removed
	}
	return p.after(h, r)
}

// job is what a platform wants.
type job struct {
	files []host.File // in the order in which they are put in place: a file that others refer to comes first
	notes []string
	stops []string // what would stop working, besides what runs in containers
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
	if !o.DryRun {
		if err := renameRecord(h); err != nil {
			return nil, err
		}
	}
	old, err := readRecord(h, name)
	if err != nil {
		return nil, err
	}
	if !p.found(h) {
		return nil, notFound(h, p)
	}
	if err := o.check(h, p); err != nil {
		return nil, err
	}
	if _, err := rebase(h, old); err != nil {
		return nil, err
	}
	h.Before(old)
	if p.kubelet {
		if err := o.checkKubelet(h); err != nil {
			return nil, err
		}
	}
	j, err := p.files(h, o)
	if err != nil {
		return nil, err
	}
	if p.starts {
		j.notes = append(j.notes, o.agentNotes(h)...)
	}
	o.was(old)
	next := host.NewRecord(name, o.Version, o.saved())
	c, err := h.Plan(old, j.files, next)
	if err != nil {
		return nil, err
	}
	if stops := append(p.stops(context.Background(), h, o), j.stops...); o.Before != nil && stops != nil {
		o.Before(stops)
	}
	r, err := finish(h, c, o.DryRun, &Result{Notes: j.notes, Restart: p.after(h, next), Kept: p.kept(), Recovered: old.Interrupted()})
	if err != nil || o.DryRun || h.Dir != "/" || p.start == nil {
		return r, err
	}
	return r, p.startOrBack(h, old, next)
}

// Uninstall restores the files as they were before Install.
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
	if !dryRun {
		if err := renameRecord(h); err != nil {
			return nil, err
		}
	}
	old, err := readRecord(h, name)
	if err != nil {
		return nil, err
	}
	if old == nil {
		return nil, notInstalled(h, name)
	}
	notes, err := rebase(h, old)
	if err != nil {
		return nil, err
	}
	c, err := h.Plan(old, nil, nil)
	if err != nil {
		return nil, err
	}
	if p.left != "" {
		notes = append(notes, p.left)
	}
	r, err := finish(h, c, dryRun, &Result{Notes: notes, Restart: p.afterRemoval(h, old), Kept: p.kept(), Recovered: old.Interrupted()})
	if err != nil || dryRun || h.Dir != "/" || p.stop == nil {
		return r, err
	}
	return r, p.stop(context.Background(), old, false)
}

// finish carries out a plan, unless it is a dry run, and completes the result.
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

func notInstalled(h *host.Host, name string) error {
	hint := ""
	if r, err := readRecord(h, agentName); name == systemdName && err == nil && r != nil {
		hint = `; the agent, which earlier versions called so, goes by "afalg-policy uninstall agent"`
	}
	return fmt.Errorf("%s is not installed: there is no %s%s", name, h.Shown(host.RecordPath(name)), hint)
}

func notFound(h *host.Host, p platform) error {
	where := "no " + strings.Join(p.programs, " or ") + " in " + host.SystemPath
	if len(p.configs) > 0 {
		where += ", and no " + strings.Join(p.configs, " or ")
	}
	if h.Dir != "/" {
		where += " of " + h.Dir
	}
	return hosterr.Errorf("%s was not found: %s; install it first", p.name, where)
}
