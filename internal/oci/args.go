package oci

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// Invocation is a command line of an OCI runtime that starts a container.
type Invocation struct {
	Command string // create, run or restore
	ID      string // of the container
	Bundle  string // "" for the working directory
	Config  string // file that stands for the bundle's config.json (crun); "" for that
	Root    string // where the runtime keeps containers; "" for its default
	Log     Log    // where the caller looks for what went wrong
	// args are the runtime's arguments without those about bundle and spec.
	before, after []string
}

// option is an option of a runtime's command line.
type option struct {
	name  string // without dashes
	value bool   // it takes one
	path  bool   // which is relative to the working directory
}

// The options of runc 1.5, crun 1.2x and of what keeps to their command line.
// One that is not here is refused where it could take a value: the words after
// it would be misread.
var (
	globalOptions = []option{
		{name: "debug"}, {name: "systemd-cgroup"}, {name: "help"}, {name: "h"}, {name: "version"}, {name: "v"}, {name: "V"}, {name: "?"},
		{name: "log", value: true}, {name: "log-format", value: true}, {name: "log-level", value: true},
		{name: "root", value: true}, {name: "criu", value: true}, {name: "rootless", value: true},
		{name: "cgroup-manager", value: true},
	}
	startOptions = []option{
		{name: "bundle", value: true}, {name: "b", value: true}, {name: "config", value: true}, {name: "f", value: true},
		{name: "console-socket", value: true, path: true}, {name: "pid-file", value: true, path: true}, {name: "pidfd-socket", value: true, path: true},
		{name: "preserve-fds", value: true},
		{name: "no-pivot"}, {name: "no-new-keyring"}, {name: "no-subreaper"}, {name: "keep"}, {name: "detach"}, {name: "d"},
		{name: "help"}, {name: "h"}, {name: "?"},
	}
	restoreOptions = slices.Concat(startOptions, []option{
		{name: "image-path", value: true, path: true}, {name: "work-path", value: true, path: true}, {name: "parent-path", value: true},
		{name: "manage-cgroups-mode", value: true}, {name: "empty-ns", value: true}, {name: "lsm-profile", value: true},
		{name: "lsm-mount-context", value: true}, {name: "status-fd", value: true},
		{name: "tcp-established"}, {name: "tcp-close"}, {name: "ext-unix-sk"}, {name: "shell-job"}, {name: "file-locks"},
		{name: "auto-dedup"}, {name: "lazy-pages"},
	})
	startCommands = map[string][]option{"create": startOptions, "run": startOptions, "restore": restoreOptions}
)

// ParseInvocation reads the arguments of an OCI runtime; nil if they start no
// container, and are none of the wrapper's business.
func ParseInvocation(args []string) (*Invocation, error) {
	inv := &Invocation{}
	at, err := inv.global(args)
	if err != nil || at == len(args) {
		return nil, err
	}
	inv.Command = args[at]
	options, starts := startCommands[inv.Command]
	if !starts {
		return nil, nil
	}
	inv.before = args[:at+1]
	help, err := inv.own(args[at+1:], options)
	if err != nil || help {
		return nil, err
	}
	return inv, nil
}

// global reads what stands before the command, and returns where that is.
func (inv *Invocation) global(args []string) (at int, err error) {
	for at < len(args) {
		o, word, used, err := readOption(args[at:], globalOptions)
		switch {
		case err != nil && slices.ContainsFunc(args[at:], isStart):
			return 0, err
		case word == "--":
			return min(at+1, len(args)), nil
		case err != nil || used == 0:
			return at, nil
		}
		switch o.name {
		case "root":
			inv.Root = word
		case "log":
			inv.Log.Path = word
		case "log-format":
			inv.Log.JSON = word == "json"
		}
		at += used
	}
	return at, nil
}

func isStart(word string) bool { return startCommands[word] != nil }

