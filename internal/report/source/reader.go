package source

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/filter/seccomp"
	"github.com/afalg-policy/afalg-policy/internal/filter/verify"
	"github.com/afalg-policy/afalg-policy/internal/jsontext"
	"github.com/afalg-policy/afalg-policy/internal/kube"
	"github.com/afalg-policy/afalg-policy/internal/parallel"
)

// Reader reads profiles and programs, and compiles the former. Its zero value
// does that for the machines of each profile, and for a container without
// capabilities.
type Reader struct {
	Arch     specs.Arch        // that loads the filters; "" for those that a profile lists, or amd64
	Kernel   string            // version, for profiles with conditions; "" is the newest
	Caps     []string          // of the container, for profiles with conditions; "all" alone stands for those that a profile names
	Runtimes []seccomp.Runtime // that compile; nil for all
	Level    int               // libseccomp's optimisation, 1 or 2; 0 is what the runtime chooses
	Stdin    io.Reader         // what the name "-" stands for
	Memo     verify.Memo       // of what is asked for findings, and may be asked again
	Nodes    Nodes             // of the cluster, for manifests
	Exclude  []string          // patterns of what is left out of directories, as in an ignore file
}

// Read reads files with profiles and manifests, directories of them, and dumps of
// programs. The report lists the broken ones beside the others.
func (r *Reader) Read(names, dumps []string) (in Input) {
	files, broken := r.expand(names, &in.Looked)
	in.Broken = broken
	add := func(name string, one Input, err error) {
		if err != nil {
			in.Broken = append(in.Broken, newBroken(name, err))
			return
		}
		in.addSources(ShownName(name), one.Sources)
		in.Findings = append(in.Findings, one.Findings...)
		in.Pods = append(in.Pods, one.Pods...)
		in.Looked.Objects += one.Looked.Objects
	}
	fruitless := map[string]int{} // directories, and the files of them that hold nothing
	for _, f := range files {
		one, err := r.file(f.name)
		if f.dir != "" && errors.Is(err, errNothing) {
			in.Looked.PassedOver++
			fruitless[f.dir]++
			continue
		}
		add(f.name, one, err)
	}
	for _, dir := range slices.Sorted(maps.Keys(fruitless)) {
		if fruitless[dir] == count(files, dir) {
			in.Broken = append(in.Broken, newBroken(dir, errNoFile))
		}
	}
	for _, name := range dumps {
		one, err := r.dump(name)
		add(name, one, err)
	}
	r.filters(&in)
	return in
}

// errNothing is that of a text that can be read, and holds nothing to verify.
var errNothing = errors.New("no pod is in it either")

// ErrNoMachine is that of a program by which its machine cannot be told.
var ErrNoMachine = errors.New("the program compares no ABI")

const defaultMachine = specs.ArchX86_64

// file reads a file with profiles, or with manifests.
func (r *Reader) file(name string) (Input, error) {
	src, err := ReadNamed(r.Stdin, name, jsontext.Max)
	if err != nil {
		return Input{}, err
	}
	return r.read(ShownName(name), src)
}

// read compiles the profiles of a text for every machine and runtime in question,
// and finds the pods in it.
func (r *Reader) read(name string, src []byte) (in Input, err error) {
	m, err := kube.Read(src)
	if err != nil && isManifest(src) {
		return Input{}, err
	}
	if err == nil {
		in.addManifest(name, m)
		if m.Profiles() == 0 && (len(m.Workloads) > 0 || len(m.Bindings) > 0) {
			return in, nil
		}
	}
	documents, wrong := verify.ReadDocuments(src)
	switch {
	case profile.IsOtherKind(wrong):
		return Input{}, fmt.Errorf("%w; %w", wrong, errNothing)
	case wrong != nil && err == nil && m.Profiles() == 0 && !isProfile(src) && isManifest(src):
		return Input{}, fmt.Errorf("%w; %w", wrong, errNothing)
	case wrong != nil:
		return Input{}, wrong
	}
	for _, doc := range documents {
		one, err := r.document(documentName(name, doc, documents), doc)
		if err != nil {
			return Input{}, err
		}
		for _, s := range one.sources {
			s.File, s.Object = name, doc.Object
			in.Sources = append(in.Sources, s)
		}
		in.addFindings(name, one.findings)
	}
	return in, nil
}

