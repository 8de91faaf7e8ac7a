package oci

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func words(line string) []string { return strings.Fields(line) }

// The command lines of dockerd 20.10, containerd 1.6, conmon and of people.
func TestParseInvocation(t *testing.T) {
	t.Chdir("/tmp")
	for _, tt := range []struct {
		name string
		line string
		want *Invocation // nil: it starts nothing
		with string      // the line that takes the bundle /B
	}{
		{
			"docker",
			"--root /var/run/docker/runtime-runc/moby --log /run/c/log.json --log-format json create --bundle /run/c --pid-file /run/c/init.pid abc",
			&Invocation{Command: "create", ID: "abc", Bundle: "/run/c", Root: "/var/run/docker/runtime-runc/moby", Log: Log{"/run/c/log.json", true}},
			"--root /var/run/docker/runtime-runc/moby --log /run/c/log.json --log-format json create --bundle /B --pid-file=/run/c/init.pid abc",
		},
		{
			"conmon",
			"--log-format=json --log=/u/oci-log --systemd-cgroup create --bundle /u --pid-file /u/pidfile --no-pivot f00",
			&Invocation{Command: "create", ID: "f00", Bundle: "/u", Log: Log{"/u/oci-log", true}},
			"--log-format=json --log=/u/oci-log --systemd-cgroup create --bundle /B --pid-file=/u/pidfile --no-pivot f00",
		},
		{
			"by hand", "run -b web c1",
			&Invocation{Command: "run", ID: "c1", Bundle: "web"}, "run --bundle /B c1",
		},
		{
			"no bundle", "run c1", &Invocation{Command: "run", ID: "c1"}, "run --bundle /B c1",
		},
		{
			"joined", "run --bundle=web --pid-file=p c1",
			&Invocation{Command: "run", ID: "c1", Bundle: "web"}, "run --bundle /B --pid-file=/tmp/p c1",
		},
		{
			"one dash, as package flag takes it", "-root /r run -bundle web c1",
			&Invocation{Command: "run", ID: "c1", Bundle: "web", Root: "/r"}, "-root /r run --bundle /B c1",
		},
		{
			"attached, as getopt takes it", "run -bweb -d c1",
			&Invocation{Command: "run", ID: "c1", Bundle: "web"}, "run --bundle /B -d c1",
		},
		{
			"twice: the last one counts", "run -b one --bundle two c1",
			&Invocation{Command: "run", ID: "c1", Bundle: "two"}, "run --bundle /B c1",
		},
		{
			"crun's spec", "run -f other.json -b web c1",
			&Invocation{Command: "run", ID: "c1", Bundle: "web", Config: "other.json"}, "run --bundle /B c1",
		},
		{
			"options behind the id", "create c1 --bundle web",
			&Invocation{Command: "create", ID: "c1", Bundle: "web"}, "create --bundle /B c1",
		},
		{
			"end of the options", "-- run -- c1", &Invocation{Command: "run", ID: "c1"}, "-- run --bundle /B c1",
		},
		{
			"a value that looks like an option", "run --pid-file --bundle c1",
			&Invocation{Command: "run", ID: "c1"}, "run --bundle /B --pid-file=/tmp/--bundle c1",
		},
		{
			"a root that looks like a command", "--root run create -b web c1",
			&Invocation{Command: "create", ID: "c1", Bundle: "web", Root: "run"}, "--root run create --bundle /B c1",
		},
		{
			"a root that looks like the end of the options", "--root -- run c1",
			&Invocation{Command: "run", ID: "c1", Root: "--"}, "--root -- run --bundle /B c1",
		},
		{
			"values for options that take none", "--systemd-cgroup=1 create --no-pivot=false --no-new-keyring=T c1",
			&Invocation{Command: "create", ID: "c1"}, "--systemd-cgroup=1 create --bundle /B --no-new-keyring c1",
		},
		{
			"restore", "restore --image-path /i --work-path w -b web --detach c1",
			&Invocation{Command: "restore", ID: "c1", Bundle: "web", Images: "/i"}, "restore --bundle /B --image-path=/i --work-path=/tmp/w --detach c1",
		},
		{"start", "--root /r start c1", nil, ""},
		{"exec of a program named run", "exec c1 run", nil, ""},
		{"delete", "delete --force c1", nil, ""},
		{"version", "--version", nil, ""},
		{"nothing", "", nil, ""},
		{"an unknown command", "checkpoint-all --new", nil, ""},
		{"an unknown global option, and no start", "--new kill c1", nil, ""},
		{"help", "run --help", nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			args := words(tt.line)
			got, pass, err := ParseInvocation(slices.Clone(args))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, got, cmpopts.IgnoreUnexported(Invocation{})); d != "" {
				t.Error(d)
			}
			if got == nil {
				if d := cmp.Diff(args, pass, cmpopts.EquateEmpty()); d != "" {
					t.Errorf("it does not pass as it is: %s", d)
				}
				return
			}
			if d := cmp.Diff(words(tt.with), got.With("/B")); d != "" {
				t.Error(d)
			}
		})
	}
}

