package install

import (
	"context"
	"fmt"
	"maps"
	"os/exec"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/afalg-policy/afalg-policy/internal/edit"
	"github.com/afalg-policy/afalg-policy/internal/install/host"
)

const (
	containerdConfig   = "/etc/containerd/config.toml"
	containerdWrappers = libDir + "/containerd"
	shimV2             = "io.containerd.runc.v2"
)

func containerd() platform {
	return platform{
		name:       "containerd",
		besides:    nriBesides,
		programs:   []string{"containerd"},
		configs:    []string{"/etc/containerd"},
		files:      containerdFiles,
		starts:     true,
		kubelet:    true,
		unfiltered: bundleUnfiltered(containerdBundles, containerdContainer),
		restart:    []string{"systemctl daemon-reload", "systemctl restart containerd"},
		unit:       "containerd.service",
		active:     containerdActive,
		probe:      containerdProbe,
	}
}

// criPlugin is the plugin with the runtime handlers, by the version of the
// configuration: 2 from containerd 1.3 on, 3 from 2.0, 4 from 2.3.
var criPlugin = map[int64]string{2: "io.containerd.grpc.v1.cri", 3: "io.containerd.cri.v1.runtime", 4: "io.containerd.cri.v1.runtime"}

// defaultImports are read by containerd 2 unless the configuration says
// otherwise.
const defaultImports = "/etc/containerd/conf.d/*.toml"

func containerdFiles(h *host.Host, o Options) (job, error) {
	flags, err := daemonFlags(h, "containerd.service", nil, "--config", "-c")
	if err != nil {
		return job{}, err
	}
	for _, f := range flags {
		if f.value != containerdConfig {
			return job{}, fmt.Errorf("%s: containerd is given %s %s, and does not read %s; take the flag away, or move the settings there", f.where, f.name, f.value, containerdConfig)
		}
	}
	configs, err := readContainerd(h)
	if err != nil {
		return job{}, err
	}
	nri, err := o.nri(h, configs)
	if err != nil {
		return job{}, err
	}
	if o.NRI && slices.Contains(o.Accept, GapNRIAlone) {
		j := job{notes: nri.notes}
		j.files, err = nri.alone(h)
		return j, err
	}
	var trees []table
	for _, f := range configs {
		trees = append(trees, f.tree)
	}
	if err := optRunc(h, trees...); err != nil {
		return job{}, err
	}
	c := &containerdJob{Host: h, o: o, wrappers: map[string]string{}, nri: nri}
	c.notes = append(c.notes, nri.notes...)
	configured := false
	for _, f := range configs {
		found, err := c.handlers(f)
		if err != nil {
			return job{}, err
		}
		configured = configured || slices.ContainsFunc(found, func(h handler) bool { return h.name == "runc" })
		f.handlers = found
	}
	if !configured { // containerd's own default, which the options alone would remove
		main := configs[0]
		main.handlers = append(main.handlers, handler{"runc", main.handler("runc"), table{}})
	}
	if err := c.addDefault(configs); err != nil {
		return job{}, err
	}
	for _, f := range configs {
		if err := c.edit(f); err != nil {
			return job{}, err
		}
	}
	c.files = append(c.files, pathDropIn("containerd", "containerd.service", containerdWrappers))
	c.files = append(c.files, c.edited...)
	if o.Unconfined.Refused && slices.ContainsFunc(configs, (*containerdFile).servesPods) {
		c.notes = append(c.notes, "with unconfined: refuse, and with lsm where the kernel half is not in force, privileged pods do not start, nor pods that name no profile unless the kubelet has seccompDefault: true")
	}
	c.notes = append(c.notes, "RuntimeDefault stays containerd's own profile; the wrapper hardens it, as any other")
	return c.job, nil
}

// containerdCovers reports whether a runc found in PATH is the wrapper.
func containerdCovers(h *host.Host) (bool, error) {
	r, err := h.ReadRecord("containerd")
	return !r.Interrupted() && r.Entry(path.Join(containerdWrappers, "runc")) != nil, err
}

const optPlugin = "io.containerd.internal.v1.opt"

// optRunc refuses a runc that comes before the wrapper: containerd puts the
// directory of the opt plugin first in the PATH of its shims.
func optRunc(h *host.Host, configs ...table) error {
	var dirs []string
	for _, t := range configs {
		if dir := t.table("plugins", optPlugin).text("path"); dir != "" {
			dirs = append(dirs, dir)
		}
	}
	if dirs == nil {
		dirs = []string{"/opt/containerd", "/var/lib/containerd/opt"} // the second is Debian's
	}
	for _, dir := range dirs {
		if p := path.Join(dir, "bin", "runc"); h.Exists(p) {
			return fmt.Errorf("%s: containerd has this directory first in PATH, so that this runc would run instead of the wrapper; move it elsewhere, and if it is the one to use, name it with --runtime-path", h.Shown(p))
		}
	}
	return nil
}

