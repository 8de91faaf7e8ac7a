package install

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/install/host"
)

const (
	crioConf   = "/etc/crio/crio.conf"
	crioDropIn = "/etc/crio/crio.conf.d/" + dropIn
	crioName   = "afalg-policy" // of the runtime handler
	// CRI-O does not share podman's hooks: it reads each file of a directory,
	// and does not start where one names the stage precreate.
	crioHooks    = "/etc/crio/hooks.d"
	crioWrappers = libDir + "/crio"
)

func crio() platform {
	return platform{
		name:       "crio",
		programs:   []string{"crio"},
		configs:    []string{"/etc/crio"},
		files:      crioFiles,
		starts:     true,
		kubelet:    true,
		unfiltered: bundleUnfiltered(crioBundles, crioContainer),
		restart:    []string{"systemctl restart crio"},
		unit:       "crio.service",
		active:     crioActive,
		probe:      crioProbe,
	}
}

func crioFiles(h *host.Host, o Options) (job, error) {
	conf, err := readCrio(h)
	if err != nil {
		return job{}, err
	}
	b, err := conf.base(h, o)
	if err != nil {
		return job{}, err
	}
	profile, err := o.profile(profilePath("crio"), b)
	if err != nil {
		return job{}, err
	}
	hook, err := o.hook("crio", crioHooks, "createRuntime")
	if err != nil {
		return job{}, err
	}
	front, err := conf.front(h, o)
	if err != nil {
		return job{}, err
	}
	wrapper := o.wrapper("crio", path.Join(crioWrappers, "runc"), front)
	settings := []setting{
		{[]string{"crio", "runtime", "default_runtime"}, crioName},
		{[]string{"crio", "runtime", "seccomp_profile"}, profile.Path},
		{[]string{"crio", "runtime", "hooks_dir"}, withDir(conf.hooks, crioHooks)},
	}
	settings = append(settings, conf.handler(wrapper.Path)...)
	data, err := editTOML(h.Shown(crioDropIn), []byte(comment("crio")), settings)
	if err != nil {
		return job{}, err
	}
	return job{
		files: []host.File{profile, wrapper, hook, {Path: crioDropIn, Mode: host.Plain, Data: data}},
		notes: conf.notes(),
	}, nil
}

// crioSettings are the settings of all files of crio.conf.d(5) together.
type crioSettings struct {
	runtime            string // default_runtime
	profile, profileIn string
	hooks              []string
	runtimes           map[string]table
}

func readCrio(h *host.Host) (*crioSettings, error) {
	c := &crioSettings{hooks: []string{defaultHooks}, runtimes: map[string]table{}}
	err := readLayers(h, []string{crioConf}, crioDropIn, "", false, func(p string, t table) string { return c.add(p, t.table("crio", "runtime")) })
	return c, err
}

// add merges a further file. It returns a setting that would replace ours.
func (c *crioSettings) add(p string, t table) (sets string) {
	if r := t.text("default_runtime"); r != "" {
		c.runtime, sets = r, "default_runtime"
	}
	if profile := t.text("seccomp_profile"); profile != "" {
		c.profile, c.profileIn, sets = profile, p, "seccomp_profile"
	}
	if dirs, set := t.texts("hooks_dir"); set {
		c.hooks, sets = dirs, "hooks_dir"
	}
	for name := range t.table("runtimes") {
		if c.runtimes[name] == nil {
			c.runtimes[name] = table{}
		}
		maps.Copy(c.runtimes[name], t.table("runtimes", name))
	}
	return sets
}

func (c *crioSettings) base(h *host.Host, o Options) (base, error) {
	switch {
	case o.Base != nil || c.profile == "":
		return o.firstBase(h, false, sharedSeccomp)
	case c.profile == "unconfined":
		return base{}, fmt.Errorf("%s sets seccomp_profile to %q, and %s would set it to %q; take the setting out, or name a profile to harden with --base FILE", h.Shown(c.profileIn), c.profile, crioDropIn, profilePath("crio"))
	}
	return o.firstBase(h, true, c.profile)
}

// front returns the runtime of the former default handler.
func (c *crioSettings) front(h *host.Host, o Options) (string, error) {
	t := c.runtimes[c.runtime]
	if kind := t.text("runtime_type"); kind != "" && kind != "oci" {
		return "", fmt.Errorf("default_runtime is %q, of type %q: no wrapper can stand in front of it; make crun or runc the default", c.runtime, kind)
	}
	if p := t.text("runtime_path"); p != "" {
		if ours(p) {
			return "", fmt.Errorf("runtime_path of %s is %q already; take it out", c.runtime, p)
		}
		return o.runtime(h, p)
	}
	return o.runtime(h, c.runtime, "crun", "runc")
}

// handler returns the settings of the former default handler, with another
// program.
func (c *crioSettings) handler(wrapper string) []setting {
	t := maps.Clone(c.runtimes[c.runtime])
	if t == nil {
		t = table{}
	}
	t["runtime_path"], t["runtime_type"] = wrapper, "oci"
	t["runtime_root"] = cmp.Or(t.text("runtime_root"), "/run/"+cmp.Or(c.runtime, "crun"))
	var settings []setting
	for _, key := range slices.Sorted(maps.Keys(t)) {
		value := t[key]
		switch v := value.(type) {
		case int64:
			value = int(v)
		case []any:
			value, _ = t.texts(key)
		case string, bool:
		default:
			continue
		}
		settings = append(settings, setting{[]string{"crio", "runtime", "runtimes", crioName, key}, value})
	}
	return settings
}

func (c *crioSettings) notes() []string {
	var others []string
	for name := range c.runtimes {
		if name != c.runtime && name != crioName {
			others = append(others, name)
		}
	}
	if others == nil {
		return nil
	}
	slices.Sort(others)
	return []string{fmt.Sprintf("pods whose RuntimeClass names the handler %s do not pass through the wrapper: the profile and the hook hold there, and no grant", strings.Join(others, " or "))}
}
