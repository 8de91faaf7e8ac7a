package source

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/bounded"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/filter/verify"
	"github.com/afalg-policy/afalg-policy/internal/jsontext"
	"github.com/afalg-policy/afalg-policy/internal/kube"
)

// Pod is the pod of a manifest, or the template of one.
type Pod struct {
	File string
	kube.Workload
	Containers []Container // in place of the workload's
}

// Container is one of its containers, with the filter that it is to have.
type Container struct {
	kube.Container
	// Filter names the sources that are its filter; "" if it has none, or if nobody
	// knows it, for which Unknown has the reason.
	Filter  string
	Unknown string
}

// Nodes says what a cluster has that no manifest shows.
type Nodes struct {
	SeccompDefault bool   // the kubelet gives RuntimeDefault to containers that name no profile
	RuntimeDefault string // the profile that the runtimes have: ProfileDocker, or a file; "" if nobody said it
	Profiles       string // a directory that has what the nodes have below kube.SeccompRoot
}

// ProfileDocker names Docker's profile as this program has it.
const ProfileDocker = "docker"

// Effective is what a container gets for its type.
func (n Nodes) Effective(c *kube.Container) kube.Type {
	if c.Type == kube.Undefined && n.SeccompDefault {
		return kube.RuntimeDefault
	}
	return c.Type
}

// maxCapSets bounds the sets of capabilities that a RuntimeDefault is proved for.
const maxCapSets = 32

// filters finds the filters of the containers of all pods, and adds them to the
// sources.
func (r *Reader) filters(in *Input) {
	f := finder{Reader: r, in: in, known: map[string]found{}, operator: operatorFiles(in.Sources)}
	for i := range in.Pods {
		p := &in.Pods[i]
		for _, c := range p.Workload.Containers {
			one := Container{Container: c}
			if !p.Windows && !c.Privileged {
				switch r.Nodes.Effective(&c) {
				case kube.RuntimeDefault:
					one.Filter, one.Unknown = f.runtimeDefault(&c)
				case kube.Localhost:
					one.Filter, one.Unknown = f.localhost(c.Localhost)
				case kube.OCI:
					one.Unknown = "the profile is an artifact of a registry, which is not here; kubelets up to 1.37 take the type for Unconfined"
				}
			}
			p.Containers = append(p.Containers, one)
		}
	}
}

// finder finds each filter once.
type finder struct {
	*Reader
	in       *Input
	known    map[string]found
	operator map[string][]string
	capSets  int
}

type found struct{ filter, unknown string }

func (f *finder) once(key string, find func() found) (filter, unknown string) {
	one, is := f.known[key]
	if !is {
		one = find()
		f.known[key] = one
	}
	return one.filter, one.unknown
}

// runtimeDefault compiles the runtime's profile for the capabilities of a container,
// on which its conditions may depend.
func (f *finder) runtimeDefault(c *kube.Container) (filter, unknown string) {
	if f.Nodes.RuntimeDefault == "" {
		return "", "RuntimeDefault is what the runtime of the node has, which is not here"
	}
	caps := capsOf(f.Caps, c)
	return f.once("RuntimeDefault "+strings.Join(caps, " "), func() found {
		if f.capSets++; f.capSets > maxCapSets {
			return found{unknown: fmt.Sprintf("the containers have more than %d different sets of capabilities: verify fewer manifests at once", maxCapSets)}
		}
		name := "RuntimeDefault " + f.Nodes.RuntimeDefault
		if more := differ(f.Caps, caps); more != "" {
			name += " (" + more + ")"
		}
		reader := Reader{Arch: f.Arch, Kernel: f.Kernel, Caps: caps, Runtimes: f.Runtimes, Level: f.Level, Nodes: f.Nodes}
		return f.add(name, func() (Input, error) { return reader.base(name) })
	})
}

// base reads the profile of the runtimes.
func (r *Reader) base(name string) (Input, error) {
	src, err := r.baseText()
	if err != nil {
		return Input{}, err
	}
	one, err := r.read(name, src)
	for i := range one.Sources {
		one.Sources[i].File = r.Nodes.RuntimeDefault
	}
	for i := range one.Findings {
		one.Findings[i].File = r.Nodes.RuntimeDefault
	}
	if r.Nodes.RuntimeDefault == ProfileDocker {
		one.Findings = nil // they are nobody's to correct
	}
	return one, err
}

func (r *Reader) baseText() ([]byte, error) {
	if r.Nodes.RuntimeDefault == ProfileDocker {
		return jsontext.Encode(profile.Docker())
	}
	return bounded.ReadFile(r.Nodes.RuntimeDefault, jsontext.Max)
}

