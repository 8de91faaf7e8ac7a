package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/policy"
	"github.com/afalg-policy/afalg-policy/internal/vouch"
)

const module = "github.com/afalg-policy/afalg-policy/"

// layer is a package: what it does, and what it imports of this module, itself and
// its tests besides. Packages in internal are named without that.
type layer struct{ name, does, imports, tests string }

// layers lists all packages; there are no other arrows, and all of these. The
// table in docs/architecture.md is printed from it.
var layers = []layer{
	{"cmd/afalg-policy", "flags, streams, exit codes. The only user of cobra; `os.Exit` is its, and that of children that are this executable under another name: the compiler, and the probe of a load",
		"admit afalg agent bounded broker decider deploy doctor filter/harden filter/profile filter/seccomp filter/verify gen gen/host hosterr hostfacts install install/host jsontext keeper kept kube launch learn licences live lsm lsm/hold node notify nri oci output plan policies policy printable probe report report/source term unit vouch", "filter/cbpf testing/hosttest testing/kerneltest testing/oracle"},
	{"policies", "the shipped policies and the schema; data",
		"", "afalg plan policy"},
	{"dist", "the units of systemd; data",
		"", ""},
	{"deploy", "the chart, and the bases of Kustomize; data",
		"", "kube"},
	{"internal/afalg", "what the kernel fixes: families, algorithm names, ABIs, routes. Pure",
		"", ""},
	{"internal/yamltext", "a text in YAML that anybody may have written → nodes, within limits",
		"", ""},
	{"internal/jsontext", "a text in JSON that anybody may have written → values and their places, within limits; sets one value, and keeps every other byte",
		"", ""},
	{"internal/licences", "the terms of what is linked into the program, and which component has which; data",
		"", ""},
	{"internal/hosterr", "the error of what a host cannot do, for every layer",
		"", ""},
	{"internal/parallel", "runs jobs on all processors",
		"", ""},
	{"internal/bounded", "reads a file or a stream up to a limit; names kinds of files",
		"", ""},
	{"internal/logfile", "opens a log to append to, and waits for no reader",
		"", ""},
	{"internal/printable", "a text of others → one that steers no terminal and no log",
		"", ""},
	{"internal/term", "text for people: tables and colours on a terminal, tabs elsewhere",
		"printable", ""},
	{"internal/policy", "text → validated policy; positions kept, all errors at once",
		"afalg policies yamltext", "testing/fields"},
	{"internal/plan", "policy and includes → plan; `Decide`, `Explain`",
		"afalg bounded policies policy printable", "testing/fields"},
	{"internal/filter/profile", "a seccomp profile in the formats of OCI, of Docker and of the Security Profiles Operator, and a config.json: the one reader, places for errors; bases",
		"afalg jsontext printable yamltext", ""},
	{"internal/filter/seccomp", "profile → filter program by libseccomp, as each runtime does it, in a child with limits. The only cgo",
		"afalg", "filter/cbpf filter/profile testing/kerneltest"},
	{"internal/filter/cbpf", "runs, lists and compares filter programs; decides all paths",
		"", "testing/child testing/kerneltest"},
	{"internal/filter/verify", "routes × ABIs × program → proof or witness; findings on a profile",
		"afalg filter/cbpf filter/profile filter/seccomp jsontext", "filter/harden plan policies policy testing/kerneltest testing/oracle"},
	{"internal/filter/harden", "profile → hardened profile or program, and the gaps; proves both",
		"afalg filter/cbpf filter/profile filter/seccomp filter/verify parallel plan policy", "jsontext testing/fields testing/oracle"},
	{"internal/proc", "reads /proc: the status of a thread, and which processes and threads there are",
		"", ""},
	{"internal/live", "the filters of running processes",
		"afalg filter/cbpf hosterr proc", "testing/child testing/kerneltest"},
	{"internal/kube", "what Kubernetes and this program call things by; manifests that anybody may have written → pods, and the seccomp profile of each container as the kubelet has it",
		"jsontext yamltext", ""},
	{"internal/edit", "sets one value in a JSON or TOML file of others, and reads the result again; takes it back",
		"jsontext", ""},
	{"internal/unit", "systemd's units: names, our drop-ins, what a manager or their files say",
		"afalg", ""},
	{"internal/gen", "one file a target",
		"afalg filter/harden filter/profile filter/seccomp jsontext kube plan policy printable unit", "filter/cbpf filter/verify policies testing/selinuxtest"},
	{"internal/gen/host", "plan and facts of a host → settings of the whole host, and their forms",
		"afalg gen hostfacts kernel plan policy", ""},
	{"internal/vouch", "who a container is, by what its platform wrote down",
		"filter/profile jsontext plan policy", ""},
	{"internal/oci", "a spec, hardened or proved for one container; the wrapper's bundles, the command lines of runtimes, and the real one of them",
		"bounded filter/cbpf filter/harden filter/profile filter/seccomp hosterr jsontext logfile plan policy", "afalg testing/kerneltest"},
	{"internal/kept", "what a host keeps between starts of containers: the last good state of the policy, and proofs",
		"bounded filter/harden filter/profile filter/seccomp jsontext oci plan policy", ""},
	{"internal/admit", "decides about one container as it starts, within a deadline, and writes it down",
		"bounded filter/harden filter/profile hosterr kept logfile lsm oci plan policy vouch", ""},
	{"internal/nri", "the plugin of containerd: hardens containers of pods, or refuses them, in time",
		"admit filter/harden filter/profile kept kube oci plan printable vouch", "filter/seccomp"},
	{"internal/install", "what each platform needs of its configuration; whether that is in force",
		"dist edit filter/profile hosterr hostfacts install/host jsontext kube lsm lsm/hold proc subject unit", "testing/hosttest testing/kerneltest"},
	{"internal/install/host", "files of others: changed all or none, noted down, taken back",
		"bounded hosterr", "testing/hosttest"},
	{"internal/hostfacts", "what a host is: its kernel, what of it is built in, how it starts; texts of anybody, within limits",
		"bounded install/host kernel printable", ""},
	{"internal/deploy", "puts a policy in force on a host: installs platforms under it, replaces it, looks whether it is in force",
		"bounded filter/harden filter/profile gen gen/host hosterr hostfacts install jsontext kept lsm plan policy report term", "afalg filter/verify report/source testing/hosttest"},
	{"internal/output", "writes what was made: whole, or not at all",
		"bounded gen", "testing/hosttest"},
	{"internal/kernel", "what the running kernel has; reads only",
		"", ""},
	{"internal/probe", "asks the running kernel",
		"afalg kernel proc", "testing/kerneltest"},
	{"internal/notify", "the supervisor's side of seccomp notifications; what needs `unsafe`",
		"", "testing/child"},
	{"internal/subject", "who a thread is: executable, digest, user, unit. Reads /proc only",
		"afalg proc", "testing/child testing/kerneltest"},
	{"internal/broker", "trapped call → `Decide` → carried out or denied",
		"afalg notify plan proc subject", "filter/harden filter/profile policy testing/child testing/kerneltest"},
	{"internal/launch", "starts a command under a filter and a broker, unnoticed",
		"filter/seccomp hosterr notify", "testing/kerneltest"},
	{"internal/node", "what a pod does on its node: marks it, installs there, and takes that back",
		"bounded hosterr install install/host kept kube printable", ""},
	{"internal/manager", "talks to the service manager, which keeps descriptors",
		"hosterr notify", ""},
	{"internal/lsm/hold", "has the service manager hold what decides in the kernel",
		"hosterr lsm manager unit", ""},
	{"internal/listen", "makes a Unix socket to listen on, where nobody else can put another",
		"", ""},
	{"internal/agent", "brokers for containers: the listener protocol, systemd's descriptor store",
		"afalg bounded broker hosterr listen manager notify plan printable proc", "keeper subject testing/kerneltest"},
	{"internal/keeper", "stands in for systemd in a pod: starts the agent, keeps its descriptors, hands everything to the next keeper",
		"hosterr listen notify printable", "manager"},
	{"internal/telemetry", "decisions as lines of JSON and as metrics",
		"afalg plan", "testing/fields"},
	{"internal/lsm", "the kernel half: attaches the programs, puts a policy in force, shows that it is, and reads what was recorded",
		"afalg bounded hosterr kernel lsm/guard lsm/table plan policy", "subject"},
	{"internal/lsm/table", "plan → the tables of the kernel half. Pure",
		"afalg lsm/guard plan policy", "policies"},
	{"internal/lsm/guard", "the programs of the kernel half, in C and compiled, and their layouts",
		"", ""},
	{"internal/learn", "what was used → the least policy",
		"afalg policy printable", "plan testing/fields"},
	{"internal/decider", "a broker with its policy, its log, its metrics, and what it learns",
		"afalg broker kernel learn logfile notify plan policy subject telemetry term", ""},
	{"internal/report", "what each command that reports found, as values with forms in JSON, SARIF, HTML and as text; puts the reports of a fleet into one; asks filters, pairs of them, and all processes of a host",
		"afalg bounded filter/cbpf filter/profile filter/seccomp filter/verify gen hosterr install jsontext kernel kube learn live lsm parallel plan policies policy printable probe report/source subject term yamltext", "testing/browser"},
	{"internal/doctor", "looks at a host and concludes: who uses AF_ALG, who could, what is in force, what to do and what can go",
		"afalg bounded deploy filter/verify gen hosterr hostfacts install kernel live lsm plan policies policy proc report subject telemetry term unit", "testing/child testing/hosttest"},
	{"internal/report/source", "the filters to ask: of profiles and programs in files, of containers in manifests, and of processes",
		"afalg bounded filter/cbpf filter/profile filter/seccomp filter/verify jsontext kube live parallel", ""},
	{"internal/testing/browser", "opens pages in a headless browser; tests only",
		"", ""},
	{"internal/testing/child", "starts the test binary once more, as another process; tests only",
		"", ""},
	{"internal/testing/hosttest", "a host with files and programs; tests only",
		"", ""},
	{"internal/testing/selinuxtest", "runs SELinux's own tools, of a release that knows deny rules; tests only",
		"", ""},
	{"internal/testing/kerneltest", "tries what the running kernel cannot do, and skips with the reason; tests only",
		"", ""},
	{"internal/testing/oracle", "asks the kernel what a filter answers; damages profiles; tests only",
		"afalg filter/cbpf filter/seccomp filter/verify", "testing/kerneltest"},
	{"internal/testing/fields", "changes one field of a value at a time; tests only",
		"", ""},
	{"internal/testing/machine", "runs commands in a machine that a test has to itself; tests only",
		"testing/machine/wire", ""},
	{"internal/testing/machine/wire", "what machine and guest say to each other; tests only",
		"", ""},
	{"internal/testing/machine/guest", "the program that runs commands in a machine; tests only",
		"testing/machine/wire", ""},
	{"internal/testing/box", "such a machine of namespaces, with systemd; tests only",
		"testing/machine testing/machine/wire", ""},
	{"internal/testing/cluster", "a cluster of Kubernetes of one node, in a box; tests only",
		"testing/box testing/machine testing/machine/wire", ""},
	{"internal/vmtest", "such a machine with another kernel; tests only",
		"testing/machine testing/machine/wire", "afalg filter/cbpf filter/profile filter/seccomp gen/host hostfacts kube node plan probe subject testing/box testing/cluster testing/oracle testing/selinuxtest"},
	{"internal/testing/shell", "a shell in either, for people",
		"testing/box vmtest", ""},
	{"bench", "measures what filters, generator, broker, kernel half and plugin cost",
		"afalg broker filter/cbpf filter/harden filter/profile filter/seccomp filter/verify jsontext launch lsm notify plan policies subject telemetry", ""},
	{"scripts/check", "runs the tests and the checks, and counts them",
		"", ""},
}

