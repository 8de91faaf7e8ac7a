package install

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/tailscale/hujson"

	"github.com/afalg-policy/afalg-policy/internal/edit"
	"github.com/afalg-policy/afalg-policy/internal/install/host"
	"github.com/afalg-policy/afalg-policy/internal/profile"
)

const (
	daemonJSON    = "/etc/docker/daemon.json"
	dockerName    = "afalg-policy" // of the runtime
	dockerWrapper = libDir + "/docker/runc"
)

func docker() platform {
	return platform{
		name:     "docker",
		programs: []string{"dockerd"},
		configs:  []string{"/etc/docker"},
		files:    dockerFiles,
		restart:  []string{"systemctl daemon-reload", "systemctl restart docker"},
		unit:     "docker.service",
		active:   dockerActive,
		prove:    dockerProve,
	}
}

func dockerFiles(h *host.Host, o Options) (job, error) {
	if err := dockerFlags(h); err != nil {
		return job{}, err
	}
	src, err := h.Config(daemonJSON)
	if err != nil {
		return job{}, err
	}
	edited, err := editDaemon(h.Shown(daemonJSON), src)
	if err != nil {
		return job{}, err
	}
	d, err := parseDaemon(h.Shown(daemonJSON), src)
	if err != nil {
		return job{}, err
	}
	if err := errors.Join(d.checkProfile(o), d.checkName()); err != nil {
		return job{}, err
	}
	b, err := o.firstBase(h, false)
	if err != nil {
		return job{}, err
	}
	hardened, err := o.profile(profilePath("docker"), b)
	if err != nil {
		return job{}, err
	}
	front, notes, err := d.runtime(h, o)
	if err != nil {
		return job{}, err
	}
	more, err := runcByName(h)
	if err != nil {
		return job{}, err
	}
	return job{
		files: []host.File{
			hardened,
			o.wrapper("docker", dockerWrapper, front.Path, front.Args...),
			pathDropIn("docker", "docker.service", path.Dir(dockerWrapper)),
			{Path: daemonJSON, Mode: host.Plain, Data: edited},
		},
		notes: append(notes, more...),
	}, nil
}

// runcByName tells of containers that have the runtime runc, which dockerd does
// not look up: containerd's shim finds it in the PATH of containerd.
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

// dockerFlags refuses what dockerd is told on its command line: it does not
// start when the file says it too.
func dockerFlags(h *host.Host) error {
	flags, err := daemonFlags(h, "docker.service", []string{"/etc/default/docker", "/etc/sysconfig/docker"},
		"--seccomp-profile", "--default-runtime", "--config-file")
	if err != nil {
		return err
	}
	for _, f := range flags {
		switch {
		case f.name != "--config-file":
			return fmt.Errorf("%s: dockerd is given %s, and does not start when %s sets the same; move the setting there", f.where, f.name, daemonJSON)
		case f.value != daemonJSON:
			return fmt.Errorf("%s: dockerd is given %s %s, and does not read %s; take the flag away, or move the settings there", f.where, f.name, f.value, daemonJSON)
		}
	}
	return nil
}

// editDaemon also refuses what dockerd would not take, and what it would read
// in another way than it looks, as a key that stands twice.
func editDaemon(shown string, src []byte) ([]byte, error) {
	for _, s := range []setting{
		{[]string{"runtimes", dockerName, "path"}, dockerWrapper},
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
		return nil, fmt.Errorf("%s:%s: %s cannot be a JSON %s; correct it", shown, profile.Place(src, int(kind.Offset)-1), kind.Field, kind.Value)
	} else if err != nil {
		return nil, fmt.Errorf("%s: %w", shown, err)
	}
	var err error
	if d.tree, err = hujson.Parse(src); err != nil {
		return nil, fmt.Errorf("%s: %w", shown, err)
	}
	return d, nil
}

// at is the place of a member.
func (d *daemon) at(pointer string) string {
	if v := d.tree.Find(pointer); v != nil {
		return d.shown + ":" + profile.Place(d.src, v.StartOffset)
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
	if taken && r.Path != dockerWrapper {
		return fmt.Errorf("%s: there is a runtime %s already, of path %q; take it out or rename it", d.at("/runtimes/"+dockerName), dockerName, r.Path)
	}
	return nil
}

// runtime is what the wrapper executes: what ran containers so far.
func (d *daemon) runtime(h *host.Host, o Options) (dockerRuntime, []string, error) {
	front, notes, err := d.inFront(h, o)
	if err != nil {
		return front, nil, err
	}
	if front.Path, err = o.runtime(h, front.Path, "runc"); err != nil {
		return front, nil, err
	}
	var others []string
	for name := range d.Runtimes {
		if name != dockerName && name != d.Default {
			others = append(others, name)
		}
	}
	if slices.Sort(others); others != nil {
		notes = append(notes, fmt.Sprintf("containers started with --runtime %s do not pass through the wrapper: only the profile %s closes AF_ALG to them, and no grant holds", strings.Join(others, " or "), profilePath("docker")))
	}
	return front, notes, nil
}

// inFront is the default runtime, if it is a custom one.
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
