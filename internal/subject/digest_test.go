package subject

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// agedReader treats every change as old enough.
func agedReader(t testing.TB, o Options) *Share {
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
	r := agedReader(t, Options{Digests: 2})
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

// A second change within the tick of the kernel's clock would not show.
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
		{changed.Add(sameStamp), 0},
		{changed.Add(sameStamp + 1), 1},
	} {
		r.digests.now = func() time.Time { return tt.now }
		wantDigest(t, r.Look(c.pid), sha(t, path), "")
		if kept := len(r.digests.sums); kept != tt.kept {
			t.Errorf("%v after the change: %d kept, want %d", tt.now.Sub(changed), kept, tt.kept)
		}
	}
}

// A store through a shared mapping changes a file like any other write. On
// tmpfs it leaves the change time alone, so no digest may be kept there, nor on
// an overlay that writes to one.
func TestStoreThroughMapping(t *testing.T) {
	const memory = "/dev/shm"
	for _, tt := range []struct {
		fs    string
		dir   func(t *testing.T) string
		magic int64
		stamp bool
	}{
		{"tmpfs", func(t *testing.T) string { return tempDir(t, memory) }, unix.TMPFS_MAGIC, false},
		{"disk", func(t *testing.T) string { return tempDir(t, filepath.Dir(program)) }, 0, true},
		{"overlay in memory", func(t *testing.T) string { return overlay(t, memory) }, unix.OVERLAYFS_SUPER_MAGIC, false},
		{"overlay on disk", func(t *testing.T) string { return overlay(t, filepath.Dir(program)) }, unix.OVERLAYFS_SUPER_MAGIC, true},
	} {
		t.Run(tt.fs, func(t *testing.T) {
			r := agedReader(t, Options{Digests: 8})
			dir := tt.dir(t)
			var fs unix.Statfs_t
			must(t, unix.Statfs(dir, &fs))
			if tt.magic != 0 && int64(fs.Type) != tt.magic {
				t.Fatalf("%s has file system type %#x, want %#x", dir, fs.Type, tt.magic)
			}
			path := filepath.Join(dir, "subject")
			must(t, copyFile(program, path))
			appendTo(t, path, "x")
			c := start(t, command("wait", path))
			wantDigest(t, r.Look(c.pid), sha(t, path), "")
			if kept := len(r.digests.sums) > 0; kept != tt.stamp {
				t.Errorf("the digest is kept: %v, want %v", kept, tt.stamp)
			}
			c.end()

			if stamped := storeByte(t, path); stamped != tt.stamp {
				t.Errorf("the store changed the change time: %v, want %v", stamped, tt.stamp)
			}
			c = start(t, command("wait", path))
			wantDigest(t, r.Look(c.pid), sha(t, path), "")
		})
	}
}

// A digest for the records is computed once, where a digest for a rule is
// computed at each look.
func TestRecordedDigest(t *testing.T) {
	path := filepath.Join(tempDir(t, "/dev/shm"), "subject")
	must(t, copyFile(program, path))
	appendTo(t, path, "x")
	c := start(t, command("wait", path))
	for need, kept := range map[Need]int{ToRecord: 1, ToDecide: 0} {
		sh := reader(t, Options{Digests: 8}).Share(func(string) Need { return need })
		sh.digests.now = func() time.Time { return time.Now().Add(time.Minute) }
		wantDigest(t, sh.Look(c.pid), sha(t, path), "")
		if n := len(sh.digests.sums); n != kept {
			t.Errorf("need %d: %d digests are kept, want %d", need, n, kept)
		}
	}
}

func needIf(decides bool) Need {
	if decides {
		return ToDecide
	}
	return NotNeeded
}

