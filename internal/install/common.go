package install

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/install/host"
	"github.com/afalg-policy/afalg-policy/internal/unit"
)

const (
	libDir     = "/usr/local/lib/afalg-policy"
	seccompDir = "/etc/afalg-policy/seccomp"
	unitDir    = unit.Dir
	dropIn     = "zz-afalg-policy.conf" // sorts last, in directories other than systemd's
)

// shared returns the flags that "hook" and "runtime" share.
func (o *Options) shared(platform string) []string {
	args := []string{"--platform", platform, "--policy", o.Policy, "--agent", o.Agent, "--on-agent-down", o.OnAgentDown}
	if o.Socketcall != "" && o.Socketcall != socketcallDeny {
		args = append(args, "--socketcall", o.Socketcall)
	}
	for _, name := range o.Accept {
		if slices.Contains(nriGaps, name) { // of the host, not of a container
			continue
		}
		args = append(args, "--accept", name)
	}
	if o.DecisionLog != "" {
		args = append(args, "--decision-log", o.DecisionLog)
	}
	return args
}

// wrapper is the script that stands in for a runtime. It has the runtime's
// name, since some callers look in PATH for that. args go to the runtime before
// those of the caller.
func (o *Options) wrapper(platform, p, runtime string, args ...string) host.File {
	words := append([]string{o.Program, "runtime"}, o.shared(platform)...)
	words = append(words, "--runtime-path", runtime, "--")
	words = append(words, args...)
	return host.File{Path: p, Mode: host.Script, Data: fmt.Appendf(nil, "#!/bin/sh\n%sexec %s \"$@\"\n", comment(platform), ShellWords(words))}
}

func comment(platform string) string {
	return fmt.Sprintf("# Written by \"afalg-policy install %s\"; \"afalg-policy uninstall %s\" takes it back.\n", platform, platform)
}

// pathDropIn makes a service find the wrapper before the runtime.
func pathDropIn(platform, service, dir string) host.File {
	return host.File{Path: path.Join(unitDir, unit.DropIn(service, unit.Runtime)), Mode: host.Plain,
		Data: fmt.Appendf(nil, "%s[Service]\nEnvironment=PATH=%s:%s\n", comment(platform), dir, host.SystemPath)}
}

func profilePath(platform string) string { return path.Join(seccompDir, platform+".json") }

// base is a seccomp profile to harden.
type base struct {
	path string // or a description for people
	data []byte // nil for Docker's pinned default
}

// firstBase returns the profile of --base, or else the first one that exists.
// With must, the first place has to exist.
func (o *Options) firstBase(h *host.Host, must bool, places ...string) (base, error) {
	if o.Base != nil {
		return base{o.BasePath, o.Base}, nil
	}
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

// profile returns the file for a hardened base.
func (o *Options) profile(at string, b base) (host.File, error) {
	data, err := o.Harden(b.data)
	if err != nil {
		return host.File{}, fmt.Errorf("seccomp profile %s: %w", cmp.Or(b.path, "of Docker's default"), err)
	}
	return host.File{Path: at, Mode: host.Plain, Data: data}, nil
}

// runtime returns the runtime that a wrapper executes: the one of
// --runtime-path, or the configured one, or the first of the names that exists.
func (o *Options) runtime(h *host.Host, configured string, names ...string) (string, error) {
	if o.RuntimePath != "" {
		return o.RuntimePath, nil
	}
	if configured != "" {
		names = []string{configured}
	}
	for _, name := range names {
		p, err := name, error(nil)
		if !path.IsAbs(name) {
			p, err = h.LookPath(name)
		}
		if err == nil {
			err = h.Executable("runtime", p)
		}
		if err == nil {
			return p, nil
		}
		var missing *hosterr.Error
		if !errors.As(err, &missing) {
			return "", fmt.Errorf("%w; or name another runtime with --runtime-path", err)
		}
	}
	return "", hosterr.Errorf("no runtime: %s was not found in %s; name it with --runtime-path", strings.Join(names, " or "), host.SystemPath)
}

// ours reports whether a runtime is a wrapper already. A wrapper in front of
// itself would loop for ever.
func ours(p string) bool { return strings.HasPrefix(p, libDir+"/") }

// inFile prefixes a file name to an error, which may begin with line:col.
func inFile(shown string, err error) error {
	if text := err.Error(); text != "" && text[0] >= '0' && text[0] <= '9' && strings.Contains(text, ": ") {
		return fmt.Errorf("%s:%w", shown, err)
	}
	return fmt.Errorf("%s: %w", shown, err)
}

// daemonFlag is a flag on the command line of a daemon.
type daemonFlag struct {
	name, value string
	where       string // file:line
}

// unitDirs are the directories in which systemd looks for units.
var unitDirs = []string{unitDir, "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"}

// daemonFlags looks for flags on the command line that units and their
// environment files give a daemon. A file cannot set what such a flag sets, or
// the flag names another file to read.
func daemonFlags(h *host.Host, service string, environment []string, names ...string) ([]daemonFlag, error) {
	var found []daemonFlag
	for _, dir := range unitDirs {
		dropIns, err := h.List(path.Join(dir, service+".d"), ".conf")
		if err != nil {
			return nil, err
		}
		for _, p := range append(dropIns, path.Join(dir, service)) {
			flags, err := flagsIn(h, p, "ExecStart=", names)
			if err != nil {
				return nil, err
			}
			found = append(found, flags...)
		}
	}
	for _, p := range environment {
		flags, err := flagsIn(h, p, "", names)
		if err != nil {
			return nil, err
		}
		found = append(found, flags...)
	}
	return found, nil
}

// flagsIn looks for flags in the settings of one file that begin with a prefix.
func flagsIn(h *host.Host, p, prefix string, names []string) ([]daemonFlag, error) {
	if !h.Exists(p) {
		return nil, nil
	}
	data, err := h.Follow(p)
	if err != nil {
		return nil, err
	}
	var found []daemonFlag
	continued := false
	for i, line := range strings.Split(string(data), "\n") {
		line = strings.TrimSpace(line)
		wanted := (continued || strings.HasPrefix(line, prefix)) && !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, ";")
		continued = wanted && strings.HasSuffix(line, `\`)
		if !wanted {
			continue
		}
		words := strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" \t\"'=", r) })
		for at, word := range words {
			if !slices.Contains(names, word) {
				continue
			}
			f := daemonFlag{name: word, where: fmt.Sprintf("%s:%d", h.Shown(p), i+1)}
			if at+1 < len(words) {
				f.value = words[at+1]
			}
			found = append(found, f)
		}
	}
	return found, nil
}