// containerdFile is the configuration, or a file that it imports.
type containerdFile struct {
	path     string
	src      []byte
	version  int64
	tree     table
	handlers []handler
}

// handler is a runtime of runc's kind.
type handler struct {
	name string
	path []string // of its table
	tree table
}

// servesPods reports whether a file configures how pods are started.
func (f *containerdFile) servesPods() bool {
	cri := f.tree.table("plugins", criPlugin[f.version])
	return cri.text("sandbox_image") != "" || len(cri.table("containerd")) > 0
}

func (f *containerdFile) handler(name string) []string {
	return []string{"plugins", criPlugin[f.version], "containerd", "runtimes", name}
}

// readContainerd returns the configuration, followed by its imports.
func readContainerd(h *host.Host) ([]*containerdFile, error) {
	src, err := h.Config(containerdConfig)
	if err != nil {
		return nil, err
	}
	if !h.Exists(containerdConfig) {
		src = fmt.Appendf(nil, "%sversion = %d\n", comment("containerd"), containerdVersion(h))
	} else if edit.FormatTOML.Empty(src) { // containerd takes it as one of its own version
		if src, err = edit.TOML(src, []string{"version"}, containerdVersion(h)); err != nil {
			return nil, inFile(h.Shown(containerdConfig), err)
		}
	}
	var files []*containerdFile
	seen := map[string]bool{}
	var add func(p string, src []byte) error
	add = func(p string, src []byte) error {
		seen[p] = true
		f, err := parseContainerd(h.Shown(p), p, src)
		if err != nil {
			return err
		}
		if f.version == 0 && len(files) > 0 {
			f.version = files[0].version // of the file that imports it
		}
		if criPlugin[f.version] == "" {
			return fmt.Errorf(`%s: its version is %d (none set means 1), and only 2, 3 and 4 are known here; rewrite it as "version = 2", in which plugins have their full names, or start from the output of "containerd config default"`, h.Shown(p), f.version)
		}
		files = append(files, f)
		imports, err := f.imports(h)
		if err != nil {
			return err
		}
		for _, imported := range imports {
			if seen[imported] {
				continue
			}
			src, err := h.Config(imported)
			if err != nil {
				return err
			}
			if err := add(imported, src); err != nil {
				return err
			}
		}
		return nil
	}
	err = add(containerdConfig, src)
	return files, err
}

func parseContainerd(shown, p string, src []byte) (*containerdFile, error) {
	t, err := parseTOML(shown, src)
	if err != nil {
		return nil, err
	}
	f := &containerdFile{path: p, src: src, tree: t}
	f.version, _ = t["version"].(int64)
	return f, nil
}

// imports lists the files that a file imports.
func (f *containerdFile) imports(h *host.Host) ([]string, error) {
	patterns, set := f.tree.texts("imports")
	if !set && f.path == containerdConfig && f.version > 2 {
		patterns = []string{defaultImports}
	}
	var found []string
	for _, pattern := range patterns {
		if !path.IsAbs(pattern) {
			pattern = path.Join(path.Dir(f.path), pattern)
		}
		candidates, err := h.List(path.Dir(pattern), "")
		if err != nil {
			return nil, err
		}
		for _, c := range candidates {
			if ok, err := path.Match(pattern, c); err != nil {
				return nil, fmt.Errorf("%s: imports: %q: %w", h.Shown(f.path), pattern, err)
			} else if ok {
				found = append(found, c)
			}
		}
	}
	return found, nil
}

