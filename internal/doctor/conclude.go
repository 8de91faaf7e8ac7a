package doctor

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/hostfacts"
	"github.com/afalg-policy/afalg-policy/internal/install"
	"github.com/afalg-policy/afalg-policy/internal/kernel"
	"github.com/afalg-policy/afalg-policy/internal/report"
	"github.com/afalg-policy/afalg-policy/internal/term"
)

// Names of layers.
const (
	layerFilter     = "seccomp"
	layerAppArmor   = "apparmor"
	layerKernelHalf = "kernel half"
	layerModprobe   = "modprobe.d"
	layerArguments  = "kernel arguments"
)

// conclude makes the report of what was found.
func (f *found) conclude(tool report.Build) (*report.Doctor, error) {
	d := report.NewDoctor(tool)
	d.Host = report.DoctorHost{
		Name: f.name, ID: f.id, Time: stamp(f.now), System: f.system, Kernel: cmp.Or(f.release, unknown), Machine: f.machine,
		AFALG: f.has(), Root: f.asRoot, Facts: f.hostFacts(),
	}
	if f.plan != nil {
		d.Policy = &report.Policy{Name: f.plan.Name, Digest: f.plan.Digest}
	}
	d.Users = f.users()
	var err error
	if d.Matrix, err = f.matrix(); err != nil {
		return nil, err
	}
	d.Layers = f.layers(d.Matrix)
	d.Next = f.next(d)
	d.CanGo = f.canGo(d.Users)
	d.Contradictions = append(d.Contradictions, f.contradictions(d)...)
	d.Unasked = append(d.Unasked, f.unasked...)
	d.Conclude()
	return d, nil
}

// has says what the kernel has of AF_ALG. What is loaded is a module, whatever the
// files say.
func (f *found) has() string {
	switch f.afalg.State {
	case kernel.Builtin:
		return report.HasBuiltIn
	case kernel.Loaded, kernel.Loadable:
		if _, isModule := f.modules["af_alg"]; f.afalg.State == kernel.Loaded && !isModule && f.facts.Presence("af_alg") == hostfacts.Builtin {
			return report.HasBuiltIn
		}
		return report.HasModule
	case kernel.Absent:
		if f.facts.Presence("af_alg") != hostfacts.Module { // else it is there, and cannot be loaded
			return report.HasNone
		}
	}
	switch f.facts.Presence("af_alg") {
	case hostfacts.Builtin:
		return report.HasBuiltIn
	case hostfacts.Module:
		return report.HasModule
	case hostfacts.Absent:
		return report.HasNone
	}
	return unknown
}

func (f *found) hostFacts() []report.Fact {
	facts := []report.Fact{{Name: "AF_ALG now", Value: string(f.afalg.State), Source: f.afalg.Why}}
	facts = append(facts, f.moduleFacts()...)
	facts = append(facts, f.sysctlFact(restrict), f.sysctlFact(maxNamespaces))
	lsms := report.Fact{Name: "LSMs", Value: unknown, Source: "/sys/kernel/security/lsm"}
	if f.facts.LSMs != nil {
		lsms.Value = strings.Join(f.facts.LSMs, " ")
	}
	facts = append(facts, lsms)
	for _, x := range fixes {
		value, why := x.by(f.facts.Version)
		facts = append(facts, report.Fact{Name: x.what, Value: value, Source: why})
	}
	return facts
}

// moduleFacts say which modules are loaded, and of which something holds a socket.
func (f *found) moduleFacts() []report.Fact {
	loaded := report.Fact{Name: "modules loaded", Value: "none", Source: "/sys/module"}
	if f.root != "/" {
		loaded.Value = unknown
	}
	var names []string
	for _, c := range f.columns {
		for _, m := range c.modules {
			if _, there := f.modules[m]; there && !slices.Contains(names, m) {
				names = append(names, m)
			}
		}
	}
	if names != nil {
		loaded.Value = strings.Join(names, " ")
	}
	facts := []report.Fact{loaded}
	if m, there := f.modules["af_alg"]; there {
		inUse := report.Fact{Name: "sockets of AF_ALG exist", Value: no, Source: "/sys/module/af_alg/refcnt"}
		switch {
		case m.references < 0:
			inUse.Value = unknown
		case m.used():
			inUse.Value = yes
		}
		facts = append(facts, inUse)
	}
	return facts
}

