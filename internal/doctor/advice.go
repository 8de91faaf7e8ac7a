package doctor

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/hostfacts"
	"github.com/afalg-policy/afalg-policy/internal/install"
	"github.com/afalg-policy/afalg-policy/internal/kernel"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
	"github.com/afalg-policy/afalg-policy/internal/report"
	"github.com/afalg-policy/afalg-policy/internal/term"
)

// next lists what to do, the least change first: nothing of it is done.
func (f *found) next(d *report.Doctor) []report.Step {
	steps := []report.Step{}
	if !f.asRoot && f.root == "/" {
		steps = append(steps, report.Step{Title: "ask as root: much is unknown without", Command: "sudo afalg-policy doctor", Breaks: []string{}, When: "now"})
	}
	open := openColumns(d.Matrix)
	for _, s := range f.platform {
		if s.Remark == "" && !s.OK() {
			steps = append(steps, f.mend(s.Platform, s.Restart))
		}
	}
	if open == nil {
		return steps
	}
	choice, before := f.choose(d.Users, open)
	steps = append(steps, before...)
	name, breaks, byClasses := choice.name, f.breaks(d.Users, choice), f.breaksOf(open)
	if modules := f.stoppable(choice, hostfacts.Module); modules != nil && !f.installed("host") {
		steps = append(steps, report.Step{
			Title:   "keep modules from being loaded that nobody needs: " + strings.Join(modules, ", "),
			Command: command("install", "host", "--policy", name), Closes: f.closesWhich(modules), Breaks: f.breaksOf(f.closesWhich(modules)), When: "at the next load of a module",
			Undo: "afalg-policy uninstall host",
		})
	}
	if modules := f.stoppable(choice, hostfacts.Builtin); modules != nil && !f.installed("host") {
		steps = append(steps, report.Step{
			Title:   "have the kernel not start what is built in and nobody needs, by its arguments: " + strings.Join(modules, ", "),
			Command: command("generate", "host", name, "--host-root", f.root, "-o", "host"), Closes: f.closesWhich(modules), Breaks: f.breaksOf(f.closesWhich(modules)), When: "reboot",
			Undo: "take the arguments out of the boot loader again",
		})
	}
	if f.systemd && !f.installed("systemd") {
		steps = append(steps, report.Step{
			Title: "close what is open for the services of systemd", Command: command("install", "systemd", "--policy", name),
			Closes: f.familiesOf(open), Breaks: slices.Concat(breaks, f.breaksOf(f.familiesOf(open))), When: "new processes", Undo: "afalg-policy uninstall systemd",
		})
	}
	for _, s := range f.platform {
		if s.Remark != "" && !slices.Contains([]string{"systemd", "agent", "host"}, s.Platform) {
			steps = append(steps, report.Step{
				Title: "close what is open for the containers of " + s.Platform, Command: command("install", s.Platform, "--policy", name),
				Closes: open, Breaks: byClasses, When: "new containers", Undo: "afalg-policy uninstall " + s.Platform,
			})
		}
	}
	if types := f.typesOf(open); f.kernelHalfFits() && types != nil {
		steps = append(steps, report.Step{
			Title: "record in the kernel who uses AF_ALG, and deny nothing yet", Command: command("lsm", "load", name, "--audit"),
			Breaks: []string{}, When: "now", Undo: "afalg-policy lsm unload",
		}, report.Step{
			Title: "have the kernel decide, for every process", Command: command("install", "lsm", "--policy", name),
			Closes: types, Breaks: breaks, When: "now", Undo: "afalg-policy uninstall lsm",
		})
	}
	return steps
}

// command is one of this program, for a shell. A policy may have any name.
func command(args ...string) string {
	return install.ShellWords(append([]string{"afalg-policy"}, args...))
}

