package gen

import (
	"fmt"
	"regexp"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/jsontext"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// gapArtifact is about the profile for a registry.
const gapArtifact = "artifact"

// artifact is a profile for seccompProfile.type OCI. A node intersects it with its
// own default, and rewrites what it cannot intersect exactly: at worst it denies
// every socket, or drops an architecture, whose programs are killed then. So each
// rule has a shape that survives.
//
//   - An architecture that it does not list is dropped.
//   - socket is compared once, by GE: the merger has the complement of that for a
//     default that permits the call, and finds it apart from each family that another
//     default permits. EPERM is what the default action of nodes answers; with another
//     errno the rule would stand beside permissions, and all would become one denial.
//   - socketcall is denied whole, with another errno than the default action: a rule
//     that equals the default is left out, and then the merger drops each architecture
//     with socketcall, since it does not know what that reaches.
//   - Flags are there and empty: a list that is missing stands for SPEC_ALLOW.
type artifact struct {
	DefaultAction specs.LinuxSeccompAction `json:"defaultAction"`
	Architectures []specs.Arch             `json:"architectures"`
	Flags         []specs.LinuxSeccompFlag `json:"flags"`
	Syscalls      []specs.LinuxSyscall     `json:"syscalls"`
}

// kubernetesArtifact closes AF_ALG and every family above it. It is left out where
// the policy closes more, which would survive in no node's default.
func kubernetesArtifact(p *plan.Plan) (files []File, gaps []plan.Gap, err error) {
	for _, s := range p.ClosedSockets() {
		if !s.Whole() || s.Family < afalg.Family {
			return nil, []plan.Gap{plan.Stricter.Gap(gapArtifact, nil, fmt.Sprintf("there is no profile for a registry: the policy closes %s, and a node that merges the profile with its default might deny all sockets then", s))}, nil
		}
	}
	if p.ClosesClasses() {
		return nil, []plan.Gap{plan.Stricter.Gap(gapArtifact, nil, "there is no profile for a registry: the policy closes socket options or user namespaces, which it could not")}, nil
	}
	a := artifact{DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{}, Syscalls: []specs.LinuxSyscall{
		{Names: []string{"socket", "socketpair"}, Action: specs.ActErrno, ErrnoRet: errno(unix.EPERM),
			Args: []specs.LinuxSeccompArg{{Index: 0, Value: uint64(afalg.Family), Op: specs.OpGreaterEqual}}},
		{Names: []string{"socketcall"}, Action: specs.ActErrno, ErrnoRet: errno(unix.EAFNOSUPPORT)},
		{Names: []string{"io_uring_setup", "io_uring_enter", "io_uring_register"}, Action: specs.ActErrno, ErrnoRet: errno(unix.ENOSYS)},
	}}
	for _, abi := range afalg.ABIs() {
		a.Architectures = append(a.Architectures, specs.Arch(abi.Arch))
	}
	data, err := jsontext.Encode(a)
	if err != nil {
		return nil, nil, err
	}
	return []File{{"artifact/seccomp.json", data}}, []plan.Gap{plan.Stricter.Gap(gapArtifact, nil,
		"the profile for a registry denies every family from AF_ALG on (NFC, VSOCK, KCM, QIPCRTR, SMC, XDP, MCTP), and socketcall, with EPERM for the first; it carries no grants")}, nil
}

func errno(e unix.Errno) *uint {
	n := uint(e)
	return &n
}

var artifactReference = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[a-z0-9.-]+(:[0-9]+)?(/[a-z0-9._-]+)+@sha(256:[0-9a-f]{64}|384:[0-9a-f]{96}|512:[0-9a-f]{128})$`)
})

// checkArtifact refuses a reference that the API server would.
func checkArtifact(ref string) error {
	if ref != "" && !artifactReference().MatchString(ref) {
		return fmt.Errorf("artifact %q: a reference is REGISTRY/REPOSITORY@sha256:DIGEST, without a tag", ref)
	}
	return nil
}