// documentName tells the profiles of one file apart.
func documentName(file string, doc *verify.Document, all []*verify.Document) string {
	if len(all) == 1 {
		return file
	}
	return fmt.Sprintf("%s (%s)", file, doc.Object)
}

func (r *Reader) document(name string, doc *verify.Document) (compiled, error) {
	machines := doc.Machines(defaultMachine)
	if r.Arch != "" {
		machines = []specs.Arch{r.Arch}
	}
	if doc.Unfiltered() {
		return r.unfiltered(name, doc, machines)
	}
	return r.compile(name, doc, machines)
}

// compiled is what becomes of one document.
type compiled struct {
	sources  []Source
	findings []verify.Finding
}

func (r *Reader) unfiltered(name string, doc *verify.Document, machines []specs.Arch) (in compiled, err error) {
	for _, m := range machines {
		in.sources = append(in.sources, Source{Name: name, Kind: string(doc.Kind), Machine: profile.ShortName(m), ABIs: afalg.Machine(string(m))})
	}
	in.findings, err = doc.Lint(nil, nil)
	return in, err
}

// host is what conditions of the document are resolved for.
func (r *Reader) host(doc *verify.Document, machine specs.Arch) profile.Host {
	caps := r.Caps
	if slices.Equal(caps, []string{"all"}) {
		caps = doc.Profile.Caps()
	}
	return profile.Host{Arch: machine, Caps: caps, Kernel: r.Kernel}
}

func (r *Reader) compile(name string, doc *verify.Document, machines []specs.Arch) (in compiled, err error) {
	var builds []verify.Build
	runtimes := r.Runtimes
	if runtimes == nil {
		runtimes = seccomp.Runtimes()
	}
	for _, m := range machines {
		for _, runtime := range runtimes {
			builds = append(builds, verify.Build{Host: r.host(doc, m), Runtime: runtime})
		}
	}
	defer seccomp.Keep()()
	err = parallel.Each(len(builds), func(i int) (err error) {
		b := &builds[i]
		b.Program, err = doc.Compile(b.Host, b.Runtime, r.Level)
		return err
	})
	if err != nil {
		return in, err
	}
	for _, b := range builds {
		in.sources = append(in.sources, Source{
			Name: name, Kind: string(doc.Kind), Machine: profile.ShortName(b.Host.Arch), Runtime: string(b.Runtime), Level: b.Program.Level,
			Filter: cbpf.Filter{b.Program.Insns}, ABIs: machineABIs(b),
		})
	}
	in.findings, err = doc.Lint(builds, &r.Memo)
	return in, err
}

// machineABIs lists what the machine runs, and what the filter admits besides.
func machineABIs(b verify.Build) []afalg.ABI {
	abis := afalg.Machine(string(b.Host.Arch))
	for _, abi := range verify.Admitted(b.Program) {
		if !slices.Contains(abis, abi) {
			abis = append(abis, abi)
		}
	}
	return abis
}

// dump reads a BPF program as it was loaded.
func (r *Reader) dump(name string) (Input, error) {
	raw, err := ReadNamed(r.Stdin, name, cbpf.MaxInstructions*8+1024)
	if err != nil {
		return Input{}, err
	}
	name = ShownName(name)
	program, machines, err := r.parse(raw)
	if err != nil {
		return Input{}, err
	}
	var in Input
	for _, native := range machines {
		abis := afalg.Machine(native.Arch)
		in.Sources = append(in.Sources, Source{Name: name, File: name, Kind: "bpf", Machine: profile.ShortName(specs.Arch(native.Arch)),
			Filter: cbpf.Filter{program}, ABIs: abis})
	}
	return in, in.lintFilter(in.Sources[0])
}

// parse finds the byte order, in which alone a program is a valid one, and the
// machine, by the ABI words that the program compares.
func (r *Reader) parse(raw []byte) (cbpf.Program, []afalg.ABI, error) {
	if r.Arch != "" {
		abi, _ := afalg.ABIOf(string(r.Arch))
		p, err := cbpf.Parse(raw, cbpf.EndianOf(abi.BigEndian()))
		return p, []afalg.ABI{abi}, err
	}
	p, err := cbpf.Parse(raw, cbpf.Little)
	if err != nil {
		big, errBig := cbpf.Parse(raw, cbpf.Big)
		if errBig != nil {
			return nil, nil, err
		}
		p = big
	}
	machines := verify.NativeOf(p)
	if len(machines) == 0 {
		return nil, nil, ErrNoMachine
	}
	return p, machines, nil
}
