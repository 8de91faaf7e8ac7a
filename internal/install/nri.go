package install

import (
	"context"
	"debug/buildinfo"
	"fmt"
	"os/exec"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/afalg-policy/afalg-policy/internal/install/host"
	"github.com/afalg-policy/afalg-policy/internal/kube"
)

// The agent as a plugin of containerd (NRI). With kube.NRIPlugin in required_plugins, a
// container is refused while the plugin is absent. One that takes longer than
// plugin_request_timeout, or dies while it is asked, counts as one that has nothing to
// change; the container is refused since the plugin is asked a second time, whether
// the container is right. Plugins are not asked about pause containers, nor about
// what ctr starts: the wrapper behind it reaches these.
const (
	nriTable    = "io.containerd.nri.v1.nri"
	nriChecks   = "default_validator"
	nriTimeout  = "plugin_request_timeout"
	nriRequired = "required_plugins"
	// A profile that was not proved ahead took 7.5 s to prove on a loaded machine. The
	// kubelet gives up a request after 2 minutes, with all plugins in it.
	nriTime    = 30 * time.Second
	nriTimeMax = 90 * time.Second
	// nriTolerate names an annotation by which the author of a pod excuses missing
	// plugins.
	nriTolerate = "tolerate_missing_plugins_annotation"
)

// nriRejections are checks that refuse what the plugin does to containers.
var nriRejections = []string{"reject_runtime_default_seccomp_adjustment", "reject_unconfined_seccomp_adjustment", "reject_custom_seccomp_adjustment"}

// What has to be accepted for NRI.
const (
	GapNRIAlone   = "nri-alone"
	GapNRIAtBoot  = "required-at-boot"
	GapNRIVersion = "containerd-version"
)

var nriGaps = []string{GapNRIAlone, GapNRIAtBoot, GapNRIVersion}

// Risk is something that has to be accepted by its name.
type Risk struct {
	Name, Text string
	Wider      bool // than the policy; else it stops somebody
}

// nriUnasked is what no plugin is asked about.
const nriUnasked = "containerd asks no plugin about pods' pause containers and what ctr starts, and they start as they come"

// NRIRisks are those of a host whose containerd is to ask the agent. The error is
// that containerd cannot.
func NRIRisks(o *Options) (risks []Risk, err error) {
	h, err := host.Open(o.Root)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	known, err := nriKnown(h)
	if err != nil {
		return nil, err
	}
	if !known {
		risks = append(risks, Risk{GapNRIVersion, "it is not known whether this containerd is of version 2.3 or later; before that a plugin does not see the profile that it replaces, and the agent refuses to adjust anything", false})
	}
	if !o.nriAtBoot(h) {
		risks = append(risks, Risk{GapNRIAtBoot, "no unit of this host starts the agent with --nri (\"afalg-policy install agent --nri\" makes one): no pod starts while the agent does not run, and an agent that is a pod itself is none that could start", false})
	}
	if slices.Contains(o.Accept, GapNRIAlone) {
		risks = append(risks, Risk{GapNRIAlone, "no wrapper stands behind the plugin: " + nriUnasked + ", with AF_ALG open", true})
	}
	return risks, nil
}

// nriAtBoot reports whether a unit starts the agent as a plugin.
func (o *Options) nriAtBoot(h *host.Host) bool {
	for _, dir := range unitDirs {
		if text, err := h.Follow(path.Join(dir, agentService)); err == nil {
			for line := range strings.Lines(string(text)) {
				words := strings.Fields(line)
				if strings.HasPrefix(line, "ExecStart=") && slices.ContainsFunc(words, func(w string) bool { return w == "--nri" || strings.HasPrefix(w, "--nri=") }) {
					return true
				}
			}
		}
	}
	return false
}

// nriModule is in the build of containerd 2.3 from version 0.12 on.
const nriModule = "github.com/containerd/nri"

// nriKnown reports whether containerd is known to show a plugin the profile that it
// replaces (2.3 or later). The error is that it is known not to.
func nriKnown(h *host.Host) (bool, error) {
	program, err := h.LookPath("containerd")
	if err != nil {
		return false, nil // an image may get it later
	}
	version, found := "", false
	if info, err := buildinfo.ReadFile(h.Shown(program)); err == nil {
		for _, d := range info.Deps {
			if d.Path == nriModule {
				version, found = "NRI "+d.Version, true
				if atLeast(d.Version, 0, 12) {
					return true, nil
				}
			}
		}
	}
	if !found && h.Dir == "/" { // the programs of an image are not run
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		out, err := exec.CommandContext(ctx, program, "--version").Output()
		if m := regexp.MustCompile(` v?(\d+\.\d+)`).FindSubmatch(out); err == nil && m != nil {
			version, found = "version "+string(m[1]), true
			if atLeast(string(m[1]), 2, 3) {
				return true, nil
			}
		}
	}
	if !found {
		return false, nil
	}
	return false, fmt.Errorf("%s is of %s: before containerd 2.3 a plugin does not see the profile that it replaces, and could only widen it; leave --nri away: the wrapper reaches every container", h.Shown(program), version)
}

func atLeast(version string, major, minor int) bool {
	parts := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
	if len(parts) < 2 {
		return false
	}
	a, err1 := strconv.Atoi(parts[0])
	b, err2 := strconv.Atoi(parts[1])
	return err1 == nil && err2 == nil && (a > major || a == major && b >= minor)
}

