package subject

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/testing/child"
)

// The test binary is every program that these tests start, each a role of it. It
// lies where any user can reach it.
var program string

func TestMain(m *testing.M) {
	child.Main(func() int { return inPublic(m.Run) }, helpers)
}

func inPublic(run func() int) int {
	dir, err := os.MkdirTemp("/var/tmp", "subject-") // never a tmpfs
	if err == nil {
		defer os.RemoveAll(dir)
		err = os.Chmod(dir, 0o755)
	}
	if err == nil {
		program = filepath.Join(dir, "program")
		err = copyFile("/proc/self/exe", program)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "copy the test binary:", err)
		return 1
	}
	return run()
}

func copyFile(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o755)
}

var helpers = map[string]func(args []string) error{
	"wait":    func([]string) error { return wait(unix.Gettid()) },
	"look":    look,
	"thread":  onThread(func([]string) error { return nil }),
	"setns":   onThread(setns),
	"threads": threads,
	"then":    then,
	"memfd":   memfd,
	"fexecve": fexecve,
	"trace":   onThread(trace),
	"name":    onThread(rename),
	"serve":   serveFuse,
}

// wait prints the threads to look at, and stays until stdin ends.
func wait(tids ...int) error {
	line := "ready"
	for _, tid := range tids {
		line += " " + strconv.Itoa(tid)
	}
	fmt.Println(line)
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// onThread runs do on another thread than the main one.
func onThread(do func(args []string) error) func(args []string) error {
	return func(args []string) error {
		failed := make(chan error)
		go func() {
			runtime.LockOSThread()
			err := do(args)
			if err == nil {
				err = wait(unix.Gettid())
			}
			failed <- err
		}()
		return <-failed
	}
}

func threads(args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	var tids []int
	tid := make(chan int)
	for range n {
		go func() {
			runtime.LockOSThread()
			tid <- unix.Gettid()
			select {}
		}()
		tids = append(tids, <-tid)
	}
	return wait(tids...)
}

func setns(args []string) error {
	fd, err := unix.Open(args[0], unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	return unix.Setns(fd, unix.CLONE_NEWNS)
}

// then waits for a byte and becomes another program.
func then(args []string) error {
	fmt.Println("ready", os.Getpid())
	if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
		return err
	}
	return unix.Exec(args[0], args, child.Env("wait"))
}

func memfd([]string) error {
	data, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	fd, err := unix.MemfdCreate("x", unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	if _, err := unix.Write(fd, data); err != nil {
		return err
	}
	return execFD(fd)
}

func fexecve(args []string) error {
	fd, err := unix.Open(args[0], unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return execFD(fd)
}

func execFD(fd int) error {
	return unix.Exec(fmt.Sprintf("/proc/self/fd/%d", fd), []string{"x"}, child.Env("wait"))
}

func trace(args []string) error {
	pid, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	return unix.PtraceSeize(pid)
}

func rename(args []string) error {
	return os.WriteFile(fmt.Sprintf("/proc/self/task/%d/comm", unix.Gettid()), []byte(args[0]), 0)
}

// look is a reader in another process. Its first argument says whether it is
// dumpable; the others are threads to look at, each twice.
func look(args []string) error {
	if args[0] == "hidden" {
		if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
			return err
		}
	}
	whole, err := NewReader(Options{Digests: 8, Units: true})
	if err != nil {
		return err
	}
	defer whole.Close()
	r := whole.Share(nil)
	for _, arg := range args[1:] {
		tid, err := strconv.Atoi(arg)
		if err != nil {
			return err
		}
		first, _ := json.Marshal(r.Look(tid))
		second, _ := json.Marshal(r.Look(tid))
		if !bytes.Equal(first, second) {
			return fmt.Errorf("looks differ: %s and %s", first, second)
		}
		fmt.Println(string(first))
	}
	return nil
}

// started is a running helper.
type started struct {
	pid   int
	tids  []int
	stdin io.WriteCloser
	end   func() // lets it end, and waits for it
}

func (c *started) tid() int { return c.tids[0] }

func command(helper, path string, args ...string) *exec.Cmd {
	cmd := exec.Command(path, args...)
	cmd.Env = append(child.Env(helper), "PATH="+os.Getenv("PATH"))
	cmd.Dir = "/"
	return cmd
}

func start(t testing.TB, cmd *exec.Cmd) *started {
	t.Helper()
	var stderr strings.Builder
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v: %v", cmd, err)
	}
	ended := false
	end := func() {
		if ended {
			return
		}
		ended = true
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %v\n%s", cmd, err, stderr.String())
		}
	}
	t.Cleanup(end)
	c := &started{pid: cmd.Process.Pid, stdin: stdin, end: end, tids: readReady(bufio.NewReader(stdout))}
	if c.tids == nil {
		end()
		t.Fatalf("%v: did not get ready\n%s", cmd, stderr.String())
	}
	return c
}

