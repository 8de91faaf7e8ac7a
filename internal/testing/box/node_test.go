//go:build vm

package box

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/afalg-policy/afalg-policy/internal/testing/machine/wire"
)

// A node starts containers within limits, and leaves no cgroup behind.
func TestBoxNode(t *testing.T) {
	var b *box
	t.Run("box", func(t *testing.T) {
		m, shared := StartNode(t)
		b = &box{name: "afalg-policy-" + filepath.Base(shared), shared: shared}
		m.Output(t, "sh", "-c", `set -e
for controller in cpu memory pids; do
  dir=$(echo /sys/fs/cgroup/$controller); [ -d $dir ] || dir=/sys/fs/cgroup
  mkdir -p $dir/box-test/nested
  [ -e $dir/box-test/nested/cgroup.procs ]
done`)
		m.Output(t, "touch", wire.BoxDir+"/here")
		if _, err := os.Stat(shared + "/here"); err != nil {
			t.Error(err)
		}
	})
	for what, seen := range traces(t, b) {
		if seen {
			t.Errorf("the box left a %s", what)
		}
	}
}