func (f *found) mend(platform string, restart []string) report.Step {
	s := report.Step{Title: "what is installed for " + platform + " is not in force: see why", Command: "afalg-policy status " + platform, Breaks: []string{}, When: "now"}
	if len(restart) > 0 {
		s.Title, s.Command = "what is installed for "+platform+" waits for a restart", "systemctl restart "+install.ShellWords(restart)
		s.Breaks = []string{"what these units do, while they start again"}
	}
	return s
}

func (f *found) installed(platform string) bool {
	for _, s := range f.platform {
		if s.Platform == platform {
			return s.Remark == ""
		}
	}
	return false
}

// kernelHalfFits reports whether the kernel half can decide on this host, as far as
// that is known without a load.
func (f *found) kernelHalfFits() bool {
	return f.half != nil && f.half.State == nil && len(f.half.Faults) == 0 && f.half.Host.Types && slices.Contains(f.half.Host.LSMs, "bpf") && f.afalg.State != kernel.Absent
}

// openColumns are those that something should close and nothing closes.
func openColumns(m report.Matrix) (names []string) {
	for i, c := range m.Columns {
		if slices.ContainsFunc(m.Rows, func(r report.Row) bool { return r.Cells[i].State == report.Open }) {
			names = append(names, c.Name)
		}
	}
	return names
}

func (f *found) typesOf(open []string) (types []string) {
	for _, c := range f.columns {
		if c.typ != "" && slices.Contains(open, c.Name) {
			types = append(types, c.Name)
		}
	}
	return types
}

// familiesOf are those that are whole families, or types: systemd knows no others.
func (f *found) familiesOf(open []string) (names []string) {
	for _, c := range f.columns {
		if c.family != 0 && slices.Contains(open, c.Name) {
			names = append(names, c.Name)
		}
	}
	return names
}

// choice is a policy that fits the users that were found.
type choice struct {
	name    string
	presets []string   // shipped policies that it includes
	plan    *plan.Plan // of it, or the rules of the presets
}

// maybe are users that use AF_ALG, or may: those that are known and were not shown
// to be unused.
func maybe(users []report.User) []report.User {
	return slices.DeleteFunc(slices.Clone(users), func(u report.User) bool { return u.State == report.Unused })
}

// hostPolicy is where the policy of a host is proposed to be.
const hostPolicy = "/etc/afalg-policy/policy.yaml"

// choose picks the shipped policies of all users that are not known to be unused, and
// returns what has to be done before there is such a policy.
func (f *found) choose(all []report.User, open []string) (c choice, before []report.Step) {
	var strangers []string
	for _, u := range maybe(all) {
		switch preset := f.preset(u); {
		case preset != "":
			c.presets = appendNew(c.presets, preset)
		case u.State == report.Used && u.Executable != "":
			strangers = appendNew(strangers, u.Executable)
		}
	}
	slices.Sort(c.presets)
	c.plan = &plan.Plan{}
	for _, preset := range c.presets {
		if p, _, err := plan.Load(policy.BuiltinPrefix+preset, plan.ReadNamed); err == nil {
			c.plan.Rules = append(c.plan.Rules, p.Rules...)
		}
	}
	deny := f.denies(open)
	switch {
	case f.plan != nil:
		c.name, c.plan = f.policy, f.plan
	case !deny && len(c.presets) == 0:
		c.name = policy.BuiltinPrefix + "baseline"
	case !deny && len(c.presets) == 1:
		c.name = policy.BuiltinPrefix + c.presets[0]
	default:
		c.name = hostPolicy
		before = append(before, report.Step{
			Title: "write a policy: what the known users of this host need, and nothing else", Breaks: []string{}, When: "now",
			Command: "mkdir -p /etc/afalg-policy && printf '" + policyText(c.presets, deny) + "' > " + hostPolicy, Undo: "rm " + hostPolicy,
		})
	}
	if len(strangers) > 0 && f.plan == nil {
		before = append(before, report.Step{
			Title:   "find out what is used by " + some(strangers) + ", which no shipped policy knows, and write a rule for it",
			Command: command("run", "--learn", "learned.yaml", c.name) + " -- COMMAND", Breaks: []string{}, When: "now",
		})
	}
	return c, before
}