// own reads the options of the command, and its operand. help means that the
// runtime will only print its help.
func (inv *Invocation) own(args []string, options []option) (help bool, err error) {
	var operands []string
	for len(args) > 0 {
		if args[0] == "--" {
			operands = append(operands, args[1:]...)
			break
		}
		o, word, used, err := readOption(args, options)
		switch {
		case err != nil:
			return false, fmt.Errorf("%s: %w", inv.Command, err)
		case used == 0:
			operands = append(operands, args[0])
			args = args[1:]
			continue
		}
		if err := inv.take(o, word, args[:used]); err != nil {
			return false, err
		}
		help = help || o.name == "help" || o.name == "h" || o.name == "?"
		args = args[used:]
	}
	if help {
		return true, nil
	}
	if len(operands) != 1 || operands[0] == "" {
		return false, fmt.Errorf("%s: one container id is needed, and %d are there: %q", inv.Command, len(operands), operands)
	}
	inv.ID = operands[0]
	if inv.ID[0] == '-' {
		return false, fmt.Errorf("%s: the container id %q begins with a dash", inv.Command, inv.ID)
	}
	return false, nil
}

// take keeps an option, or takes note of it.
func (inv *Invocation) take(o option, word string, raw []string) error {
	switch o.name {
	case "bundle", "b":
		inv.Bundle = word
	case "config", "f":
		inv.Config = word
	default:
		if o.path && word != "" && !filepath.IsAbs(word) {
			// The runtime will be in another bundle's directory.
			abs, err := filepath.Abs(word)
			if err != nil {
				return fmt.Errorf("--%s %s: %w", o.name, word, err)
			}
			raw = []string{"--" + o.name, abs}
		}
		inv.after = append(inv.after, raw...)
	}
	return nil
}

// readOption reads the option that words begin with, in any of the forms that
// runtimes take: --name value, --name=value, -n value, -nvalue, and with one
// dash for two. used is how many words it has; 0 for what is no option.
func readOption(words []string, options []option) (o option, value string, used int, err error) {
	word := words[0]
	if len(word) < 2 || word[0] != '-' || word == "--" {
		return option{}, word, 0, nil
	}
	name, value, joined := strings.Cut(strings.TrimPrefix(word[1:], "-"), "=")
	i := slices.IndexFunc(options, func(o option) bool { return o.name == name })
	switch {
	case i < 0 && word[1] != '-':
		return attached(word, options)
	case i < 0:
		return option{}, "", 0, fmt.Errorf("the option %q is not known, so that the words after it may be misread: call the runtime without it, or without this wrapper", word)
	case joined || !options[i].value:
		return options[i], value, 1, nil
	case len(words) < 2:
		return option{}, "", 0, fmt.Errorf("the option %q lacks its value", word)
	}
	return options[i], words[1], 2, nil
}

// attached reads a short option whose value follows without a space.
func attached(word string, options []option) (option, string, int, error) {
	for _, o := range options {
		if len(o.name) == 1 && o.value && word[1:2] == o.name {
			return o, word[2:], 1, nil
		}
	}
	return option{}, "", 0, fmt.Errorf("the option %q is not known, so that the words after it may be misread: call the runtime without it, or without this wrapper", word)
}

// With returns the arguments that have the runtime take another bundle.
func (inv *Invocation) With(bundle string) []string {
	return slices.Concat(inv.before, []string{"--bundle", bundle}, inv.after, []string{inv.ID})
}

// State is the directory where the runtime will keep the container; "" if that
// is not known.
func (inv *Invocation) State(runtime, runDir string) string {
	root := inv.Root
	if root == "" {
		name := filepath.Base(runtime)
		if name != "runc" && name != "crun" || runDir == "" {
			return ""
		}
		root = filepath.Join(runDir, name)
	}
	abs, err := filepath.Abs(root)
	if err != nil || inv.ID != filepath.Base(inv.ID) || inv.ID == ".." || inv.ID == "." {
		return ""
	}
	return filepath.Join(abs, inv.ID)
}
