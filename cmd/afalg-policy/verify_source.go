package main

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"runtime"
	"slices"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/bpf"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/profile"
	"github.com/afalg-policy/afalg-policy/internal/seccomp"
	"github.com/afalg-policy/afalg-policy/internal/verify"
)

// source is a filter to ask, and where it comes from. What reads profiles,
// dumps and running processes returns sources; from there on they are alike.
type source struct {
	Name    string // what the user named: "seccomp.json", "pid 4711"
	Kind    string // "docker", "oci", "config", "bpf", "process"
	Machine string // "amd64"
	Via     string // how the program was made: "runc"; empty if it was found as it is
	Level   int    // libseccomp's optimisation level; 0 if it did not compile the program

	Filter bpf.Filter  // the last program is the newest; empty: no filter, all is allowed
	ABIs   []afalg.ABI // to ask about, of one byte order; never empty
}

func (s source) endian() bpf.Endian { return bpf.EndianOf(s.ABIs[0].BigEndian) }

func (s source) instructions() (n int) {
	for _, p := range s.Filter {
		n += len(p)
	}
	return n
}

// located is a finding in a file.
type located struct {
	File string `json:"file"`
	verify.Finding
}

// input is what the command line names, in its order.
type input struct {
	names    []string
	ends     []int // how many sources there are up to each name
	sources  []source
	findings []located
}

// compileOptions are the flags that say for what a profile is compiled.
type compileOptions struct {
	arch, kernel string
	caps         []string
	runtimes     *choice
	level        int
	dumps        []string
	memo         verify.Memo
}

// fileFlags adds the flags about profiles and dumps.
func fileFlags(cmd *cobra.Command) *compileOptions {
	var o compileOptions
	flags := cmd.Flags()
	flags.StringArrayVar(&o.dumps, "bpf", nil, "verify the BPF program in `FILE`; may be repeated")
	flags.StringVar(&o.arch, "arch", "", "`MACHINE` that loads the filter: amd64, arm64, s390x, …")
	flags.StringSliceVar(&o.caps, "caps", profile.DefaultCaps(), "`CAPABILITIES` of the container, for profiles with conditions; all stands for those that a profile names")
	flags.StringVar(&o.kernel, "kernel", "", "`VERSION` of the kernel, for profiles with conditions; the newest without it")
	flags.IntVar(&o.level, "level", 0, "optimisation `LEVEL` of libseccomp, 1 or 2; without it, what the runtime chooses")
	o.runtimes = newChoice("both", "runc", "crun")
	addChoice(cmd, o.runtimes, "runtime", "", "compile profiles as this runtime does")
	// generate has --cap, one at a time.
	flags.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if name == "cap" {
			name = "caps"
		}
		return pflag.NormalizedName(name)
	})
	return &o
}

func (o *compileOptions) check() error {
	if o.arch != "" {
		native, err := profile.ArchByName(o.arch)
		if err != nil {
			return usagef("--arch: %v", err)
		}
		o.arch = string(native)
	}
	if err := profile.CheckKernel(o.kernel); err != nil {
		return usagef("--kernel: %v", err)
	}
	if o.level < 0 || o.level > 2 {
		return usagef("--level %d: libseccomp has 1 and 2", o.level)
	}
	return nil
}

// read reads every file, so that all errors are seen at once.
func (o *compileOptions) read(files []string) (in input, err error) {
	if err := o.check(); err != nil {
		return input{}, err
	}
	var errs []error
	for _, read := range []struct {
		names []string
		one   func(string) (input, error)
	}{{files, o.profile}, {o.dumps, o.dump}} {
		for _, name := range read.names {
			one, err := read.one(name)
			if err != nil {
				errs = append(errs, &inputError{name, err})
				continue
			}
			in.addSources(name, one.sources)
			in.findings = append(in.findings, one.findings...)
		}
	}
	if errs != nil {
		return input{}, &unusableError{errors.Join(errs...)}
	}
	return in, nil
}

// inputError says that something named on the command line cannot be used.
type inputError struct {
	name string
	err  error
}

var place = regexp.MustCompile(`^\d+:\d+: `)

// Error joins the place, if the cause begins with one, to the name.
func (e *inputError) Error() string {
	text := e.err.Error()
	if at := place.FindString(text); at != "" {
		return fmt.Sprintf("%s:%s", e.name, text)
	}
	return e.name + ": " + text
}

func (e *inputError) Unwrap() error { return e.err }

const defaultMachine = specs.ArchX86_64

// profile compiles a JSON file for every machine and runtime in question.
func (o *compileOptions) profile(name string) (input, error) {
	src, err := plan.ReadRegular(name, profile.MaxJSON)
	if err != nil {
		return input{}, err
	}
	if bytes.IndexByte(src, 0) >= 0 {
		return input{}, errors.New("this is no JSON text; name a BPF program with --bpf")
	}
	doc, err := verify.ReadDocument(src)
	if err != nil {
		return input{}, err
	}
	machines := doc.Machines(defaultMachine)
	if o.arch != "" {
		machines = []specs.Arch{specs.Arch(o.arch)}
	}
	if doc.Profile == nil {
		return o.unfiltered(name, doc, machines)
	}
	return o.compile(name, doc, machines)
}

