package gen

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/unit"
)

const shownUnits = `Id=iwd.service
RestrictAddressFamilies=AF_INET AF_NETLINK AF_UNIX

Id=narrow.service
RestrictAddressFamilies=AF_ALG AF_UNIX

Id=denying.service
RestrictAddressFamilies=~AF_PACKET

Id=closed.service
RestrictAddressFamilies=

Id=only-alg.service
RestrictAddressFamilies=AF_ALG

Id=free.service
RestrictAddressFamilies=~

Id=pool@afalg-policy.service
RestrictAddressFamilies=AF_RXRPC AF_INET6

Id=daily.timer

Id=iwd.service
RestrictAddressFamilies=AF_INET AF_NETLINK AF_UNIX
`

// freeUnits have no lists of their own.
var freeUnits = []byte(`Id=app.service
RestrictAddressFamilies=~

Id=srv-data.mount
RestrictAddressFamilies=~

Id=pool@afalg-policy.service
RestrictAddressFamilies=~

Id=in.socket
RestrictAddressFamilies=~

Id=dev-x.swap
RestrictAddressFamilies=~

Id=user@1000.service
RestrictAddressFamilies=~
`)

var systemdCases = []struct {
	name string
	opts SystemdOptions
}{
	{"every-service", SystemdOptions{Show: freeUnits}},
	{"facts", SystemdOptions{Show: []byte(shownUnits), Common: Common{Accept: []string{"iwd"}}}},
	{"grant", SystemdOptions{Show: []byte(shownUnits), Common: Common{Grants: []string{"iwd"}, Accept: []string{"iwd"}}}},
	{"units", SystemdOptions{
		Show:   freeUnits,
		Units:  []string{"app.service", "srv-data.mount", "pool@.service", "in.socket", "dev-x.swap"},
		Common: Common{Grants: []string{"hasher"}, Accept: []string{"hasher"}},
	}},
	{"except", SystemdOptions{
		Show:   []byte(shownUnits + "\nId=user@1000.service\nRestrictAddressFamilies=~\n"),
		Except: []string{"user@.service"}, Common: Common{Accept: []string{"iwd", "user@.service"}},
	}},
}

func TestSystemdGolden(t *testing.T) {
	for _, c := range systemdCases {
		t.Run(c.name, func(t *testing.T) {
			files := systemdFiles(t, c.opts)
			compareTree(t, filepath.Join("testdata", "systemd", c.name), files)
		})
	}
	classes, _, err := Systemd(classesPlan(t), classesToUnits)
	if err != nil {
		t.Fatal(err)
	}
	compareTree(t, filepath.Join("testdata", "systemd", "classes"), classes)
}

func systemdFiles(t *testing.T, o SystemdOptions) []File {
	t.Helper()
	o.Tool = "afalg-policy test"
	files, _, err := Systemd(wirelessPlan(), o)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// systemdAnalyze runs the real tool over a directory of units.
func systemdAnalyze(t *testing.T, dir string, args ...string) (stdout, stderr string) {
	t.Helper()
	cmd := exec.Command("systemd-analyze", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "SYSTEMD_UNIT_PATH="+dir+":", "LC_ALL=C")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, errs.String())
	}
	return out.String(), errs.String()
}

// systemd-analyze exits with 0 where it ignores a setting, so that only its
// silence counts.
func TestSystemdVerifySilent(t *testing.T) {
	for _, c := range systemdCases {
		t.Run(c.name, func(t *testing.T) {
			files := systemdFiles(t, c.opts)
			dir := t.TempDir()
			writeTree(t, dir, files)
			args := []string{"verify"}
			for _, f := range files {
				args = append(args, "./"+unitFor(t, dir, strings.TrimSuffix(filepath.Dir(f.Path), ".d")))
			}
			if _, stderr := systemdAnalyze(t, dir, args...); stderr != "" {
				t.Error(stderr)
			}
		})
	}
}

// unitFor writes a unit that the drop-in of that directory applies to.
func unitFor(t *testing.T, dir, dropIn string) string {
	t.Helper()
	name := dropIn
	if name == unit.EveryService {
		name = "any.service"
	}
	name = strings.Replace(name, "@.", "@x.", 1)
	texts := map[string]string{
		".service": "[Service]\nExecStart=/bin/true\n",
		".mount":   "[Mount]\nWhat=tmpfs\nWhere=/srv/data\nType=tmpfs\n",
		".socket":  "[Socket]\nListenStream=/run/in\nService=app.service\n",
		".swap":    "[Swap]\nWhat=/dev/x\n",
	}
	file := name
	if template := unit.Template(name); template != "" {
		file = template
	}
	writeTree(t, dir, []File{{file, []byte(texts[filepath.Ext(name)])}})
	return name
}