func tempDir(t *testing.T, parent string) string {
	t.Helper()
	dir, err := os.MkdirTemp(parent, "subject-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// overlay mounts an overlay whose upper layer is in a directory, and the lower
// one on the same file system.
func overlay(t *testing.T, parent string) string {
	t.Helper()
	dir := tempDir(t, parent)
	path := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"lower", "upper", "work", "merged"} {
		must(t, os.Mkdir(path(name), 0o755))
	}
	must(t, unix.Mount("overlay", path("merged"), "overlay", 0,
		fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", path("lower"), path("upper"), path("work"))))
	t.Cleanup(func() { unix.Unmount(path("merged"), unix.MNT_DETACH) })
	return path("merged")
}

// TestLayers shows that an overlay with unknown options is not trusted.
func TestLayers(t *testing.T) {
	disk := filepath.Dir(program)
	for options, want := range map[string]bool{
		"rw,lowerdir=/a,upperdir=" + disk + ",workdir=/w": true,
		"ro,lowerdir=/a:/b":                           true,
		"rw,lowerdir=/a,upperdir=/dev/shm,workdir=/w": false,
		"rw,lowerdir=/a,upperdir=" + disk + "/none":   false,
		"rw,lowerdir=/a,upperdir=diff,workdir=work":   false,
		`rw,lowerdir=/a,upperdir=` + disk + `\054x`:   false,
		"rw": false,
		"":   false,
	} {
		if got := stampsLayer(options); got != want {
			t.Errorf("%q: %v, want %v", options, got, want)
		}
	}
}

// storeByte reads the last byte, changes it, and reports whether the change
// time changed.
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
		need    func(string) Need
		sum     string
		why     string
	}{
		{"none asked for", Options{}, nil, "", ""},
		{"not wanted", Options{Digests: 1}, func(b string) Need { return needIf(b != path) }, "", ""},
		{"wanted", Options{Digests: 1}, func(b string) Need { return needIf(b == path) }, sha(t, path), ""},
		{"just small enough", Options{Digests: 1, MaxDigest: info.Size()}, nil, sha(t, path), ""},
		{"too large", Options{Digests: 1, MaxDigest: info.Size() - 1}, nil, "",
			fmt.Sprintf("%d bytes, more than the %d that are hashed", info.Size(), info.Size()-1)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			wantDigest(t, reader(t, tt.options).Share(tt.need).Look(c.pid), tt.sum, tt.why)
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
		if sum, err := testDigests().sumOf(fd, size); err != errChanged {
			t.Errorf("a file of %d bytes that should have %d: %q, %v", is.size, size, sum, err)
		}
	}
}

// A change that keeps the size shows only after the last read.
func TestChangeAfterTheFirstRead(t *testing.T) {
	d := testDigests()
	path := filepath.Join(publicDir(t), "exe") // opened as /proc/TID/exe is
	must(t, os.WriteFile(path, nil, 0o600))
	must(t, os.Truncate(path, 256<<20)) // 100 ms at least
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	v, err := stat(fd)
	must(t, err)
	before := bytesRead(t)
	result := make(chan error)
	go func() {
		_, err := d.hash(fd, v.version)
		result <- err
	}()
	waitFor(t, func() bool { return bytesRead(t)-before > 1<<20 })
	must(t, os.Chmod(path, 0o700))
	if err := <-result; err != errChanged {
		t.Errorf("%v, want %v", err, errChanged)
	}
}

func testDigests() *digests {
	p := newPace()
	return newDigests(1, 1<<30, &p)
}

func seekStart(f *os.File) error {
	_, err := f.Seek(0, 0)
	return err
}

// Many looks at one executable read it once.
func TestHashedOnce(t *testing.T) {
	r := agedReader(t, Options{Digests: 2})
	path := installed(t)
	info, err := os.Stat(path)
	must(t, err)
	sum := sha(t, path)
	c := start(t, command("threads", path, "8"))

	r.digests.slot <- struct{}{}
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
	<-r.digests.slot
	group.Wait()
	if read := bytesRead(t) - before; read > info.Size()*3/2 {
		t.Errorf("read %d bytes for a file of %d", read, info.Size())
	}
	if len(r.digests.running) != 0 {
		t.Error("still hashing")
	}
}

// A task may end while it waits for its turn: its executable is open.
func TestHashOfTaskThatEnds(t *testing.T) {
	r := agedReader(t, Options{Digests: 2})
	path := installed(t)
	first, second := start(t, command("wait", path)), start(t, command("wait", path))
	r.digests.slot <- struct{}{}
	looks := make(chan Subject, 2)
	go func() { looks <- r.Look(first.pid) }()
	waitFor(t, func() bool {
		r.digests.mu.Lock()
		defer r.digests.mu.Unlock()
		return len(r.digests.running) == 1
	})
	go func() { looks <- r.Look(second.pid) }()
	time.Sleep(20 * time.Millisecond)
	first.end()
	<-r.digests.slot
	for range 2 {
		wantDigest(t, <-looks, sha(t, path), "")
	}
}

// A look does not wait for ever, and leaves no waiter behind.
func TestNotHashedInTime(t *testing.T) {
	r := agedReader(t, Options{Digests: 2})
	r.digests.patience = 20 * time.Millisecond
	c := start(t, command("wait", program))
	r.digests.slot <- struct{}{}
	before := descriptors(t)
	for range 3 {
		wantDigest(t, r.Look(c.pid), "", errSlow.Error())
	}
	if open := descriptors(t) - before; open != 2 { // of the handle on the task
		t.Errorf("%d descriptors more, want 2", open)
	}
	<-r.digests.slot
	r.digests.patience = time.Minute
	wantDigest(t, r.Look(c.pid), sha(t, program), "")
}

// A glance hashes nothing, and says so.
func TestGlance(t *testing.T) {
	r := agedReader(t, Options{Digests: 2})
	path := installed(t)
	c := start(t, command("wait", path))
	s := r.Glance(c.pid)
	wantDigest(t, s, "", errPending.Error())
	if !s.Pending {
		t.Error("not pending")
	}
	r.Look(c.pid)
	s = r.Glance(c.pid)
	wantDigest(t, s, sha(t, path), "")
	if s.Pending {
		t.Error("pending, and known")
	}
}

// The looks of one share cost another neither its digests, nor its handles, nor
// its turn.
func TestShares(t *testing.T) {
	all := reader(t, Options{Digests: 2})
	later := func() time.Time { return time.Now().Add(time.Minute) }
	mine, other := all.Share(nil), all.Share(nil)
	mine.digests.now, other.digests.now = later, later
	path := installed(t)
	sum := sha(t, path)
	c := start(t, command("wait", path))
	wantDigest(t, mine.Look(c.pid), sum, "")

	many := start(t, command("threads", program, fmt.Sprint(maxTasks+20)))
	for _, tid := range many.tids {
		other.Look(tid)
	}
	flood := installed(t)
	for _, text := range []string{"a", "b", "c"} {
		appendTo(t, flood, text)
		c := start(t, command("wait", flood))
		wantDigest(t, other.Look(c.pid), sha(t, flood), "")
		c.end()
	}
	if mine.kept != 1 || other.kept != maxTasks-1 || len(all.tasks) != maxTasks {
		t.Errorf("%d and %d handles, and %d in all", mine.kept, other.kept, len(all.tasks))
	}
	other.digests.slot <- struct{}{} // it is hashing, and does not end
	wantDigest(t, mine.Glance(c.pid), sum, "")
	again := installed(t)
	wantDigest(t, mine.Look(start(t, command("wait", again)).pid), sha(t, again), "")

	other.Close()
	if other.kept != 0 || len(all.tasks) != mine.kept {
		t.Errorf("closed, and %d handles of %d", other.kept, len(all.tasks))
	}
}
