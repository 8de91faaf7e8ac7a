package gen

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/filter/harden"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// merger is what sigs.k8s.io/security-profiles-merger, from 0.4.2 on, says in its
// documentation about the intersection of a node's default with an artifact: as much
// of it as the rules here need. The module is not on the proxy, so that it is not run.
// A default denies by default, and has one result for each call.
type merger struct {
	defaults specs.LinuxSeccompAction
	errno    uint
}

// merge intersects. Both inputs have one clause for a name and a condition.
func (m merger) merge(base, artifact *specs.LinuxSeccomp) *specs.LinuxSeccomp {
	m.defaults, m.errno = base.DefaultAction, errnoOf(base.DefaultErrnoRet)
	out := &specs.LinuxSeccomp{DefaultAction: base.DefaultAction, DefaultErrnoRet: base.DefaultErrnoRet}
	for _, arch := range base.Architectures { // the plain intersection of the lists
		if slices.Contains(artifact.Architectures, arch) {
			out.Architectures = append(out.Architectures, arch)
		}
	}
	theirs, ours := clauses(base), clauses(artifact)
	for _, name := range slices.Sorted(slices.Values(namesOf(theirs))) {
		for _, c := range m.call(theirs[name], ours[name]) {
			c.Names = []string{name}
			if c.Action != m.defaults || errnoOf(c.ErrnoRet) != m.errno { // runtimes skip what equals the default
				out.Syscalls = append(out.Syscalls, c)
			}
		}
	}
	if !m.multiplexed(out) {
		out.Architectures = slices.DeleteFunc(out.Architectures, func(a specs.Arch) bool { return a == specs.ArchX86 })
	}
	return out
}

// call intersects the clauses of one call: "the more restrictive action is chosen".
func (m merger) call(base, artifact []specs.LinuxSyscall) []specs.LinuxSyscall {
	switch {
	case len(artifact) == 0:
		return base
	case len(artifact[0].Args) == 0:
		return artifact
	case len(base) == 1 && len(base[0].Args) == 0: // "becomes an entry for the complementary condition"
		rest := base[0]
		rest.Args = slices.Clone(artifact[0].Args)
		rest.Args[0].Op = map[specs.LinuxSeccompOperator]specs.LinuxSeccompOperator{
			specs.OpGreaterEqual: specs.OpLessThan, specs.OpEqualTo: specs.OpNotEqual}[rest.Args[0].Op]
		return append(slices.Clone(artifact), rest)
	}
	kept := slices.Clone(artifact)
	for _, c := range base { // "lowered by every overlapping entry of the other side"
		if slices.ContainsFunc(artifact, func(a specs.LinuxSyscall) bool { return !apart(c.Args, a.Args) }) {
			c.Action, c.ErrnoRet = artifact[0].Action, artifact[0].ErrnoRet
		}
		kept = append(kept, c)
	}
	if results(m.visible(kept)) > 1 { // "anything else collapses"
		return []specs.LinuxSyscall{{Action: artifact[0].Action, ErrnoRet: artifact[0].ErrnoRet}}
	}
	return kept
}

// visible leaves out what equals the default.
func (m merger) visible(all []specs.LinuxSyscall) []specs.LinuxSyscall {
	return slices.DeleteFunc(slices.Clone(all), func(c specs.LinuxSyscall) bool {
		return c.Action == m.defaults && errnoOf(c.ErrnoRet) == m.errno
	})
}

// multiplexed reports whether what socketcall reaches is settled: it is denied
// whole, and no call that it carries has two results.
func (m merger) multiplexed(p *specs.LinuxSeccomp) bool {
	all := clauses(p)
	whole := len(all["socketcall"]) == 1 && len(all["socketcall"][0].Args) == 0 && all["socketcall"][0].Action == specs.ActErrno
	return whole && results(all["socket"]) == 1 && results(all["socketpair"]) == 1
}

