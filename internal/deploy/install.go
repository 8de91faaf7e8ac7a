// Package deploy puts a policy in force on a host: it installs platforms under
// it, replaces it, and looks whether it is in force. Package install knows the
// platforms, and no policy; this one knows what a policy makes of them.
package deploy

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/filter/harden"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/gen"
	"github.com/afalg-policy/afalg-policy/internal/gen/host"
	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/hostfacts"
	"github.com/afalg-policy/afalg-policy/internal/install"
	"github.com/afalg-policy/afalg-policy/internal/kept"
	"github.com/afalg-policy/afalg-policy/internal/lsm"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
	"github.com/afalg-policy/afalg-policy/internal/report"
)

// Load loads a policy as the hooks will: each file of it, below a root, must be
// root's. The error is that of plan.Load, or an *install.OptionError.
func Load(root, name string) (*plan.Plan, []policy.Warning, error) {
	p, warnings, err := plan.Load(name, func(name string) ([]byte, error) {
		return readTrusted(root, "--policy", name)
	})
	var untrusted *install.OptionError
	if errors.As(err, &untrusted) {
		err = untrusted
	}
	return p, warnings, err
}

// readTrusted reads a policy that is shipped, or that root alone can change.
func readTrusted(root, what, name string) ([]byte, error) {
	if !strings.HasPrefix(name, policy.BuiltinPrefix) {
		path, err := install.Trusted(root, what, name)
		if err != nil {
			return nil, err
		}
		name = path
	}
	return plan.ReadNamed(name)
}

// Install installs a platform under a policy, which Load has read. It completes
// the options by what the policy needs and makes; tell gets what the drop-ins of
// services cannot express. The result says too why it was not done. Errors are
// those of install.Install and of gen.
func Install(name string, p *plan.Plan, o install.Options, tell func([]plan.Gap)) (*Result, error) {
	r := newResult("install", name, o.DryRun)
	o.Needs = needsOf(p)
	o.Watched = watched(p)
	o.Unconfined = unconfinedOf(p)
	if err := settle(name, p, &o, r, tell); err != nil {
		return r.refused(err), err
	}
	before := o.Before
	o.Before = func(stops []string) {
		r.Stops = stops
		if before != nil {
			before(stops)
		}
	}
	o.DropIns = func(gone []string) (map[string][]byte, error) {
		files, gaps, err := dropIns(p, &o, gone)
		gaps = plan.Untold(gaps, err)
		r.Gaps = report.GapsOf(gaps)
		tell(gaps)
		return files, err
	}
	if name == "host" {
		facts, err := hostfacts.Read(o.Root, hostfacts.Given{})
		if err != nil {
			return r.refused(err), err
		}
		o.Sysctls = facts.Sysctls
		o.Settings = func() (map[string][]byte, error) {
			files, gaps, err := hostSettings(p, facts, &o, r)
			gaps = plan.Untold(gaps, err)
			r.Gaps = report.GapsOf(gaps)
			tell(gaps)
			return files, err
		}
	}
	o.Profiles = func() (map[string][]byte, error) {
		made, gaps, err := profilesOfPods(p, &o)
		gaps = plan.Untold(gaps, err)
		r.Gaps = report.GapsOf(gaps)
		tell(gaps)
		if len(p.Grants) > 0 && !slices.Contains(o.Accept, install.GapGranted) {
			r.Notes = append(r.Notes, grantedLeftOut)
		}
		return made, err
	}
	var defaults [][]byte
	o.Harden = func(base []byte) ([]byte, error) {
		hardened, err := hardenBase(p, o.Version, base, harden.Socketcall(o.Socketcall))
		defaults = append(defaults, hardened)
		return hardened, err
	}
	done, err := install.Install(name, o)
	if err != nil {
		return r.refused(err), err
	}
	r.take(done)
	if o.Root != "/" || o.DryRun {
		return r, nil
	}
	if err := kept.KeepPolicy(o.Policy, p); err != nil {
		r.Notes = append(r.Notes, keepNote(err))
	}
	ahead := kept.Ahead{Plan: p, Tool: o.Version, Program: o.Program, Agent: o.Agent, Socketcall: harden.Socketcall(o.Socketcall), Hardened: defaults}
	if err := ahead.Prove(); err != nil {
		r.Notes = append(r.Notes, "the first containers will wait for their proofs: "+err.Error())
	}
	return r, nil
}

