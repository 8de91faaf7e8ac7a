package install

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/install/host"
)

const (
	containersDropIn = "/etc/containers/containers.conf.d/" + dropIn
	// libpod and buildah read the first before the second.
	containersSeccomp = "/etc/containers/seccomp.json"
	sharedSeccomp     = "/usr/share/containers/seccomp.json"
	podmanHooks       = "/etc/containers/oci/hooks.d"
	// buildah reads podmanHooks in builds too, and stops at an unknown stage,
	// such as precreate. It does not read hooks_dir.
	precreateHooks = "/etc/afalg-policy/hooks.d"
	defaultHooks   = "/usr/share/containers/oci/hooks.d"
	podmanWrappers = libDir + "/podman"
)

// /etc/containers is no sign of podman: buildah, skopeo and CRI-O have it too.
func podman() platform {
	return platform{
		name:       "podman",
		programs:   []string{"podman"},
		files:      podmanFiles,
		starts:     true,
		unfiltered: clientUnfiltered("podman"),
		active:     podmanActive,
		probe:      podmanProbe,
	}
}

func podmanFiles(h *host.Host, o Options) (job, error) {
	conf, err := readContainersConf(h)
	if err != nil {
		return job{}, err
	}
	files, settings, err := conf.profiles(h, o)
	if err != nil {
		return job{}, err
	}
	hookDirs := withDir(conf.hooks, podmanHooks)
	hooks := map[string]string{"createRuntime": podmanHooks}
	if o.Precreate {
		hooks["precreate"] = precreateHooks
		hookDirs = withDir(hookDirs, precreateHooks)
	} else {
		wrappers, more, err := conf.wrappers(h, o)
		if err != nil {
			return job{}, err
		}
		files = append(files, wrappers...)
		settings = append(settings, more...)
	}
	for _, stage := range slices.Sorted(maps.Keys(hooks)) {
		hook, err := o.hook("podman", hooks[stage], stage)
		if err != nil {
			return job{}, err
		}
		files = append(files, hook)
	}
	settings = append(settings, setting{[]string{"engine", "hooks_dir"}, hookDirs})
	data, err := editTOML(h.Shown(containersDropIn), []byte(comment("podman")), settings)
	if err != nil {
		return job{}, err
	}
	return job{
		files: append(files, host.File{Path: containersDropIn, Mode: host.Plain, Data: data}),
		notes: append(conf.others(), "users may name another profile, other hooks or another runtime for their own containers, in ~/.config/containers or on the command line"),
	}, nil
}

func withDir(dirs []string, dir string) []string {
	if slices.Contains(dirs, dir) {
		return dirs
	}
	return append(slices.Clone(dirs), dir)
}

// hook returns a file of an OCI hook directory (oci-hooks(5)).
func (o *Options) hook(platform, dir, stage string) (host.File, error) {
	timeout := 30 // s; after that the container does not start
	h := map[string]any{
		"version": "1.0.0",
		"hook": specs.Hook{Path: o.Program, Timeout: &timeout,
			Args: append([]string{"afalg-policy", "hook", stage}, o.shared(platform)...)},
		"when":   map[string]bool{"always": true},
		"stages": []string{stage},
	}
	data, err := json.MarshalIndent(h, "", "  ")
	return host.File{Path: path.Join(dir, "zz-afalg-policy-"+stage+".json"), Mode: host.Plain, Data: append(data, '\n')}, err
}

// containersConf are the settings of all files of containers.conf(5) together.
type containersConf struct {
	profile, profileIn string // seccomp_profile, and the file that sets it
	hooks              []string
	runtime            string
	runtimes           map[string][]string
	twice              error // a key that appears twice, in different cases
}

func readContainersConf(h *host.Host) (*containersConf, error) {
	c := &containersConf{hooks: []string{defaultHooks}, runtimes: map[string][]string{}}
	err := readLayers(h, []string{"/usr/share/containers/containers.conf", "/etc/containers/containers.conf"}, containersDropIn, ".conf", true, c.add)
	return c, errors.Join(err, c.twice)
}

// add merges a further file, whose settings replace earlier ones. It returns a
// setting that would replace ours.
func (c *containersConf) add(p string, t table) (sets string) {
	t, err := fold(t, "containers", "engine")
	if err != nil && c.twice == nil {
		c.twice = fmt.Errorf("%s: %w", p, err)
	}
	engine := t.table("engine")
	if profile, set := t.table("containers")["seccomp_profile"].(string); set {
		c.profile, c.profileIn = profile, p
		if profile != "" { // otherwise it clears the setting
			sets = "seccomp_profile"
		}
	}
	if dirs, set := engine.texts("hooks_dir"); set {
		if appends(engine["hooks_dir"]) {
			dirs = append(slices.Clone(c.hooks), dirs...)
		}
		c.hooks = dirs
		sets = "hooks_dir"
	}
	if r := engine.text("runtime"); r != "" {
		c.runtime = r
		sets = "runtime"
	}
	for name := range engine.table("runtimes") {
		c.runtimes[name], _ = engine.table("runtimes").texts(name)
		sets = "runtimes"
	}
	return sets
}

