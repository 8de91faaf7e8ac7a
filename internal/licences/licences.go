// Package licences has the terms of everything that is linked into the program.
package licences

import _ "embed"

//go:generate go test . -run ^TestTextIsCurrent$ -update

//go:embed licences.txt
var text string

// Text has a table of the components with their licences, and each licence and
// notice once.
func Text() string { return text }

// Kind is where a component comes from.
type Kind int

const (
	_         Kind = iota
	Own            // this program
	Toolchain      // Go's own: its standard library and its runtime
	Module         // a Go module
	Library        // of C, linked statically
	Copied         // text or code of others in our files
)

// Component is something that the program consists of.
type Component struct {
	Kind    Kind
	Name    string // of a module its path
	Licence string // an expression of SPDX
	// Files has its texts, where they are not in the module that Go linked.
	Files []string
}

// Components lists them all. A test holds it against what Go's linker and that of
// C were given.
func Components() []Component {
	return []Component{
		{Own, "github.com/afalg-policy/afalg-policy", "Apache-2.0", []string{"../../LICENSE"}},
		{Toolchain, "Go", "BSD-3-Clause", nil},
		{Library, "libseccomp", "LGPL-2.1-only", []string{"elsewhere/libseccomp.txt", "elsewhere/lgpl-2.1.txt"}},
		{Library, "glibc", "LGPL-2.1-or-later", []string{"elsewhere/glibc.txt", "elsewhere/lgpl-2.1.txt"}},
		{Library, "libgcc", "GPL-3.0-or-later WITH GCC-exception-3.1", []string{"elsewhere/libgcc.txt"}},
		{Copied, "headers of libbpf", "BSD-2-Clause", []string{"elsewhere/libbpf.txt"}},
		{Copied, "profiles of moby", "Apache-2.0", []string{"../../LICENSE"}},
		{Module, "github.com/agext/levenshtein", "Apache-2.0", nil},
		{Module, "github.com/beorn7/perks", "MIT", nil},
		{Module, "github.com/cespare/xxhash/v2", "MIT", nil},
		{Module, "github.com/cilium/ebpf", "MIT", nil},
		{Module, "github.com/containerd/log", "Apache-2.0", nil},
		{Module, "github.com/containerd/nri", "Apache-2.0", nil},
		{Module, "github.com/containerd/ttrpc", "Apache-2.0", nil},
		{Module, "github.com/coreos/go-systemd/v22", "Apache-2.0", nil},
		{Module, "github.com/google/renameio/v2", "Apache-2.0", nil},
		{Module, "github.com/jedib0t/go-pretty/v6", "MIT", nil},
		{Module, "github.com/knqyf263/go-plugin", "MIT", nil},
		{Module, "github.com/mattn/go-runewidth", "MIT", nil},
		{Module, "github.com/moby/profiles/seccomp", "Apache-2.0", nil},
		{Module, "github.com/moby/sys/mountinfo", "Apache-2.0", nil},
		{Module, "github.com/munnerz/goautoneg", "BSD-3-Clause", nil},
		{Module, "github.com/opencontainers/runtime-spec", "Apache-2.0", nil},
		{Module, "github.com/pelletier/go-toml/v2", "MIT", nil},
		{Module, "github.com/prometheus/client_golang", "Apache-2.0 AND BSD-3-Clause", nil},
		{Module, "github.com/prometheus/client_model", "Apache-2.0", nil},
		{Module, "github.com/prometheus/common", "Apache-2.0", nil},
		{Module, "github.com/prometheus/procfs", "Apache-2.0", nil},
		{Module, "github.com/rivo/uniseg", "MIT", nil},
		{Module, "github.com/rogpeppe/go-internal", "BSD-3-Clause", nil},
		{Module, "github.com/seccomp/libseccomp-golang", "BSD-2-Clause", nil},
		{Module, "github.com/sirupsen/logrus", "MIT", nil},
		{Module, "github.com/spf13/cobra", "Apache-2.0", nil},
		{Module, "github.com/spf13/pflag", "BSD-3-Clause", nil},
		{Module, "github.com/tailscale/hujson", "BSD-3-Clause", nil},
		{Module, "github.com/tetratelabs/wazero", "Apache-2.0", nil},
		{Module, "go.yaml.in/yaml/v4", "Apache-2.0 AND MIT", []string{"elsewhere/libyaml.txt"}},
		{Module, "golang.org/x/sys", "BSD-3-Clause", nil},
		{Module, "golang.org/x/term", "BSD-3-Clause", nil},
		{Module, "golang.org/x/text", "BSD-3-Clause", nil},
		{Module, "golang.org/x/time", "BSD-3-Clause", nil},
		{Module, "google.golang.org/genproto/googleapis/rpc", "Apache-2.0", nil},
		{Module, "google.golang.org/grpc", "Apache-2.0", nil},
		{Module, "google.golang.org/protobuf", "BSD-3-Clause", nil},
	}
}

// Of returns the component with a name.
func Of(kind Kind, name string) (Component, bool) {
	for _, c := range Components() {
		if c.Kind == kind && c.Name == name {
			return c, true
		}
	}
	return Component{}, false
}
