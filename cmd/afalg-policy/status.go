package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/afalg-policy/afalg-policy/internal/deploy"
	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/install"
	"github.com/afalg-policy/afalg-policy/internal/report"
)

const statusLong = `Status looks at each platform of this host, or at those that are named:

  policy     whether the policy that was installed can be read as it is now
  installed  yes, no, changed (a file is not as it was installed), interrupted
  active     whether what runs uses it: the daemon was restarted since, and no
             container keeps a runtime that passes by the wrapper (docker); each
             service has the list of its drop-in, and runs since then (systemd);
             the kernel decides by the policy (lsm), or records by it, as it was
             installed to: audit; no module that is refused is loaded, modprobe
             refuses it, sysctls have their values, and the kernel was started
             with its arguments (host)
  agent      whether containers that are granted something find the agent; not
             needed if the policy grants nothing
  probed     whether a container is closed: one is started, with this program
             alone in it, no network and the platform's defaults, and "probe" is
             run inside. It is removed afterwards. For systemd it is a service,
             for lsm a process of nobody, for host a bind of each type of
             algorithms that it closes

Each answer that is not yes comes with its reason on standard error. A platform
that is here and was never installed is a remark, unless it is named. The exit
status is 0 if something is installed and all other answers are yes or audit, 1
if not, and 3 if a platform that was named is not on this host. With --no-probe
no container is started.`

func newStatus(t *tui) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status [PLATFORM]...",
		Short: "Tell whether the policy is installed, active and probed",
		Long:  statusLong,
		Example: `  afalg-policy status
  afalg-policy status docker podman --json
  afalg-policy status --no-probe`,
		ValidArgs: install.Platforms(),
	}
	noProbe := cmd.Flags().Bool("no-probe", false, "start no containers")
	wantJSON := addFormat(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		for _, name := range args {
			if err := knownPlatform(name); err != nil {
				return err
			}
		}
		self, err := os.Executable()
		if err != nil {
			return hosterr.Errorf("find this program: %w", err)
		}
		all, err := deploy.Status(cmd.Context(), install.StatusOptions{Platforms: args, Probe: !*noProbe, Program: self})
		if err != nil {
			return installError(err)
		}
		return showStatus(t, all, wantJSON())
	}
	return cmd
}

func showStatus(t *tui, all []install.Status, asJSON bool) error {
	r := report.NewStatus(all)
	return t.answer(r, asJSON, r.Verdict == report.Yes)
}
