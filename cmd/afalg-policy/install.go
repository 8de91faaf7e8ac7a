package main

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/afalg-policy/afalg-policy/internal/gen"
	"github.com/afalg-policy/afalg-policy/internal/install"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
	"github.com/afalg-policy/afalg-policy/internal/profile"
)

const (
	defaultDecisionLog = "/var/log/afalg-policy/containers.json"
	defaultRoot        = "/"
)

const installLong = `Install puts the policy into the configuration of a platform, so that it reaches
every container that the platform starts from then on:

  docker      daemon.json: the wrapper as default runtime, a hardened default
              profile; the wrapper first in the PATH of docker.service
  podman      a hardened default profile, for builds too; containers.conf.d:
              the wrapper for crun and runc, a hook that refuses what is open
  containerd  config.toml: the wrapper for each handler of runc's kind, and
              first in the PATH of containerd.service
  crio        crio.conf.d: the wrapper as default runtime, a hardened default
              profile, the hook
  systemd     the units of the agent, which decides for containers with grants

What is there is changed in these settings alone, and kept otherwise, byte for
byte. All files are replaced, or none. What was there is kept below
/var/lib/afalg-policy, and "uninstall" brings it back. Nothing is restarted: the
commands that do it are printed.

The policy, the program and the real runtime must belong to root, and so must
the directories above them: who can change them decides for every container.

With --root DIR all of this happens below DIR, for an image; paths are those of
the image.`

func newInstall(t *tui) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "install " + strings.Join(install.Platforms(), "|"),
		Short: "Put a policy into Docker, Podman, containerd, CRI-O or systemd",
		Long:  installLong,
		Example: `  afalg-policy install docker --dry-run
  afalg-policy install podman --policy /etc/afalg-policy/policy.yaml
  afalg-policy install docker --base /etc/docker/seccomp.json --runtime-path /usr/bin/crun
  afalg-policy install containerd --root /mnt/image --program /usr/local/bin/afalg-policy`,
		Args:      onePlatform,
		ValidArgs: install.Platforms(),
	}
	f := cmd.Flags()
	o := install.Options{Version: toolName()}
	f.StringVar(&o.Policy, "policy", defaultPolicy, "`POLICY` to apply: a path, or builtin:NAME")
	f.StringVar(&o.Program, "program", "", "`PATH` of afalg-policy; the running one without it")
	f.StringVar(&o.RuntimePath, "runtime-path", "", "the real `RUNTIME`; the one that is configured without it")
	f.StringVar(&o.Agent, "agent", defaultAgent, "`SOCKET` of the agent, for containers with grants")
	onAgentDown := newChoice("refuse", "deny")
	addChoice(cmd, onAgentDown, "on-agent-down", "", "refuse a container with grants while there is no agent, or deny it AF_ALG")
	f.StringVar(&o.DecisionLog, "decision-log", defaultDecisionLog, "`FILE` to append a line of JSON to for each container; none if empty")
	f.StringVar(&o.BasePath, "base", "", "seccomp profile in `FILE` to harden instead of the platform's own")
	f.BoolVar(&o.Precreate, "precreate", false, "podman: harden by the precreate hook instead of the wrapper")
	addWhere(cmd, &o.Root, &o.DryRun)
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		o.OnAgentDown = onAgentDown.value
		return runInstall(t, args[0], o)
	}
	return cmd
}

// addWhere adds the flags that install and uninstall share.
func addWhere(cmd *cobra.Command, root *string, dryRun *bool) {
	cmd.Flags().StringVar(root, "root", defaultRoot, "work below `DIR`, the root of an image")
	cmd.Flags().BoolVar(dryRun, "dry-run", false, "change nothing, and print what would change")
}

func onePlatform(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usagef("name one platform: %s", strings.Join(install.Platforms(), ", "))
	}
	return nil
}

func runInstall(t *tui, name string, o install.Options) error {
	if err := gen.CheckBroker(o.Agent); err != nil {
		return usagef("--agent: %w", err)
	}
	if err := findProgram(&o); err != nil {
		return err
	}
	p, err := installedPlan(t, o)
	if err != nil {
		return err
	}
	o.Harden = func(base []byte) ([]byte, error) { return hardenBase(p, base) }
	if o.BasePath != "" {
		if o.Base, err = readInput(o.BasePath, profile.MaxJSON); err != nil {
			return err
		}
	}
	r, err := install.Install(name, o)
	if err != nil {
		return installError(t, err)
	}
	showInstall(t, r, o.DryRun, "installed")
	return nil
}

// findProgram fills in this program: the file, not a link to it.
func findProgram(o *install.Options) error {
	if o.Program != "" {
		return nil
	}
	self, err := os.Executable()
	if err == nil {
		self, err = filepath.EvalSymlinks(self)
	}
	if err != nil {
		return hostError("find this program: %w; name it with --program", err)
	}
	o.Program = self
	return nil
}

// installedPlan loads the policy as the hooks will: each file of it must be
// root's.
func installedPlan(t *tui, o install.Options) (*plan.Plan, error) {
	p, warnings, err := plan.Load(o.Policy, func(name string) ([]byte, error) {
		if strings.HasPrefix(name, policy.BuiltinPrefix) {
			return readPolicy(name)
		}
		path, err := install.Trusted(o.Root, "--policy", name)
		if err != nil {
			return nil, err
		}
		return readPolicy(path)
	})
	for _, w := range warnings {
		t.notef("warning: %v", w)
	}
	var untrusted *install.OptionError
	if errors.As(err, &untrusted) {
		return nil, usagef("%w", untrusted)
	}
	return p, err
}

// hardenBase makes a default profile: without grants, and with the conditions
// of the base, which the platforms resolve.
func hardenBase(p *plan.Plan, base []byte) ([]byte, error) {
	if base == nil {
		var err error
		if base, err = profile.Docker(); err != nil {
			return nil, err
		}
	}
	arch, err := profile.ArchByName(runtime.GOARCH)
	if err != nil {
		return nil, hostError("%w", err)
	}
	files, _, err := gen.Seccomp(p, gen.SeccompOptions{
		Common: gen.Common{Tool: toolName()}, Base: base, Format: gen.FormatDocker, Socketcall: gen.SocketcallDeny,
		Host: profile.Host{Arch: arch, Caps: profile.DefaultCaps()},
	})
	if err != nil {
		return nil, err
	}
	return files[0].Data, nil
}

// installError gives an error its exit status, and shows what was changed.
func installError(t *tui, err error) error {
	var changed *install.ChangedError
	var host *install.HostError
	var option *install.OptionError
	switch {
	case errors.As(err, &changed):
		t.printf("%s", strings.TrimSuffix(changed.Diff, "\n"))
	case errors.As(err, &host):
		return hostError("%w", err)
	case errors.As(err, &option):
		return usagef("%w", err)
	}
	return err
}

// showInstall tells what was done, or would be.
func showInstall(t *tui, r *install.Result, dryRun bool, done string) {
	if r.Recovered {
		t.notef("an earlier run was interrupted; this one goes on from there")
	}
	for _, c := range r.Changes {
		if dryRun {
			t.printf("%s", strings.TrimSuffix(c.Diff, "\n"))
		} else {
			t.printf("%s\t%s", c.What, c.Path)
		}
	}
	if len(r.Changes) == 0 {
		t.printf("unchanged")
	}
	for _, note := range r.Notes {
		t.notef("note: %s", note)
	}
	if dryRun || len(r.Restart) == 0 {
		return
	}
	t.notef("%s; containers that run keep what they were started with. Now run:", done)
	for _, command := range r.Restart {
		t.notef("  %s", command)
	}
}