// only lists who may import what is kept in one place.
var only = map[string][]string{
	"C":                                    {"internal/filter/seccomp"}, // as libseccomp-golang does
	"github.com/seccomp/libseccomp-golang": {"internal/filter/seccomp"},
	"github.com/spf13/cobra":               {"cmd/afalg-policy"},
	"github.com/spf13/cobra/doc":           {"cmd/afalg-policy"},
}

func TestLayers(t *testing.T) {
	left := map[string]layer{}
	for _, l := range layers {
		left[l.name] = l
	}
	for _, p := range listPackages(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		l, known := left[name]
		if !known {
			t.Errorf("package %s has no place in the layers", name)
			continue
		}
		delete(left, name)
		imports := own(name, p.Imports)
		if got := strings.Join(imports, " "); got != l.imports {
			t.Errorf("%s imports\n\t%s\nand may import\n\t%s", name, got, l.imports)
		}
		tests := slices.DeleteFunc(own(name, slices.Concat(p.TestImports, p.XTestImports)), func(s string) bool { return slices.Contains(imports, s) })
		if got := strings.Join(tests, " "); got != l.tests {
			t.Errorf("the tests of %s import\n\t%s\nand may import\n\t%s", name, got, l.tests)
		}
		for _, imported := range p.Imports {
			if users, kept := only[imported]; kept && !slices.Contains(users, name) {
				t.Errorf("%s imports %s, which is for %v", name, imported, users)
			}
		}
	}
	for name := range left {
		t.Errorf("there is no package %s", name)
	}
}

