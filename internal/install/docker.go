package install

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tailscale/hujson"

	"github.com/afalg-policy/afalg-policy/internal/edit"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/install/host"
	"github.com/afalg-policy/afalg-policy/internal/jsontext"
)

const (
	daemonJSON    = "/etc/docker/daemon.json"
	dockerName    = "afalg-policy" // of the runtime
	dockerWrapper = libDir + "/docker/runc"
)

func docker() platform {
	return platform{
		name:       "docker",
		programs:   []string{"dockerd"},
		configs:    []string{"/etc/docker"},
		files:      dockerFiles,
		starts:     true,
		unfiltered: clientUnfiltered("docker", localDocker),
		restart:    []string{"systemctl daemon-reload", "systemctl restart docker"},
		unit:       "docker.service",
		active:     dockerActive,
		probe:      dockerProbe,
	}
}

func dockerFiles(h *host.Host, o Options) (job, error) {
	added, err := dockerFlags(h)
	if err != nil {
		return job{}, err
	}
	src, err := h.Config(daemonJSON)
	if err != nil {
		return job{}, err
	}
	if _, err := editDaemon(h.Shown(daemonJSON), src, ""); err != nil { // it gives the places of errors
		return job{}, err
	}
	d, err := parseDaemon(h.Shown(daemonJSON), src)
	if err != nil {
		return job{}, err
	}
	if err := errors.Join(d.checkProfile(o), d.checkName()); err != nil {
		return job{}, err
	}
	hardened, asDefault, err := dockerProfile(h, o)
	if err != nil {
		return job{}, err
	}
	d.added = added
	wrappers, notes, err := d.wrappers(h, o)
	if err != nil {
		return job{}, err
	}
	edited, err := editDaemon(h.Shown(daemonJSON), src, wrappers[0].Path)
	if err != nil {
		return job{}, err
	}
	more, err := runcByName(h)
	if err != nil {
		return job{}, err
	}
	return job{
		files: slices.Concat([]host.File{hardened}, wrappers, []host.File{
			pathDropIn("docker", "docker.service", path.Dir(dockerWrapper)),
			{Path: daemonJSON, Mode: host.Plain, Data: edited},
		}),
		notes: slices.Concat(asDefault, notes, more),
	}, nil
}

// dockerProfile returns the hardened default profile of the daemon.
func dockerProfile(h *host.Host, o Options) (host.File, []string, error) {
	b, err := o.firstBase(h, false)
	if err != nil {
		return host.File{}, nil, err
	}
	var notes []string
	if b.data == nil {
		if b, notes, err = dockerDefault(h); err != nil {
			return host.File{}, nil, err
		}
	}
	if permitsRings(b.data) {
		notes = append(notes, "the default profile of the daemon permits io_uring, by which sockets can be made: containers find it absent (ENOSYS) from now on")
	}
	f, err := o.profile(profilePath("docker"), b)
	return f, notes, err
}

// permitsRings reports whether hardening takes io_uring away from a profile.
func permitsRings(text []byte) bool {
	p, err := profile.Read(text)
	return err == nil && slices.ContainsFunc(p.Syscalls, func(r profile.Rule) bool {
		return r.Action == specs.ActAllow && slices.Contains(r.Names, "io_uring_setup")
	})
}

// dockerDefault returns the profile compiled into dockerd, by its version.
func dockerDefault(h *host.Host) (base, []string, error) {
	version, why := "", "the programs of an image are not run"
	if h.Dir == "/" {
		version, why = dockerdVersion(h)
	}
	data, known, err := profile.DockerOf(version)
	switch {
	case err != nil:
		return base{}, nil, err
	case known:
		return base{"of Docker " + version, data}, nil, nil
	case version != "":
		why = fmt.Sprintf("dockerd is of version %s, whose default profile is not known here", version)
	}
	return base{"of Docker's default", data}, []string{why + ": containers get the default profile of the nearest release that is known, hardened, so that other calls may be denied than before, and others permitted; name the daemon's own profile with --base FILE to be sure"}, nil
}