func TestSystemdVerifyCanFail(t *testing.T) {
	dir := t.TempDir()
	writeTree(t, dir, systemdFiles(t, systemdCases[0].opts))
	name := unitFor(t, dir, unit.EveryService)
	path := filepath.Join(dir, "service.d", unit.Closure)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data = append(data, "RestrictAddressFamilies=AF_BOGUS\n"...)
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	lines := bytes.Count(data, []byte("\n"))
	want := path + ":" + strconv.Itoa(lines) + ": Failed to parse address family, ignoring: AF_BOGUS\n"
	// Once for each service that the unit pulls in.
	if _, stderr := systemdAnalyze(t, dir, "verify", "./"+name); stderr == "" || strings.ReplaceAll(stderr, want, "") != "" {
		t.Errorf("got %q, want %q", stderr, want)
	}
}

// systemd merges a unit's own settings and ours. It tells AF_ALG apart only where no other family of its class "…" is listed.
func TestSystemdMerge(t *testing.T) {
	const ip, unix, netlink, packet, other = "AF_(INET|INET6)", "AF_UNIX", "AF_NETLINK", "AF_PACKET", "…"
	tests := []struct {
		name  string
		lines string   //  of the unit itself
		shown string   // what systemctl shows of it
		grant bool     // of AF_ALG
		open  []string // what the service may open in the end
	}{
		{"nothing set", "", "~", false, []string{ip, unix, netlink, packet, other}},
		{"own list", "RestrictAddressFamilies=AF_UNIX AF_ALG", "AF_ALG AF_UNIX", false, []string{unix}},
		{"own list without AF_ALG", "RestrictAddressFamilies=AF_UNIX AF_INET", "AF_INET AF_UNIX", false, []string{ip, unix}},
		{"only AF_ALG", "RestrictAddressFamilies=AF_ALG", "AF_ALG", false, nil},
		{"none", "RestrictAddressFamilies=none", "", false, nil},
		{"denies a family", "RestrictAddressFamilies=~AF_PACKET", "~AF_PACKET", false, []string{ip, unix, netlink, other}},
		{"denies AF_ALG", "RestrictAddressFamilies=~AF_PACKET AF_ALG", "~AF_ALG AF_PACKET", false, []string{ip, unix, netlink, other}},
		{"grant with an own list", "RestrictAddressFamilies=AF_UNIX", "AF_UNIX", true, []string{unix, other}},
		{"grant and none", "RestrictAddressFamilies=none", "", true, []string{other}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := wirelessPlan()
			p.Rules[0].Units = []string{"app.service"}
			o := SystemdOptions{Show: []byte("Id=app.service\nRestrictAddressFamilies=" + tt.shown + "\n")}
			o.Accept = []string{"hasher"} // the unit of the rule is here
			if tt.grant {
				o.Grants = []string{"hasher"}
			}
			files, _, err := Systemd(p, o)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			writeTree(t, dir, files)
			writeTree(t, dir, []File{{"app.service", []byte("[Service]\nExecStart=/bin/true\n" + tt.lines + ownFilters)}})
			got := openFamilies(t, dir, "app.service")
			slices.Sort(tt.open)
			if !slices.Equal(got, tt.open) {
				t.Errorf("open: %q, want %q", got, tt.open)
			}
		})
	}
}

// ownFilters are settings of a unit that ours must narrow, not replace: a
// list of allowed calls, and an ABI to close.
const ownFilters = "\nSystemCallArchitectures=x86\nSystemCallFilter=@system-service\n"

// openFamilies returns the classes of families that systemd would leave open,
// and fails unless foreign ABIs are closed and ownFilters still holds.
func openFamilies(t *testing.T, dir, unit string) []string {
	t.Helper()
	stdout, stderr := systemdAnalyze(t, dir, "security", "--offline=true", "--threshold=100", "--json=short", "./"+unit)
	if stderr != "" {
		t.Fatal(stderr)
	}
	var checks []struct {
		Name string
		Set  bool
	}
	if err := json.Unmarshal([]byte(stdout), &checks); err != nil {
		t.Fatal(err)
	}
	var open []string
	native, filtered := false, false
	for _, c := range checks {
		if family, ok := strings.CutPrefix(c.Name, "RestrictAddressFamilies=~"); ok && !c.Set {
			open = append(open, family)
		}
		native = native || strings.HasPrefix(c.Name, "SystemCallArchitectures=") && c.Set
		filtered = filtered || c.Name == "SystemCallFilter=~@mount" && c.Set
	}
	if !native || !filtered {
		t.Errorf("foreign ABIs closed: %t, the unit's own list of calls kept: %t", native, filtered)
	}
	slices.Sort(open)
	return open
}

