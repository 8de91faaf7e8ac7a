package subject

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// settledReader takes every change for old enough.
func settledReader(t testing.TB, o Options) *Reader {
	r := newReader(t, o)
	r.digests.now = func() time.Time { return time.Now().Add(time.Minute) }
	return r
}

func appendTo(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteString(text)
	must(t, err)
	must(t, f.Close())
}

func TestDigestIsKept(t *testing.T) {
	r := settledReader(t, Options{Digests: 2})
	path := installed(t)
	for _, text := range []string{"", "a", "b", "c"} { // more states than are kept
		appendTo(t, path, text)
		c := start(t, command("wait", path))
		before := bytesRead(t)
		wantDigest(t, r.Look(c.pid), sha(t, path), "")
		once := bytesRead(t) - before
		before = bytesRead(t)
		wantDigest(t, r.Look(c.pid), r.Look(c.pid).SHA256, "")
		if again := bytesRead(t) - before; again > once/100 {
			t.Errorf("two looks more read %d bytes, the first %d", again, once)
		}
		c.end()
	}
	if len(r.digests.sums) != 2 || len(r.digests.order) != 2 {
		t.Errorf("%d digests kept, in an order of %d", len(r.digests.sums), len(r.digests.order))
	}
	for _, v := range r.digests.order {
		if r.digests.sums[v] == "" {
			t.Errorf("no digest of %v", v)
		}
	}
}

func bytesRead(t *testing.T) int64 {
	t.Helper()
	text, err := os.ReadFile("/proc/self/io")
	must(t, err)
	var n int64
	_, err = fmt.Sscanf(string(text), "rchar: %d", &n)
	must(t, err)
	return n
}

// Within the tick of the kernel's clock a second change would not show.
func TestYoungDigestIsNotKept(t *testing.T) {
	r := newReader(t, Options{Digests: 2})
	path := installed(t)
	var st unix.Stat_t
	must(t, unix.Stat(path, &st))
	changed := time.Unix(st.Ctim.Unix())
	c := start(t, command("wait", path))
	for _, tt := range []struct {
		now  time.Time
		kept int
	}{
		{changed.Add(-time.Hour), 0}, // the clock was set back
		{changed, 0},
		{changed.Add(settle), 0},
		{changed.Add(settle + 1), 1},
	} {
		r.digests.now = func() time.Time { return tt.now }
		wantDigest(t, r.Look(c.pid), sha(t, path), "")
		if kept := len(r.digests.sums); kept != tt.kept {
			t.Errorf("%v after the change: %d kept, want %d", tt.now.Sub(changed), kept, tt.kept)
		}
	}
}

// A store through a shared mapping changes a file like any other write. On
// tmpfs it leaves the change time alone, so nothing may be kept there.
func TestStoreThroughMapping(t *testing.T) {
	for _, tt := range []struct {
		fs    string
		dir   string
		magic int64
		stamp bool
	}{
		{"tmpfs", "/dev/shm", unix.TMPFS_MAGIC, false},
		{"disk", filepath.Dir(program), 0, true},
	} {
		t.Run(tt.fs, func(t *testing.T) {
			var fs unix.Statfs_t
			must(t, unix.Statfs(tt.dir, &fs))
			if tt.magic != 0 && int64(fs.Type) != tt.magic {
				t.Fatalf("%s has file system type %#x, want %#x", tt.dir, fs.Type, tt.magic)
			}
			dir, err := os.MkdirTemp(tt.dir, "subject-")
			must(t, err)
			t.Cleanup(func() { os.RemoveAll(dir) })
			path := filepath.Join(dir, "subject")
			must(t, copyFile(program, path))
			appendTo(t, path, "x")
			r := settledReader(t, Options{Digests: 8})
			c := start(t, command("wait", path))
			wantDigest(t, r.Look(c.pid), sha(t, path), "")
			c.end()

			if stamped := storeByte(t, path); stamped != tt.stamp {
				t.Errorf("the store changed the change time: %v, want %v", stamped, tt.stamp)
			}
			c = start(t, command("wait", path))
			wantDigest(t, r.Look(c.pid), sha(t, path), "")
		})
	}
}