func (f *found) sysctlFact(name string) report.Fact {
	fact := report.Fact{Name: name, Value: unknown, Source: "/proc/sys/" + strings.ReplaceAll(name, ".", "/")}
	if value, there := f.facts.Sysctls[name]; there {
		fact.Value = value
	} else if f.root == "/" {
		if _, err := os.Lstat(fact.Source); os.IsNotExist(err) {
			fact.Value = "not there"
			if name == restrict && f.afalg.State != kernel.Loaded && f.afalg.State != kernel.Builtin {
				fact.Value += ": it would come with af_alg, which is not loaded"
			}
		}
	}
	return fact
}

// layers say what is in force, the host's first.
func (f *found) layers(m report.Matrix) []report.Layer {
	all := []report.Layer{}
	for _, name := range []string{"kernel", layerModprobe, layerArguments, restrict, maxNamespaces} {
		l := report.Layer{Name: name, Subject: "the host", InForce: no, Closes: []string{}, Reason: "it closes nothing of what was asked about"}
		var whys []string
		for _, c := range f.columns {
			for _, by := range f.closers(c) {
				if by.layer == name {
					l.InForce = yes
					l.Closes = appendNew(l.Closes, c.Name)
					whys = appendNew(whys, by.why)
				}
			}
		}
		if whys != nil {
			l.Reason = strings.Join(whys, "; ")
		}
		if whys == nil && f.root != "/" && name != layerModprobe {
			l.InForce, l.Reason = unknown, "only the files of the host are here"
		}
		all = append(all, l)
	}
	all = append(all, f.kernelHalfLayer())
	all = append(all, f.filterLayer(m))
	for _, s := range f.platform {
		all = append(all, platformLayer(s))
	}
	return all
}

func (f *found) kernelHalfLayer() report.Layer {
	l := report.Layer{Name: layerKernelHalf, Subject: "every process", InForce: unknown, Closes: []string{}, Reason: "it was not asked"}
	switch {
	case f.half == nil:
		return l
	case f.half.InForce():
		l.InForce, l.Reason = yes, fmt.Sprintf("policy %s, since %s", f.half.State.Policy, stamp(f.half.State.Loaded))
		for _, c := range f.columns {
			if f.enforces(c) {
				l.Closes = append(l.Closes, c.Name)
			}
		}
		return l
	}
	l.InForce = no
	switch {
	case len(f.half.Faults) > 0:
		l.Reason = strings.Join(f.half.Faults, "; ")
	case f.half.State == nil:
		l.Reason = "no policy is loaded in the kernel"
	default:
		l.Reason = "it only records: policy " + f.half.State.Policy + " is loaded for an audit"
	}
	return l
}

// filterLayer is about the filters of all processes, as they were proved.
func (f *found) filterLayer(m report.Matrix) report.Layer {
	l := report.Layer{Name: layerFilter, Subject: "each process under a filter", InForce: unknown, Closes: []string{}, Reason: "no filter was asked"}
	if f.filters == nil {
		return l
	}
	l.InForce = no
	closed := 0
	for _, row := range m.Rows {
		some := false
		for i, cell := range row.Cells {
			if cell.State == report.ProvedClosed {
				some = true
				l.Closes = appendNew(l.Closes, m.Columns[i].Name)
			}
		}
		if some {
			l.InForce = yes
			closed += len(row.Subjects)
		}
	}
	l.Reason = fmt.Sprintf("filters are proved to close something for %s; %s were read", term.Count(closed, "subject"), term.Count(len(f.filters.Stacks), "distinct stack"))
	if n := len(f.filters.Unread); n > 0 {
		l.Reason += fmt.Sprintf("; %s were not: %s", term.Count(n, "process"), f.filters.Unread[0].Error)
	}
	return l
}

