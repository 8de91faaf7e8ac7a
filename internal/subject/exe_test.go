package subject

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/testing/kerneltest"
)

func sha(t testing.TB, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// wantBinary compares the established facts of an executable; why is the reason
// where the path is not established.
func wantBinary(t *testing.T, s Subject, binary string, claimed bool, why string) {
	t.Helper()
	if s.Binary != binary || s.Claimed != claimed || s.Why(Binary) != why {
		t.Errorf("binary %q, claimed %v, because %q\nwant   %q, claimed %v, because %q", s.Binary, s.Claimed, s.Why(Binary), binary, claimed, why)
	}
}

func wantDigest(t *testing.T, s Subject, sum, why string) {
	t.Helper()
	if s.SHA256 != sum || s.Why(Digest) != why {
		t.Errorf("sha256 %q, because %q\nwant   %q, because %q", s.SHA256, s.Why(Digest), sum, why)
	}
}

func TestExecutable(t *testing.T) {
	r := newReader(t, Options{Digests: 8})
	path := installed(t)
	for _, helper := range []string{"wait", "thread"} {
		c := start(t, command(helper, path))
		for range 2 {
			s := r.Look(c.tid())
			wantBinary(t, s, path, false, "")
			wantDigest(t, s, sha(t, path), "")
			if s.TID != c.tid() || s.PID != c.pid || s.Shown != path || s.Tracer != 0 {
				t.Errorf("%s: %+v of process %d", helper, s, c.pid)
			}
			var st unix.Stat_t
			must(t, unix.Stat(path, &st))
			if s.Device != st.Dev || s.Inode != st.Ino {
				t.Errorf("%s: file %d:%d, want %d:%d", helper, s.Device, s.Inode, st.Dev, st.Ino)
			}
		}
	}
}

// TestNames does everything that an ordinary user can do to the name of a
// running program.
func TestNames(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(t *testing.T, path string)
		want   string // after the path of the directory
		why    string
	}{
		{"renamed", func(t *testing.T, path string) { must(t, os.Rename(path, path+"2")) }, "/subject2", ""},
		{"unlinked", func(t *testing.T, path string) { must(t, os.Remove(path)) }, "", "the file has been deleted"},
		{"replaced", func(t *testing.T, path string) {
			must(t, copyFile(program, path+"2"))
			must(t, os.Rename(path+"2", path))
		}, "", "the file has been deleted"},
		{"unlinked, and linked elsewhere", func(t *testing.T, path string) {
			must(t, os.Link(path, path+"2"))
			must(t, os.Remove(path))
		}, "", `open "DIR/subject (deleted)": no such file or directory`},
		{"unlinked, with a decoy", func(t *testing.T, path string) {
			must(t, os.Link(path, path+"2"))
			must(t, os.Remove(path))
			must(t, copyFile(program, path+" (deleted)"))
		}, "", `"DIR/subject (deleted)" is another file by now`},
		{"called deleted", func(t *testing.T, path string) { must(t, os.Rename(path, path+" (deleted)")) }, "/subject (deleted)", ""},
		{"in a directory renamed, with a link in its place", func(t *testing.T, path string) {
			dir := filepath.Dir(path)
			must(t, os.Rename(dir, dir+"2"))
			must(t, os.Symlink(dir+"2", dir))
		}, "2/subject", ""},
		{"linked twice", func(t *testing.T, path string) { must(t, os.Link(path, path+"2")) }, "/subject", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newReader(t, Options{Digests: 8})
			path := installed(t)
			sum, dir := sha(t, path), filepath.Dir(path)
			c := start(t, command("wait", path))
			wantBinary(t, r.Look(c.pid), path, false, "")
			tt.change(t, path)
			want := ""
			if tt.want != "" {
				want = dir + tt.want
			}
			for range 2 {
				s := r.Look(c.pid)
				wantBinary(t, s, want, false, strings.ReplaceAll(tt.why, "DIR", dir))
				wantDigest(t, s, sum, "") // of the executed file, in any case
			}
		})
	}
}

// TestStarts starts a program in every way.
func TestStarts(t *testing.T) {
	r := newReader(t, Options{Digests: 8})
	path := installed(t)
	dir := filepath.Dir(path)
	must(t, os.Symlink(path, dir+"/link"))
	must(t, os.WriteFile(dir+"/script", []byte("#!"+path+"\n"), 0o755))
	loader, err := filepath.EvalSymlinks("/lib64/ld-linux-x86-64.so.2")
	must(t, err)

	for name, c := range map[string]*started{
		"link":    start(t, command("wait", dir+"/link")),
		"script":  start(t, command("wait", dir+"/script")),
		"fexecve": start(t, command("fexecve", program, path)),
	} {
		t.Run(name, func(t *testing.T) { wantBinary(t, r.Look(c.pid), path, false, "") })
	}
	t.Run("loader", func(t *testing.T) {
		c := start(t, command("", loader, "/bin/sh", "-c", "echo ready $$; read x || :"))
		s := r.Look(c.pid)
		wantBinary(t, s, loader, false, "")
		wantDigest(t, s, sha(t, loader), "")
	})
	t.Run("memfd", func(t *testing.T) {
		s := r.Look(start(t, command("memfd", program)).pid)
		wantBinary(t, s, "", false, "the file has been deleted")
		wantDigest(t, s, sha(t, program), "")
		if s.Shown != "/memfd:x (deleted)" {
			t.Errorf("shown as %q", s.Shown)
		}
	})
}

