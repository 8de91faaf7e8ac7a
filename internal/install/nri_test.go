package install

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/afalg-policy/afalg-policy/internal/install/host"
)

const nriGood = `version = 4
[plugins.'io.containerd.nri.v1.nri']
disable = false
plugin_request_timeout = '30s'
disable_connections = false
[plugins.'io.containerd.nri.v1.nri'.default_validator]
enable = true
required_plugins = ['theirs', 'afalg-policy']
tolerate_missing_plugins_annotation = ''
`

// TestNRIFaults changes one setting at a time of a configuration in which nothing is
// open.
func TestNRIFaults(t *testing.T) {
	for _, tt := range []struct{ from, to, want string }{
		{"", "", ""},
		{"disable = false", "disable = true", "disable is true: no plugin is asked"},
		{"connections = false", "connections = true", "the agent cannot connect"},
		{"enable = true", "enable = false", "containers start without the agent"},
		{", 'afalg-policy'", "", `required_plugins lacks "afalg-policy"`},
		{"'30s'", "'2s'", `plugin_request_timeout is "2s", and should be 30s to 1m30s`},
		{"'30s'", "'5m'", `is "5m"`},
		{"'30s'", "'x'", `is "x"`},
		{"tolerate_missing_plugins_annotation = ''", "tolerate_missing_plugins_annotation = 'a/b'", "can excuse it from the plugin"},
		{"enable = true", "enable = true\nreject_unconfined_seccomp_adjustment = true", "do not start"},
		{"enable = true", "enable = true\nreject_runtime_default_seccomp_adjustment = true", "do not start"},
		{"enable = true", "enable = true\nreject_custom_seccomp_adjustment = true", "do not start"},
		{"[plugins.'io.containerd.nri.v1.nri'", "[plugins.'other'", "containerd has no io.containerd.nri.v1.nri"},
	} {
		text := strings.ReplaceAll(nriGood, tt.from, tt.to)
		if tt.from == "" {
			text = nriGood
		}
		dump, err := parseTOML("dump", []byte(text))
		must(t, err)
		open := nriFaults(dump, false)
		if tt.want == "" && len(open) > 0 || tt.want != "" && (len(open) != 1 || !strings.Contains(open[0], tt.want)) {
			t.Errorf("%s: %q, want %q", tt.to, open, tt.want)
		}
	}
	dump, err := parseTOML("dump", []byte(nriGood))
	must(t, err)
	if open := nriFaults(dump, true); len(open) != 1 || !strings.Contains(open[0], "no wrapper stands behind the plugin") {
		t.Errorf("alone: %q", open)
	}
}

// What has to be accepted depends on the host: a unit that starts the plugin, and a
// containerd that is known.
func TestNRIRisks(t *testing.T) {
	names := func(o *Options) (names []string) {
		t.Helper()
		risks, err := NRIRisks(o)
		must(t, err)
		for _, r := range risks {
			names = append(names, r.Name)
		}
		return names
	}
	dir, _, o := rootFor(t, archiveOf("programs usr/bin/containerd\n"))
	if got := names(&o); !slices.Equal(got, []string{GapNRIVersion, GapNRIAtBoot}) {
		t.Errorf("%q", got)
	}
	unit := filepath.Join(dir, unitDir, agentService)
	write(t, dir, strings.TrimPrefix(unit, dir+"/"), "[Service]\nExecStart=/x agent p --nrix\n", 0o644)
	if got := names(&o); !slices.Contains(got, GapNRIAtBoot) {
		t.Errorf("a unit without --nri: %q", got)
	}
	must(t, os.WriteFile(unit, []byte("[Service]\nExecStart=/x agent p --nri\n"), 0o644))
	o.Accept = []string{GapNRIAlone}
	if got := names(&o); !slices.Equal(got, []string{GapNRIVersion, GapNRIAlone}) {
		t.Errorf("%q", got)
	}
}

// Versions of containerd, and of what it is built with.
func TestAtLeast(t *testing.T) {
	for _, tt := range []struct {
		version string
		want    bool
	}{
		{"v0.12.0", true}, {"v0.12.3", true}, {"v0.13.0", true}, {"v1.0.0", true}, {"v0.11.9", false}, {"v0.9.0", false}, {"", false}, {"v0", false}, {"(devel)", false},
	} {
		if got := atLeast(tt.version, 0, 12); got != tt.want {
			t.Errorf("%q: %v", tt.version, got)
		}
	}
}

// What no containerd is, and the programs of an image that are not run, are unknown.
// TestBoxNRIConfiguration asks real ones.
func TestNRIUnknown(t *testing.T) {
	dir, _, o := rootFor(t, archiveOf(""))
	self, err := os.ReadFile("/proc/self/exe")
	must(t, err)
	write(t, dir, "usr/bin/containerd", string(self), 0o755)
	h, err := host.Open(o.Root)
	must(t, err)
	defer h.Close()
	if known, err := nriKnown(h); known || err != nil { // of an image it is not run
		t.Errorf("%v, %v", known, err)
	}
}