// fold returns the keys of a file, and of these tables in it, in lower case:
// podman ignores their case. Names of runtimes keep theirs.
func fold(t table, tables ...string) (table, error) {
	folded, err := lower(t)
	for _, name := range tables {
		below := folded.table(name)
		if below == nil {
			continue
		}
		inner, err2 := lower(below)
		folded[name], err = map[string]any(inner), cmp.Or(err, err2)
	}
	return folded, err
}

func lower(t table) (table, error) {
	folded := table{}
	var err error
	for key, value := range t {
		name := strings.ToLower(key)
		if _, twice := folded[name]; twice {
			err = fmt.Errorf("the key %q stands there twice, in different cases, and podman may take either: remove one", name)
		}
		folded[name] = value
	}
	return folded, err
}

// others lists the runtimes that stay as they are.
func (c *containersConf) others() []string {
	var others []string
	for name, paths := range c.runtimes {
		if name != "crun" && name != "runc" && name != c.runtime && len(paths) > 0 {
			others = append(others, name)
		}
	}
	if others == nil {
		return nil
	}
	slices.Sort(others)
	return []string{fmt.Sprintf("containers started with --runtime %s do not pass through the wrapper: the profile and the hook hold there, and no grant", strings.Join(others, " or "))}
}

// appends reports whether a list has {append=true}, and adds to the one before.
func appends(list any) bool {
	values, _ := list.([]any)
	return slices.ContainsFunc(values, func(v any) bool {
		attributes, ok := v.(map[string]any)
		return ok && attributes["append"] == true
	})
}

// profiles returns the hardened default profile, and the one that a setting
// makes podman run read instead. Podman builds read the default one in any
// case. There is no setting where there was none: it would hold for privileged
// containers too, and the policy would not be asked about them.
func (c *containersConf) profiles(h *host.Host, o Options) ([]host.File, []setting, error) {
	if c.profile == "unconfined" && o.Base == nil {
		return nil, nil, fmt.Errorf("%s sets seccomp_profile to %q, and %s would set it to %q; take the setting out, or name a profile to harden with --base FILE", h.Shown(c.profileIn), c.profile, containersDropIn, profilePath("podman"))
	}
	b, err := o.firstBase(h, false, containersSeccomp, sharedSeccomp)
	if err != nil {
		return nil, nil, err
	}
	common, err := o.profile(containersSeccomp, b)
	if err != nil || c.profile == "" {
		return []host.File{common}, nil, err
	}
	if b, err = o.firstBase(h, true, c.profile); err != nil {
		return nil, nil, err
	}
	named, err := o.profile(profilePath("podman"), b)
	return []host.File{common, named}, []setting{{[]string{"containers", "seccomp_profile"}, named.Path}}, err
}

// wrappers returns the wrappers of the runtimes, under the runtimes' names.
// Containers made earlier then pass through them at the next start, and so does
// a caller who asks for a runtime by name.
func (c *containersConf) wrappers(h *host.Host, o Options) ([]host.File, []setting, error) {
	first := cmp.Or(c.runtime, "crun")
	names := []string{first}
	for _, name := range []string{"crun", "runc"} {
		if name != first {
			names = append(names, name)
		}
	}
	var files []host.File
	var settings []setting
	for _, name := range names {
		mine := o
		if name != first {
			mine.RuntimePath = "" // it names the default runtime
		}
		real, err := c.find(h, mine, name)
		var missing *hosterr.Error
		if errors.As(err, &missing) && name != c.runtime {
			continue
		} else if err != nil {
			return nil, nil, err
		}
		at := path.Join(podmanWrappers, name)
		if path.IsAbs(name) {
			at = path.Join(podmanWrappers, "default", path.Base(name))
		}
		w := o.wrapper("podman", at, real)
		files = append(files, w)
		if path.IsAbs(name) {
			settings = append(settings, setting{[]string{"engine", "runtime"}, w.Path})
		} else {
			settings = append(settings, setting{[]string{"engine", "runtimes", name}, []string{w.Path}})
		}
	}
	if files == nil {
		return nil, nil, hosterr.Errorf("no runtime: neither crun nor runc was found in %s; name it with --runtime-path", host.SystemPath)
	}
	return files, settings, nil
}

// find returns the first existing path of a runtime's list.
func (c *containersConf) find(h *host.Host, o Options, name string) (string, error) {
	if !path.IsAbs(name) && strings.ContainsRune(name, '/') {
		return "", fmt.Errorf("engine.runtime is %q, neither a name nor an absolute path; correct it", name)
	}
	for _, p := range c.runtimes[name] {
		if ours(p) {
			return "", fmt.Errorf("engine.runtimes.%s has %q already; take it out", name, p)
		}
		if h.Exists(p) {
			return o.runtime(h, p)
		}
	}
	return o.runtime(h, "", name)
}
