package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/afalg-policy/afalg-policy/internal/deploy"
	"github.com/afalg-policy/afalg-policy/internal/filter/harden"
	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/install"
	"github.com/afalg-policy/afalg-policy/internal/jsontext"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
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
              first in the PATH of containerd.service. With --nri it asks the
              agent as well, and starts no container without it
  crio        crio.conf.d: the wrapper as default runtime, a hardened default
              profile, the hook
  kubernetes  the profiles that pods name (localhostProfile), in the kubelet's
              directory; those of grants with --accept granted-profiles, once
              admission ties each to its namespaces
  agent       the units of the agent, which decides for containers with grants
  systemd     drop-ins that close AF_ALG to every service, as "generate systemd"
              makes them; --grant, --accept, --except and --show are the same
  lsm         units that put the policy in force in the kernel, before anything
              else starts, and watch it; a hook for apt or dnf, so that upgraded
              executables are known. With --audit it only records
  host        modprobe.d, sysctl.d and udev, as "generate host" makes them for
              this host: what the policy uses nowhere goes for everybody. On
              Debian and Ubuntu the kernel's arguments too, for update-grub

What is there is changed in these settings alone, and kept otherwise, byte for
byte. All files are replaced, or none. What was there is kept below
/var/lib/afalg-policy, and "uninstall" brings it back. Nothing is restarted: the
commands that do it are printed. Only lsm, and the sysctls of host, are in
force at once, or not installed.
The default profiles of platforms are proved
ahead, so that no container waits for it. Reload the agent after a change of
what the policy closes, or install again where there is no agent.

For systemd it lists first what would stop working: 32-bit programs, users of
io_uring, services whose setuid programs gain nothing any more, and who names or
uses AF_ALG. Restart the services afterwards, or the machine.

The policy, the program and the real runtime must belong to root, and so must
the directories above them: who can change them decides for every container.

Before anything is changed, it lists what would stop working: containers that
run without a seccomp profile, where the policy refuses those, and 32-bit
programs in containers. On a node of Kubernetes a policy that does not say what
becomes of unconfined containers is refused: most pods would not start any more.

With --root DIR all of this happens below DIR, for an image; paths are those of
the image.`

func newInstall(t *tui) *cobra.Command {
	cmd := &cobra.Command{
		Use:                   "install PLATFORM",
		DisableFlagsInUseLine: true, // the line is long
		Short:                 "Put a policy into container platforms, systemd or the kernel",
		Long:                  installLong,
		Example: `  afalg-policy install docker --dry-run
  afalg-policy install podman --policy /etc/afalg-policy/policy.yaml
  afalg-policy install docker --base /etc/docker/seccomp.json --runtime-path /usr/bin/crun
  afalg-policy install containerd --root /mnt/image --program /usr/local/bin/afalg-policy
  afalg-policy install kubernetes --policy /etc/afalg-policy/policy.yaml
  afalg-policy install systemd --grant iwd --accept iwd --dry-run
  afalg-policy install lsm --audit`,
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
	socketcall := addSocketcall(cmd)
	addChoice(cmd, onAgentDown, "on-agent-down", "", "refuse a container with grants while there is no agent, or deny it AF_ALG")
	f.StringVar(&o.DecisionLog, "decision-log", defaultDecisionLog, "`FILE` to append a line of JSON to for each container; none if empty")
	f.StringVar(&o.BasePath, "base", "", "seccomp profile in `FILE` to harden instead of the platform's own")
	f.BoolVar(&o.Precreate, "precreate", false, "podman: harden by the precreate hook instead of the wrapper")
	only := addOnly(cmd)
	addWhere(cmd, &o.Root, &o.DryRun)
	wantJSON := addFormat(cmd)
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		o.OnAgentDown, o.Socketcall = onAgentDown.value, socketcall.value
		p, err := prepareInstall(t, args[0], &o, only)
		if err != nil {
			return showResult(t, deploy.Refused("install", args[0], err), err, wantJSON())
		}
		showBreaks(t, p)
		done, err := deploy.Install(args[0], p, o, func(gaps []plan.Gap) { showGaps(t, gaps) })
		return showResult(t, done, err, wantJSON())
	}
	return cmd
}

// prepare completes the options of an installation.
type prepare func(name string, o *install.Options, p *plan.Plan) error

// addWhere adds the flags that install and uninstall share.
func addWhere(cmd *cobra.Command, root *string, dryRun *bool) {
	cmd.Flags().StringVar(root, "root", defaultRoot, "work below `DIR`, the root of an image")
	cmd.Flags().BoolVar(dryRun, "dry-run", false, "change nothing, and print what would change")
}

func onePlatform(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usagef("name one platform: %s", strings.Join(install.Platforms(), ", "))
	}
	return knownPlatform(args[0])
}

func knownPlatform(name string) error {
	if slices.Contains(install.Platforms(), name) {
		return nil
	}
	if near, ok := policy.Near(name, install.Platforms()); ok {
		return usagef("unknown platform %q; did you mean %s?", name, near)
	}
	return usagef("unknown platform %q; there are %s", name, strings.Join(install.Platforms(), ", "))
}

// prepareInstall reads the policy and the files that options name.
func prepareInstall(t *tui, name string, o *install.Options, only prepare) (*plan.Plan, error) {
	if err := harden.CheckBroker(o.Agent); err != nil {
		return nil, usagef("--agent: %w", err)
	}
	if err := findProgram(o); err != nil {
		return nil, err
	}
	p, warnings, err := deploy.Load(o.Root, o.Policy)
	for _, w := range warnings {
		t.Notef("warning: %v", w)
	}
	if o.Policy == defaultPolicy && errors.Is(err, fs.ErrNotExist) {
		return nil, usagef("there is no policy at %s: put yours there, or name one with --policy, as builtin:baseline", o.Policy)
	}
	if err != nil {
		return nil, err
	}
	o.Before = func(stops []string) {
		for _, stop := range stops {
			t.Notef("stops: %s", stop)
		}
	}
	if err := only(name, o, p); err != nil {
		return nil, err
	}
	if o.BasePath != "" {
		o.Base, err = readInput(o.BasePath, jsontext.Max)
	}
	return p, err
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
		return hosterr.Errorf("find this program: %w; name it with --program", err)
	}
	o.Program = self
	return nil
}

// showResult writes what was done, or why it was not. An error of the command line
// or of the host has no report.
func showResult(t *tui, r *deploy.Result, err error, asJSON bool) error {
	err = installError(err)
	switch {
	case exitStatus(err) > exitNo:
	case asJSON:
		return errors.Join(t.JSON(r), err)
	default:
		r.Text(&t.Printer)
	}
	return err
}

// installError gives an error its exit status.
func installError(err error) error {
	var option *install.OptionError
	if exitStatus(err) != exitHost && errors.As(err, &option) {
		return usagef("%w", err)
	}
	return err
}