// apart reports whether two filters provably never overlap: of one comparison each,
// of the same argument.
func apart(a, b []specs.LinuxSeccompArg) bool {
	if len(a) != 1 || len(b) != 1 || a[0].Index != b[0].Index {
		return false
	}
	x, y := a[0], b[0]
	switch {
	case x.Op == specs.OpEqualTo && y.Op == specs.OpGreaterEqual:
		return x.Value < y.Value
	case x.Op == specs.OpLessThan && y.Op == specs.OpGreaterEqual:
		return x.Value <= y.Value
	}
	return false
}

func clauses(p *specs.LinuxSeccomp) map[string][]specs.LinuxSyscall {
	all := map[string][]specs.LinuxSyscall{}
	for _, s := range p.Syscalls {
		for _, name := range s.Names {
			all[name] = append(all[name], s)
		}
	}
	for name, list := range all { // an unconditional clause hides the others
		if i := slices.IndexFunc(list, func(s specs.LinuxSyscall) bool { return len(s.Args) == 0 }); i >= 0 {
			all[name] = list[i : i+1]
		}
	}
	return all
}

func namesOf(all map[string][]specs.LinuxSyscall) (names []string) {
	for name := range all {
		names = append(names, name)
	}
	return names
}

func results(all []specs.LinuxSyscall) int {
	seen := map[string]bool{}
	for _, s := range all {
		key := string(s.Action)
		if s.Action == specs.ActErrno {
			key += string(rune(errnoOf(s.ErrnoRet)))
		}
		seen[key] = true
	}
	return len(seen)
}

func errnoOf(e *uint) uint {
	if e == nil {
		return 1 // EPERM
	}
	return *e
}

func artifactOf(t *testing.T, text string) (*specs.LinuxSeccomp, []File) {
	t.Helper()
	files, _, err := kubernetesArtifact(kubernetesPlan(t, text))
	if err != nil {
		t.Fatal(err)
	}
	if files == nil {
		return nil, nil
	}
	var a specs.LinuxSeccomp
	if err := json.Unmarshal(files[0].Data, &a); err != nil {
		t.Fatal(err)
	}
	return &a, files
}

// nodeDefault is Docker's default for a node with x86-64, with other rules for
// sockets.
func nodeDefault(t *testing.T, rules ...specs.LinuxSyscall) *specs.LinuxSeccomp {
	t.Helper()
	base, err := profile.Docker().Resolve(profile.Host{Arch: specs.ArchX86_64, Caps: profile.DefaultCaps()})
	if err != nil {
		t.Fatal(err)
	}
	if rules == nil {
		return base
	}
	both := []string{"socket", "socketpair"}
	for i := range base.Syscalls {
		base.Syscalls[i].Names = slices.DeleteFunc(slices.Clone(base.Syscalls[i].Names), func(n string) bool { return slices.Contains(both, n) })
	}
	base.Syscalls = slices.DeleteFunc(base.Syscalls, func(s specs.LinuxSyscall) bool { return len(s.Names) == 0 })
	for _, r := range rules {
		r.Names, r.Action = both, specs.ActAllow
		base.Syscalls = append(base.Syscalls, r)
	}
	return base
}

func family(op specs.LinuxSeccompOperator, value uint64) specs.LinuxSyscall {
	return specs.LinuxSyscall{Args: []specs.LinuxSeccompArg{{Index: 0, Value: value, Op: op}}}
}

// The node's default, merged with the artifact, is proved closed, and 32-bit programs
// are not killed. Each default that is open is so without the artifact.
func TestKubernetesArtifactSurvives(t *testing.T) {
	p := kubernetesPlan(t, "")
	artifact, _ := artifactOf(t, "")
	prove := func(s *specs.LinuxSeccomp) error {
		read, err := profile.OfSpec(s)
		if err != nil {
			t.Fatal(err)
		}
		return harden.Prove(p, read, harden.Options{Tool: "test", Socketcall: harden.SocketcallDeny, Host: profile.Host{Arch: specs.ArchX86_64}})
	}
	for _, tt := range []struct {
		name    string
		base    *specs.LinuxSeccomp
		sockets bool // that the families below AF_ALG are left
	}{
		{"a list of families", nodeDefault(t), true},
		{"everything", nodeDefault(t, specs.LinuxSyscall{}), true},
		{"ranges", nodeDefault(t, family(specs.OpLessThan, 38), family(specs.OpEqualTo, 39), family(specs.OpGreaterThan, 40)), true},
		{"all but one: no socket is left, and none is open", nodeDefault(t, family(specs.OpNotEqual, 40)), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := prove(tt.base); err == nil {
				t.Error("the default is closed by itself: the artifact shows nothing")
			}
			merged := merger{}.merge(tt.base, artifact)
			if err := prove(merged); err != nil {
				t.Errorf("merged: %v", err)
			}
			if got := len(clauses(merged)["socket"]) > 0; got != tt.sockets {
				t.Errorf("sockets are left: %v", got)
			}
			if got := slices.Contains(merged.Architectures, specs.ArchX86); got != tt.sockets {
				t.Errorf("architectures %v", merged.Architectures)
			}
		})
	}
}