// own lists what is imported of this module, in the words of the layers.
func own(name string, imports []string) []string {
	var all []string
	for _, path := range imports {
		if path, found := strings.CutPrefix(path, module); found && path != name {
			all = append(all, strings.TrimPrefix(path, "internal/"))
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func TestLayersAreDocumented(t *testing.T) {
	const file = repository + "/docs/architecture.md"
	const head = "| package | does | imports |\n|---|---|---|\n"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(text), head)
	_, after, end := strings.Cut(rest, "\n\n")
	if !found || !end {
		t.Fatalf("%s has no table of layers", file)
	}
	var table strings.Builder
	for _, l := range layers {
		fmt.Fprintf(&table, "| `%s` | %s | %s |\n", l.name, l.does, cmp.Or(strings.ReplaceAll(l.imports, " ", ", "), "–"))
	}
	want := before + head + table.String() + "\n" + after
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := gocmp.Diff(want, string(text)); diff != "" {
		t.Errorf("the layers in %s are stale, run make generate (-want +got):\n%s", file, diff)
	}
}

type goPackage struct {
	ImportPath, Dir                              string
	Imports, TestImports, XTestImports           []string
	GoFiles, CgoFiles, TestGoFiles, XTestGoFiles []string
}

func listPackages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-tags=vm", "-json=ImportPath,Dir,Imports,TestImports,XTestImports,GoFiles,CgoFiles,TestGoFiles,XTestGoFiles", module+"...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var packages []goPackage
	for d := json.NewDecoder(bytes.NewReader(out)); d.More(); {
		var p goPackage
		if err := d.Decode(&p); err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
	return packages
}

// The platforms of a grant are those that somebody vouches for; the packages
// do not know each other.
func TestPlatformsAgree(t *testing.T) {
	if a, b := policy.Platforms(), vouch.Platforms(); !slices.Equal(a, b) {
		t.Errorf("a grant may name %v, and containers are of %v", a, b)
	}
}

// TestImportGroups: the library first, then others, then our own. goimports keeps
// whatever order the groups of a file have.
func TestImportGroups(t *testing.T) {
	group := func(path string) int {
		switch host, _, _ := strings.Cut(path, "/"); {
		case strings.HasPrefix(path, module):
			return 2
		case strings.Contains(host, "."):
			return 1
		}
		return 0
	}
	for _, p := range listPackages(t) {
		for _, name := range slices.Concat(p.GoFiles, p.CgoFiles, p.TestGoFiles, p.XTestGoFiles) {
			path := filepath.Join(p.Dir, name)
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
			must(t, err)
			last := 0
			for _, spec := range file.Imports {
				imported, err := strconv.Unquote(spec.Path.Value)
				must(t, err)
				if group(imported) < last && imported != "C" {
					t.Errorf("%s: %s stands behind a later group", path, imported)
				}
				last = max(last, group(imported))
			}
		}
	}
}
