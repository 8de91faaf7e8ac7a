package nri

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/nri/pkg/api"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
)

// errLossy says that NRI cannot carry a profile to the runtime: through version
// 0.12.5 a runtime drops the errno of the default action (AdjustSeccompPolicy).
var errLossy = errors.New("NRI loses the profile's defaultErrnoRet, so that a profile with another one than EPERM cannot be replaced: leave it out of the profile, give the container one that is closed already (generate seccomp), or install the wrapper runtime (afalg-policy install containerd)")

// specOf is what a runtime says of a profile, as linux.seccomp of a config.json
// would. Rules without a call, which do nothing, are left out: NRI does not
// distinguish an empty list from none.
func specOf(n *api.LinuxSeccomp) *specs.LinuxSeccomp {
	if n == nil {
		return nil
	}
	s := &specs.LinuxSeccomp{
		DefaultAction: specs.LinuxSeccompAction(n.DefaultAction),
		ListenerPath:  n.ListenerPath, ListenerMetadata: n.ListenerMetadata,
	}
	if n.DefaultErrno != nil {
		errno := uint(n.DefaultErrno.Value)
		s.DefaultErrnoRet = &errno
	}
	for _, a := range n.Architectures {
		s.Architectures = append(s.Architectures, specs.Arch(a))
	}
	for _, f := range n.Flags {
		s.Flags = append(s.Flags, specs.LinuxSeccompFlag(f))
	}
	rules := slices.DeleteFunc(slices.Clone(n.Syscalls), func(r *api.LinuxSyscall) bool { return len(r.GetNames()) == 0 })
	s.Syscalls = api.ToOCILinuxSyscalls(rules)
	return s
}

// plainErrno leaves an errno of the default action out that runtimes take anyway,
// so that what is hardened and proved is what NRI carries. It reports whether
// there is another one.
func plainErrno(s *specs.LinuxSeccomp) (lossy bool) {
	if s == nil || s.DefaultErrnoRet == nil {
		return false
	}
	if s.DefaultAction == specs.ActErrno && *s.DefaultErrnoRet == uint(unix.EPERM) {
		s.DefaultErrnoRet = nil
		return false
	}
	return true
}

// carried is a profile as NRI carries it. One that the runtime would not get as it
// was proved is an error.
func carried(p *profile.Profile) (*api.LinuxSeccomp, error) {
	want, err := p.Resolve(profile.Host{})
	if err != nil {
		return nil, err
	}
	if want.DefaultErrnoRet != nil {
		return nil, errLossy
	}
	n := api.FromOCILinuxSeccomp(want)
	got := specOf(n)
	if a, b := text(want), text(got); !bytes.Equal(a, b) {
		return nil, fmt.Errorf("NRI would carry another profile than the one that was proved")
	}
	return n, nil
}

// text is a profile's canonical text, in which no list and an empty one are alike.
func text(s *specs.LinuxSeccomp) []byte {
	c := *s
	c.Architectures, c.Flags = append([]specs.Arch{}, c.Architectures...), append([]specs.LinuxSeccompFlag{}, c.Flags...)
	c.Syscalls = slices.Clone(c.Syscalls)
	for i := range c.Syscalls {
		r := &c.Syscalls[i]
		r.Names, r.Args = append([]string{}, r.Names...), append([]specs.LinuxSeccompArg{}, r.Args...)
	}
	out, err := json.Marshal(c)
	if err != nil { // strings and numbers always encode
		return nil
	}
	return out
}