// Every family that the kernel has is one that systemd knows, but AF_UNSPEC.
func TestSystemdFamilies(t *testing.T) {
	dir := t.TempDir()
	text := "[Service]\nExecStart=/bin/true\nRestrictAddressFamilies=" + strings.Join(unit.KnownFamilies(), " ") + "\n"
	writeTree(t, dir, []File{{"all.service", []byte(text)}})
	if _, stderr := systemdAnalyze(t, dir, "verify", "./all.service"); stderr != "" {
		t.Error(stderr)
	}
	for _, name := range afalg.Families() {
		n, _ := afalg.FamilyByName(name)
		if n != 0 && n <= 45 && !slices.Contains(unit.KnownFamilies(), afalg.FamilyName(n)) {
			t.Errorf("%s is missing", name)
		}
	}
}

// Facts that already hold our drop-ins give the same output: systemctl shows a list
// for each service then.
func TestSystemdIdempotent(t *testing.T) {
	accept := Common{Accept: []string{"iwd"}}
	first := fileMap(systemdFiles(t, SystemdOptions{Show: []byte(shownUnits), Common: accept}))
	var shown strings.Builder
	for _, name := range []string{"iwd", "narrow", "denying", "closed", "only-alg"} {
		list := settings(first[unit.DropIn(name+".service", unit.Closure)])
		shown.WriteString("Id=" + name + ".service\nRestrictAddressFamilies=" + list + "\n\n")
	}
	shown.WriteString("Id=free.service\nRestrictAddressFamilies=" + settings(first[unit.DropIn(unit.EveryService, unit.Closure)]) + "\n\n")
	shown.WriteString("Id=pool@afalg-policy.service\nRestrictAddressFamilies=AF_INET6\n")
	second := fileMap(systemdFiles(t, SystemdOptions{Show: []byte(shown.String()), Common: accept}))
	if diff := cmp.Diff(slices.Sorted(maps.Keys(first)), slices.Sorted(maps.Keys(second))); diff != "" {
		t.Errorf("files: -first +second:\n%s", diff)
	}
	for path, text := range first {
		if diff := cmp.Diff(settings(text), settings(second[path])); diff != "" {
			t.Errorf("%s: -first +second:\n%s", path, diff)
		}
	}
}

// settings returns the families of a drop-in as systemctl shows them.
func settings(text string) string {
	names := map[string]bool{}
	for line := range strings.Lines(text) {
		if list, ok := strings.CutPrefix(line, "RestrictAddressFamilies="); ok {
			for _, name := range strings.Fields(list) {
				names[name] = true
			}
		}
	}
	delete(names, "none")
	return strings.Join(slices.Sorted(maps.Keys(names)), " ")
}

