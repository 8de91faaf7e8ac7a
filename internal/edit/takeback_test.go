package edit

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// given is a key with the value that it is given.
type given struct {
	path  []string
	value any
}

var daemonKeys = []given{
	{[]string{"runtimes", "afalg-policy", "path"}, "/w"}, {[]string{"default-runtime"}, "afalg-policy"}, {[]string{"seccomp-profile"}, "/p.json"},
}

var containerdKeys = []given{
	{[]string{"plugins", "cri", "runtimes", "runc", "runtime_type"}, "v2"},
	{[]string{"plugins", "cri", "runtimes", "runc", "options", "BinaryName"}, "/w"},
}

func TestTakeBack(t *testing.T) {
	for _, tt := range []struct {
		name         string
		format       Format
		keys         []given
		before       string
		edit, into   string // in the installed text
		want, stays  string
		sameAsBefore bool
	}{
		{name: "a key of others", format: FormatJSON, keys: daemonKeys, before: "{\n  \"debug\": true\n}\n",
			edit: "{\n", into: "{\n  \"registry-mirrors\": [\"https://m\"],\n", want: "{\n  \"registry-mirrors\": [\"https://m\"],\n  \"debug\": true\n}\n"},
		{name: "behind ours", format: FormatJSON, keys: daemonKeys, before: "{\n  \"debug\": true\n}\n",
			edit: "\"/p.json\"\n", into: "\"/p.json\",\n  \"x\": 1\n", want: "{\n  \"debug\": true,\n  \"x\": 1\n}\n"},
		{name: "nothing was there", format: FormatJSON, keys: daemonKeys, before: "",
			edit: "\"/p.json\"\n", into: "\"/p.json\",\n  \"x\": 1\n", want: "{\n  \"x\": 1\n}\n"},
		{name: "a runtime beside ours", format: FormatJSON, keys: daemonKeys, before: "{}\n",
			edit: "\"runtimes\": {\n", into: "\"runtimes\": {\n    \"nvidia\": {\"path\": \"n\"},\n", want: "{\n  \"runtimes\": {\n    \"nvidia\": {\"path\": \"n\"}\n  }\n}\n"},
		{name: "an old value comes back", format: FormatJSON, keys: daemonKeys, before: `{"default-runtime": "crun", "seccomp-profile": "/old"}`,
			edit: "{", into: `{"x": 1, `, want: `{"x": 1, "default-runtime": "crun", "seccomp-profile": "/old"}`},
		{name: "ours has another value", format: FormatJSON, keys: daemonKeys, before: "{}\n",
			edit: `"default-runtime": "afalg-policy"`, into: `"default-runtime": "nvidia"`, want: "{\n  \"default-runtime\": \"nvidia\"\n}\n", stays: "default-runtime"},
		{name: "ours is gone", format: FormatJSON, keys: daemonKeys, before: "{}\n", edit: "  \"default-runtime\": \"afalg-policy\",\n", into: "", want: "{}\n"},
		{name: "as it was installed", format: FormatJSON, keys: daemonKeys, before: "{\n  \"debug\": true\n}\n", sameAsBefore: true},

		{name: "TOML", format: FormatTOML, keys: containerdKeys, before: "version = 2\n",
			edit: "version = 2\n", into: "version = 2\nroot = \"/r\"\n", want: "version = 2\nroot = \"/r\"\n"},
		{name: "TOML, a mirror behind", format: FormatTOML, keys: containerdKeys, before: "version = 2\n",
			edit: "BinaryName = \"/w\"\n", into: "BinaryName = \"/w\"\n\n[plugins.cri.registry]\nconfig_path = \"/c\"\n",
			want: "version = 2\n\n[plugins.cri.registry]\nconfig_path = \"/c\"\n"},
		{name: "TOML, an option beside ours", format: FormatTOML, keys: containerdKeys, before: "version = 2\n",
			edit: "BinaryName = \"/w\"\n", into: "BinaryName = \"/w\" # ours\nSystemdCgroup = true\n",
			want: "version = 2\n\n[plugins.cri.runtimes.runc]\n\n[plugins.cri.runtimes.runc.options]\nSystemdCgroup = true\n"},
		{name: "TOML, a table that was there", format: FormatTOML, keys: containerdKeys,
			before: "[plugins.cri.runtimes.runc]\nruntime_type = \"v2\"\n[plugins.cri.runtimes.runc.options]\nBinaryName = \"/crun\"\n",
			edit:   "\"v2\"\n", into: "\"v2\"\nx = 1\n",
			want: "[plugins.cri.runtimes.runc]\nruntime_type = \"v2\"\nx = 1\n[plugins.cri.runtimes.runc.options]\nBinaryName = \"/crun\"\n"},
		{name: "TOML, in braces", format: FormatTOML, keys: containerdKeys,
			before: "[plugins.cri.runtimes.runc]\nruntime_type = \"v2\"\noptions = { SystemdCgroup = true }\n",
			edit:   "runtime_type", into: "x = 1\nruntime_type",
			want: "[plugins.cri.runtimes.runc]\nx = 1\nruntime_type = \"v2\"\noptions = { SystemdCgroup = true }\n"},
		{name: "TOML, another value", format: FormatTOML, keys: containerdKeys, before: "version = 2\n",
			edit: "/w", into: "/nvidia", want: "version = 2\n\n[plugins.cri.runtimes.runc]\n\n[plugins.cri.runtimes.runc.options]\nBinaryName = \"/nvidia\"\n", stays: "plugins.cri.runtimes.runc.options.BinaryName"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			after := []byte(tt.before)
			for _, k := range tt.keys {
				var err error
				set := JSON
				if tt.format == FormatTOML {
					set = TOML
				}
				if after, err = set(after, k.path, k.value); err != nil {
					t.Fatal(err)
				}
			}
			now := strings.Replace(string(after), tt.edit, tt.into, 1)
			if now == string(after) && !tt.sameAsBefore {
				t.Fatalf("%q is not in\n%s", tt.edit, after)
			}
			rest, stays, err := TakeBack(tt.format, []byte(tt.before), after, []byte(now))
			if err != nil {
				t.Fatalf("%v\n%s", err, now)
			}
			want := tt.want
			if tt.sameAsBefore {
				want = tt.before
			}
			if d := cmp.Diff(want, string(rest)); d != "" {
				t.Errorf("of\n%s\n%s", now, d)
			}
			if held, want := Holds(tt.format, []byte(tt.before), after, []byte(now)), tt.stays == "" && tt.into != ""; held != want && !tt.sameAsBefore {
				t.Errorf("Holds says %v", held)
			}
			if got := strings.Join(stays, " "); got != tt.stays {
				t.Errorf("stays %q, want %q", got, tt.stays)
			}
		})
	}
	for _, broken := range []string{"{", `{"a": 1, "a": 2}`, "[]"} {
		if rest, _, err := TakeBack(FormatJSON, nil, []byte(`{"a": 1}`), []byte(broken)); err == nil {
			t.Errorf("%s became %s", broken, rest)
		}
	}
	if _, _, err := TakeBack(FormatTOML, nil, []byte("a = 1\n"), []byte("a = \n")); err == nil {
		t.Error("broken TOML was edited")
	}
	if !FormatTOML.Empty([]byte("# nothing\n")) || FormatTOML.Empty([]byte("a = 1\n")) || !FormatJSON.Empty([]byte(" {}\n")) {
		t.Error("Empty")
	}
}