// For a binary format the kernel starts an interpreter, and exe is the
// interpreter.
func TestBinfmt(t *testing.T) {
	kerneltest.NeedOwnRoot(t)
	path := installed(t)
	dir := filepath.Dir(path)
	must(t, os.WriteFile(dir+"/foreign", []byte("AFALG-POLICY-TEST"), 0o755))
	rule := fmt.Sprintf(":afalg-policy-test-%d:M::AFALG-POLICY-TEST::%s:", os.Getpid(), path)
	cmd := shellCommand("wait", `mount -t binfmt_misc binfmt_misc "$DIR"
		name=${RULE#:}; name=${name%%:*}
		echo "$RULE" >"$DIR/register"
		trap 'echo -1 >"$DIR/$name"' EXIT
		"$FOREIGN"`, "unshare", "-m")
	mnt := publicDir(t)
	cmd.Env = append(cmd.Env, "DIR="+mnt, "RULE="+rule, "FOREIGN="+dir+"/foreign")
	c := start(t, cmd)
	wantBinary(t, newReader(t, Options{}).Look(c.tid()), path, true, "")
}

// In the reader's mount namespace, the path must lead to the very same mount.
func TestMounts(t *testing.T) {
	for _, tt := range []struct{ name, script, why string }{
		{"untouched", "", ""},
		{"another file over the file", `mount --bind "$OTHER" "$P"`, `"PATH" is another file by now`},
		{"the file over itself", `mount --bind "$P" "$P"`, `"PATH" is another file by now`},
		{"a file system over the directory", `mount -t tmpfs tmpfs "${P%/*}"`, `open "PATH": no such file or directory`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := installed(t)
			s := beside(t, path, "", `"$P"`, tt.script, "OTHER="+installed(t))
			want := path
			if tt.why != "" {
				want = ""
			}
			wantBinary(t, s, want, false, strings.ReplaceAll(tt.why, "PATH", path))
			wantDigest(t, s, sha(t, program), "")
		})
	}
}

// In a mount namespace of its own, such as a container's, the path is a claim;
// the digest is not.
func TestOtherMountNamespace(t *testing.T) {
	kerneltest.NeedOwnRoot(t)
	r := newReader(t, Options{Digests: 8})
	path := installed(t)
	var fake string
	run := func(t *testing.T, script string, wrap ...string) (*started, Subject) {
		t.Helper()
		fake = installed(t)
		f, err := os.OpenFile(fake, os.O_APPEND|os.O_WRONLY, 0)
		must(t, err)
		_, err = f.WriteString("fake")
		must(t, err)
		must(t, f.Close())
		cmd := shellCommand("wait", script, wrap...)
		cmd.Env = append(cmd.Env, "P="+path, "FAKE="+fake, "ROOT="+publicDir(t))
		c := start(t, cmd)
		return c, r.Look(c.tid())
	}

	t.Run("same file", func(t *testing.T) {
		_, s := run(t, `exec "$P"`, "unshare", "-m")
		wantBinary(t, s, path, true, "")
		wantDigest(t, s, sha(t, path), "")
	})
	t.Run("fake over the name, by an ordinary user", func(t *testing.T) {
		_, s := run(t, `mount --bind "$FAKE" "$P"; exec "$P"`, "setpriv", "--reuid=12345", "--regid=12345", "--clear-groups", "unshare", "-Urm")
		wantBinary(t, s, path, true, "")
		wantDigest(t, s, sha(t, fake), "")
	})
	t.Run("root of its own", func(t *testing.T) {
		_, s := run(t, `mount -t tmpfs tmpfs "$ROOT"; mkdir "$ROOT/old" "$ROOT/bin"; cp "$FAKE" "$ROOT/bin/p"; `+withLibraries+`
			cd "$ROOT"; pivot_root . old; exec /bin/p`, "unshare", "-m")
		wantBinary(t, s, "/bin/p", true, "")
		wantDigest(t, s, sha(t, fake), "")
	})
	t.Run("root moved, as systemd does", func(t *testing.T) {
		_, s := run(t, `mount -t tmpfs tmpfs "$ROOT"; mkdir "$ROOT/bin"; cp "$FAKE" "$ROOT/bin/p"; `+withLibraries+`
			cd "$ROOT"; mount --move . /; exec chroot . /bin/p`, "unshare", "-m")
		wantBinary(t, s, "/bin/p", true, "")
	})
	t.Run("chroot in it", func(t *testing.T) {
		_, s := run(t, `mkdir "$ROOT/bin"; cp "$FAKE" "$ROOT/bin/p"; `+withLibraries+`exec chroot "$ROOT" /bin/p`, "unshare", "-m")
		if want := "its root is "; s.Binary != "" || !strings.HasPrefix(s.Why(Binary), want) {
			t.Errorf("binary %q, because %q", s.Binary, s.Why(Binary))
		}
		wantDigest(t, s, sha(t, fake), "")
	})
	t.Run("mount detached", func(t *testing.T) {
		_, s := run(t, `mount -t tmpfs tmpfs "$ROOT"; cp "$FAKE" "$ROOT/p"; cd "$ROOT"; umount -l "$ROOT"; exec ./p`, "unshare", "-m")
		wantBinary(t, s, "", false, `open "/p": no such file or directory`)
	})
	t.Run("entered after the start", func(t *testing.T) {
		other, _ := run(t, `exec "$P"`, "unshare", "-m")
		c := start(t, command("setns", path, fmt.Sprintf("/proc/%d/ns/mnt", other.pid)))
		wantBinary(t, r.Look(c.tid()), path, true, "")
		wantBinary(t, r.Look(c.pid), path, false, "") // the other threads did not move
	})
	t.Run("left after the start", func(t *testing.T) {
		cmd := shellCommand("setns", `mount --bind "$FAKE" "$P"; exec "$P" "/proc/$READER/ns/mnt"`, "unshare", "-m")
		cmd.Env = append(cmd.Env, "P="+path, "FAKE="+fake, fmt.Sprintf("READER=%d", os.Getpid()))
		wantBinary(t, r.Look(start(t, cmd).tid()), "", false, fmt.Sprintf("%q is another file by now", path))
	})
}

