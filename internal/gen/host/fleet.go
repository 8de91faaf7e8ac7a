package host

import (
	"bytes"
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/afalg-policy/afalg-policy/internal/gen"
	"github.com/afalg-policy/afalg-policy/internal/hostfacts"
)

// fleetForms are the forms in which a fleet is managed, by name.
func fleetForms() []Form {
	return []Form{
		{Name: "ansible", Short: "a role of Ansible", Effects: headSays, Render: fleet(ansibleNotes, writeAnsible)},
		{Name: "bottlerocket", Short: "settings of Bottlerocket", Gaps: bottlerocketGaps, Effects: headSays, Render: fleet(bottlerocketNotes, writeBottlerocket)},
		{Name: "butane", Short: "Butane, for Fedora CoreOS", Effects: headSays, Render: fleet(butaneNotes, writeButane)},
		{Name: "cloud-init", Short: "user data of cloud-init", Effects: headSays, Render: fleet(cloudInitNotes, writeCloudInit)},
		{Name: "machineconfig", Short: "a MachineConfig of OpenShift", Effects: headSays, Render: fleet(machineConfigNotes, writeMachineConfig)},
	}
}

func headSays(Settings, hostfacts.Facts) []string {
	return []string{"takes effect, undo: as the comment says that starts the output"}
}

// DefaultRole is the pool of nodes that every cluster of OpenShift has.
const DefaultRole = "worker"

// carried is what a form carries to a host.
type carried struct {
	Settings
	head      string // the comment that starts an output
	role      string
	files     []gen.File // of the host, as below /
	arguments []string   // of the kernel, one of each name
}

// fleet is a form that says its own notes and carries the files of a host.
func fleet(notes func(carried) []string, write func(carried) ([]gen.File, error)) func(Input) ([]gen.File, error) {
	return func(in Input) ([]gen.File, error) {
		c := carried{Settings: in.Settings, role: cmp.Or(in.Role, DefaultRole), arguments: in.Settings.CommandLine()}
		if err := c.check(); err != nil {
			return nil, err
		}
		all, err := files(in)
		if err != nil {
			return nil, err
		}
		for _, f := range all {
			if f.Path != ArgumentsPath {
				c.files = append(c.files, f)
			}
		}
		c.head = in.Header(in.Plan, slices.Concat(notes(c), in.Settings.fleetNotes()), in.Gaps)
		return write(c)
	}
}

// label admits what Kubernetes takes as the value of a label, in lower case.
var label = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// plainArgument admits arguments that no shell, no boot loader and no template
// reads as anything else.
var plainArgument = regexp.MustCompile(`^[A-Za-z0-9_.-]+=[A-Za-z0-9_.,:-]+$`)

func (c carried) check() error {
	if !label.MatchString(c.role) {
		return fmt.Errorf("role %q: up to 63 lower-case letters, digits and -, the first and the last no -", c.role)
	}
	for _, a := range c.arguments {
		if !plainArgument.MatchString(a) {
			return fmt.Errorf("kernel argument %q: only letters, digits, and _.,:- may stand in one", a)
		}
	}
	return nil
}

// fleetNotes is what the settings say of themselves, for the head of an output.
func (s Settings) fleetNotes() []string {
	var closes, breaks, open []string
	s.each(func(_ string, a About) {
		closes, breaks, open = append(closes, a.Closes...), append(breaks, a.Breaks...), append(open, a.Open...)
	})
	return []string{
		"Closes: " + sentence(closes, "nothing"),
		"Stops, where they are in use: " + sentence(breaks, "nobody who is known"),
		"Leaves open: " + sentence(append(open, "a socket that somebody has already"), ""),
	}
}

// sentence joins texts, each once, in their order.
func sentence(texts []string, none string) string {
	var once []string
	for _, text := range texts {
		if !slices.Contains(once, text) {
			once = append(once, text)
		}
	}
	if len(once) == 0 {
		return none + "."
	}
	return strings.Join(once, "; ") + "."
}

// below are the files of a directory, by their paths on the host.
func (c carried) below(dir string) []string {
	var paths []string
	for _, f := range c.files {
		if path := "/" + f.Path; strings.HasPrefix(path, dir) {
			paths = append(paths, path)
		}
	}
	return paths
}

// yamlText is a comment and an object behind it.
func yamlText(head string, object any) ([]byte, error) {
	text, err := yaml.Dump(object, yaml.WithCompactSeqIndent(false))
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "%s%s\n", head, bytes.TrimSuffix(text, []byte("\n"))), nil
}