func readReady(out *bufio.Reader) []int {
	line, _ := out.ReadString('\n')
	fields := strings.Fields(line)
	if len(fields) == 0 || fields[0] != "ready" {
		return nil
	}
	tids := []int{}
	for _, f := range fields[1:] {
		tid, _ := strconv.Atoi(f)
		tids = append(tids, tid)
	}
	return tids
}

// withLibraries is a script that gives a root directory what a test binary
// built with -race needs.
const withLibraries = `for d in usr lib lib64; do mkdir -p "$ROOT/$d"; mount --rbind "/$d" "$ROOT/$d"; done; `

// shellCommand is a script that starts helpers; $SELF is the test binary.
func shellCommand(helper, script string, wrap ...string) *exec.Cmd {
	args := slices.Concat(wrap, []string{"sh", "-euc", script})
	cmd := command(helper, args[0], args[1:]...)
	cmd.Env = append(cmd.Env, "SELF="+program)
	return cmd
}

// untilReady is a script that waits for a helper whose output is the pipe $OUT,
// and fails when that ends first.
const untilReady = `read -r ready <"$OUT" || { echo "$pid did not get ready" >&2; exit 1; }`

// looked runs a reader in another process.
func looked(t *testing.T, cmd *exec.Cmd) []Subject {
	t.Helper()
	out, err := cmd.Output()
	if err != nil {
		if exit, ok := err.(*exec.ExitError); ok {
			err = fmt.Errorf("%w\n%s", err, exit.Stderr)
		}
		t.Fatalf("%v: %v", cmd, err)
	}
	var subjects []Subject
	for d := json.NewDecoder(bytes.NewReader(out)); d.More(); {
		var s Subject
		if err := d.Decode(&s); err != nil {
			t.Fatal(err)
		}
		subjects = append(subjects, s)
	}
	return subjects
}

// beside looks at the program path in a private mount namespace. before
// prepares the namespace, wrap starts the program there, and after changes the
// namespace then.
func beside(t *testing.T, path, before, wrap, after string, env ...string) Subject {
	t.Helper()
	cmd := shellCommand("wait", before+`
		mkfifo "$OUT"
		`+wrap+` <&3 >"$OUT" & pid=$!
		`+untilReady+`
		`+after+`
		TEST_CHILD_ROLE=look "$SELF" plain $pid; kill $pid`, "unshare", "-m")
	reader, writer, err := os.Pipe()
	must(t, err)
	defer reader.Close()
	defer writer.Close()
	cmd.ExtraFiles = []*os.File{reader}
	cmd.Env = append(cmd.Env, "P="+path, "OUT="+publicDir(t)+"/out")
	cmd.Env = append(cmd.Env, env...)
	return looked(t, cmd)[0]
}

func newReader(t testing.TB, o Options) *Share {
	t.Helper()
	return reader(t, o).Share(nil)
}

func reader(t testing.TB, o Options) *Reader {
	t.Helper()
	r, err := NewReader(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// publicDir is a directory that any user can reach.
func publicDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(filepath.Dir(program), "")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// installed copies the test binary to a path of its own.
func installed(t testing.TB) string {
	t.Helper()
	path := filepath.Join(publicDir(t), "subject")
	must(t, copyFile(program, path))
	return path
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

const ordinary = 12345

func as(cmd *exec.Cmd, uid uint32) *exec.Cmd {
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	return cmd
}