// add reads a filter for containers. One that cannot be used is listed as broken,
// as any other file is.
func (f *finder) add(name string, read func() (Input, error)) found {
	one, err := read()
	if err == nil && len(one.Sources) == 0 {
		err = errors.New("no profile is in it")
	}
	if err != nil {
		f.in.Broken = append(f.in.Broken, newBroken(name, err))
		return found{unknown: fmt.Sprintf("%s could not be used", name)}
	}
	for i := range one.Sources {
		one.Sources[i].OfContainers = true
	}
	f.in.addSources(name, one.Sources)
	f.in.Findings = append(f.in.Findings, one.Findings...)
	return found{filter: name}
}

// localhost finds the profile that lies on the nodes under a name.
func (f *finder) localhost(name string) (filter, unknown string) {
	name = path.Clean(name) // of many spellings, one is asked
	return f.once("Localhost "+name, func() found {
		if f.Nodes.Profiles != "" {
			file := filepath.Join(f.Nodes.Profiles, filepath.FromSlash(name))
			one, err := f.profileFile(file)
			if err == nil || !errors.Is(err, fs.ErrNotExist) {
				return f.add(file, func() (Input, error) { return one, err })
			}
		}
		switch same := f.operator[name]; len(same) {
		case 0:
		case 1:
			return found{filter: same[0]}
		default:
			return found{unknown: fmt.Sprintf("the operator writes %s for each of %s", name, strings.Join(same, ", "))}
		}
		if f.Nodes.Profiles == "" {
			return found{unknown: fmt.Sprintf("%s is a file of the node, below %s, which is not here", name, kube.SeccompRoot)}
		}
		return found{unknown: fmt.Sprintf("%s is a file of the node, and not in %s; where it is missing, no container with it starts", name, f.Nodes.Profiles)}
	})
}

// profileFile reads a file as containerd and CRI-O do. They differ about the
// conditions of Docker's format.
func (f *finder) profileFile(path string) (Input, error) {
	src, err := bounded.ReadFile(path, jsontext.Max)
	if err != nil {
		return Input{}, err
	}
	one, err := f.read(path, src)
	switch {
	case err != nil:
		return Input{}, err
	case len(one.Sources) == 0 || one.Sources[0].Object != "" || one.Sources[0].Kind == string(verify.KindConfig):
		return Input{}, errors.New("this is no profile, as runtimes read one from a file of the node")
	case one.Sources[0].Kind == string(verify.KindDocker):
		return Input{}, errors.New("the profile has conditions of Docker's format, which containerd ignores and CRI-O does not: generate seccomp --format oci resolves them")
	}
	return one, nil
}

// operatorFiles are the files that the Security Profiles Operator writes for the
// objects among the sources: of 1.0 without the namespace, of earlier ones with it.
func operatorFiles(sources []Source) map[string][]string {
	files := map[string][]string{}
	for _, s := range sources {
		if s.Object == "" {
			continue
		}
		for _, name := range []string{s.Object, s.Object[strings.LastIndexByte(s.Object, '/')+1:]} {
			file := kube.OperatorProfile(name)
			if !slices.Contains(files[file], s.Name) {
				files[file] = append(files[file], s.Name)
			}
		}
	}
	return files
}

// capsOf are the capabilities of a container, sorted.
func capsOf(base []string, c *kube.Container) []string {
	all := slices.Equal(base, []string{"all"})
	caps := slices.Clone(base)
	name := func(s string) string { return "CAP_" + strings.TrimPrefix(strings.ToUpper(s), "CAP_") }
	for _, add := range c.Add {
		all = all || name(add) == "CAP_ALL"
		caps = append(caps, name(add))
	}
	if all {
		return []string{"all"}
	}
	for _, drop := range c.Drop {
		caps = slices.DeleteFunc(caps, func(s string) bool {
			return name(s) == name(drop) && !slices.ContainsFunc(c.Add, func(add string) bool { return name(add) == name(s) }) ||
				name(drop) == "CAP_ALL" && !slices.ContainsFunc(c.Add, func(add string) bool { return name(add) == name(s) })
		})
	}
	slices.Sort(caps)
	return slices.Compact(caps)
}

// differ says how a set of capabilities is not the usual one.
func differ(usual, caps []string) string {
	var texts []string
	for _, c := range caps {
		if !slices.Contains(usual, c) {
			texts = append(texts, "with "+c)
		}
	}
	without := 0
	for _, c := range usual {
		if !slices.Contains(caps, c) {
			without++
		}
	}
	switch {
	case without == 0 || slices.Equal(caps, []string{"all"}):
	case without == len(usual):
		texts = append(texts, "without the usual capabilities")
	default:
		for _, c := range usual {
			if !slices.Contains(caps, c) {
				texts = append(texts, "without "+c)
			}
		}
	}
	return strings.Join(texts, ", ")
}
