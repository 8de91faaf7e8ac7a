package install

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/install/host"
)

// The user hears what would stop working before anything is changed.

// Unconfined is the policy's rule for containers without a profile.
type Unconfined struct {
	Refused bool // they do not start
	Said    bool // the policy says so explicitly
}

// stops lists what would stop working on this host, by what runs now. For
// another root it lists nothing. It leaves out what it cannot ask.
func (p platform) stops(ctx context.Context, h *host.Host, o Options) []string {
	if h.Dir != "/" {
		return nil
	}
	var all []string
	if o.Unconfined.Refused && p.unfiltered != nil {
		ask, cancel := context.WithTimeout(ctx, askTime)
		defer cancel()
		if names := p.unfiltered(ask); names != nil {
			all = append(all, "without a seccomp profile (privileged, or seccomp=unconfined), and refused when they are started again: "+
				atMost(names)+"; say containers: unconfined: harden in the policy to have them closed instead")
		}
	}
	if p.starts && (o.Socketcall == "" || o.Socketcall == socketcallDeny) && !o.Needs.Sockets {
		if programs := compat("/proc"); programs != nil {
			all = append(all, "32-bit programs in containers, which get no sockets when they are started again: "+
				atMost(programs)+"; give their containers a grant with socketcall: broker")
		}
	}
	return all
}

// maxNamed bounds a list for people.
const maxNamed = 10

func atMost(names []string) string {
	if len(names) > maxNamed {
		return strings.Join(names[:maxNamed], ", ") + fmt.Sprintf(" and %d more", len(names)-maxNamed)
	}
	return strings.Join(names, ", ")
}

// clientUnfiltered asks docker or podman for its running containers.
func clientUnfiltered(client ...string) func(context.Context) []string {
	return func(ctx context.Context) []string {
		run := func(args ...string) (string, error) {
			return ask(ctx, client[0], slices.Concat(client[1:], args)...)
		}
		ids, err := run("ps", "-q", "--no-trunc")
		if err != nil || strings.TrimSpace(ids) == "" {
			return nil
		}
		const format = "{{.Name}} {{.HostConfig.Privileged}} {{.HostConfig.SecurityOpt}}"
		out, _ := run(slices.Concat([]string{"container", "inspect", "--format", format}, strings.Fields(ids))...) // a container may go meanwhile
		return unfilteredOf(out)
	}
}

// unfilteredOf reads lines "NAME PRIVILEGED [OPTION…]".
func unfilteredOf(out string) (names []string) {
	for line := range strings.Lines(out) {
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		unconfined := func(word string) bool {
			word = strings.Trim(word, "[]")
			return word == "seccomp=unconfined" || word == "seccomp:unconfined"
		}
		if words[1] == "true" || slices.ContainsFunc(words[2:], unconfined) {
			names = append(names, strings.TrimPrefix(words[0], "/"))
		}
	}
	slices.Sort(names)
	return names
}

// bundleUnfiltered looks at the specs of running containers, where a platform
// keeps them.
func bundleUnfiltered(pattern string, named func(path string, annotations map[string]string) string) func(context.Context) []string {
	return func(context.Context) (names []string) {
		paths, _ := filepath.Glob(pattern) // the pattern is a constant
		for _, p := range paths {
			var spec struct {
				Annotations map[string]string
				Linux       struct{ Seccomp json.RawMessage }
			}
			text, err := os.ReadFile(p)
			if err != nil || json.Unmarshal(text, &spec) != nil || spec.Linux.Seccomp != nil {
				continue
			}
			if name := named(p, spec.Annotations); name != "" {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		return slices.Compact(names)
	}
}

const (
	containerdBundles = "/run/containerd/io.containerd.runtime.v2.task/*/*/config.json"
	crioBundles       = "/run/containers/storage/overlay-containers/*/userdata/config.json"
)

// containerdContainer is NAMESPACE/POD/CONTAINER of Kubernetes, or
// NAMESPACE/ID.
func containerdContainer(p string, a map[string]string) string {
	if pod := a["io.kubernetes.cri.sandbox-name"]; pod != "" {
		return filepath.Join(a["io.kubernetes.cri.sandbox-namespace"], pod, a["io.kubernetes.cri.container-name"])
	}
	id := filepath.Dir(p)
	return filepath.Join(filepath.Base(filepath.Dir(id)), filepath.Base(id), "")
}

// crioContainer is empty for the containers of podman, which lie there too.
func crioContainer(_ string, a map[string]string) string {
	if pod := a["io.kubernetes.pod.name"]; pod != "" {
		return filepath.Join(a["io.kubernetes.pod.namespace"], pod, a["io.kubernetes.container.name"])
	}
	return ""
}

// containerGroup finds the container of a process in its cgroup.
var containerGroup = regexp.MustCompile(`[0-9a-f]{64}`)

// compat lists 32-bit programs that run in containers.
func compat(proc string) (found []string) {
	groups, _ := filepath.Glob(proc + "/[0-9]*/cgroup")
	for _, p := range groups {
		text, err := os.ReadFile(p)
		if err != nil {
			continue
		}
		id := containerGroup.Find(text)
		exe := filepath.Join(filepath.Dir(p), "exe")
		if id == nil || !is32bit(exe) {
			continue
		}
		name, err := os.Readlink(exe)
		if err == nil {
			found = append(found, fmt.Sprintf("%s in container %.12s", name, id))
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}
