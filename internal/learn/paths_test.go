package learn

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// By paths alone, two digests of a path are one executable, and none is no
// obstacle.
func TestPaths(t *testing.T) {
	r := &Recorder{Paths: true}
	r.Bound(use("/bin/a", hexA, "hash:sha1"))
	r.Bound(use("/bin/a", hexA, "hash:md5"))
	r.Used(use("/bin/a", hexB, "hash:sha1"))
	r.Used(use("/bin/a", "", "hash:sha256"))
	r.Used(use("", "", "hash:sha256"))
	want := `# Learned from recorded uses. Read it before you use it: it allows every use during the
# recording, intended or not, and denies all others.
# No rule can stand for these, they are denied:
# - hash:sha256 by an unknown executable, 1 time: the executable is not known
# Bound and never used, so these are denied. If a program then misses one, add it to its rule:
# - hash:md5 by "/bin/a"
version: 1
name: p
allow:
  - rule: a
    binaries:
      - path: /bin/a
    algorithms:
      hash: [sha1, sha256]
`
	if d := cmp.Diff(want, string(r.File("p", ""))); d != "" {
		t.Error(d)
	}
	load(t, r)
}
