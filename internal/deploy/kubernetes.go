package deploy

import (
	"runtime"
	"slices"

	"github.com/afalg-policy/afalg-policy/internal/bounded"
	"github.com/afalg-policy/afalg-policy/internal/filter/harden"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/gen"
	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/install"
	"github.com/afalg-policy/afalg-policy/internal/jsontext"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

const grantedLeftOut = "the profiles of grants are left out: any pod may name any file of the node, and would have what it opens; with the admission policies of \"generate kubernetes\" in force, which tie each to its namespaces, run this again with --accept " + install.GapGranted

// profilesOfPods are the files below the kubelet's seccomp directory. Those of grants
// are among them only if it was accepted that any pod can name them.
func profilesOfPods(p *plan.Plan, o *install.Options) (map[string][]byte, []plan.Gap, error) {
	arch, err := profile.ArchByName(runtime.GOARCH)
	if err != nil {
		return nil, nil, hosterr.Errorf("%w", err)
	}
	base := profile.Docker()
	if o.Base != nil {
		if base, err = profile.Parse(o.Base); err != nil {
			return nil, nil, err
		}
	}
	accept, granted := slices.Clone(o.Accept), []plan.Gap(nil)
	if len(p.Grants) > 0 {
		granted = []plan.Gap{plan.Wider.Gap(install.GapGranted, nil, "a pod in any namespace has what a profile of a grant opens, by naming it, unless admission ties the profile to its namespaces")}
	}
	taken := slices.Contains(accept, install.GapGranted)
	if taken {
		if err := plan.Settle(granted, []string{install.GapGranted}, nil); err != nil {
			return nil, nil, err
		}
		accept = slices.DeleteFunc(accept, func(name string) bool { return name == install.GapGranted })
	} else {
		without := *p
		without.Grants, granted = nil, nil
		p = &without
	}
	options := gen.SeccompOptions{
		Common: gen.Common{Tool: o.Version, Accept: accept}, Base: base, Socketcall: harden.SocketcallDeny, Broker: o.Agent,
		Host: profile.Host{Arch: arch, Caps: profile.DefaultCaps()},
	}
	if o.Socketcall == string(harden.SocketcallKeep) {
		options.Socketcall, options.Standing = harden.SocketcallKeep, []string{harden.GapSocketcall}
	}
	files, gaps, err := gen.KubernetesProfiles(p, options)
	return byPath(files), append(granted, gaps...), err
}

// readBase reads the profile that options name.
func readBase(o *install.Options) (err error) {
	if o.BasePath != "" {
		o.Base, err = bounded.ReadFile(o.BasePath, jsontext.Max)
	}
	return err
}

// renewProfiles makes the profiles of pods anew, if this host has some of this
// policy.
func renewProfiles(name string, p *plan.Plan, version string, note func(string)) error {
	o, err := install.Recorded("kubernetes")
	if err != nil || o == nil || o.Policy != name {
		return err
	}
	o.Version = version
	if err := readBase(o); err != nil {
		return err
	}
	done, err := Install("kubernetes", p, *o, func([]plan.Gap) {})
	if err == nil && len(done.Changes) > 0 {
		note("the profiles that pods name were made anew; pods that run keep their filters")
	}
	return err
}