func TestSystemdErrors(t *testing.T) {
	show := func(s string) SystemdOptions { return SystemdOptions{Show: []byte(s)} }
	tests := []struct {
		name string
		opts SystemdOptions
		want string
	}{
		{"newline in a unit", SystemdOptions{Units: []string{"a\nb.service"}},
			`--unit "a\nb.service": '\n' cannot stand in a unit's name`},
		{"slash", SystemdOptions{Units: []string{"../a.service"}},
			`--unit "../a.service": '/' cannot stand in a unit's name`},
		{"space", SystemdOptions{Units: []string{"a b.service"}},
			`--unit "a b.service": ' ' cannot stand in a unit's name`},
		{"newline in the type", SystemdOptions{Units: []string{"a.service\n"}},
			`--unit "a.service\n": only .mount, .service, .socket, .swap take these settings`},
		{"no type", SystemdOptions{Units: []string{"sshd"}},
			`--unit "sshd": a unit's name ends in its type, as in iwd.service`},
		{"type alone", SystemdOptions{Units: []string{".service"}},
			`--unit ".service": a unit's name ends in its type, as in iwd.service`},
		{"timer", SystemdOptions{Units: []string{"a.timer"}},
			`--unit "a.timer": only .mount, .service, .socket, .swap take these settings`},
		{"no prefix", SystemdOptions{Units: []string{"@a.service"}},
			`--unit "@a.service": no name before @`},
		{"long", SystemdOptions{Units: []string{strings.Repeat("a", 250) + ".service"}},
			`--unit "` + strings.Repeat("a", 250) + `.service": longer than 253 bytes`},
		{"no facts", SystemdOptions{},
			`what the units restrict themselves is not known, and a longer list must not replace theirs; give --show`},
		{"no facts about a named unit", SystemdOptions{Units: []string{"a.service"}},
			`what the units restrict themselves is not known, and a longer list must not replace theirs; give --show`},
		{"the agent", SystemdOptions{Units: []string{"afalg-policy-agent.service"}, Show: freeUnits},
			`--unit afalg-policy-agent.service: the agent uses AF_ALG for all who are granted it, and has a list of its own; leave it open`},
		{"except what is not there", SystemdOptions{Except: []string{"usr@.service"}, Show: freeUnits},
			`--except usr@.service: there is no such unit; name it by its Id, as systemctl show does`},
		{"except what is only spoken of", SystemdOptions{Except: []string{"a.service"}, Show: []byte("Id=a.service\nLoadState=not-found\nRestrictAddressFamilies=~\n")},
			`--except a.service: there is no such unit; name it by its Id, as systemctl show does`},
		{"template of which only an instance is shown", SystemdOptions{Units: []string{"user@.service"}, Show: freeUnits},
			`--unit user@.service: there is no such unit; name it by its Id, as systemctl show does`},
		{"except a socket", SystemdOptions{Except: []string{"a.socket"}},
			`--except a.socket: only services are restricted where no --unit is named`},
		{"except and unit", SystemdOptions{Units: []string{"b.service"}, Except: []string{"a.service"}},
			`--except a.service: only without --unit`},
		{"machine", SystemdOptions{Arch: specs.ArchX86},
			`no machine has "SCMP_ARCH_X86" as its native architecture`},
		{"grant without a unit", SystemdOptions{Show: freeUnits, Common: Common{Grants: []string{"hasher"}}},
			`--grant hasher: the rule names no unit; say which with --unit`},
		{"grant for another unit", SystemdOptions{Units: []string{"app.service"}, Show: freeUnits, Common: Common{Grants: []string{"iwd"}}},
			`--grant iwd: the rule is for iwd.service, and no --unit names one of these`},
		{"grant of what is left out", SystemdOptions{Except: []string{"iwd.service"}, Show: []byte(shownUnits), Common: Common{Grants: []string{"iwd"}}},
			`--grant iwd: its unit iwd.service is also left out by --except`},
		{"grant of nothing", SystemdOptions{Show: freeUnits, Common: Common{Grants: []string{"no"}}},
			`--grant no: the policy has no rule of that name`},
		{"empty facts", show(""),
			`--show: block 1: "" is no KEY=VALUE line; the file must hold the output of systemctl show --property=Id,RestrictAddressFamilies`},
		{"facts without families", show("Id=a.service\n"),
			`--show: block 1: a.service: no RestrictAddressFamilies; the file must hold the output of systemctl show --property=Id,RestrictAddressFamilies`},
		{"facts without a unit", show("Id=a.service\nRestrictAddressFamilies=~\n\nRestrictAddressFamilies=~\n"),
			`--show: block 2: no Id; the file must hold the output of systemctl show --property=Id,RestrictAddressFamilies`},
		{"facts about a path", show("Id=../../etc/a.service\nRestrictAddressFamilies=~\n"),
			`--show: block 1: unit "../../etc/a.service": '/' cannot stand in a unit's name`},
		{"facts with a directive", show("Id=a.service\nRestrictAddressFamilies=AF_UNIX none\n"),
			`--show: block 1: a.service: RestrictAddressFamilies: "none" is no address family`},
		{"facts twice", show("Id=a.service\nRestrictAddressFamilies=~\n\nId=a.service\nRestrictAddressFamilies=AF_UNIX\n"),
			`--show: block 2: a.service for the second time, with another list`},
		{"property twice", show("Id=a.service\nRestrictAddressFamilies=~\nRestrictAddressFamilies=AF_UNIX\n"),
			`--show: block 1: RestrictAddressFamilies for the second time`},
		{"unit that is not shown", SystemdOptions{Units: []string{"b.service"}, Show: []byte("Id=a.service\nRestrictAddressFamilies=~\n")},
			`--unit b.service: there is no such unit; name it by its Id, as systemctl show does`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			files, _, err := Systemd(wirelessPlan(), tt.opts)
			if err == nil || err.Error() != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
			if files != nil {
				t.Errorf("files beside an error: %v", files)
			}
		})
	}
}

// A name from a policy must not become a setting.
func TestHeaderHoldsAnyName(t *testing.T) {
	p := wirelessPlan()
	p.Name = "x\n[Service]\nRestrictAddressFamilies=\r\u2028\x85\\\nExecStartPre=/bin/evil\\"
	files, _, err := Systemd(p, SystemdOptions{Show: []byte(shownUnits), Common: Common{Accept: []string{"iwd"}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		head, _, ours := strings.Cut(string(f.Data), "\n\n")
		for line := range strings.Lines(head) {
			if !strings.HasPrefix(line, "#") {
				t.Errorf("%s: %q is no comment", f.Path, line)
			}
		}
		if n := strings.Count(string(f.Data), "\n[Service]\n"); (n == 1) != ours || n > 1 {
			t.Errorf("%s: %d sections", f.Path, n)
		}
	}
}
