package install

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/dist"
	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/install/host"
	"github.com/afalg-policy/afalg-policy/internal/lsm"
	"github.com/afalg-policy/afalg-policy/internal/lsm/hold"
	"github.com/afalg-policy/afalg-policy/internal/unit"
)

const (
	lsmName = "lsm"
	aptDir  = "/etc/apt/apt.conf.d"
	aptHook = aptDir + "/zz-afalg-policy"
	dnfDir  = "/etc/dnf/plugins/post-transaction-actions.d"
	dnfHook = dnfDir + "/afalg-policy.action"
)

// kernelHalf puts the policy in force in the kernel, at each boot. As the only
// platform it does so at once: nothing has to be restarted for it.
func kernelHalf() platform {
	return platform{
		name:     lsmName,
		programs: []string{"systemctl"},
		files:    lsmFiles,
		removed:  []string{},
		unit:     unit.LSMService,
		active:   lsmActive,
		probe:    lsmProbe,
		start:    lsmStart,
		stop:     lsmStop,
	}
}

func lsmFiles(h *host.Host, o Options) (job, error) {
	if h.Dir == "/" {
		if err := lsmPossible(); err != nil {
			return job{}, err
		}
	}
	load := []string{"lsm", "load", o.Policy}
	if o.Audit {
		load = append(load, "--audit")
	}
	for _, name := range o.Accept {
		load = append(load, "--accept", name)
	}
	service, err := lsmUnit(dist.LSMService, o.Program, load...)
	if err != nil {
		return job{}, err
	}
	if service, err = setUnit(service, "RequiresMountsFor", mountsFor(o.Program, o.Policy)); err != nil {
		return job{}, err
	}
	refresh, err := lsmUnit(dist.LSMRefresh, o.Program, "lsm", "refresh", "--quiet")
	if err != nil {
		return job{}, err
	}
	check, err := lsmUnit(dist.LSMCheck, o.Program, "status", "--no-probe", lsmName)
	if err != nil {
		return job{}, err
	}
	j := job{}
	add := func(name, text, wants string) {
		j.files = append(j.files, host.File{Path: path.Join(unitDir, name), Mode: host.Plain, Data: []byte(comment(lsmName) + text)})
		if wants != "" {
			j.files = append(j.files, host.File{Path: path.Join(unitDir, wants+".wants", name), Link: path.Join(unitDir, name)})
		}
	}
	add(unit.LSMService, service, "sysinit.target")
	add(unit.LSMRefresh, refresh, "multi-user.target")
	if len(o.Watched) > 0 {
		add(unit.LSMPath, watch(o.Watched), "paths.target")
	}
	add(unit.LSMCheck, check, "")
	add(unit.LSMTimer, dist.LSMTimer, "timers.target")
	for _, hook := range packageHooks {
		if info, err := h.Stat(hook.dir); err == nil && info.IsDir() {
			j.files = append(j.files, host.File{Path: hook.path, Mode: host.Plain, Data: fmt.Appendf([]byte(comment(lsmName)), hook.line, ShellWords([]string{o.Program}))})
		}
	}
	if h.Dir != "/" {
		j.notes = append(j.notes, "the policy comes in force when the image boots; whether its kernel can do that is seen then")
	}
	return j, nil
}

// packageHooks look executables up again when packages were installed, before
// the command of the user ends. Where no policy is loaded, as in an image, there
// is nothing to do. A refresh that fails says so, and fails no upgrade.
var packageHooks = []struct{ dir, path, line string }{
	{aptDir, aptHook, `DPkg::Post-Invoke { "[ ! -x %[1]s ] || %[1]s lsm refresh --quiet || true"; };` + "\n"},
	{dnfDir, dnfHook, `*:any:[ ! -x %[1]s ] || %[1]s lsm refresh --quiet` + "\n"},
}

// lsmPossible returns why the policy cannot be in force in this kernel.
func lsmPossible() error {
	h, err := lsm.Look()
	if err == nil {
		_, err = h.Choose()
	}
	return err
}

// lsmUnit sets what a unit executes.
func lsmUnit(text, program string, args ...string) (string, error) {
	start, err := execStart(program, args...)
	if err != nil {
		return "", err
	}
	if strings.Contains(text, "\nExecReload=") {
		if text, err = setUnit(text, "ExecReload", start); err != nil {
			return "", err
		}
	}
	return setUnit(text, "ExecStart", start)
}

func mountsFor(program, policy string) string {
	words := []string{unitPath(program)}
	if !builtin(policy) {
		words = append(words, unitPath(policy))
	}
	return strings.Join(words, " ")
}

