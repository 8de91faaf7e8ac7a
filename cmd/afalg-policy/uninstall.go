package main

import (
	"github.com/spf13/cobra"

	"github.com/afalg-policy/afalg-policy/internal/deploy"
	"github.com/afalg-policy/afalg-policy/internal/install"
)

const uninstallLong = `Uninstall brings back what was there before install: content, mode, owner and
time of each file; files and directories that were not there are removed.

All files are compared first with what was installed. Of daemon.json,
config.toml and the like that somebody changed since, the keys that were
installed are taken back, and what remains is told. If another file was changed,
or one that cannot be parsed, nothing is touched: the difference is printed, and
the exit status is 1.
Of lsm the policy is taken out of the kernel as well. Sysctls that host set get
the values that they had.
An install that was interrupted can be taken back too. What was proved of
profiles, in /var/cache/afalg-policy, goes with the last platform.`

func newUninstall(t *tui) *cobra.Command {
	cmd := &cobra.Command{
		Use:                   "uninstall PLATFORM",
		DisableFlagsInUseLine: true, // the line is long
		Short:                 "Take back what install did",
		Long:                  uninstallLong,
		Example: `  afalg-policy uninstall docker --dry-run
  afalg-policy uninstall docker`,
		Args:      onePlatform,
		ValidArgs: install.Platforms(),
	}
	var root string
	var dryRun bool
	addWhere(cmd, &root, &dryRun)
	wantJSON := addFormat(cmd)
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		done, err := deploy.Uninstall(args[0], root, dryRun)
		return showResult(t, done, err, wantJSON())
	}
	return cmd
}
