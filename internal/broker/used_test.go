package broker_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// copyOf is this program at another path.
func copyOf(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// An algorithm is used once an operation socket is handed out, by the callers
// that bound it, set a key, and accepted. A bind alone uses nothing.
func TestUsed(t *testing.T) {
	var say shared[error]
	f := serve(t, func(s *setup) { s.digests, s.everyDigest, s.crypto.onAccept = 8, true, say.get })
	expect := func(what string, want ...string) {
		t.Helper()
		got := f.takeUsed()
		// An accept is answered before it is reported.
		for end := time.Now().Add(time.Minute); len(got) < len(want) && time.Now().Before(end); {
			got = append(got, f.takeUsed()...)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: -want +got:\n%s", what, d)
		}
	}
	me, sum := filepath.Base(executable(t)), " "+digest(t)
	fd := f.bound()
	f.bind(f.placeholder(), "hash", "md5")
	expect("binds")

	other := f.spawn(fd)
	other.exec(copyOf(t, "keys"))
	if errno := other.setKey(fdPassed, []byte("key")); errno != 0 {
		t.Errorf("setsockopt: %v", errno)
	}
	expect("a key")
	say.set(unix.ENOKEY)
	if _, errno := f.accept(fd, 0); errno != unix.ENOKEY {
		t.Errorf("accept: %v", errno)
	}
	expect("an accept that the kernel refused")
	say.set(nil)
	f.checkOperation(&f.proc, fd)
	expect("an accept", "hash:sha256 by "+me+sum, "hash:sha256 by keys"+sum)
	other.exec(copyOf(t, "accepts"))
	f.checkOperation(other, fdPassed)
	expect("an accept by another", "hash:sha256 by "+me+sum, "hash:sha256 by keys"+sum, "hash:sha256 by accepts"+sum)

	f.bind(fd, "skcipher", "cbc(aes)")
	expect("a second bind")
	f.checkOperation(other, fdPassed)
	expect("who used it before", "skcipher:cbc(aes) by "+me+sum, "skcipher:cbc(aes) by accepts"+sum)
}
