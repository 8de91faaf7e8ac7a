package doctor

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/hostfacts"
	"github.com/afalg-policy/afalg-policy/internal/install"
	"github.com/afalg-policy/afalg-policy/internal/kernel"
	"github.com/afalg-policy/afalg-policy/internal/lsm"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/report"
	"github.com/afalg-policy/afalg-policy/internal/telemetry"
)

var noon = time.Date(2026, 11, 2, 12, 0, 0, 0, time.UTC)

func load(t *testing.T, name string) *plan.Plan {
	t.Helper()
	p, _, err := plan.Load(name, plan.ReadNamed)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func parse(t *testing.T, text string) *plan.Plan {
	t.Helper()
	p, _, err := plan.Load("policy.yaml", func(name string) ([]byte, error) {
		if name == "policy.yaml" {
			return []byte(text), nil
		}
		return plan.ReadNamed(name)
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Where nothing was asked, nothing is closed, and nobody is called unused.
func TestNothingKnown(t *testing.T) {
	f := &found{root: "/", now: noon, columns: columnsOf(nil), known: []known{{preset: "iwd", path: "/usr/libexec/iwd"}}}
	d, err := f.conclude(report.Build{})
	if err != nil {
		t.Fatal(err)
	}
	if d.Verdict != report.Undecided || d.Host.AFALG != report.Unknown || len(d.CanGo) != 0 {
		t.Errorf("verdict %s, AF_ALG %s, can go %v", d.Verdict, d.Host.AFALG, d.CanGo)
	}
	for _, row := range d.Matrix.Rows {
		for i, c := range row.Cells {
			if c.State != report.Unknown && c.State != report.LeftOpen {
				t.Errorf("%s is %s", d.Matrix.Columns[i].Name, c.State)
			}
		}
	}
	if len(d.Users) != 1 || d.Users[0].State != report.Unknown {
		t.Errorf("users %+v", d.Users)
	}
	for _, l := range d.Layers {
		if l.InForce == report.Yes {
			t.Errorf("%s is in force", l.Name)
		}
	}
}

func TestUnused(t *testing.T) {
	half := func(since time.Time, more func(*lsm.Status)) *lsm.Status {
		s := &lsm.Status{State: &lsm.State{Loaded: since}, Counters: map[string]uint64{}}
		if more != nil {
			more(s)
		}
		return s
	}
	long := noon.Add(-unusedAfter - time.Hour)
	for _, c := range []struct {
		name string
		f    found
		sure bool
	}{
		{"nobody looked", found{}, false},
		{"no AF_ALG", found{afalg: kernel.AFALG{State: kernel.Absent}}, true},
		{"AF_ALG, and no loading", found{afalg: kernel.AFALG{State: kernel.Absent}, facts: hostfacts.Facts{Modules: map[string]hostfacts.Presence{"af_alg": hostfacts.Module}}}, false},
		{"no AF_ALG, and a socket", found{afalg: kernel.AFALG{State: kernel.Absent}, holding: holding{holders: []holder{{7, 1}}}}, false},
		{"not loaded now", found{afalg: kernel.AFALG{State: kernel.Loadable}}, false},
		{"recorded", found{half: half(long, nil)}, true},
		{"not for long", found{half: half(noon.Add(-time.Hour), nil)}, false},
		{"no half loaded", found{half: &lsm.Status{}}, false},
		{"records lost", found{half: half(long, func(s *lsm.Status) { s.Counters["lost-records"] = 1 })}, false},
		{"calls missed", found{half: half(long, func(s *lsm.Status) { s.Misses = 1 })}, false},
		{"a fault", found{half: half(long, func(s *lsm.Status) { s.Faults = []string{"gone"} })}, false},
		{"records unread", found{half: half(long, func(s *lsm.Status) { s.Counters["denied"] = 1 })}, false},
		{"a log is of some", found{log: logged{read: 1, first: long, last: noon}}, false},
	} {
		c.f.now, c.f.known = noon, []known{{preset: "iwd", path: "/usr/libexec/iwd"}}
		var state string
		for _, u := range c.f.users() {
			if u.Name == "iwd" {
				state = u.State
			}
		}
		if want := map[bool]string{true: report.Unused, false: report.Unknown}[c.sure]; state != want {
			t.Errorf("%s: %s, want %s", c.name, state, want)
		}
	}
}

func TestUsed(t *testing.T) {
	f := found{
		root: t.TempDir(), now: noon,
		known:   []known{{preset: "iwd", path: "/usr/libexec/iwd", pkg: "iwd", units: []string{"iwd.service"}}},
		holding: holding{holders: []holder{{7, 2}}}, people: map[int]person{7: {exe: "/usr/bin/python3", place: report.Place{Unit: "web.service"}}},
		uses: []lsm.Use{{Call: "bind", Algorithm: afalg.Algorithm{Type: "hash", Name: "sha1"}, Binary: "/usr/libexec/iwd", Last: noon, Count: 3, Allowed: true}},
		log:  logged{lines: []telemetry.Line{{Time: noon, Executable: "/usr/libexec/iwd", Container: "web", Call: "bind", Algorithm: "hash:md5", Verdict: "denied"}}},
	}
	var got []string
	for _, u := range f.users() {
		var kinds []string
		for _, e := range u.Evidence {
			kinds = append(kinds, e.Kind)
		}
		got = append(got, strings.Join([]string{u.Name, u.State, u.Unit, u.Container, strings.Join(u.Algorithms, " "), strings.Join(kinds, " ")}, "|"))
	}
	want := []string{
		"/usr/bin/python3|used|web.service|||socket",
		"/usr/libexec/iwd|used||web|hash:md5|log", // a container's path is its own
		"iwd|used|||hash:sha1|log package",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
}

func TestClosers(t *testing.T) {
	hash := columnsOf(nil)[0]
	facts := func(p hostfacts.Presence, more func(*hostfacts.Facts)) hostfacts.Facts {
		f := hostfacts.Facts{Modules: map[string]hostfacts.Presence{"af_alg": p, "algif_hash": p}, Loaded: map[string]bool{}, Modprobe: "kmod"}
		if more != nil {
			more(&f)
		}
		return f
	}
	blocked := map[string]string{"algif_hash": "x.conf:1"}
	loaded := map[string]module{"algif_hash": {}}
	for _, c := range []struct {
		name string
		f    found
		want string
	}{
		{"nothing known", found{}, ""},
		{"a module", found{facts: facts(hostfacts.Module, nil)}, ""},
		{"blocked", found{facts: facts(hostfacts.Module, nil), blocked: blocked}, "modprobe.d"},
		{"blocked, and loaded", found{facts: facts(hostfacts.Module, nil), blocked: blocked, modules: loaded}, ""},
		{"blocked, and built in", found{facts: facts(hostfacts.Builtin, nil), blocked: blocked}, ""},
		{"blocked, and not known where", found{blocked: blocked}, ""},
		{"blocked for kmod, with busybox", found{facts: facts(hostfacts.Module, func(f *hostfacts.Facts) { f.Modprobe = "busybox" }), blocked: blocked}, ""},
		{"blocked, and nobody knows what is loaded", found{facts: facts(hostfacts.Module, func(f *hostfacts.Facts) { f.Loaded = nil }), blocked: blocked}, ""},
		{"no loading", found{facts: facts(hostfacts.Module, nil), autoload: "off"}, "kernel kernel"},
		{"no loading, built in", found{facts: facts(hostfacts.Builtin, nil), autoload: "off"}, ""},
		{"absent", found{facts: facts(hostfacts.Absent, nil)}, "kernel"},
		{"absent, and loaded", found{facts: facts(hostfacts.Absent, nil), modules: map[string]module{"af_alg": {}, "algif_hash": {}}}, ""},
		{"an argument", found{facts: facts(hostfacts.Builtin, func(f *hostfacts.Facts) { f.Cmdline = []string{"quiet", "initcall_blacklist=x,algif_hash_init"} })}, "kernel arguments"},
		{"an argument, and loaded all the same", found{modules: loaded, facts: facts(hostfacts.Module, func(f *hostfacts.Facts) { f.Cmdline = []string{"initcall_blacklist=algif_hash_init"} })}, ""},
		{"another's argument", found{facts: facts(hostfacts.Builtin, func(f *hostfacts.Facts) { f.Cmdline = []string{"initcall_blacklist=algif_hash_init_x"} })}, ""},
		{"restricted", found{facts: hostfacts.Facts{Sysctls: map[string]string{restrict: "2"}}}, restrict},
		{"restricted a little", found{facts: hostfacts.Facts{Sysctls: map[string]string{restrict: "1"}}}, ""},
	} {
		var got []string
		for _, by := range c.f.closers(hash) {
			got = append(got, by.layer)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// TestCells decides about one subject, whose filters leave some calls.
func TestCells(t *testing.T) {
	call := func(about, route, verdict string) report.Call {
		return report.Call{About: about, Route: route, Call: "socket", ABI: "x86-64", Verdict: verdict}
	}
	host := func(calls ...report.Call) *report.Host {
		return &report.Host{Stacks: []report.Stack{{Programs: 1, Calls: calls, Processes: []report.Process{{PID: 7, Command: "web", Place: report.Place{Unit: "web.service"}}}}}}
	}
	open := call("AF_ALG", "socket", report.Open)
	unread := host()
	unread.Unread = []report.Unread{{PID: 8, Command: "web", Error: "no", Place: report.Place{Unit: "web.service"}}}
	enforcing := &lsm.Status{State: &lsm.State{}}
	absent := kernel.AFALG{State: kernel.Absent}
	for _, c := range []struct {
		name, column string
		f            found
		want         string
	}{
		{"closed", "hash", found{filters: host()}, report.ProvedClosed},
		{"open", "hash", found{filters: host(open)}, report.Open},
		{"socketpair gives no socket", "hash", found{filters: host(call("AF_ALG", "socketpair", report.Open))}, report.ProvedClosed},
		{"io_uring", "AF_RXRPC", found{filters: host(call("AF_ALG", "io_uring", report.Open))}, report.Open},
		{"io_uring makes no namespace", namespaces, found{filters: host(call("AF_ALG", "io_uring", report.Open))}, report.ProvedClosed},
		{"another family", "AF_RXRPC", found{filters: host(open)}, report.ProvedClosed},
		{"a class", "AF_RXRPC", found{filters: host(call("AF_RXRPC", "socket", report.Open))}, report.Open},
		{"a class that the policy leaves", "AF_RXRPC", found{filters: host(call("AF_RXRPC", "socket", report.Open)), plan: &plan.Plan{}}, report.LeftOpen},
		{"a class that the policy closes", "AF_RXRPC", found{filters: host(call("AF_RXRPC", "socket", report.Open)), plan: parse(t, "version: 1\nname: x\ndeny:\n  families: [AF_RXRPC]\n")}, report.Open},
		{"undecided", "hash", found{filters: host(call("AF_ALG", "socket", report.Undecided))}, report.Unknown},
		{"a listener", "hash", found{filters: host(call("AF_ALG", "socket", report.Listener))}, report.Unknown},
		{"a later verdict", "hash", found{filters: host(call("AF_ALG", "socket", "perhaps"))}, report.Unknown},
		{"one process was not asked", "hash", found{filters: unread}, report.Unknown},
		{"no AF_ALG", "hash", found{filters: host(open), afalg: absent}, report.UnprovedClosed},
		{"no AF_ALG, and closed", "hash", found{filters: host(), afalg: absent}, report.ProvedClosed},
		{"not asked, no AF_ALG", "hash", found{filters: unread, afalg: absent}, report.UnprovedClosed},
		{"the kernel half", "hash", found{filters: host(open), half: enforcing}, report.UnprovedClosed},
		{"the kernel half, with a fault", "hash", found{filters: host(open), half: &lsm.Status{State: &lsm.State{}, Faults: []string{"gone"}}}, report.Open},
		{"the kernel half, for an audit", "hash", found{filters: host(open), half: &lsm.Status{State: &lsm.State{Audit: true}}}, report.Open},
		{"the kernel half, another class", "AF_RXRPC", found{filters: host(call("AF_RXRPC", "socket", report.Open)), half: enforcing}, report.Open},
		{"nobody asked", "hash", found{}, report.Unknown},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.f.columns = columnsOf(c.f.plan)
			m, err := c.f.matrix()
			if err != nil || len(m.Rows) != 1 {
				t.Fatal(m, err)
			}
			i := slices.IndexFunc(m.Columns, func(col report.Column) bool { return col.Name == c.column })
			if got := m.Rows[0].Cells[i]; got.State != c.want || got.State == report.Open && got.Witness == "" {
				t.Errorf("%+v, want %s", got, c.want)
			}
		})
	}
}

// In a container, the rest of the host is not known, whatever its own processes are.
func TestPartial(t *testing.T) {
	closed := found{columns: columnsOf(nil), filters: &report.Host{Stacks: []report.Stack{{Programs: 1, Processes: []report.Process{{PID: 1, Command: "sh"}}}}}}
	for partial, want := range map[bool]string{false: report.Closed, true: report.Undecided} {
		closed.partial = partial
		d, err := closed.conclude(report.Build{})
		if err != nil || d.Verdict != want {
			t.Errorf("partial %v: %s, %v, want %s", partial, d.Verdict, err, want)
		}
	}
}

// A process that a rule allows, and one that it does not, as Decide says: this one.
func TestAllowed(t *testing.T) {
	f := found{
		plan: parse(t, "version: 1\nname: x\nallow:\n  - rule: disk\n    users: [root]\n    algorithms:\n      hash: [sha1]\n"),
		half: &lsm.Status{State: &lsm.State{}},
	}
	f.columns, f.filters = columnsOf(f.plan), thisProcess(report.Open)
	m, err := f.matrix()
	if err != nil {
		t.Fatal(err)
	}
	if c := m.Rows[0].Cells[0]; c.State != report.Allowed || c.Rule != "disk" {
		t.Errorf("hash: %+v", c)
	}
	if c := m.Rows[0].Cells[1]; c.State != report.UnprovedClosed {
		t.Errorf("skcipher: %+v", c)
	}
}

// One process of a subject that a rule allows makes no other one allowed: where no
// kernel half denies it, it is open.
func TestAllowedAmongOthers(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f := found{plan: parse(t, "version: 1\nname: x\nallow:\n  - rule: mine\n    binaries: [{path: "+exe+"}]\n    algorithms:\n      hash: [sha1]\n")}
	f.columns, f.filters = columnsOf(f.plan), thisProcess(report.Open)
	state := func() string {
		m, err := f.matrix()
		if err != nil || len(m.Rows) != 1 {
			t.Fatal(m, err)
		}
		return m.Rows[0].Cells[0].State
	}
	if got := state(); got != report.Allowed {
		t.Errorf("alone: %s", got)
	}
	stack := &f.filters.Stacks[0]
	stack.Processes = append(stack.Processes, report.Process{PID: 1, Command: "other", Place: stack.Processes[0].Place})
	if got := state(); got != report.Open {
		t.Errorf("with another: %s", got)
	}
	f.half = &lsm.Status{State: &lsm.State{}}
	if got := state(); got != report.Allowed {
		t.Errorf("with another, and the kernel half: %s", got)
	}
}

func TestContradictions(t *testing.T) {
	loaded := map[string]module{"af_alg": {references: 3, above: 1}}
	for _, c := range []struct {
		name string
		f    found
		want int
	}{
		{"none", found{}, 0},
		{"files", found{facts: hostfacts.Facts{Contradictions: []string{"CONFIG_X is n, and x is loaded"}}}, 1},
		{"loaded, and the kernel has none", found{afalg: kernel.AFALG{State: kernel.Loaded}, facts: hostfacts.Facts{Complete: true}}, 1},
		{"a socket without AF_ALG", found{afalg: kernel.AFALG{State: kernel.Absent}, holding: holding{holders: []holder{{7, 1}}}}, 1},
		{"a socket that nobody holds", found{modules: loaded}, 1},
		{"a socket that nobody is seen to hold", found{modules: loaded, holding: holding{unseen: 1}}, 0},
		{"a socket and its holder", found{modules: loaded, holding: holding{holders: []holder{{7, 1}}}}, 0},
		{"a holder of nothing", found{modules: map[string]module{"af_alg": {references: 1, above: 1}}, holding: holding{holders: []holder{{7, 1}}}}, 1},
		{"drop-ins in force, and a service is open", found{
			platform: []install.Status{{Platform: "systemd", Policy: install.Yes, Installed: install.Yes, Active: install.Yes, Agent: install.NotNeeded, Probed: install.NotAsked}},
			filters:  thisProcess(report.Open),
		}, 1},
		{"a rule that the kernel denies", found{plan: load(t, "builtin:iwd"), facts: hostfacts.Facts{Sysctls: map[string]string{restrict: "1"}}}, 2},
		{"rules that the kernel has", found{plan: load(t, ofLinux), facts: hostfacts.Facts{Sysctls: map[string]string{restrict: "1"}}}, 0},
	} {
		c.f.now, c.f.columns = noon, columnsOf(c.f.plan)
		m, err := c.f.matrix()
		if err != nil {
			t.Fatal(err)
		}
		if got := c.f.contradictions(&report.Doctor{Matrix: m}); len(got) != c.want {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}

func thisProcess(verdict string) *report.Host {
	return &report.Host{Stacks: []report.Stack{{
		Calls:     []report.Call{{About: "AF_ALG", Route: "socket", Verdict: verdict}},
		Processes: []report.Process{{PID: selfPID, Command: "self", Place: report.Place{Unit: "self.service"}}},
	}}}
}

func TestCanGo(t *testing.T) {
	installed := []install.Status{{Platform: "docker", Policy: install.Yes, Installed: install.Yes, Active: install.Yes, Agent: install.NotNeeded, Probed: install.NotAsked}}
	level := func(l string) hostfacts.Facts { return hostfacts.Facts{Sysctls: map[string]string{restrict: l}} }
	month := noon.Add(-unusedAfter - time.Hour)
	recording := &lsm.Status{State: &lsm.State{Loaded: month}, Counters: map[string]uint64{}}
	use := lsm.Use{Call: "bind", Algorithm: afalg.Algorithm{Type: "skcipher", Name: "ecb(aes)"}, Binary: "/usr/libexec/bluetooth/bluetoothd", Unit: "bluetooth.service", Last: noon.Add(-time.Hour), Allowed: true}
	for _, c := range []struct {
		name string
		f    found
		want string
	}{
		{"nothing restricts", found{plan: load(t, "builtin:baseline")}, ""},
		{"off", found{plan: load(t, "builtin:baseline"), facts: level("2")}, "docker"},
		{"off, and the policy closes more", found{plan: parse(t, "version: 1\nname: x\ndeny:\n  families: [AF_RXRPC]\n"), facts: level("2")}, ""},
		{"the kernel gives more than the policy", found{plan: load(t, "builtin:baseline"), facts: level("1")}, ""},
		{"the kernel's list is the policy", found{plan: load(t, ofLinux), facts: level("1")}, "docker"},
		{"no policy", found{facts: level("2")}, ""},
		{"no AF_ALG", found{plan: load(t, "builtin:baseline"), afalg: kernel.AFALG{State: kernel.Absent}}, "docker"},
		{"a rule that nobody used", found{plan: load(t, "builtin:kafs-client"), half: recording}, "rule"},
		{"nobody recorded", found{plan: load(t, "builtin:kafs-client")}, ""},
		{"recorded since yesterday", found{plan: load(t, "builtin:kafs-client"), half: &lsm.Status{State: &lsm.State{Loaded: noon.Add(-time.Hour)}}}, ""},
		{"a rule that somebody used", found{plan: parse(t, "version: 1\nname: x\nallow:\n  - rule: b\n    binaries: [{path: /usr/libexec/bluetooth/bluetoothd}]\n    algorithms:\n      skcipher: [ecb(aes)]\n"), half: recording, uses: []lsm.Use{use}}, ""},
		{"a log of a month", found{plan: load(t, "builtin:kafs-client"), log: logged{read: 1, first: month, last: noon}}, "rule"},
		{"a log with holes", found{plan: load(t, "builtin:kafs-client"), log: logged{read: 1, first: month, last: noon, missing: true}}, ""},
		{"a log that ended", found{plan: load(t, "builtin:kafs-client"), log: logged{read: 1, first: month.Add(-unusedAfter), last: month}}, ""},
	} {
		c.f.now, c.f.platform, c.f.columns = noon, installed, columnsOf(c.f.plan)
		var got []string
		for _, e := range c.f.canGo(nil) {
			got = append(got, e.What)
		}
		if text := strings.Join(got, ", "); c.want == "" && text != "" || !strings.Contains(text, c.want) {
			t.Errorf("%s: %q, want %q", c.name, text, c.want)
		}
	}
}

// The policy that is proposed is one.
func TestProposedPolicy(t *testing.T) {
	dir := t.TempDir()
	for _, presets := range [][]string{nil, {"iwd"}, {"bluetooth", "iwd"}} {
		for _, deny := range []bool{false, true} {
			out, err := exec.Command("sh", "-c", "printf '"+policyText(presets, deny)+"'").Output()
			if err != nil {
				t.Fatal(err)
			}
			p := parse(t, string(out))
			if (len(p.Families) > 0) != deny || (len(p.Rules) > 0) != (presets != nil) {
				t.Errorf("%s", out)
			}
		}
	}
	f := found{root: dir, now: noon, columns: columnsOf(nil), filters: thisProcess(report.Open), policy: "/etc/a policy'; rm -rf /", plan: &plan.Plan{}, systemd: true}
	d, err := f.conclude(report.Build{})
	if err != nil {
		t.Fatal(err)
	}
	named := slices.DeleteFunc(d.Next, func(s report.Step) bool { return !strings.Contains(s.Command, "rm -rf") })
	if len(named) == 0 {
		t.Error("no step has the policy")
	}
	for _, s := range named {
		out, err := exec.Command("sh", "-c", "set -- "+s.Command+"; printf '|%s' \"$@\"").Output()
		if err != nil || !strings.HasSuffix(string(out), `|/etc/a policy'; rm -rf /`) {
			t.Errorf("%s: %q, %v", s.Command, out, err)
		}
	}
}

func TestFixes(t *testing.T) {
	for _, c := range []struct {
		v    kernel.Version
		want string
	}{{kernel.Version{}, unknown}, {kernel.Version{Major: 6, Minor: 12}, unknown}, {kernel.Version{Major: 7}, yes}, {kernel.Version{Major: 7, Minor: 2}, yes}, {kernel.Version{Major: 8}, yes}} {
		if got, why := fixes[0].by(c.v); got != c.want || why == "" {
			t.Errorf("%v: %s, %s", c.v, got, why)
		}
	}
}

func TestColumns(t *testing.T) {
	_, abis, err := machineHere()
	if err != nil {
		t.Fatal(err)
	}
	names := func(p *plan.Plan) string {
		var all []string
		for _, c := range columnsOf(p) {
			if c.family == 0 && len(c.queries) == 0 {
				t.Errorf("%s: filters are not asked", c.Name)
			}
			if c.wanted {
				c.Name += "!"
			}
			all = append(all, c.Name)
		}
		if _, err := questions(columnsOf(p), abis); err != nil {
			t.Error(err)
		}
		return strings.Join(all, ", ")
	}
	const types = "hash!, skcipher!, aead!, rng!, "
	for policy, want := range map[string]string{
		"":                      types + "AF_RXRPC!, AF_RDS!, AF_KEY!, AF_NETLINK protocol NETLINK_XFRM!, user namespaces",
		"version: 1\nname: x\n": types + "AF_RXRPC, AF_RDS, AF_KEY, AF_NETLINK protocol NETLINK_XFRM, user namespaces",
		"version: 1\nname: x\ndeny:\n  families: [AF_RDS]\n  user-namespaces: true\n  sockets:\n  - {family: AF_PACKET, type: SOCK_RAW}\n  socket-options: [{level: SOL_TCP, option: TCP_ULP}]\n": types + "AF_RXRPC, AF_RDS!, AF_KEY, AF_NETLINK protocol NETLINK_XFRM, user namespaces!, AF_PACKET type SOCK_RAW!, TCP_ULP of SOL_TCP!",
	} {
		var p *plan.Plan
		if policy != "" {
			p = parse(t, policy)
		}
		if got := names(p); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}
