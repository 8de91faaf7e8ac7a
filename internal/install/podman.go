package install

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/install/host"
)

const (
	containersDropIn = "/etc/containers/containers.conf.d/" + dropIn
	podmanHooks      = "/etc/containers/oci/hooks.d"
	defaultHooks     = "/usr/share/containers/oci/hooks.d"
	podmanWrappers   = libDir + "/podman"
)

// /etc/containers is no sign of podman: buildah, skopeo and CRI-O have it too.
func podman() platform {
	return platform{
		name:     "podman",
		programs: []string{"podman"},
		files:    podmanFiles,
		active:   podmanActive,
		prove:    podmanProve,
	}
}

func podmanFiles(h *host.Host, o Options) (job, error) {
	conf, err := readContainersConf(h)
	if err != nil {
		return job{}, err
	}
	base, err := conf.base(h, o)
	if err != nil {
		return job{}, err
	}
	profile, err := o.profile("podman", base.path, base.data)
	if err != nil {
		return job{}, err
	}
	var j job
	j.files = append(j.files, profile)
	settings := []setting{{[]string{"containers", "seccomp_profile"}, profile.Path}}
	stages := []string{"createRuntime"}
	if o.Precreate {
		stages = append(stages, "precreate")
		j.notes = append(j.notes, `with a precreate hook, "podman build" stops with: unknown stage "precreate"`)
	} else {
		wrappers, more, err := conf.wrappers(h, o)
		if err != nil {
			return job{}, err
		}
		j.files = append(j.files, wrappers...)
		settings = append(settings, more...)
	}
	for _, stage := range stages {
		hook, err := o.hook("podman", podmanHooks, stage)
		if err != nil {
			return job{}, err
		}
		j.files = append(j.files, hook)
	}
	settings = append(settings, setting{[]string{"engine", "hooks_dir"}, withDir(conf.hooks, podmanHooks)})
	data, err := editTOML(h.Shown(containersDropIn), []byte(comment("podman")), settings)
	if err != nil {
		return job{}, err
	}
	j.files = append(j.files, host.File{Path: containersDropIn, Mode: host.Plain, Data: data})
	j.notes = append(j.notes, "users may name another profile, other hooks or another runtime for their own containers, in ~/.config/containers or on the command line")
	return j, nil
}

func withDir(dirs []string, dir string) []string {
	if slices.Contains(dirs, dir) {
		return dirs
	}
	return append(slices.Clone(dirs), dir)
}

// hook is a file of an OCI hook directory (oci-hooks(5)).
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

// containersConf is what the files of containers.conf(5) say together.
type containersConf struct {
	profile, profileIn string // seccomp_profile, and the file that sets it
	hooks              []string
	runtime            string
	runtimes           map[string][]string
}

func readContainersConf(h *host.Host) (*containersConf, error) {
	c := &containersConf{hooks: []string{defaultHooks}, runtimes: map[string][]string{}}
	dropIns, err := h.List(path.Dir(containersDropIn), ".conf")
	if err != nil {
		return nil, err
	}
	for _, p := range append([]string{"/usr/share/containers/containers.conf", "/etc/containers/containers.conf"}, dropIns...) {
		if !h.Exists(p) || p == containersDropIn {
			continue
		}
		data, err := h.Follow(p)
		if err != nil {
			return nil, err
		}
		t, err := parseTOML(h.Shown(p), data)
		if err != nil {
			return nil, err
		}
		if sets := c.add(p, t); p > containersDropIn && path.Dir(p) == path.Dir(containersDropIn) && sets != "" {
			return nil, fmt.Errorf("%s sets %s and is read after %s, so that this would not hold; give it a name that sorts before", h.Shown(p), sets, containersDropIn)
		}
	}
	return c, nil
}

// add takes a further file, whose settings replace earlier ones. It returns a
// setting that would replace ours.
func (c *containersConf) add(p string, t table) (sets string) {
	engine := t.table("engine")
	if profile := t.table("containers").text("seccomp_profile"); profile != "" {
		c.profile, c.profileIn = profile, p
		sets = "seccomp_profile"
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

// appends finds the {append=true} of a list that adds to the one before.
func appends(list any) bool {
	values, _ := list.([]any)
	return slices.ContainsFunc(values, func(v any) bool {
		attributes, ok := v.(map[string]any)
		return ok && attributes["append"] == true
	})
}

type base struct {
	path string
	data []byte // nil for Docker's default
}

// base is the profile that containers have now: the one that is set, or the
// first of the places where libpod looks.
func (c *containersConf) base(h *host.Host, o Options) (base, error) {
	if o.Base != nil {
		return base{}, nil
	}
	if c.profile == "unconfined" {
		return base{}, fmt.Errorf("%s sets seccomp_profile to %q, and %s would set it to %q; take the setting out, or name a profile to harden with --base FILE", h.Shown(c.profileIn), c.profile, containersDropIn, profilePath("podman"))
	}
	places := []string{"/etc/containers/seccomp.json", "/usr/share/containers/seccomp.json"}
	if c.profile != "" {
		places = []string{c.profile}
	}
	return firstBase(h, places, c.profile != "")
}

func firstBase(h *host.Host, places []string, must bool) (base, error) {
	for _, p := range places {
		if !must && !h.Exists(p) {
			continue
		}
		data, err := h.Follow(p)
		if err != nil {
			return base{}, fmt.Errorf("seccomp profile: %w; name another to harden with --base FILE", err)
		}
		return base{p, data}, nil
	}
	return base{}, nil
}

// wrappers stand in for the runtimes, under their own names: so containers that
// were made before pass through them when they are started again, and so does
// who asks for a runtime by its name.
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
			mine.RuntimePath = "" // it is for the default one
		}
		real, err := c.find(h, mine, name)
		var missing *HostError
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
		return nil, nil, host.Unable("no runtime: neither crun nor runc was found in %s; name it with --runtime-path", host.SystemPath)
	}
	return files, settings, nil
}

// find is the first path of a runtime's list that is there.
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