// nriSettings are those of the file that containerd takes them from.
type nriSettings struct {
	in       *containerdFile
	settings []setting
	notes    []string
}

func (n nriSettings) of(f *containerdFile) []setting {
	if f != n.in {
		return nil
	}
	return n.settings
}

// alone edits that file alone.
func (n nriSettings) alone(h *host.Host) ([]host.File, error) {
	data, err := editTOML(h.Shown(n.in.path), n.in.src, n.settings)
	return []host.File{{Path: n.in.path, Mode: host.Plain, Data: data}}, err
}

// nri returns the settings for --nri. They go to the last file that has the table:
// containerd 2.4 merges the tables of all files, key by key, and others take the last.
func (o *Options) nri(h *host.Host, configs []*containerdFile) (n nriSettings, err error) {
	if !o.NRI {
		return n, nil
	}
	n.in = configs[0]
	limit, required := nriTime, []string{kube.NRIPlugin}
	for _, f := range configs {
		now := f.tree.table("plugins", nriTable)
		if now == nil {
			continue
		}
		n.in = f
		checks := now.table(nriChecks)
		for _, key := range nriRejections {
			if on, _ := checks[key].(bool); on {
				return n, fmt.Errorf("%s: %s.%s is true, and refuses what the plugin does to containers; take it out, or leave --nri away", h.Shown(f.path), nriChecks, key)
			}
		}
		if key := checks.text(nriTolerate); key != "" {
			n.notes = append(n.notes, fmt.Sprintf("%s is %q: whoever writes a pod can excuse it from the plugin by this annotation, unless admission reserves it", nriTolerate, key))
		}
		others, _ := checks.texts(nriRequired)
		required = append(required, others...)
		set, err := nriLimit(now)
		if err != nil {
			return n, fmt.Errorf("%s: %w", h.Shown(f.path), err)
		}
		limit = max(limit, set)
	}
	slices.Sort(required)
	at := func(keys ...string) []string { return append([]string{"plugins", nriTable}, keys...) }
	n.settings = []setting{
		{at("disable"), false},
		{at("disable_connections"), false},
		{at(nriTimeout), limit.String()},
		{at(nriChecks, "enable"), true},
		{at(nriChecks, nriRequired), slices.Compact(required)},
	}
	n.notes = append(n.notes, fmt.Sprintf("containerd starts no container of a pod without the agent from now on, and none about which it does not answer within %s (%v); %s", nriTimeout, limit, o.behind()))
	return n, nil
}

func (o *Options) behind() string {
	if slices.Contains(o.Accept, GapNRIAlone) {
		return nriUnasked
	}
	return "the wrapper behind it decides about what plugins are not asked about"
}

// nriLimit is the time that a file sets; 0 if it sets none.
func nriLimit(now table) (time.Duration, error) {
	text := now.text(nriTimeout)
	if text == "" {
		return 0, nil
	}
	limit, err := time.ParseDuration(text)
	switch {
	case err != nil:
		return 0, fmt.Errorf("%s %q is no time", nriTimeout, text)
	case limit > nriTimeMax:
		return 0, fmt.Errorf("%s is %s: the kubelet gives a request up after 2 minutes, with all plugins in it; set it to %v or less", nriTimeout, text, nriTimeMax)
	}
	return limit, nil
}

// nriBesides lists what is open of NRI, by what containerd prints of its configuration.
func nriBesides(ctx context.Context, r *host.Record, _ StatusOptions, _ Status) []string {
	o := recorded(r.Options)
	if !o.NRI {
		return nil
	}
	dump, err := containerdDump(ctx)
	if err != nil {
		return []string{"NRI: " + err.Error()}
	}
	open := nriFaults(dump, slices.Contains(o.Accept, GapNRIAlone))
	for i := range open {
		open[i] = "NRI: " + open[i]
	}
	return open
}

// nriFaults lists what is open in a configuration as containerd prints it.
func nriFaults(dump table, alone bool) (open []string) {
	now := dump.table("plugins", nriTable)
	checks := now.table(nriChecks)
	on := func(t table, key string) bool { yes, _ := t[key].(bool); return yes }
	required, _ := checks.texts(nriRequired)
	limit, err := time.ParseDuration(now.text(nriTimeout))
	switch {
	case now == nil:
		return []string{"containerd has no " + nriTable}
	case on(now, "disable"):
		open = append(open, "disable is true: no plugin is asked")
	case on(now, "disable_connections"):
		open = append(open, "disable_connections is true: the agent cannot connect")
	}
	if !on(checks, "enable") || !slices.Contains(required, kube.NRIPlugin) {
		open = append(open, fmt.Sprintf("%s is not enabled, or %s lacks %q: containers start without the agent", nriChecks, nriRequired, kube.NRIPlugin))
	}
	if err != nil || limit < nriTime || limit > nriTimeMax {
		open = append(open, fmt.Sprintf("%s is %q, and should be %v to %v", nriTimeout, now.text(nriTimeout), nriTime, nriTimeMax))
	}
	for _, key := range nriRejections {
		if on(checks, key) {
			open = append(open, key+" is true: containers that the plugin adjusts do not start")
		}
	}
	if key := checks.text(nriTolerate); key != "" {
		open = append(open, fmt.Sprintf("%s is %q: whoever writes a pod can excuse it from the plugin by this annotation, unless admission reserves it", nriTolerate, key))
	}
	if alone {
		open = append(open, "no wrapper stands behind the plugin: "+nriUnasked)
	}
	return open
}
