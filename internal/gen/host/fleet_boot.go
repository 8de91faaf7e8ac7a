package host

import (
	"fmt"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/gen"
)

// grubPath is read by Debian's and Ubuntu's update-grub.
const grubPath = "etc/default/grub.d/afalg-policy.cfg"

// grubFile adds arguments to those that GRUB gives each kernel. It is read by a
// shell, as whose words carried.check has checked the arguments.
func grubFile(arguments []string) gen.File {
	text := fmt.Sprintf("# Read by update-grub. To undo: remove this file, run update-grub, reboot.\nGRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX %s\"\n",
		strings.Join(arguments, " "))
	return gen.File{Path: grubPath, Data: []byte(text)}
}

// tellBootLoader gives the arguments of a shell to the tool of the boot loader.
// grubby may keep one argument of a name, so another value is not replaced.
const tellBootLoader = `set -eu
if command -v grubby >/dev/null; then
  for argument; do
    others=$(grubby --info=ALL | grep -o "${argument%%=*}=[^ \"]*" | grep -vxF -e "$argument" || true)
    if [ -n "$others" ]; then
      echo "afalg-policy: a kernel has $others already: give it $argument as well, by hand" >&2
      exit 1
    fi
    grubby --update-kernel=ALL --args="$argument"
  done
elif command -v update-grub >/dev/null; then
  update-grub
else
  echo "afalg-policy: neither grubby nor update-grub is here: add to the kernel's arguments, by hand: $*" >&2
  exit 1
fi
`