// In a chroot of the reader's mount namespace the path is as the reader sees
// it; in a user namespace of its own a process may have set its exe.
func TestChroot(t *testing.T) {
	kerneltest.NeedOwnRoot(t)
	path := installed(t)
	root := "ROOT=" + filepath.Dir(path)
	wantBinary(t, beside(t, path, withLibraries, `chroot "$ROOT" /subject`, "", root), path, false, "")
	s := beside(t, path, withLibraries, `setpriv --reuid=12345 --regid=12345 --clear-groups unshare -Ur chroot "$ROOT" /subject`, "", root)
	wantBinary(t, s, path, true, "")
}

func TestWalkFollowsNoLink(t *testing.T) {
	path := installed(t)
	dir := filepath.Dir(path)
	must(t, os.Symlink(dir, dir+"2"))
	must(t, os.Symlink(path, path+"2"))
	root, err := unix.Open("/", unix.O_PATH|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(root)
	for _, at := range []int{unix.AT_FDCWD, root} {
		if _, err := walk(at, path); err != nil {
			t.Error(err)
		}
		for _, p := range []string{dir + "2/subject", path + "2", "/proc/self/exe"} {
			want := fmt.Sprintf("open %q: too many levels of symbolic links", p)
			if _, err := walk(at, p); err == nil || err.Error() != want {
				t.Errorf("%v\nwant %s", err, want)
			}
		}
	}
}

func TestTraced(t *testing.T) {
	r := newReader(t, Options{Digests: 8})
	c := start(t, command("wait", program))
	wantBinary(t, r.Look(c.pid), program, false, "")
	tracer := start(t, command("trace", program, fmt.Sprint(c.pid)))
	s := r.Look(c.pid)
	why := fmt.Sprintf("traced by thread %d", tracer.tid())
	wantBinary(t, s, "", false, why)
	wantDigest(t, s, "", why)
	if s.Tracer != tracer.tid() || s.Shown != program {
		t.Errorf("%+v, traced by %d", s, tracer.tid())
	}
	tracer.end()
	wantBinary(t, r.Look(c.pid), program, false, "")
}

// An execve between two looks keeps the number and changes the program.
func TestExecBetweenLooks(t *testing.T) {
	r := newReader(t, Options{Digests: 8})
	path := installed(t)
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteString("other")
	must(t, err)
	must(t, f.Close())
	c := start(t, command("then", program, path))
	wantBinary(t, r.Look(c.pid), program, false, "")
	_, err = c.stdin.Write([]byte("x"))
	must(t, err)
	waitFor(t, func() bool { return r.Look(c.pid).Shown == path })
	s := r.Look(c.pid)
	wantBinary(t, s, path, false, "")
	wantDigest(t, s, sha(t, path), "")
}
