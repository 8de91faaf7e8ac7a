package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/afalg-policy/afalg-policy/internal/install"
)

const uninstallLong = `Uninstall brings back what was there before install: content, mode, owner and
time of each file; files and directories that were not there are removed.

All files are compared first with what was installed. If somebody changed one
since, nothing is touched: the difference is printed, and the exit status is 1.
An install that was interrupted can be taken back too.`

func newUninstall(t *tui) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "uninstall " + strings.Join(install.Platforms(), "|"),
		Short: "Take back what install did",
		Long:  uninstallLong,
		Example: `  afalg-policy uninstall docker --dry-run
  afalg-policy uninstall docker`,
		Args:      onePlatform,
		ValidArgs: install.Platforms(),
	}
	var root string
	var dryRun bool
	addWhere(cmd, &root, &dryRun)
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		r, err := install.Uninstall(args[0], root, dryRun)
		if err != nil {
			return installError(t, err)
		}
		showInstall(t, r, dryRun, "uninstalled")
		return nil
	}
	return cmd
}