// containerdVersion is the version for a new configuration: 3 from containerd
// 2.0 on, which reads version 2 as well.
func containerdVersion(h *host.Host) int {
	if h.Dir != "/" { // the programs of an image are not run
		return 2
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	program, err := h.LookPath("containerd")
	if err != nil {
		return 2
	}
	out, err := exec.CommandContext(ctx, program, "--version").Output()
	m := regexp.MustCompile(` v?(\d+)\.\d`).FindSubmatch(out)
	if err != nil || m == nil {
		return 2
	}
	if major, err := strconv.Atoi(string(m[1])); err == nil && major >= 2 {
		return 3
	}
	return 2
}

// containerdJob gathers the files to write.
type containerdJob struct {
	job
	*host.Host
	o        Options
	wrappers map[string]string // path of the wrapper, by runtime
	edited   []host.File
	defaultr string // wrapper of the handlers that name no program
	nri      nriSettings
}

// handlers lists the handlers of runc's kind that a file configures, and notes
// the others.
func (c *containerdJob) handlers(f *containerdFile) ([]handler, error) {
	cri := f.tree.table("plugins", criPlugin[f.version], "containerd")
	var found []handler
	for _, name := range slices.Sorted(maps.Keys(cri.table("runtimes"))) {
		t := cri.table("runtimes", name)
		switch kind := t.text("runtime_type"); kind {
		case "", shimV2, "io.containerd.runc.v1":
			found = append(found, handler{name, f.handler(name), t})
		default:
			c.notes = append(c.notes, fmt.Sprintf("containers of the handler %s (%s) do not pass through the wrapper, and no profile of ours holds there", name, kind))
		}
	}
	// These tables of containerd 1 count once they name a type.
	for _, old := range []string{"default_runtime", "untrusted_workload_runtime"} {
		if t := cri.table(old); t.text("runtime_type") == shimV2 {
			found = append(found, handler{old, []string{"plugins", criPlugin[f.version], "containerd", old}, t})
		}
	}
	return found, nil
}

var handlerName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`) })

// addDefault writes the wrapper of the runtime that handlers use by default.
// PATH leads to it.
func (c *containerdJob) addDefault(configs []*containerdFile) error {
	configured := ""
	for _, f := range configs {
		for _, h := range f.handlers {
			if name := h.tree.table("options").text("BinaryName"); h.name == "runc" && name != "" {
				configured = name
			}
		}
	}
	if ours(configured) {
		return fmt.Errorf("BinaryName of the handler runc is %q already; take it out", configured)
	}
	real, err := c.o.runtime(c.Host, configured, "runc")
	if err != nil {
		return err
	}
	w := c.o.wrapper("containerd", path.Join(containerdWrappers, "runc"), real)
	c.files = append(c.files, w)
	c.defaultr = w.Path
	c.wrappers[""], c.wrappers["runc"], c.wrappers[real] = w.Path, w.Path, w.Path
	if configured != "" {
		c.wrappers[configured] = w.Path
	}
	return nil
}

// wrapperOf returns the wrapper of a handler, in front of the program that the
// handler names now.
func (c *containerdJob) wrapperOf(f *containerdFile, h handler) (string, error) {
	name := h.tree.table("options").text("BinaryName")
	if w := c.wrappers[name]; w != "" {
		return w, nil
	}
	if ours(name) {
		return "", fmt.Errorf("%s: BinaryName of the handler %s is %q already; take it out", c.Shown(f.path), h.name, name)
	}
	if !handlerName().MatchString(h.name) {
		return "", fmt.Errorf("%s: the handler %q has a name that cannot be a directory's; rename it", c.Shown(f.path), h.name)
	}
	mine := c.o
	mine.RuntimePath = "" // it names the default runtime
	real, err := mine.runtime(c.Host, name)
	if err != nil {
		return "", fmt.Errorf("%s: handler %s: %w", c.Shown(f.path), h.name, err)
	}
	w := c.o.wrapper("containerd", path.Join(containerdWrappers, h.name, path.Base(real)), real)
	c.files = append(c.files, w)
	c.wrappers[name] = w.Path
	return w.Path, nil
}

func (c *containerdJob) edit(f *containerdFile) error {
	var settings []setting
	for _, h := range f.handlers {
		w, err := c.wrapperOf(f, h)
		if err != nil {
			return err
		}
		if h.tree.text("runtime_type") == "" {
			settings = append(settings, setting{append(slices.Clone(h.path), "runtime_type"), shimV2})
		}
		settings = append(settings, setting{append(slices.Clone(h.path), "options", "BinaryName"), w})
	}
	settings = append(settings, c.nri.of(f)...)
	if settings == nil {
		return nil
	}
	data, err := editTOML(c.Shown(f.path), f.src, settings)
	if err != nil {
		return err
	}
	c.edited = append(c.edited, host.File{Path: f.path, Mode: host.Plain, Data: data})
	return nil
}

// bypassed finds a handler of runc's kind that executes anything but a wrapper.
// dump is the configuration as containerd prints it. A handler without a
// program gets the wrapper by PATH.
func bypassed(dump table) (handler, program string) {
	version, _ := dump["version"].(int64)
	runtimes := dump.table("plugins", criPlugin[version], "containerd", "runtimes")
	for _, name := range slices.Sorted(maps.Keys(runtimes)) {
		t := runtimes.table(name)
		program := t.table("options").text("BinaryName")
		if t.text("runtime_type") == shimV2 && program != "" && program != "runc" && !strings.HasPrefix(program, containerdWrappers+"/") {
			return name, program
		}
	}
	return "", ""
}
