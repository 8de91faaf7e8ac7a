package install

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/install/host"
	"github.com/afalg-policy/afalg-policy/internal/proc"
	"github.com/afalg-policy/afalg-policy/internal/unit"
)

// systemd closes all services, as "generate systemd" does.
func systemd() platform {
	return platform{
		name:     systemdName,
		programs: []string{"systemctl"},
		files:    systemdFiles,
		restart:  []string{"systemctl daemon-reload"},
		active:   systemdActive,
		probe:    systemdProbe,
	}
}

func systemdFiles(h *host.Host, o Options) (job, error) {
	facts, err := unit.Parse(o.Show)
	if err != nil {
		return job{}, err
	}
	var gone []string // drop-ins of an earlier installation
	for _, s := range facts {
		gone = append(gone, slices.DeleteFunc(s.Hiding(), h.Exists)...)
	}
	dropIns, err := o.DropIns(gone)
	if err != nil {
		return job{}, err
	}
	closure := closureOf(dropIns)
	var j job
	for _, p := range slices.SortedFunc(maps.Keys(dropIns), exceptionsFirst) {
		data := append([]byte(comment(systemdName)), dropIns[p]...)
		j.files = append(j.files, host.File{Path: path.Join(unitDir, p), Mode: host.Plain, Data: data})
	}
	if h.Dir == "/" {
		j.stops = serviceStops(facts, closure)
	}
	return j, nil
}

// exceptionsFirst sorts the drop-in for every service behind the exceptions
// from it: half an installation closes too little, rather than the agent.
func exceptionsFirst(a, b string) int {
	every := unit.DropIn(unit.EveryService, unit.Closure)
	switch {
	case a == b:
		return 0
	case a == every:
		return 1
	case b == every:
		return -1
	}
	return strings.Compare(a, b)
}

// closure is the effect of the drop-ins on each unit.
type closure map[string]*unit.Families // by unit; nil leaves it as it is

func closureOf(dropIns map[string][]byte) closure {
	c := closure{}
	for p, data := range dropIns {
		name := strings.TrimSuffix(path.Dir(p), ".d")
		families, err := unit.OwnFamilies("Service", []string{p}, func(string) ([]byte, error) { return data, nil })
		if c[name] = nil; err == nil && strings.Contains(string(data), "\n[Service]\n") {
			c[name] = &families
		}
	}
	return c
}

// of returns the families that a service may open by its drop-in, or nil if it
// is left alone.
func (c closure) of(service string) *unit.Families {
	for _, name := range []string{service, unit.Template(service), unit.EveryService} {
		if f, ok := c[name]; ok {
			return f
		}
	}
	return nil
}

// installedDropIns returns the drop-ins of a record, by path below unitDir.
func installedDropIns(r *host.Record) map[string][]byte {
	dropIns := map[string][]byte{}
	for _, e := range r.Files {
		dropIns[strings.TrimPrefix(e.Path, unitDir+"/")] = e.After.Data
	}
	return dropIns
}

// installedClosure returns the closure of a record.
func installedClosure(r *host.Record) closure { return closureOf(installedDropIns(r)) }

// staleError lists units that run as they were started before.
type staleError struct{ units []string }

func (e *staleError) Error() string {
	what := "a service runs as it was started before"
	if len(e.units) > 1 {
		what = fmt.Sprintf("%d services run as they were started before", len(e.units))
	}
	return fmt.Sprintf("%s: %s; restart them, or the machine", what, some(e.units))
}

// some joins the first of many names.
func some(names []string) string {
	const shown = 5
	if len(names) <= shown {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:shown], ", "), len(names)-shown)
}

// systemdActive asks the manager which families each service may open, and
// whether each running service was started under that limit.
func systemdActive(ctx context.Context, r *host.Record) error {
	inForce, err := askUnits(ctx, unit.AskAll)
	if err != nil {
		return err
	}
	own, err := askUnits(ctx, unit.Ask)
	if err != nil {
		return err
	}
	c := installedClosure(r)
	if err := errors.Join(c.notInForce(inForce), c.leavesUserNamespaces(installedDropIns(r), inForce), c.widens(own)); err != nil {
		return err
	}
	return c.notRestarted(inForce, r.Moment)
}

func askUnits(ctx context.Context, ask func(context.Context) ([]byte, error)) (unit.Facts, error) {
	shown, err := ask(ctx)
	if err != nil {
		return nil, err
	}
	return unit.Parse(shown)
}

// services calls do for each closed service, with the families that it may
// open.
func (c closure) services(facts unit.Facts, do func(name string, s unit.Shown, want unit.Families)) {
	for _, name := range slices.Sorted(maps.Keys(facts)) {
		if !strings.HasSuffix(name, ".service") || facts[name].Values["LoadState"] != "loaded" {
			continue
		}
		if want := c.of(name); want != nil {
			do(name, facts[name], *want)
		}
	}
}