// storeByte changes the last byte, after it read it, and tells whether the
// change time changed.
func storeByte(t *testing.T, path string) bool {
	t.Helper()
	time.Sleep(20 * time.Millisecond) // a tick
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	before, err := stat(int(f.Fd()))
	must(t, err)
	data, err := unix.Mmap(int(f.Fd()), 0, int(before.size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, err)
	data[len(data)-1] += 1
	must(t, unix.Munmap(data))
	after, err := stat(int(f.Fd()))
	must(t, err)
	return after.version != before.version
}

func TestNoDigest(t *testing.T) {
	path := installed(t)
	c := start(t, command("wait", path))
	info, err := os.Stat(path)
	must(t, err)
	for _, tt := range []struct {
		name    string
		options Options
		sum     string
		why     string
	}{
		{"none asked for", Options{}, "", ""},
		{"not wanted", Options{Digests: 1, Wanted: func(b string) bool { return b != path }}, "", ""},
		{"wanted", Options{Digests: 1, Wanted: func(b string) bool { return b == path }}, sha(t, path), ""},
		{"just small enough", Options{Digests: 1, MaxDigest: info.Size()}, sha(t, path), ""},
		{"too large", Options{Digests: 1, MaxDigest: info.Size() - 1}, "",
			fmt.Sprintf("%d bytes, more than the %d that are hashed", info.Size(), info.Size()-1)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			wantDigest(t, newReader(t, tt.options).Look(c.pid), tt.sum, tt.why)
		})
	}
}

func TestChangeWhileReading(t *testing.T) {
	path := installed(t)
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	fd := int(f.Fd())
	is, err := stat(fd)
	must(t, err)
	must(t, same(fd, is.version))
	other := is.version
	other.changed.nsec++
	if err := same(fd, other); err != errChanged {
		t.Errorf("another change time: %v", err)
	}
	for _, size := range []uint64{is.size - 1, is.size + 1, 0} {
		must(t, seekStart(f))
		if sum, err := sumOf(fd, size); err != errChanged {
			t.Errorf("a file of %d bytes that should have %d: %q, %v", is.size, size, sum, err)
		}
	}
}

// A change that leaves the size alone shows after the last read only.
func TestChangeAfterTheFirstRead(t *testing.T) {
	d := newDigests(1, 1<<30)
	path := filepath.Join(publicDir(t), "exe") // opened as /proc/TID/exe is
	must(t, os.WriteFile(path, nil, 0o600))
	must(t, os.Truncate(path, 256<<20)) // 100 ms at the least
	dir, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(dir)
	v, err := statAt(dir, "exe", 0)
	must(t, err)
	before := bytesRead(t)
	result := make(chan error)
	go func() {
		_, err := d.hash(dir, v.version)
		result <- err
	}()
	waitFor(t, func() bool { return bytesRead(t)-before > 1<<20 })
	must(t, os.Chmod(path, 0o700))
	if err := <-result; err != errChanged {
		t.Errorf("%v, want %v", err, errChanged)
	}
}

func seekStart(f *os.File) error {
	_, err := f.Seek(0, 0)
	return err
}

// Many looks at one executable read it once.
func TestHashedOnce(t *testing.T) {
	r := settledReader(t, Options{Digests: 2})
	path := installed(t)
	info, err := os.Stat(path)
	must(t, err)
	sum := sha(t, path)
	c := start(t, command("threads", path, "8"))

	for range hashers {
		r.digests.slots <- struct{}{}
	}
	before := bytesRead(t)
	var group sync.WaitGroup
	for _, tid := range c.tids {
		group.Go(func() {
			if s := r.Look(tid); s.SHA256 != sum {
				t.Errorf("sha256 %q, because %q", s.SHA256, s.Why(Digest))
			}
		})
	}
	waitFor(t, func() bool {
		r.digests.mu.Lock()
		defer r.digests.mu.Unlock()
		return len(r.digests.running) == 1
	})
	for range hashers {
		<-r.digests.slots
	}
	group.Wait()
	if read := bytesRead(t) - before; read > info.Size()*3/2 {
		t.Errorf("read %d bytes for a file of %d", read, info.Size())
	}
	if len(r.digests.running) != 0 {
		t.Error("still hashing")
	}
}

// One that waits for the digest of a task that goes away reads it from its own.
func TestHashOfTaskThatEnds(t *testing.T) {
	r := settledReader(t, Options{Digests: 2})
	path := installed(t)
	first, second := start(t, command("wait", path)), start(t, command("wait", path))
	for range hashers {
		r.digests.slots <- struct{}{}
	}
	looks := make(chan Subject, 2)
	go func() { looks <- r.Look(first.pid) }()
	waitFor(t, func() bool {
		r.digests.mu.Lock()
		defer r.digests.mu.Unlock()
		return len(r.digests.running) == 1
	})
	first.end()
	go func() { looks <- r.Look(second.pid) }()
	time.Sleep(20 * time.Millisecond)
	for range hashers {
		<-r.digests.slots
	}
	for range 2 {
		s := <-looks
		switch {
		case s.TID == second.pid:
			wantDigest(t, s, sha(t, path), "")
		case s.SHA256 != "" || !strings.HasPrefix(s.Why(Digest), "open exe: no such "):
			t.Errorf("of a task that is gone: %q, because %q", s.SHA256, s.Why(Digest))
		}
	}
}
