package host

import (
	"maps"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v4"

	"github.com/afalg-policy/afalg-policy/internal/gen"
	"github.com/afalg-policy/afalg-policy/internal/hostfacts"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

var fleetPlan = &plan.Plan{Name: "fleet", Digest: "sha256:0123"}

// fleetSettings have each kind of setting. Their texts come from others.
func fleetSettings(text string) Settings {
	about := func(closes string) About {
		return About{Why: text, Closes: []string{closes}, Breaks: []string{text}, Open: []string{text}, Undo: text, Takes: TakesNow}
	}
	return Settings{
		Modules:   []ModprobeRule{{"algif_aead", about("aead")}, {"rxrpc", about("AF_RXRPC")}},
		Arguments: []KernelArgument{{"initcall_blacklist", "algif_aead_init", about("aead")}, {"initcall_blacklist", "rxrpc_init", about("AF_RXRPC")}},
		Sysctls: []Sysctl{{Key: "crypto.af_alg_restrict", Value: "2", Module: "af_alg", Optional: true, About: about("aead")},
			{Key: "user.max_user_namespaces", Value: "0", About: about("user namespaces")}},
	}
}

// fleetInput has a text of others wherever one may stand.
func fleetInput(text string) Input {
	return Input{Plan: fleetPlan, Settings: fleetSettings(text), Options: Options{Common: gen.Common{Tool: "afalg-policy test"}}}
}

func fleetOutput(t *testing.T, form string, in Input) []gen.File {
	t.Helper()
	for _, f := range fleetForms() {
		if f.Name == form {
			out, err := f.Render(in)
			if err != nil {
				t.Fatalf("%s: %v", form, err)
			}
			return out
		}
	}
	t.Fatalf("there is no form %s", form)
	return nil
}

// fleetInputs have texts of others, and what policies make.
func fleetInputs(t *testing.T) map[string]Input {
	t.Helper()
	inputs := map[string]Input{}
	for name, text := range hostile {
		inputs[name] = fleetInput(text)
	}
	for name, tt := range map[string]struct {
		policy string
		facts  hostfacts.Given
	}{
		"whole host": {wholeHost, hostfacts.Given{}},
		"FIPS":       {onlyFIPS, hostfacts.Given{Release: "5.14.0-570.el9.x86_64", Builtin: []byte(el9)}},
	} {
		p, facts := load(t, tt.policy), told(t, tt.facts)
		s, gaps, err := Decide(p, facts, Options{})
		if err != nil {
			t.Fatal(err)
		}
		inputs[name] = Input{Plan: p, Facts: facts, Settings: s, Gaps: gaps}
	}
	return inputs
}

// The files of the host have goldens of their own; here each is one line.
func TestFleetGolden(t *testing.T) {
	c := carried{Settings: fleetSettings("a reason"), role: DefaultRole}
	c.arguments = c.CommandLine()
	for _, path := range []string{ModprobePath, SysctlPath, UdevPath} {
		c.files = append(c.files, gen.File{Path: path, Data: []byte("# a line\n")})
	}
	for name, form := range map[string]struct {
		notes func(carried) []string
		write func(carried) ([]gen.File, error)
	}{
		"ansible":       {ansibleNotes, writeAnsible},
		"bottlerocket":  {bottlerocketNotes, writeBottlerocket},
		"butane":        {butaneNotes, writeButane},
		"cloud-init":    {cloudInitNotes, writeCloudInit},
		"machineconfig": {machineConfigNotes, writeMachineConfig},
	} {
		t.Run(name, func(t *testing.T) {
			c := c
			c.head = gen.Common{Tool: "afalg-policy test"}.Header(fleetPlan, slices.Concat(form.notes(c), c.fleetNotes()), nil)
			made, err := form.write(c)
			if err != nil {
				t.Fatal(err)
			}
			compare(t, filepath.Join("testdata/fleet", name), made)
		})
	}
}

// onHost is what a form puts on a host.
type onHost struct {
	Files     map[string]string // by path, without what is for GRUB
	Arguments []string
	Modules   []string // instead of files
	Sysctls   map[string]string
}

// readers read the forms as a host would.
var readers = map[string]func(*testing.T, []gen.File) onHost{
	"machineconfig": readMachineConfig,
	"butane":        readButane,
	"bottlerocket":  readBottlerocket,
	"cloud-init":    readCloudInit,
	"ansible":       readAnsible,
}

func readMachineConfig(t *testing.T, files []gen.File) onHost {
	var object machineConfig
	strictYAML(t, files[0].Data, &object)
	h := onHost{Files: map[string]string{}, Arguments: object.Spec.KernelArguments}
	for _, f := range object.Spec.Config.Storage.Files {
		data, plain := strings.CutPrefix(f.Contents.Source, "data:,")
		text, err := url.PathUnescape(data)
		if !plain || err != nil || f.Mode != 0o644 || !f.Overwrite {
			t.Errorf("%s: %v, %v, %o, %t", f.Path, plain, err, f.Mode, f.Overwrite)
		}
		h.Files[f.Path] = text
	}
	return h
}

func readButane(t *testing.T, files []gen.File) onHost {
	var object butane
	strictYAML(t, files[0].Data, &object)
	h := onHost{Files: map[string]string{}, Arguments: object.KernelArguments.ShouldExist}
	for _, f := range object.Storage.Files {
		h.Files[f.Path] = f.Contents.Inline
	}
	return h
}

func readCloudInit(t *testing.T, files []gen.File) onHost {
	var config cloudConfig
	strictYAML(t, files[0].Data, &config)
	h := onHost{Files: map[string]string{}}
	for _, f := range config.WriteFiles {
		h.Files[f.Path] = f.Content
	}
	for _, command := range config.RunCmd {
		if command[0] == "sh" {
			h.Arguments = command[4:]
		}
	}
	return h.withoutGRUB(t)
}

func readAnsible(t *testing.T, files []gen.File) onHost {
	h := onHost{Files: map[string]string{}}
	var vars ansibleVars
	for _, f := range files {
		if name, ours := strings.CutPrefix(f.Path, "afalg_policy/files/"); ours {
			h.Files["/"+name] = string(f.Data)
		}
		if f.Path == "afalg_policy/vars/main.yml" {
			strictYAML(t, f.Data, &vars)
			h.Arguments = vars.Arguments
		}
	}
	h = h.withoutGRUB(t)
	for _, path := range vars.Files {
		if _, there := h.Files[path]; !there {
			t.Errorf("the role has no %s", path)
		}
	}
	if len(vars.Files) != len(h.Files) {
		t.Errorf("the role puts %q there, of %d files", vars.Files, len(h.Files))
	}
	return h
}

// withoutGRUB checks what is for GRUB against the arguments.
func (h onHost) withoutGRUB(t *testing.T) onHost {
	t.Helper()
	const path = "/etc/default/grub.d/afalg-policy.cfg"
	if want := `GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX ` + strings.Join(h.Arguments, " ") + "\"\n"; !strings.HasSuffix(h.Files[path], "\n"+want) {
		t.Errorf("GRUB gets %q, want %q", h.Files[path], want)
	}
	delete(h.Files, path)
	return h
}

// readBottlerocket reads the settings by the types and patterns of Bottlerocket's
// own model (sources/models, modeled_types: KmodKey, SysctlKey, BootConfigKey,
// BootConfigValue), which no registry for Go has.
func readBottlerocket(t *testing.T, files []gen.File) onHost {
	var object struct {
		Settings struct {
			Kernel struct {
				Modules map[string]struct{ Allowed *bool }
				Sysctl  map[string]string
			}
			Boot struct {
				Parameters map[string][]string `toml:"kernel-parameters"`
				Reconcile  bool                `toml:"reboot-to-reconcile"`
			}
		}
	}
	meta, err := toml.Decode(string(files[0].Data), &object)
	if err != nil || len(meta.Undecoded()) > 0 {
		t.Fatalf("%v, %v", err, meta.Undecoded())
	}
	h := onHost{Sysctls: map[string]string{}}
	maps.Copy(h.Sysctls, object.Settings.Kernel.Sysctl)
	kmodKey, sysctlKey := regexp.MustCompile(`^[A-Za-z0-9_-]{1,56}$`), regexp.MustCompile(`^[a-zA-Z0-9_-][a-zA-Z0-9./_-]{0,127}$`)
	bootKey, bootValue := regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$`), regexp.MustCompile(`^[ -!#-~]*$`)
	for name, m := range object.Settings.Kernel.Modules {
		if m.Allowed == nil || *m.Allowed || !kmodKey.MatchString(name) {
			t.Errorf("module %q is allowed, or has no name that Bottlerocket takes", name)
		}
		h.Modules = append(h.Modules, name)
	}
	slices.Sort(h.Modules)
	for key := range h.Sysctls {
		if !sysctlKey.MatchString(key) || strings.Contains(key, "..") {
			t.Errorf("Bottlerocket takes no sysctl %q", key)
		}
	}
	for key, values := range object.Settings.Boot.Parameters {
		for _, value := range values {
			if !bootKey.MatchString(key) || !bootValue.MatchString(value) {
				t.Errorf("Bottlerocket takes no kernel parameter %q=%q", key, value)
			}
			h.Arguments = append(h.Arguments, key+"="+value)
		}
	}
	return h
}

func strictYAML(t *testing.T, data []byte, into any) {
	t.Helper()
	if err := yaml.Load(data, into, yaml.WithKnownFields()); err != nil {
		t.Fatalf("%v\n%s", err, data)
	}
}

// asFiles is what the form of files puts on a host.
func asFiles(t *testing.T, in Input) onHost {
	t.Helper()
	h := onHost{Files: map[string]string{}}
	made, err := files(in)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range made {
		if f.Path != ArgumentsPath {
			h.Files["/"+f.Path] = string(f.Data)
			continue
		}
		for line := range strings.Lines(string(f.Data)) {
			if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
				h.Arguments = append(h.Arguments, line)
			}
		}
	}
	return h
}

// asLines is what the lines of those files say.
func (h onHost) asLines() onHost {
	lines := onHost{Arguments: h.Arguments, Sysctls: map[string]string{}}
	for _, text := range h.Files {
		for line := range strings.Lines(text) {
			fields := strings.Fields(line)
			switch {
			case len(fields) == 3 && fields[0] == "install":
				lines.Modules = append(lines.Modules, fields[1])
			case len(fields) == 3 && fields[1] == "=" && fields[0][0] != '-': // which is not on every kernel
				lines.Sysctls[fields[0]] = fields[2]
			}
		}
	}
	slices.Sort(lines.Modules)
	return lines
}

// hostile are texts that leave a comment or a string of some of the forms, if
// they are pasted there.
var hostile = map[string]string{
	"plain":     "a reason",
	"new lines": "x\ninstall evil /bin/sh\r\n- path: /etc/shadow\n[settings.evil]\n",
	"yaml":      "x: [}] {\"a\": 'b'} & *a !!binary | > --- ... % @ ` \\",
	"jinja":     "{{ lookup('pipe', 'id') }}{% raw %}",
	"shell":     "$(id) `id` ${x} '; id; \"",
	"percent":   "%0A %41 +a+ #b ?c data:,x",
	"unicode":   "\u202e\u2028\u0085\ufeff é 日本 \U000e0041",
}

// All forms put on a host what the files do, byte for byte, whatever stands in the
// texts; or say the same in their own words.
func TestFleetSame(t *testing.T) {
	if len(readers) != len(fleetForms()) {
		t.Errorf("%d readers for %d forms", len(readers), len(fleetForms()))
	}
	for name, in := range fleetInputs(t) {
		want := asFiles(t, in)
		if len(want.Files) == 0 || len(want.Arguments) != 1 {
			t.Errorf("%s has %d files and the arguments %q: it says little", name, len(want.Files), want.Arguments)
		}
		for _, f := range fleetForms() {
			want, got := want, readers[f.Name](t, fleetOutput(t, f.Name, in))
			if got.Files == nil {
				want = want.asLines()
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("%s: -files +%s:\n%s", name, f.Name, d)
			}
		}
	}
}

// No text of others in the head of an output leaves its comment. The control pastes
// it.
func TestFleetHeads(t *testing.T) {
	broken := 0
	for _, f := range fleetForms() {
		tame := readers[f.Name](t, fleetOutput(t, f.Name, fleetInput("a reason")))
		for name, text := range hostile {
			in := fleetInput(text)
			in.Plan, in.Tool, in.Gaps = &plan.Plan{Name: text, Digest: text}, text, []plan.Gap{plan.Wider.Gap(text, nil, text)}
			got := readers[f.Name](t, fleetOutput(t, f.Name, in))
			if d := cmp.Diff(tame.asLines(), got.asLines()); d != "" {
				t.Errorf("%s, %s: -tame +hostile:\n%s", f.Name, name, d)
			}
			var object any
			if yaml.Load([]byte("# "+text+"\na: b\n"), &object) != nil || !cmp.Equal(object, any(map[string]any{"a": "b"})) {
				broken++
			}
		}
	}
	if broken == 0 {
		t.Error("no text leaves a comment that it is pasted into: the test says nothing")
	}
}

func TestFleetRefuses(t *testing.T) {
	for want, change := range map[string]func(*Input){
		`role "a\nb": up to 63 lower-case letters, digits and -, the first and the last no -`: func(in *Input) { in.Role = "a\nb" },
		`kernel argument "a=$(id)": only letters, digits, and _.,:- may stand in one`: func(in *Input) {
			in.Settings.Arguments = []KernelArgument{{Name: "a", Value: "$(id)"}}
		},
	} {
		for _, f := range fleetForms() {
			in := fleetInput("a reason")
			change(&in)
			if _, err := f.Render(in); err == nil || err.Error() != want {
				t.Errorf("%s: got %v, want %s", f.Name, err, want)
			}
		}
	}
}

// What Bottlerocket does not set is a gap, unless a module closes the same.
func TestBottlerocketGaps(t *testing.T) {
	s := fleetSettings("a reason")
	if gaps := bottlerocketGaps(s); len(gaps) > 0 {
		t.Errorf("aead is closed by its module: %v", gaps)
	}
	s.Modules = s.Modules[1:]
	gaps := bottlerocketGaps(s)
	if len(gaps) != 1 || gaps[0].Kind != plan.Wider || gaps[0].Name != "crypto.af_alg_restrict" {
		t.Errorf("got %v, want one wider gap", gaps)
	}
}

// Settings of one kind alone make outputs that are whole, in every form.
func TestFleetSparse(t *testing.T) {
	all := fleetSettings("a reason")
	for kind, s := range map[string]Settings{
		"modules": {Modules: all.Modules}, "arguments": {Arguments: all.Arguments}, "sysctls": {Sysctls: all.Sysctls},
	} {
		for _, f := range fleetForms() {
			in := fleetInput("")
			in.Settings = s
			for _, file := range fleetOutput(t, f.Name, in) {
				if regexp.MustCompile(`(?m): (null|\{\})$`).Match(file.Data) {
					t.Errorf("%s, %s: %s has an empty value:\n%s", f.Name, kind, file.Path, file.Data)
				}
				if f.Name == "butane" {
					butaneTakes(t, file.Data)
				}
			}
		}
	}
}