// notInForce names the services that may open other families than their drop-in
// says.
func (c closure) notInForce(facts unit.Facts) error {
	var stale, other []string
	c.services(facts, func(name string, s unit.Shown, want unit.Families) {
		switch {
		case equalFamilies(s.Families, want):
		case s.Values["NeedDaemonReload"] == "yes", !strings.Contains(s.Values["DropInPaths"], unit.Closure):
			stale = append(stale, name)
		default:
			other = append(other, name)
		}
	})
	switch {
	case stale != nil:
		return fmt.Errorf("systemd has not read the drop-ins of %s: run \"systemctl daemon-reload\"", some(stale))
	case other != nil:
		return fmt.Errorf("%s: RestrictAddressFamilies= is set to something else by a drop-in that is read after %s; give that an earlier name", some(other), unit.Closure)
	}
	return nil
}

// leavesUserNamespaces names the services that may make user namespaces, though
// their drop-in takes these away.
func (c closure) leavesUserNamespaces(dropIns map[string][]byte, facts unit.Facts) error {
	var open []string
	c.services(facts, func(name string, s unit.Shown, _ unit.Families) {
		if takesUserNamespaces(dropIns, name) && makesUserNamespaces(s.Values["RestrictNamespaces"]) {
			open = append(open, name)
		}
	})
	if open == nil {
		return nil
	}
	return fmt.Errorf("%s: RestrictNamespaces= leaves user namespaces open: systemd has not read the drop-in (run \"systemctl daemon-reload\"), or one that is read after %s sets it to something else", some(open), unit.Closure)
}

// takesUserNamespaces asks the drop-in that is nearest to a service.
func takesUserNamespaces(dropIns map[string][]byte, service string) bool {
	for _, name := range []string{service, unit.Template(service), unit.EveryService} {
		if text, ok := dropIns[unit.DropIn(name, unit.Closure)]; ok {
			return strings.Contains(string(text), "\nRestrictNamespaces=~user\n")
		}
	}
	return false
}

// makesUserNamespaces reads what systemctl shows: yes and no say whether all are
// restricted, a list has the types that are not.
func makesUserNamespaces(shown string) bool {
	return shown == "" || shown == "no" || slices.Contains(strings.Fields(shown), "user")
}

func equalFamilies(a, b unit.Families) bool {
	return slices.Equal(slices.Sorted(slices.Values(a.Allowed())), slices.Sorted(slices.Values(b.Allowed())))
}

// widens names the services whose own list is shorter than their drop-in's:
// they came, or changed, after it was made.
func (c closure) widens(own unit.Facts) error {
	var wider []string
	c.services(own, func(name string, s unit.Shown, want unit.Families) {
		allowed := append(s.Families.Allowed(), "AF_ALG") // it is granted, or not in the list
		if slices.ContainsFunc(want.Allowed(), func(f string) bool { return !slices.Contains(allowed, f) }) {
			wider = append(wider, name)
		}
	})
	if wider == nil {
		return nil
	}
	return fmt.Errorf("the list of %s is shorter than the one that was installed: run \"afalg-policy install systemd\" again", some(wider))
}

// notRestarted names the services that run without what was installed.
func (c closure) notRestarted(facts unit.Facts, since host.Moment) error {
	var stale []string
	c.services(facts, func(name string, s unit.Shown, _ unit.Families) {
		pid := s.Values["MainPID"]
		if pid == "" || pid == "0" {
			return
		}
		d, err := readDaemon("/proc/" + pid)
		if err != nil { // it has ended meanwhile
			return
		}
		if !d.after(since) || !filtered(pid) {
			stale = append(stale, name)
		}
	})
	if stale == nil {
		return nil
	}
	return &staleError{stale}
}

// filtered reports whether a process is under a seccomp filter. A process older
// than systemd's reading of the drop-ins may not be.
func filtered(pid string) bool {
	status, err := proc.ReadStatus("/proc/" + pid)
	return err != nil || status.Seccomp == proc.ModeFilter
}

// unfiltered are the routes that drop-ins cannot close; "generate systemd" says
// so.
var unfiltered = []string{"socketpair"}

// systemdProbe asks the kernel from inside a service.
func systemdProbe(ctx context.Context, program string) error {
	args := []string{"--quiet", "--pipe", "--wait", "--collect", "--unit=" + newContainer(), "--", program}
	open, err := openRoutes(ctx, unfiltered, "systemd-run", append(args, probeArgs[1:]...)...)
	if err == nil && open != nil {
		err = fmt.Errorf("in a service: %s", strings.Join(open, ", "))
	}
	return err
}