func platformLayer(s install.Status) report.Layer {
	l := report.Layer{Name: "install " + s.Platform, Subject: "what it starts", InForce: no, Closes: []string{}, Reason: strings.Join(s.Reasons, "; ")}
	switch {
	case s.OK():
		l.InForce, l.Reason = yes, "installed and active; what runs shows in the matrix"
	case s.Remark != "":
		l.Reason = s.Remark
	}
	return l
}

func sameProgram(root, a, b string) bool {
	one, err := os.Stat(filepath.Join(root, a))
	if err != nil {
		return false
	}
	other, err := os.Stat(filepath.Join(root, b))
	return err == nil && os.SameFile(one, other)
}

// contradictions are facts that exclude each other. What this report goes by is said
// with each.
func (f *found) contradictions(d *report.Doctor) (all []report.Contradiction) {
	add := func(about, taken string, claims ...report.Fact) {
		all = append(all, report.Contradiction{About: about, Claims: claims, Taken: taken})
	}
	for _, text := range f.facts.Contradictions {
		add(text, "what is loaded", report.Fact{Name: "files", Value: text, Source: "the files of the host"})
	}
	probed := report.Fact{Name: "AF_ALG", Value: string(f.afalg.State), Source: f.afalg.Why}
	if f.afalg.State == kernel.Loaded && f.facts.Presence("af_alg") == hostfacts.Absent {
		add("AF_ALG in the kernel", report.HasModule, probed, report.Fact{Name: "AF_ALG", Value: report.HasNone, Source: "the list of the kernel's modules"})
	}
	if n := len(f.holding.holders); n > 0 && (f.afalg.State == kernel.Absent || f.afalg.State == kernel.Loadable) {
		add("open sockets of AF_ALG", "they are open", probed, report.Fact{Name: "holders", Value: term.Count(n, "process") + " hold some", Source: "/proc/PID/fd"})
	}
	if m, there := f.modules["af_alg"]; there && m.references >= 0 && f.holding.whole() {
		references := report.Fact{Name: "references", Value: fmt.Sprintf("%d, %d of modules", m.references, m.above), Source: "/sys/module/af_alg"}
		switch {
		case m.used() && len(f.holding.holders) == 0:
			add("open sockets of AF_ALG", "somebody holds one: on its way in a message, in io_uring, or in another PID namespace",
				references, report.Fact{Name: "holders", Value: "no process shows one", Source: "/proc/PID/fd"})
		case !m.used() && len(f.holding.holders) > 0:
			add("open sockets of AF_ALG", "they are open", references, report.Fact{Name: "holders", Value: term.Count(len(f.holding.holders), "process"), Source: "/proc/PID/fd"})
		}
	}
	if f.half != nil && f.half.InForce() && f.half.Misses > 0 {
		add("the kernel half", "not everything is asked", report.Fact{Name: "in force", Value: yes, Source: "its state"}, report.Fact{Name: "missed", Value: fmt.Sprint(f.half.Misses), Source: "the kernel"})
	}
	for _, s := range f.platform {
		if s.Platform != "systemd" || !s.OK() {
			continue
		}
		if open := openUnits(d.Matrix); open != nil {
			add("the drop-ins of services", "open, as the filters are", report.Fact{Name: "install systemd", Value: "in force", Source: "the service manager"},
				report.Fact{Name: "open", Value: some(open), Source: "the filters of their processes"})
		}
	}
	all = append(all, f.ruleContradictions()...)
	return all
}

// openUnits are services whose processes could use AF_ALG.
func openUnits(m report.Matrix) (names []string) {
	for _, row := range m.Rows {
		if row.Cells[0].State != report.Open {
			continue
		}
		for _, s := range row.Subjects {
			if s.Kind == "unit" && strings.HasSuffix(s.Name, ".service") {
				names = append(names, s.Name)
			}
		}
	}
	return names
}

// some names the first of many.
func some(names []string) string {
	const shown = 5
	if len(names) <= shown {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:shown], ", "), len(names)-shown)
}