// settle asks for what has to be accepted for containers. Services have their gaps
// from the drop-ins, a host has them from its settings, and the kernel half settles
// its own at each load.
func settle(name string, p *plan.Plan, o *install.Options, r *Result, tell func([]plan.Gap)) error {
	var gaps []plan.Gap
	switch {
	case slices.Contains(policy.Platforms(), name):
		gaps = p.KernelGaps()
	case name != "agent":
		return nil
	}
	if name == "containerd" && o.NRI {
		more, err := nriGaps(o)
		if err != nil {
			return err
		}
		gaps = append(gaps, more...)
	}
	err := plan.Settle(gaps, o.Accept, nil)
	if gaps = plan.Untold(gaps, err); len(gaps) > 0 {
		r.Gaps = report.GapsOf(gaps)
		tell(gaps)
	}
	return err
}

// nriGaps are those of a node whose containerd asks the agent.
func nriGaps(o *install.Options) (gaps []plan.Gap, err error) {
	risks, err := install.NRIRisks(o)
	for _, r := range risks {
		kind := plan.Breaking
		if r.Wider {
			kind = plan.Wider
		}
		gaps = append(gaps, kind.Gap(r.Name, nil, r.Text))
	}
	return gaps, err
}

func keepNote(err error) string { return "a slip in the policy will stop containers: " + err.Error() }

// Uninstall takes a platform back, and with the last one of this host what was
// kept for its containers. The result says too why it was not done. Errors are
// those of install.Uninstall.
func Uninstall(name, root string, dryRun bool) (*Result, error) {
	r := newResult("uninstall", name, dryRun)
	done, err := install.Uninstall(name, root, dryRun)
	if err != nil {
		return r.refused(err), err
	}
	r.take(done)
	if root != "/" || dryRun || install.Any() {
		return r, nil
	}
	if err := kept.Forget(); err != nil { // what was installed is gone
		r.Notes = append(r.Notes, fmt.Sprintf("what was proved is left behind, and can be removed: %v", err))
	}
	return r, nil
}

// Status looks at platforms of this host, and at the policies that they have.
func Status(ctx context.Context, o install.StatusOptions) ([]install.Status, error) {
	o.Policy = func(name string) (install.Needs, error) {
		p, _, err := plan.Load(name, plan.ReadNamed)
		if err != nil {
			return install.Needs{}, err
		}
		return needsOf(p), nil
	}
	o.Relying = relying
	o.Profiles = func(o *install.Options) (map[string][]byte, error) {
		p, _, err := plan.Load(o.Policy, plan.ReadNamed)
		if err != nil {
			return nil, err
		}
		if err := readBase(o); err != nil {
			return nil, err
		}
		made, _, err := profilesOfPods(p, o)
		return made, err
	}
	return install.Check(ctx, o)
}

