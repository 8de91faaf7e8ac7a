package oci

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Invocation is a command line of an OCI runtime that starts a container.
type Invocation struct {
	Command string // create, run or restore
	ID      string // of the container
	Bundle  string // "" for the working directory
	Config  string // file that stands for the bundle's config.json (crun); "" for that
	Root    string // where the runtime keeps containers; "" for its default
	Images  string // of the checkpoint to restore, absolute; "" if that is not said
	Log     Log    // where the caller looks for what went wrong
	// args are the runtime's arguments without those about bundle and spec.
	before, after []string
}

// option is an option of a runtime's command line.
type option struct {
	name  string // without dashes
	value bool   // it takes one
	path  bool   // which is relative to the working directory
	tells bool   // it has the runtime print something, and do nothing
}

const imagePath = "image-path"

// The options of runc 1.5, crun 1.2x and of what keeps to their command line.
// One that is not here is refused where it could take a value: the words after
// it would be misread.
var (
	globalOptions = []option{
		{name: "debug"}, {name: "systemd-cgroup"},
		{name: "help", tells: true}, {name: "h", tells: true}, {name: "?", tells: true},
		{name: "version", tells: true}, {name: "v", tells: true}, {name: "V", tells: true},
		{name: "log", value: true}, {name: "log-format", value: true}, {name: "log-level", value: true},
		{name: "root", value: true}, {name: "criu", value: true}, {name: "rootless", value: true},
		{name: "cgroup-manager", value: true},
	}
	startOptions = []option{
		{name: "bundle", value: true}, {name: "b", value: true}, {name: "config", value: true}, {name: "f", value: true},
		{name: "console-socket", value: true, path: true}, {name: "pid-file", value: true, path: true}, {name: "pidfd-socket", value: true, path: true},
		{name: "preserve-fds", value: true},
		{name: "no-pivot"}, {name: "no-new-keyring"}, {name: "no-subreaper"}, {name: "keep"}, {name: "detach"}, {name: "d"},
		{name: "help", tells: true}, {name: "h", tells: true}, {name: "?", tells: true},
	}
	restoreOptions = slices.Concat(startOptions, []option{
		{name: imagePath, value: true, path: true}, {name: "work-path", value: true, path: true}, {name: "parent-path", value: true},
		{name: "manage-cgroups-mode", value: true}, {name: "empty-ns", value: true}, {name: "lsm-profile", value: true},
		{name: "lsm-mount-context", value: true}, {name: "status-fd", value: true},
		{name: "tcp-established"}, {name: "tcp-close"}, {name: "ext-unix-sk"}, {name: "shell-job"}, {name: "file-locks"},
		{name: "auto-dedup"}, {name: "lazy-pages"},
	})
	startCommands = map[string][]option{"create": startOptions, "run": startOptions, "restore": restoreOptions}
)

// ParseInvocation reads the arguments of an OCI runtime. Where they start no
// container it returns none, and the arguments for the runtime instead: those
// that were given, or, where the runtime is to print its help, a line that
// cannot be read as anything else.
func ParseInvocation(args []string) (inv *Invocation, pass []string, err error) {
	inv = &Invocation{}
	at, err := inv.global(args)
	if err != nil {
		return nil, nil, err
	}
	if at == len(args) {
		return nil, args, nil
	}
	inv.Command = args[at]
	options, starts := startCommands[inv.Command]
	if !starts {
		return nil, args, nil
	}
	inv.before = args[:at+1]
	help, err := inv.own(args[at+1:], options)
	switch {
	case err != nil:
		return nil, nil, err
	case help:
		return nil, append(slices.Clone(inv.before), "--help"), nil
	}
	return inv, nil, nil
}

// global reads what stands before the command, and returns where that is.
func (inv *Invocation) global(args []string) (at int, err error) {
	for at < len(args) {
		if args[at] == "--" {
			return at + 1, nil
		}
		o, value, used, err := readOption(args[at:], globalOptions)
		switch {
		case err != nil && slices.ContainsFunc(args[at:], isStart):
			return 0, err
		case err != nil || used == 0:
			return at, nil
		}
		if o.name == "root" {
			inv.Root = value
		}
		inv.Log.take(o, value)
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
		if err := inv.take(o, word); err != nil {
			return false, err
		}
		help = help || o.tells
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

// take keeps an option, or takes note of it. A kept option is written so
// that runc and crun read it alike, whatever the value looks like.
func (inv *Invocation) take(o option, value string) error {
	switch {
	case o.name == "bundle", o.name == "b":
		inv.Bundle = value
	case o.name == "config", o.name == "f":
		inv.Config = value
	case !o.value && value == "true":
		inv.after = append(inv.after, o.dashed())
	case o.value:
		if o.path && value != "" && !filepath.IsAbs(value) {
			// The runtime will be in another bundle's directory.
			abs, err := filepath.Abs(value)
			if err != nil {
				return fmt.Errorf("--%s %s: %w", o.name, value, err)
			}
			value = abs
		}
		if o.name == imagePath {
			inv.Images = value
		}
		inv.after = append(inv.after, o.dashed()+"="+value)
	}
	return nil
}

// dashed is an option as all runtimes take it.
func (o option) dashed() string {
	if len(o.name) == 1 {
		return "-" + o.name
	}
	return "--" + o.name
}

// readOption reads the option that words begin with, in any of the forms that
// runtimes take: --name value, --name=value, -n value, -nvalue, and with one
// dash for two. used is how many words it has; 0 for what is no option. The
// value of an option that takes none is "true" or "false".
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
	case !options[i].value:
		value, err = options[i].truth(word, value, joined)
		return options[i], value, 1, err
	case joined:
		return options[i], value, 1, nil
	case len(words) < 2:
		return option{}, "", 0, fmt.Errorf("the option %q lacks its value", word)
	}
	return options[i], words[1], 2, nil
}

// truth is the value of an option that takes none. runc reads --detach=0 as if
// it were not there, which crun refuses; for --help=0 nobody has a use.
func (o option) truth(word, value string, joined bool) (string, error) {
	if !joined {
		return "true", nil
	}
	set, err := strconv.ParseBool(value)
	if err != nil || o.tells {
		return "", fmt.Errorf("the option %q takes no value: write %s, or leave it out", word, o.dashed())
	}
	return strconv.FormatBool(set), nil
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