// Each part of the shape is needed: without it the model loses the architecture,
// whose programs would be killed, or every socket.
func TestKubernetesArtifactShape(t *testing.T) {
	base := nodeDefault(t)
	for name, change := range map[string]func(*specs.LinuxSeccomp){
		"socketcall left alone":          func(a *specs.LinuxSeccomp) { a.Syscalls = slices.Delete(a.Syscalls, 1, 2) },
		"socketcall with EPERM":          func(a *specs.LinuxSeccomp) { a.Syscalls[1].ErrnoRet = errno(1) },
		"socket with EAFNOSUPPORT":       func(a *specs.LinuxSeccomp) { a.Syscalls[0].ErrnoRet = errno(97) },
		"architectures left to the node": func(a *specs.LinuxSeccomp) { a.Architectures = nil },
	} {
		artifact, _ := artifactOf(t, "")
		change(artifact)
		merged := merger{}.merge(base, artifact)
		if slices.Contains(merged.Architectures, specs.ArchX86) && len(clauses(merged)["socket"]) > 0 && results(clauses(merged)["socket"]) == 1 && clauses(merged)["socket"][0].Action == specs.ActAllow {
			t.Errorf("%s: survives as well", name)
		}
	}
}

// The limits that a runtime puts on an artifact (docs/integration.md of the merger),
// and what it refuses.
func TestKubernetesArtifactLimits(t *testing.T) {
	artifact, files := artifactOf(t, "")
	text := string(files[0].Data)
	if !strings.Contains(text, `"flags": []`) {
		t.Error("flags are left to the runtime")
	}
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&specs.LinuxSeccomp{}); err != nil {
		t.Error(err)
	}
	if artifact.ListenerPath != "" || artifact.ListenerMetadata != "" {
		t.Error("it has a listener")
	}
	const maxEntries, maxClauses, maxNames = 128, 256, 1024
	for name, list := range clauses(artifact) {
		if len(list) > 1 { // one clause is a safe shape whatever it compares
			t.Errorf("%s has %d clauses", name, len(list))
		}
	}
	for _, s := range artifact.Syscalls {
		if len(s.Names) > maxNames || len(s.Args) > 1 || s.Action == specs.ActNotify || errnoOf(s.ErrnoRet) > 4095 {
			t.Errorf("%+v", s)
		}
		for _, a := range s.Args {
			if a.Value>>32 != 0 {
				t.Errorf("%s compares %d, which is wider than a 32-bit architecture", s.Names, a.Value)
			}
		}
	}
}

// A policy that closes more has no artifact rather than one that leaves it open.
func TestKubernetesArtifactLeftOut(t *testing.T) {
	for deny, want := range map[string]bool{
		"":                                true,
		"deny: {families: [AF_VSOCK]}\n":  true,
		"deny: {families: [AF_RXRPC]}\n":  false,
		"deny: {user-namespaces: true}\n": false,
		"deny: {presets: [page-cache]}\n": false,
	} {
		files, gaps, err := kubernetesArtifact(kubernetesPlan(t, deny))
		if err != nil {
			t.Fatal(err)
		}
		if got := files != nil; got != want {
			t.Errorf("%q: written %v", deny, got)
		}
		if diff := cmp.Diff(1, len(gaps)); diff != "" || gaps[0].Kind != plan.Stricter {
			t.Errorf("%q: %v", deny, gaps)
		}
	}
}
