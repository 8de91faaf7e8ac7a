package install

import (
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/install/host"
)

// Options say what to install.
type Options struct {
	Root        string // directory below which files are read and written; "/" on the host itself
	DryRun      bool   // change nothing, and lock nothing
	Policy      string // absolute path, or builtin:NAME
	Program     string // absolute path of afalg-policy
	RuntimePath string // the runtime that the wrapper executes; looked up if empty
	Agent       string // socket of the agent
	OnAgentDown string // "refuse" or "deny"
	Socketcall  string // "deny", "keep" or "broker"; empty is "deny"
	DecisionLog string // absolute path; none if empty
	Precreate   bool   // podman: harden by the precreate hook instead of the wrapper
	BasePath    string // seccomp profile to harden instead of the platform's own
	Base        []byte // its content
	Version     string // of the program, for the record

	Needs      Needs // of the policy
	Unconfined Unconfined

	// Grants, Accept and Except are those of "generate systemd", for the
	// record. Accept goes to "lsm load" as well.
	Grants, Accept, Except []string
	// Audit has the kernel record what the policy denies, and deny nothing.
	Audit bool
	// Watched are the files whose change has the kernel's table made anew.
	Watched []string
	// Show is systemctl's output about units, as package unit reads it.
	Show []byte
	// DropIns makes the drop-ins of all services, by path below
	// /etc/systemd/system. gone lists drop-ins of an earlier installation,
	// which exist now and will not exist then.
	DropIns func(gone []string) (map[string][]byte, error)
	// KubeletRoot is the kubelet's --root-dir; looked up if empty.
	KubeletRoot string
	// Profiles makes the profiles that pods can name, by path below the kubelet's
	// seccomp directory.
	Profiles func() (map[string][]byte, error)
	// NRI has containerd ask the agent about each container.
	NRI bool
	// Settings makes the files of a host, by path below its root.
	Settings func() (map[string][]byte, error)
	// Sysctls has the values that the host's sysctls have now.
	Sysctls map[string]string
	// Before gets what would stop working, before anything is changed; it may
	// be nil.
	Before func(stops []string)

	// Harden closes a seccomp profile in Docker's format; nil stands for
	// Docker's default profile.
	Harden func(base []byte) ([]byte, error)
}

// check refuses options that would make the whole only as strong as a file that
// others can write.
func (o *Options) check(h *host.Host, p platform) error {
	for _, f := range []struct{ flag, path string }{
		{"--policy", o.Policy}, {"--program", o.Program}, {"--runtime-path", o.RuntimePath},
		{"--agent", o.Agent}, {"--decision-log", o.DecisionLog}, {"--kubelet-root", o.KubeletRoot},
	} {
		if f.path == "" || f.flag == "--policy" && builtin(f.path) {
			continue
		}
		if err := host.CheckPath(f.flag, f.path); err != nil {
			return err
		}
	}
	if !builtin(o.Policy) {
		if _, err := h.Trusted("--policy", o.Policy); err != nil {
			return err
		}
	}
	if !p.dataOnly {
		if err := h.Executable("--program", o.Program); err != nil {
			return err
		}
	}
	if o.RuntimePath != "" {
		return h.Executable("--runtime-path", o.RuntimePath)
	}
	return nil
}

// Ways to treat socketcall.
const (
	socketcallDeny   = "deny"
	socketcallBroker = "broker"
	socketcallKeep   = "keep"
)

func builtin(policy string) bool { return strings.HasPrefix(policy, "builtin:") }

// saved returns the options as the record keeps them, for people.
func (o *Options) saved() map[string]string {
	m := map[string]string{}
	for name, value := range map[string]string{
		"policy": o.Policy, "program": o.Program, "runtime-path": o.RuntimePath, "agent": o.Agent,
		"on-agent-down": o.OnAgentDown, "socketcall": o.Socketcall, "decision-log": o.DecisionLog, "base": o.BasePath, "kubelet-root": o.KubeletRoot,
		"grant": strings.Join(o.Grants, ","), "accept": strings.Join(o.Accept, ","), "except": strings.Join(o.Except, ","),
	} {
		if value != "" {
			m[name] = value
		}
	}
	for name, on := range map[string]bool{"audit": o.Audit, "nri": o.NRI} {
		if on {
			m[name] = "yes"
		}
	}
	for key, value := range o.Sysctls {
		m[wasPrefix+key] = value
	}
	return m
}

// recorded are the options that a record has saved, as far as a file that is made anew
// depends on them.
func recorded(saved map[string]string) *Options {
	list := func(name string) []string {
		if saved[name] == "" {
			return nil
		}
		return strings.Split(saved[name], ",")
	}
	return &Options{
		Root: "/", Policy: saved["policy"], Program: saved["program"], RuntimePath: saved["runtime-path"], Agent: saved["agent"],
		OnAgentDown: saved["on-agent-down"], Socketcall: saved["socketcall"], DecisionLog: saved["decision-log"], BasePath: saved["base"], KubeletRoot: saved["kubelet-root"],
		Grants: list("grant"), Accept: list("accept"), Except: list("except"),
		Audit: saved["audit"] != "", NRI: saved["nri"] != "",
	}
}

// Trusted returns the real path of a file below a root, if nobody but root can
// change or replace it.
func Trusted(root, flag, p string) (string, error) {
	if err := host.CheckPath(flag, p); err != nil {
		return "", err
	}
	h, err := host.Open(root)
	if err != nil {
		return "", err
	}
	defer h.Close()
	target, err := h.Trusted(flag, p)
	return h.Shown(target), err
}
