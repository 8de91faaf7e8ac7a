package main

import (
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/afalg-policy/afalg-policy/internal/install"
)

const statusLong = `Status looks at each platform of this host, or at those that are named:

  installed  yes, no, changed (a file is not as it was installed), interrupted
  active     whether what runs uses it: the daemon was restarted since, and no
             container keeps a runtime that passes by the wrapper (docker)
  proved     whether a container is closed: one is started, with this program
             alone in it, no network and the platform's defaults, and "probe"
             is run inside. It is removed afterwards

Each answer that is not yes comes with its reason on standard error. The exit
status is 0 if all answers are yes, 1 if not, and 3 if a platform that was named
is not on this host. With --no-prove no container is started.`

func newStatus(t *tui) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status [PLATFORM]...",
		Short: "Tell whether the policy is installed, active and proved",
		Long:  statusLong,
		Example: `  afalg-policy status
  afalg-policy status docker podman --json
  afalg-policy status --no-prove`,
		ValidArgs: install.Platforms(),
	}
	noProve := cmd.Flags().Bool("no-prove", false, "start no containers")
	wantJSON := addFormat(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		self, err := os.Executable()
		if err != nil {
			return hostError("find this program: %w", err)
		}
		all, err := install.Check(cmd.Context(), install.StatusOptions{Platforms: args, Prove: !*noProve, Program: self})
		if err != nil {
			return installError(t, err)
		}
		return showStatus(t, all, wantJSON())
	}
	return cmd
}

func showStatus(t *tui, all []install.Status, asJSON bool) error {
	good := len(all) > 0
	var rows [][]string
	for _, s := range all {
		good = good && s.OK()
		rows = append(rows, []string{s.Platform, string(s.Installed), string(s.Active), string(s.Proved), dash(strings.Join(s.Restart, " "))})
	}
	if asJSON {
		if all == nil {
			all = []install.Status{}
		}
		if err := t.json(all); err != nil {
			return err
		}
	} else {
		t.table([]string{"platform", "installed", "active", "proved", "restart"}, rows)
		for _, s := range all {
			for _, reason := range s.Reasons {
				t.notef("%s: %s", s.Platform, reason)
			}
		}
		if len(all) == 0 {
			t.notef("no platform was found: %s", strings.Join(install.Platforms(), ", "))
		}
	}
	if !good {
		return errNo
	}
	return nil
}