// relying names the containers of a platform that started since the kernel half
// was in force, where it is not any more.
func relying(platform string) error {
	all, err := lsm.RelyingNow()
	if err != nil {
		return fmt.Errorf("which containers rely on the kernel half: %w", err)
	}
	var ids []string
	for _, r := range all {
		if r.Platform == platform {
			ids = append(ids, r.ID)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	if err := lsm.InForce(); err != nil {
		return fmt.Errorf("%s relies on the kernel half, and that is not in force: %w; load the policy, or stop these containers", strings.Join(ids, ", "), err)
	}
	return nil
}

// unconfinedOf is what becomes of containers without a profile, as the wrapper
// has it: where the kernel half is not in force, what is left to it is refused.
func unconfinedOf(p *plan.Plan) install.Unconfined {
	return install.Unconfined{Refused: p.Unconfined != plan.Harden && p.Unconfined != plan.Allow, Said: p.UnconfinedSaid}
}

// watched lists the files that the kernel's table was made from.
func watched(p *plan.Plan) []string {
	var paths []string
	for _, r := range p.Rules {
		for _, b := range r.Binaries {
			paths = append(paths, b.Path)
		}
		if len(r.Users) > 0 {
			paths = append(paths, "/etc/passwd")
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

func needsOf(p *plan.Plan) (n install.Needs) {
	n.Rules, n.Sockets = p.GivesContainers()
	return n
}

// hardenBase makes a default profile: without grants, and with the conditions
// of the base, which the platforms resolve.
//
// It needs no agent, so that it denies what is left to one: the wrapper takes
// that back, container by container.
func hardenBase(p *plan.Plan, tool string, base []byte, socketcall harden.Socketcall) ([]byte, error) {
	parsed := profile.Docker()
	if base != nil {
		var err error
		if parsed, err = profile.Parse(base); err != nil {
			return nil, err
		}
	}
	arch, err := profile.ArchByName(runtime.GOARCH)
	if err != nil {
		return nil, hosterr.Errorf("%w", err)
	}
	options := gen.SeccompOptions{
		Common: gen.Common{Tool: tool}, Base: parsed, Format: gen.FormatDocker, Socketcall: harden.SocketcallDeny,
		Host: profile.Host{Arch: arch, Caps: profile.DefaultCaps()},
	}
	if socketcall == harden.SocketcallKeep {
		options.Socketcall, options.Standing = harden.SocketcallKeep, []string{harden.GapSocketcall}
	}
	files, _, err := gen.Seccomp(whatCloses(p), options)
	if err != nil {
		return nil, err
	}
	return files[0].Data, nil
}

// whatCloses is the part of a policy that default profiles are made of. With the
// rest of it their records would change, and the platform would have to read them
// again for nothing.
func whatCloses(p *plan.Plan) *plan.Plan {
	return &plan.Plan{
		Name: p.Name, Digest: closes(p), SocketErrno: p.SocketErrno, BindErrno: p.BindErrno,
		Families: p.Families, Sockets: p.Sockets, SocketOptions: p.SocketOptions, UserNamespaces: p.UserNamespaces,
	}
}

// hostSettings are the files of a host; what has to be known of them is noted.
func hostSettings(p *plan.Plan, facts hostfacts.Facts, o *install.Options, r *Result) (map[string][]byte, []plan.Gap, error) {
	files, _, gaps, err := host.Host(p, facts, host.Forms()[0], host.Options{Common: gen.Common{
		Tool: o.Version, Accept: o.Accept, Tell: func(text string) { r.Notes = append(r.Notes, text) },
	}})
	return byPath(files), gaps, err
}

func byPath(files []gen.File) map[string][]byte {
	made := map[string][]byte{}
	for _, f := range files {
		made[f.Path] = f.Data
	}
	return made
}

// dropIns are those of all services.
func dropIns(p *plan.Plan, o *install.Options, gone []string) (map[string][]byte, []plan.Gap, error) {
	arch, err := profile.ArchByName(runtime.GOARCH)
	if err != nil {
		return nil, nil, hosterr.Errorf("%w", err)
	}
	files, gaps, err := gen.Systemd(p, gen.SystemdOptions{
		Common: gen.Common{Tool: o.Version, Grants: o.Grants, Accept: o.Accept},
		Arch:   arch, Except: o.Except, Show: o.Show, Gone: gone,
	})
	if err != nil {
		return nil, gaps, err
	}
	return byPath(files), gaps, nil
}