// dockerdVersion asks the program: the daemon that will run may be another than
// the one that runs now. why says why there is no answer.
func dockerdVersion(h *host.Host) (version, why string) {
	program, err := h.LookPath("dockerd")
	if err != nil {
		return "", err.Error()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, err := ask(ctx, program, "--version")
	if err != nil {
		return "", err.Error()
	}
	// Docker version 20.10.24+dfsg1, build 5d6db84
	_, version, _ = strings.Cut(strings.TrimSpace(out), "version ")
	version, _, _ = strings.Cut(version, ",")
	return version, fmt.Sprintf("%s --version says %.100q", program, out)
}

// runcByName notes containers with the runtime runc. dockerd does not look that
// up: containerd's shim finds it in the PATH of containerd.
func runcByName(h *host.Host) ([]string, error) {
	_, missing := h.LookPath("containerd")
	unit := slices.ContainsFunc(unitDirs, func(dir string) bool { return h.Exists(path.Join(dir, "containerd.service")) })
	if missing != nil && !unit {
		return nil, nil
	}
	if covered, err := containerdCovers(h); err != nil || covered {
		return nil, err
	}
	return []string{`containers that were made before, and those started with --runtime runc, keep the runtime runc, which containerd finds in its own PATH, without the wrapper: with --privileged they start open; run "afalg-policy install containerd" as well`}, nil
}

// dockerFlags refuses flags with which dockerd does not start, since
// daemon.json sets the same, or does not read daemon.json. It returns the names
// of the runtimes that flags define.
func dockerFlags(h *host.Host) (runtimes []string, err error) {
	flags, err := daemonFlags(h, "docker.service", []string{"/etc/default/docker", "/etc/sysconfig/docker"},
		"--seccomp-profile", "--default-runtime", "--config-file", "--add-runtime")
	if err != nil {
		return nil, err
	}
	for _, f := range flags {
		switch {
		case f.name == "--add-runtime":
			runtimes = append(runtimes, f.value)
		case f.name != "--config-file":
			return nil, fmt.Errorf("%s: dockerd is given %s, and does not start when %s sets the same; move the setting there", f.where, f.name, daemonJSON)
		case f.value != daemonJSON:
			return nil, fmt.Errorf("%s: dockerd is given %s %s, and does not read %s; take the flag away, or move the settings there", f.where, f.name, f.value, daemonJSON)
		}
	}
	return runtimes, nil
}

// editDaemon also refuses text that dockerd would refuse, and text that dockerd
// reads differently than it looks, as with a repeated key.
func editDaemon(shown string, src []byte, wrapper string) ([]byte, error) {
	for _, s := range []setting{
		{[]string{"runtimes", dockerName, "path"}, wrapper},
		{[]string{"default-runtime"}, dockerName},
		{[]string{"seccomp-profile"}, profilePath("docker")},
	} {
		var err error
		if src, err = edit.JSON(src, s.path, s.value); err != nil {
			return nil, inFile(shown, err)
		}
	}
	return src, nil
}

// daemon is what daemon.json says of runtimes and profiles.
type daemon struct {
	shown    string
	src      []byte
	tree     hujson.Value
	added    []string                 // runtimes of the command line
	Profile  string                   `json:"seccomp-profile"`
	Default  string                   `json:"default-runtime"`
	Runtimes map[string]dockerRuntime `json:"runtimes"`
}

type dockerRuntime struct {
	Path string   `json:"path"`
	Args []string `json:"runtimeArgs"`
	Type string   `json:"runtimeType"`
}

func parseDaemon(shown string, src []byte) (*daemon, error) {
	d := &daemon{shown: shown, src: src}
	if strings.TrimSpace(string(src)) == "" {
		return d, nil
	}
	var kind *json.UnmarshalTypeError
	if err := json.Unmarshal(src, d); errors.As(err, &kind) {
		return nil, fmt.Errorf("%s:%s: %s cannot be a JSON %s; correct it", shown, jsontext.Place(src, int(kind.Offset)-1), kind.Field, kind.Value)
	} else if err != nil {
		return nil, fmt.Errorf("%s: %w", shown, err)
	}
	var err error
	if d.tree, err = hujson.Parse(src); err != nil {
		return nil, fmt.Errorf("%s: %w", shown, err)
	}
	return d, nil
}

// at returns the place of a member.
func (d *daemon) at(pointer string) string {
	if v := d.tree.Find(pointer); v != nil {
		return d.shown + ":" + jsontext.Place(d.src, v.StartOffset)
	}
	return d.shown
}

func (d *daemon) checkProfile(o Options) error {
	switch d.Profile {
	case "", "builtin", profilePath("docker"):
		return nil
	}
	if o.Base != nil {
		return nil
	}
	do := "to harden that one, add --base " + d.Profile
	if d.Profile == "unconfined" {
		do = "take the setting out, or name a profile to harden with --base FILE"
	}
	return fmt.Errorf("%s: seccomp-profile is %q, and would become %q; %s", d.at("/seccomp-profile"), d.Profile, profilePath("docker"), do)
}

func (d *daemon) checkName() error {
	r, taken := d.Runtimes[dockerName]
	if taken && !ours(r.Path) {
		return fmt.Errorf("%s: there is a runtime %s already, of path %q; take it out or rename it", d.at("/runtimes/"+dockerName), dockerName, r.Path)
	}
	return nil
}

// wrappers returns the wrapper of the default runtime and the one that PATH
// leads to, usually the same. Builds find a runtime by the name runc, and so do
// fronts such as NVIDIA's, which would loop for ever if PATH led to their own
// wrapper.
func (d *daemon) wrappers(h *host.Host, o Options) ([]host.File, []string, error) {
	front, notes, err := d.inFront(h, o)
	if err != nil {
		return nil, nil, err
	}
	if front.Path, err = o.runtime(h, front.Path, "runc"); err != nil {
		return nil, nil, err
	}
	notes = append(notes, d.others()...)
	runc, err := o.runtime(h, "", "runc")
	if err != nil || runc == front.Path && front.Args == nil {
		return []host.File{o.wrapper("docker", dockerWrapper, front.Path, front.Args...)}, notes, nil
	}
	asDefault := path.Join(path.Dir(dockerWrapper), "default", path.Base(front.Path))
	return []host.File{
		o.wrapper("docker", asDefault, front.Path, front.Args...),
		o.wrapper("docker", dockerWrapper, runc),
	}, notes, nil
}

// others lists the runtimes that stay as they are.
func (d *daemon) others() []string {
	others := slices.Clone(d.added)
	for name := range d.Runtimes {
		if name != dockerName && name != d.Default {
			others = append(others, name)
		}
	}
	if others == nil {
		return nil
	}
	slices.Sort(others)
	others = slices.Compact(others)
	return []string{fmt.Sprintf("containers started with --runtime %s do not pass through the wrapper: only the profile %s closes AF_ALG to them, and no grant holds", strings.Join(others, " or "), profilePath("docker"))}
}

// inFront returns the default runtime, if it is a custom one.
func (d *daemon) inFront(h *host.Host, o Options) (dockerRuntime, []string, error) {
	r, custom := d.Runtimes[d.Default]
	switch {
	case d.Default == "", d.Default == "runc", d.Default == "io.containerd.runc.v2", d.Default == dockerName:
		return dockerRuntime{}, nil, nil
	case o.RuntimePath != "":
		return dockerRuntime{}, []string{fmt.Sprintf("default-runtime was %q; it becomes %s, which executes %s", d.Default, dockerName, o.RuntimePath)}, nil
	case !custom:
		return r, nil, fmt.Errorf("%s: default-runtime is %q, which this file does not define; name the program that it stands for with --runtime-path", d.at("/default-runtime"), d.Default)
	case r.Path == "":
		return r, nil, fmt.Errorf("%s: default-runtime is %q, of type %q, a shim of its own: no wrapper can stand in front of it. Make runc the default, or name a runtime with --runtime-path", d.at("/default-runtime"), d.Default, r.Type)
	case ours(r.Path):
		return r, nil, fmt.Errorf("%s: the path of the default runtime is %q already; name the real runtime with --runtime-path", d.at("/default-runtime"), r.Path)
	}
	return r, []string{fmt.Sprintf("default-runtime was %q; it becomes %s, which executes %s", d.Default, dockerName, r.Path)}, nil
}