// denies reports whether a class is open that a policy could close.
func (f *found) denies(open []string) bool {
	return slices.ContainsFunc(f.columns, func(c column) bool { return c.typ == "" && slices.Contains(open, c.Name) })
}

// policyText is the text of a policy, for printf.
func policyText(presets []string, deny bool) string {
	text := `version: 1\nname: host\n`
	if presets != nil {
		text += `include: [` + builtins(presets) + `]\n`
	}
	if deny {
		text += `deny:\n  presets: [` + pageCache + `]\n`
	}
	return text
}

func builtins(presets []string) string {
	var names []string
	for _, p := range presets {
		names = append(names, policy.BuiltinPrefix+p)
	}
	return strings.Join(names, ", ")
}

// breaks are users that a policy does not name.
func (f *found) breaks(all []report.User, c choice) []string {
	list := []string{}
	for _, u := range all {
		if u.State == report.Unused || u.Container != "" {
			continue
		}
		named := slices.ContainsFunc(c.plan.Rules, func(r policy.Rule) bool {
			return slices.ContainsFunc(r.Binaries, func(b policy.Binary) bool {
				return b.Path == u.Executable || u.Executable != "" && sameProgram(f.root, b.Path, u.Executable)
			}) || u.Unit != "" && slices.Contains(r.Units, u.Unit)
		})
		if !named {
			list = appendNew(list, u.Name)
		}
	}
	return list
}

// breaksOf is who is known to use open classes. Whether they are on this host, nobody
// looked.
func (f *found) breaksOf(open []string) []string {
	list := []string{}
	for _, c := range f.columns {
		if c.breaks != "" && slices.Contains(open, c.Name) {
			list = append(list, c.breaks)
		}
	}
	return list
}

// stoppable are modules that no user needs, and that nothing stops.
func (f *found) stoppable(c choice, where hostfacts.Presence) (modules []string) {
	for _, col := range f.columns {
		if !col.wanted || len(f.closers(col)) > 0 || len(col.modules) == 0 {
			continue
		}
		last := col.modules[len(col.modules)-1]
		needed := col.typ != "" && slices.ContainsFunc(c.plan.Rules, func(r policy.Rule) bool { return slices.ContainsFunc(r.Algorithms, ofType(col.typ)) })
		if !needed && f.facts.Presence(last) == where {
			modules = append(modules, last)
		}
	}
	return modules
}

func (f *found) closesWhich(modules []string) (names []string) {
	for _, c := range f.columns {
		if slices.ContainsFunc(modules, func(m string) bool { return slices.Contains(c.modules, m) }) {
			names = append(names, c.Name)
		}
	}
	return names
}

// canGo lists what is needed no more.
func (f *found) canGo([]report.User) []report.Expiry {
	all := []report.Expiry{}
	if f.plan == nil {
		return all
	}
	for _, s := range f.platform {
		if s.Remark != "" || s.Platform == "agent" {
			continue
		}
		if why := f.needless(); why != "" {
			all = append(all, report.Expiry{What: "what is installed for " + s.Platform, Why: why, Command: "afalg-policy uninstall " + s.Platform})
		}
	}
	return append(all, f.unusedRules()...)
}

// needless says why the kernel alone does what the policy asks for; "" if it does not.
func (f *found) needless() string {
	if len(f.plan.ClosedNames()) > 0 {
		return "" // no kernel closes those by itself
	}
	level := f.facts.Sysctls[restrict]
	switch {
	case f.has() == report.HasNone && f.afalg.State == kernel.Absent:
		return "this kernel has no AF_ALG; another kernel may"
	case level == "2":
		return restrict + " is 2: this kernel gives nobody a socket of AF_ALG"
	case level == "1":
		if allowed := beyond(f.plan); allowed == "" {
			return restrict + " is 1: this kernel restricts AF_ALG by itself, and its list has nothing that the policy denies"
		}
	}
	return ""
}