// Where a runtime is to print its help, nothing else reaches it: what the
// wrapper takes for the option may be the container's name to the runtime.
func TestParseInvocationHelp(t *testing.T) {
	for _, line := range []string{"--debug run -b web --help c1", "--debug run c1 --pid-file -- -h", "--debug run -?"} {
		inv, pass, err := ParseInvocation(words(line))
		if err != nil || inv != nil {
			t.Errorf("%s: %+v, %v", line, inv, err)
		}
		if d := cmp.Diff(words("--debug run --help"), pass); d != "" {
			t.Errorf("%s: %s", line, d)
		}
	}
}

func TestCallerLog(t *testing.T) {
	for line, want := range map[string]Log{
		"--root /r --log /l --log-format json create c1": {"/l", true},
		"--log=/l -log-format=text state c1":             {Path: "/l"},
		"--new --log /l --log-format=json run c1":        {"/l", true},
		"--new x --log /l run c1":                        {Path: "/l"},
		"--debug=x --log /l run c1":                      {Path: "/l"},
		"exec c1 --log /l":                               {},
		"--new exec c1 --log /l":                         {},
		"-- --log /l":                                    {},
		"--log":                                          {},
	} {
		if got := CallerLog(words(line)); got != want {
			t.Errorf("%s: %+v, want %+v", line, got, want)
		}
	}
}

// Arguments that the runtime may read in another way are refused.
func TestParseInvocationRefuses(t *testing.T) {
	for _, tt := range []struct{ line, want string }{
		{"run", "one container id is needed, and 0 are there"},
		{"run a b", "one container id is needed, and 2 are there"},
		{"run --bundle", `the option "--bundle" lacks its value`},
		{"run --bund web c1", `the option "--bund" is not known`},
		{"create --new x c1", `the option "--new" is not known`},
		{"create -xb c1", `the option "-xb" is not known`},
		{"--new create -b web c1", `the option "--new" is not known`},
		{"--new x run c1", `the option "--new" is not known`},
		{"run --help=false c1", `the option "--help=false" takes no value: write --help, or leave it out`},
		{"run --help -h=0 c1", `the option "-h=0" takes no value`},
		{"run -h=F c1", `the option "-h=F" takes no value`},
		{"run --detach=perhaps c1", `the option "--detach=perhaps" takes no value`},
		{"--version=false run c1", `the option "--version=false" takes no value`},
		{"--debug=x run c1", `the option "--debug=x" takes no value`},
		{"run -dh c1", `the option "-dh" is not known`},
		{"run --hel c1", `the option "--hel" is not known`},
		{"run -- -x", `the container id "-x" begins with a dash`},
	} {
		got, _, err := ParseInvocation(words(tt.line))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, %v; want an error with %s", tt.line, got, err, tt.want)
		}
	}
}

// FuzzParseInvocation: whatever line starts a container names exactly one
// bundle in the end, ours, and keeps the id; a second reading agrees.
func FuzzParseInvocation(f *testing.F) {
	f.Add("--root /r create -b web --pid-file p c1")
	f.Add("run -f x -bweb -- c1")
	f.Add("-- restore --image-path=i c1 --bundle=x")
	f.Fuzz(func(t *testing.T, line string) {
		inv, _, err := ParseInvocation(words(line))
		if err != nil || inv == nil {
			return
		}
		with := inv.With("/B")
		again, _, err := ParseInvocation(with)
		if err != nil || again == nil {
			t.Fatalf("%q became %q: %v", line, with, err)
		}
		if again.Bundle != "/B" || again.ID != inv.ID || again.Config != "" || again.Command != inv.Command || again.Root != inv.Root {
			t.Errorf("%q became %q: %+v", line, with, again)
		}
	})
}

func TestState(t *testing.T) {
	t.Chdir("/tmp")
	for _, tt := range []struct{ root, runtime, id, want string }{
		{"/r", "/usr/sbin/runc", "a", "/r/a"},
		{"r", "/usr/sbin/runc", "a", "/tmp/r/a"},
		{"", "/usr/sbin/runc", "a", "/run/runc/a"},
		{"", "/usr/bin/crun", "a", "/run/crun/a"},
		{"", "/opt/other", "a", ""},
		{"/r", "/usr/sbin/runc", "../a", ""},
		{"/r", "/usr/sbin/runc", "..", ""},
	} {
		inv := &Invocation{Root: tt.root, ID: tt.id}
		if got := inv.State(tt.runtime, "/run"); got != tt.want {
			t.Errorf("%+v: %q", tt, got)
		}
	}
}

func TestLogFail(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct {
		log  Log
		want []string
	}{
		{Log{filepath.Join(dir, "json"), true}, []string{`"level":"error"`, `"msg":"no \"way\""`}},
		{Log{filepath.Join(dir, "text"), false}, []string{`level=error`, `msg="no \"way\""`}},
		{Log{"file:" + filepath.Join(dir, "crun"), true}, []string{`"level":"error"`}},
	} {
		tt.log.Fail(`no "way"`)
		text, err := os.ReadFile(strings.TrimPrefix(tt.log.Path, "file:"))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range tt.want {
			if !strings.Contains(string(text), want) {
				t.Errorf("%s has no %s", text, want)
			}
		}
	}
	t.Chdir(t.TempDir())
	Log{}.Fail("nowhere")
	Log{Path: "journald:web"}.Fail("elsewhere")
	if left, err := os.ReadDir("."); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	Log{Path: dir}.Fail("a directory")
}