func unitPath(p string) string { return quoteUnit(p, `\`, `\\`, `"`, `\"`, `%`, `%%`) }

// watch is the unit that sees files change.
func watch(paths []string) string {
	var b strings.Builder
	b.WriteString("# Watches what the policy names. Packages replace executables, and the kernel\n# denies a new one until it is looked up.\n")
	b.WriteString("[Unit]\nDescription=Executables of the AF_ALG policy in the kernel\nAfter=" + unit.LSMService + "\n\n[Path]\n")
	for _, p := range paths {
		b.WriteString("PathChanged=" + strings.ReplaceAll(p, "%", "%%") + "\n")
	}
	b.WriteString("Unit=" + unit.LSMRefresh + "\n\n[Install]\nWantedBy=paths.target\n")
	return b.String()
}

// lsmStart loads the policy by the service, as at boot, and shows that it is in
// force. A load that fails leaves what was loaded.
func lsmStart(ctx context.Context, r *host.Record) error {
	_, notLoaded := lsm.ReadState()
	err := lsmForce(ctx, r)
	switch {
	case err == nil:
		return nil
	case notLoaded == nil:
		return &standingError{err}
	}
	return err
}

func lsmForce(ctx context.Context, r *host.Record) error {
	if _, err := ask(ctx, "systemctl", "daemon-reload"); err != nil {
		return hosterr.Errorf("%w", err)
	}
	if _, err := ask(ctx, "systemctl", "reload-or-restart", unit.LSMService); err != nil {
		why, _ := ask(ctx, "systemctl", "show", "--property=StatusText", "--value", unit.LSMService)
		return hosterr.Errorf("%s: %s", unit.LSMService, cmp.Or(strings.TrimSpace(why), err.Error()))
	}
	if _, err := ask(ctx, "systemctl", append([]string{"restart"}, watchers(r)...)...); err != nil {
		return hosterr.Errorf("%w", err)
	}
	if err := lsmActive(ctx, r); err != nil && !errors.Is(err, errAudit) {
		return hosterr.Errorf("%w", err)
	}
	return nil
}

// watchers are the units that run besides the service.
func watchers(r *host.Record) []string {
	return slices.DeleteFunc([]string{unit.LSMPath, unit.LSMTimer}, func(name string) bool {
		return r.Entry(path.Join(unitDir, name)) == nil
	})
}

// lsmStop takes the policy out of force, when the files are gone, or leaves what
// was loaded by others.
func lsmStop(ctx context.Context, r *host.Record, leave bool) error {
	err := errors.Join(hold.Stop(ctx, watchers(r)...), hold.End(ctx))
	if !leave {
		err = errors.Join(err, lsm.Unload())
	}
	_, reload := ask(ctx, "systemctl", "daemon-reload")
	_, _ = ask(ctx, "systemctl", "reset-failed", unit.LSMService, unit.LSMCheck, unit.LSMRefresh) // most did not fail
	if err = errors.Join(err, reload); err != nil {
		return hosterr.Errorf("take the policy out of the kernel: %w", err)
	}
	return nil
}

// errAudit says that a policy only records, as it was installed to.
var errAudit = errors.New("everything is allowed, and what the policy denies is recorded")

// lsmActive asks the kernel whether the policy is in force, and systemd whether
// it watches and holds.
func lsmActive(ctx context.Context, r *host.Record) error {
	s, err := lsm.ReadStatus()
	switch {
	case err != nil:
		return err
	case len(s.Faults) > 0:
		return errors.New(strings.Join(s.Faults, "; "))
	case s.State == nil:
		return fmt.Errorf("%w: run \"systemctl restart %s\"", lsm.ErrNotLoaded, unit.LSMService)
	case s.State.Policy != r.Options["policy"] || s.State.Audit != (r.Options["audit"] != ""):
		return fmt.Errorf("%s is loaded%s, which is not what was installed: run \"systemctl reload-or-restart %s\"", s.State.Policy, map[bool]string{true: " for audit"}[s.State.Audit], unit.LSMService)
	}
	for _, name := range append([]string{unit.LSMService}, watchers(r)...) {
		state, err := ask(ctx, "systemctl", "is-active", name)
		if state = strings.TrimSpace(state); state != "" && state != "active" {
			return fmt.Errorf("%s is %s; start it", name, state)
		} else if err != nil {
			return err
		}
	}
	held, err := ask(ctx, "systemctl", "show", "--property=NFileDescriptorStore", "--value", unit.LSMService)
	if err != nil {
		return err
	}
	if n := strings.TrimSpace(held); n != fmt.Sprint(len(s.State.Programs)) {
		return fmt.Errorf("the service manager holds %s of %d programs besides their pins: run \"systemctl reload %s\"", n, len(s.State.Programs), unit.LSMService)
	}
	if s.State.Audit {
		return errAudit
	}
	return nil
}

// lsmProbe asks the kernel as somebody of whom no policy knows: an executable
// that none lists, and nobody's user.
func lsmProbe(ctx context.Context, program string) error {
	const nobody = "65534"
	args := append([]string{"--reuid=" + nobody, "--regid=" + nobody, "--clear-groups", "--", program}, probeArgs[1:]...)
	routes, err := probedRoutes(ctx, "setpriv", args...)
	if err != nil {
		return err
	}
	open := slices.DeleteFunc(routes, func(r probedRoute) bool { return r.Verdict != "open" })
	if len(open) == 0 {
		return nil
	}
	var names []string
	for _, r := range open {
		names = append(names, r.Route)
	}
	return fmt.Errorf("an executable that no policy lists, and a user without rights: %s", strings.Join(names, ", "))
}
