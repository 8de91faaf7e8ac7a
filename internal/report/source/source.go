// Package source finds the filters that are to be asked: those that profiles and
// dumps of programs in files make (Reader), and those that running processes are
// under (FromProcess, FromContainer). Where a filter comes from makes no
// difference to a question about it.
package source

import (
	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
	"github.com/afalg-policy/afalg-policy/internal/filter/verify"
)

// Source is a filter to ask, and where it comes from.
type Source struct {
	Name    string // what the user named: "seccomp.json", "pid 4711"
	File    string // of which it is one profile; "" if it is no file
	Object  string // of Kubernetes that it is the profile of; "" for others
	Kind    string // "docker", "oci", "config", "bpf", "process"
	Machine string // "amd64"
	Runtime string // as which the program was compiled: "runc"; empty if it was found as it is
	// OfContainers says that it is asked for containers of manifests: their verdicts count.
	OfContainers bool
	Level        int // libseccomp's optimisation level; 0 if it did not compile the program

	Filter cbpf.Filter // the last program is the newest; empty: no filter, all is allowed
	ABIs   []afalg.ABI // to ask about, of one byte order; never empty
}

// Endian returns the byte order of the machine.
func (s Source) Endian() cbpf.Endian { return cbpf.EndianOf(s.ABIs[0].BigEndian()) }

// Instructions counts those of all programs.
func (s Source) Instructions() (n int) {
	for _, p := range s.Filter {
		n += len(p)
	}
	return n
}

// Finding is a finding in a file.
type Finding struct {
	File string
	verify.Finding
}

// Input is what is asked: sources, in the order of the names that they are of,
// with what is wrong with their texts.
type Input struct {
	Names    []string
	ends     []int // how many sources there are up to each name
	Sources  []Source
	Findings []Finding
	Broken   []Broken // what could not be used
	Pods     []Pod
	Looked   Looked
}

// Looked counts what was looked at to find all this.
type Looked struct {
	Files      int `json:"files"`       // that were read, also those that no directory would have shown
	PassedOver int `json:"passed-over"` // of them: hold no profile and no pod
	Excluded   int `json:"excluded"`    // files and directories that were left out as asked
	Objects    int `json:"objects"`     // of Kubernetes that have no pod and are no profile
}

func (in *Input) addSources(name string, sources []Source) {
	in.Sources = append(in.Sources, sources...)
	in.Names = append(in.Names, name)
	in.ends = append(in.ends, len(in.Sources))
}

func (in *Input) addFindings(file string, findings []verify.Finding) {
	for _, f := range findings {
		in.Findings = append(in.Findings, Finding{File: file, Finding: f})
	}
}

// AddRunning adds the filters of one process, with what is wrong with them.
func (in *Input) AddRunning(sources []Source) error {
	in.addSources(sources[0].Name, sources)
	for _, s := range sources {
		if err := in.lintFilter(s); err != nil {
			return err
		}
	}
	return nil
}

// lintFilter adds what is wrong with programs that have no text.
func (in *Input) lintFilter(s Source) error {
	for _, p := range s.Filter {
		in.addFindings(s.Name, verify.LintProgram(p, s.Endian()))
	}
	found, err := verify.LintListener(s.Filter, s.ABIs, verify.Directly)
	in.addFindings(s.Name, found)
	return err
}

// Of returns the sources of Names[i].
func (in *Input) Of(i int) []Source {
	first := 0
	if i > 0 {
		first = in.ends[i-1]
	}
	return in.Sources[first:in.ends[i]]
}