// ofLinux is the shipped policy that has the kernel's own list.
const ofLinux = policy.BuiltinPrefix + "linux-7.3"

// beyond names an algorithm that the kernel's own list gives somebody, and the policy
// does not.
func beyond(p *plan.Plan) string {
	own, _, err := plan.Load(ofLinux, plan.ReadNamed)
	if err != nil {
		return "everything: its list is not known"
	}
	nobody := uint32(65534)
	for _, rule := range own.Rules {
		for _, a := range rule.Algorithms {
			r := plan.Request{UID: &nobody, Capabilities: rule.Capabilities, Algorithm: a.Algorithm}
			if !plan.Decide(p, r).Allowed {
				return a.Algorithm.String()
			}
		}
	}
	return ""
}

// ruleContradictions are rules that the kernel's own list does not let anybody use.
func (f *found) ruleContradictions() (all []report.Contradiction) {
	level := f.facts.Sysctls[restrict]
	if f.plan == nil || level != "1" && level != "2" {
		return nil
	}
	own, _, err := plan.Load(ofLinux, plan.ReadNamed)
	if err != nil {
		return nil
	}
	root := uint32(0)
	for _, rule := range f.plan.Rules {
		var refused []string
		for _, a := range rule.Algorithms {
			r := plan.Request{UID: &root, Capabilities: []string{"CAP_NET_ADMIN", "CAP_SYS_ADMIN"}, Algorithm: a.Algorithm}
			if level == "2" || a.Name != afalg.AnyName && !plan.Decide(own, r).Allowed {
				refused = append(refused, a.Algorithm.String())
			}
		}
		if refused != nil {
			all = append(all, report.Contradiction{
				About: "rule " + rule.Name, Taken: "the kernel denies them",
				Claims: []report.Fact{{Name: "policy", Value: "allows " + some(refused), Source: f.policy}, {Name: restrict, Value: level + ", which denies them", Source: "the kernel"}},
			})
		}
	}
	return all
}

// unusedRules are rules that nobody used for long enough, by a record of every use.
func (f *found) unusedRules() (all []report.Expiry) {
	since, complete := f.watched()
	if !complete || f.now.Sub(since) < unusedAfter {
		return nil
	}
	used := map[string]bool{}
	for _, u := range f.uses {
		if !u.Last.After(f.now.Add(-unusedAfter)) {
			continue
		}
		uid := u.UID
		r := plan.Request{Binary: u.Binary, SHA256: u.SHA256, UID: &uid, Unit: u.Unit, CleanExec: true, Algorithm: u.Algorithm}
		for _, rule := range f.plan.Rules { // each that could have allowed it
			r.Capabilities = rule.Capabilities
			if plan.Decide(&plan.Plan{Rules: []policy.Rule{rule}}, r).Allowed || u.Contained {
				used[rule.Name] = true
			}
		}
	}
	for _, line := range f.log.lines {
		if line.Time.After(f.now.Add(-unusedAfter)) {
			used[line.Rule] = true
		}
	}
	for _, rule := range f.plan.Rules {
		if !used[rule.Name] {
			all = append(all, report.Expiry{What: "rule " + rule.Name, Why: fmt.Sprintf("nobody used it since %s, %s", stamp(latest(since, f.now.Add(-unusedAfter))), term.Count(int(unusedAfter/(24*time.Hour)), "day"))})
		}
	}
	return all
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// watched says since when all uses are known, by the kernel half or by the logs that
// were given: those are of whoever was under the broker.
func (f *found) watched() (since time.Time, complete bool) {
	if since, lost, ok := f.recorded(); ok && !lost {
		return since, true
	}
	if f.log.read > 0 && !f.log.missing && !f.log.first.IsZero() && f.now.Sub(f.log.last) < unusedAfter {
		return f.log.first, true
	}
	return since, false
}