func (o *compileOptions) unfiltered(name string, doc *verify.Document, machines []specs.Arch) (input, error) {
	var in input
	for _, m := range machines {
		in.sources = append(in.sources, source{Name: name, Kind: string(doc.Kind), Machine: profile.ShortName(m), ABIs: verify.Machine(string(m))})
	}
	findings, err := doc.Lint(nil, nil)
	in.add(name, findings)
	return in, err
}

func (in *input) addSources(name string, sources []source) {
	in.sources = append(in.sources, sources...)
	in.names = append(in.names, name)
	in.ends = append(in.ends, len(in.sources))
}

func (in *input) add(file string, findings []verify.Finding) {
	for _, f := range findings {
		in.findings = append(in.findings, located{file, f})
	}
}

// host is what conditions of the document are resolved for.
func (o *compileOptions) host(doc *verify.Document, machine specs.Arch) profile.Host {
	caps := o.caps
	if slices.Equal(caps, []string{"all"}) {
		caps = doc.Profile.Caps()
	}
	return profile.Host{Arch: machine, Caps: caps, Kernel: o.kernel}
}

func (o *compileOptions) compile(name string, doc *verify.Document, machines []specs.Arch) (input, error) {
	var builds []verify.Build
	for _, m := range machines {
		for _, r := range seccomp.Runtimes() {
			if o.runtimes.value == "both" || o.runtimes.value == string(r) {
				builds = append(builds, verify.Build{Host: o.host(doc, m), Runtime: r})
			}
		}
	}
	err := parallel(len(builds), func(i int) (err error) {
		b := &builds[i]
		b.Program, err = doc.Compile(b.Host, b.Runtime, o.level)
		return err
	})
	if err != nil {
		return input{}, err
	}
	var in input
	for _, b := range builds {
		in.sources = append(in.sources, source{
			Name: name, Kind: string(doc.Kind), Machine: profile.ShortName(b.Host.Arch), Via: string(b.Runtime), Level: b.Program.Level,
			Filter: bpf.Filter{b.Program.Insns}, ABIs: machineABIs(b),
		})
	}
	findings, err := doc.Lint(builds, &o.memo)
	in.add(name, findings)
	return in, err
}

// machineABIs lists what the machine runs, and what the filter admits besides.
func machineABIs(b verify.Build) []afalg.ABI {
	abis := slices.Clone(verify.Machine(string(b.Host.Arch)))
	for _, abi := range verify.Admitted(b.Program) {
		if !slices.Contains(abis, abi) {
			abis = append(abis, abi)
		}
	}
	return abis
}

// dump reads a BPF program as it was loaded.
func (o *compileOptions) dump(name string) (input, error) {
	raw, err := plan.ReadRegular(name, bpf.MaxInstructions*8+1024)
	if err != nil {
		return input{}, err
	}
	program, machines, err := o.parse(raw)
	if err != nil {
		return input{}, err
	}
	var in input
	for _, native := range machines {
		abis := verify.Machine(native.Arch)
		in.sources = append(in.sources, source{Name: name, Kind: "bpf", Machine: profile.ShortName(specs.Arch(native.Arch)),
			Filter: bpf.Filter{program}, ABIs: abis})
	}
	in.add(name, verify.LintProgram(program, in.sources[0].endian()))
	return in, nil
}

// parse finds the byte order, in which alone a program is a valid one, and the
// machine, by the ABI words that the program compares.
func (o *compileOptions) parse(raw []byte) (bpf.Program, []afalg.ABI, error) {
	if o.arch != "" {
		abi, _ := afalg.ABIOf(o.arch)
		p, err := bpf.Parse(raw, bpf.EndianOf(abi.BigEndian))
		return p, []afalg.ABI{abi}, err
	}
	p, err := bpf.Parse(raw, bpf.Little)
	if err != nil {
		big, errBig := bpf.Parse(raw, bpf.Big)
		if errBig != nil {
			return nil, nil, err
		}
		p = big
	}
	machines := verify.NativeOf(p)
	if len(machines) == 0 {
		return nil, nil, errors.New("the program compares no ABI: say with --arch which machine loads it")
	}
	return p, machines, nil
}

// parallel runs n jobs on the processors, and returns the first error in their
// order.
func parallel(n int, job func(int) error) error {
	errs := make([]error, n)
	var group sync.WaitGroup
	free := make(chan struct{}, runtime.GOMAXPROCS(0))
	for i := range n {
		free <- struct{}{}
		group.Go(func() {
			defer func() { <-free }()
			errs[i] = job(i)
		})
	}
	group.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
