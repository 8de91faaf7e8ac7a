package probe

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/kernel"
	"github.com/afalg-policy/afalg-policy/internal/testing/kerneltest"
)

// The test binary is its own prober, and the process that gets a filter.
const (
	roleAnswer   = "answer"   // questions
	roleProbe    = "probe"    // routes
	roleFiltered = "filtered" // filter, routes
)

func TestMain(m *testing.M) {
	if len(os.Args) < 2 {
		os.Exit(m.Run())
	}
	var err error
	switch os.Args[1] {
	case roleAnswer:
		err = Answer(os.Args[2:], os.Stdout)
	case roleProbe:
		err = runProbe(os.Args[2:], os.Stdout)
	case roleFiltered:
		err = runFiltered(os.Args[2:])
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
}

// runProbe probes the routes named and prints the report.
func runProbe(routes []string, out io.Writer) error {
	opt := Options{Child: []string{roleAnswer}, Timeout: 3 * time.Minute}
	for _, r := range routes {
		if c, ok := testClasses[r]; ok {
			c.Name = r
			opt.Classes = append(opt.Classes, c)
			continue
		}
		opt.Routes = append(opt.Routes, afalg.Route(r))
	}
	report, err := Run(context.Background(), opt)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(report)
}

// probed starts a role of the test binary and reads its report.
func probed(t *testing.T, args ...string) Report {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var out, diagnosis bytes.Buffer
	cmd := exec.Command(self, args...)
	cmd.Stdout, cmd.Stderr = &out, &diagnosis
	if err := cmd.Run(); err != nil {
		t.Fatalf("%q: %v\n%s", args, err, diagnosis.String())
	}
	return readReport(t, out.Bytes())
}

func readReport(t *testing.T, data []byte) Report {
	t.Helper()
	var report Report
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&report); err != nil {
		t.Fatalf("%v in %s", err, data)
	}
	return report
}

// want is a test's expectation of a route.
type want struct {
	verdict        Verdict
	errno, control string
	filter         Filter
}

func (o Outcome) want() want { return want{o.Verdict, o.Errno, o.Control, o.Filter} }

// passing is the expectation of a route on this host that no filter stops.
func passing(r Report) want {
	switch r.AFALG.State {
	case kernel.Absent:
		return want{Absent, "EAFNOSUPPORT", "ok", Passes}
	case kernel.Builtin, kernel.Loaded:
		return want{Open, "", "ok", Passes}
	}
	return want{Loadable, "", "ok", Passes}
}

func denied(errno, control string) want { return want{Closed, errno, control, Denies} }

// find returns the outcome for "route" or "route/call".
func find(t *testing.T, r Report, name string) Outcome {
	t.Helper()
	route, call, isCall := strings.Cut(name, "/")
	for _, x := range r.Routes {
		if string(x.Route) != route {
			continue
		}
		if !isCall {
			return x.Outcome
		}
		for _, c := range x.Calls {
			if c.Call == call {
				return c.Outcome
			}
		}
	}
	t.Fatalf("the report has no %q", name)
	return Outcome{}
}

var passes = want{verdict: "as on this host"}

// TestFilters puts real filters on a process and has it probed.
func TestFilters(t *testing.T) {
	for _, tt := range []struct {
		filter string
		want   map[string]want
	}{
		{"none", map[string]want{
			"socket": passes, "socket-highbits": passes, "compat-socket": passes, "compat-socketcall": passes,
			"io_uring/io_uring": passes, "io_uring/io_uring SQPOLL": passes, "io_uring/i386 io_uring": passes,
			"inherited": {Closed, "", "ok", Uncertain},
		}},
		{"complete", map[string]want{
			"socket":                            denied("EAFNOSUPPORT", "ok"),
			"socket-highbits":                   denied("EAFNOSUPPORT", "ok"),
			"compat-socket":                     denied("EAFNOSUPPORT", "ok"),
			"compat-socketcall":                 denied("EAFNOSUPPORT", "EAFNOSUPPORT"),
			"socketpair/socketpair(38)":         denied("EAFNOSUPPORT", "ok"),
			"socketpair/socketpair(38|0x7<<32)": denied("EAFNOSUPPORT", "ok"),
			"socketpair/i386 socketpair(38)":    denied("EAFNOSUPPORT", "ok"),
			"socketpair/i386 socketcall(8)":     denied("EAFNOSUPPORT", "EAFNOSUPPORT"),
			"io_uring/io_uring":                 denied("ENOSYS", "ENOSYS"),
			"io_uring/io_uring SQPOLL":          denied("ENOSYS", "ENOSYS"),
			"io_uring/i386 io_uring":            denied("EPERM", "EPERM"),
			"io_uring/i386 io_uring SQPOLL":     denied("EPERM", "EPERM"),
		}},
		{"64-bit-comparison", map[string]want{
			"socket": denied("EAFNOSUPPORT", "ok"), "socket-highbits": passes,
		}},
		{"kill-process", map[string]want{
			"socket": denied("SIGSYS", "ok"), "socket-highbits/socket(38|0xffffffff<<32)": denied("SIGSYS", "ok"), "compat-socket": passes,
		}},
		{"kill-thread", map[string]want{"socket": denied("SIGSYS", "ok"), "compat-socket": passes}},
		{"trap", map[string]want{"socket": denied("SIGSYS", "ok"), "compat-socket": passes}},
		{"no-i386", map[string]want{
			"socket": passes, "compat-socket": denied("SIGSYS", "SIGSYS"), "compat-socketcall": denied("SIGSYS", "SIGSYS"),
			"io_uring/io_uring": passes, "io_uring/i386 io_uring": denied("SIGSYS", "SIGSYS"),
		}},
		{"i386-enosys", map[string]want{"compat-socket": denied("ENOSYS", "ENOSYS"), "compat-socketcall": denied("ENOSYS", "ENOSYS")}},
		{"no-sockets", map[string]want{"socket": denied("EPERM", "EPERM"), "socketpair/socketpair(38)": passes}},
		{"unix-only", map[string]want{"socket": denied("EAFNOSUPPORT", "ok")}},
		// A ring whose thread submits needs no io_uring_enter.
		{"enter-only", map[string]want{
			"io_uring/io_uring": denied("EPERM", "EPERM"), "io_uring/io_uring SQPOLL": passes, "io_uring": passes,
		}},
		{"out-of-descriptors", map[string]want{"socket": {Undecided, "EMFILE", "ok", Uncertain}}},
		{"blind", map[string]want{"inherited": {Undecided, "", "EPERM", Uncertain}}},
	} {
		t.Run(tt.filter, func(t *testing.T) {
			routes := map[string]bool{}
			for name := range tt.want {
				route, _, _ := strings.Cut(name, "/")
				routes[route] = true
			}
			report := probed(t, append([]string{roleFiltered, tt.filter}, slices.Sorted(maps.Keys(routes))...)...)
			checkOutcomes(t, report, tt.want)
			if tt.filter != "none" && (report.Seccomp.Mode != "filter" || report.Seccomp.Filters < 1) {
				t.Errorf("seccomp: %+v", report.Seccomp)
			}
		})
	}
}

// checkOutcomes compares outcomes by their names. Where the kernel runs no
// 32-bit code, no filter is asked about i386 calls, and they are unavailable.
func checkOutcomes(t *testing.T, report Report, wanted map[string]want) {
	t.Helper()
	i386 := map[string]want{}
	for name, want := range wanted {
		if want == passes {
			want = passing(report)
		}
		if strings.HasPrefix(name, "compat-") || strings.Contains(name, "/i386 ") {
			i386[name] = want
			continue
		}
		checkOutcome(t, report, name, want)
	}
	if len(i386) == 0 {
		return
	}
	t.Run("i386", func(t *testing.T) {
		runs := kerneltest.I386(t)
		for name, want := range i386 {
			if !runs {
				want = without32Bit
			}
			checkOutcome(t, report, name, want)
		}
		kerneltest.NeedI386(t)
	})
}

var without32Bit = want{Unavailable, "", "SIGSEGV", Uncertain}

func checkOutcome(t *testing.T, report Report, name string, want want) {
	t.Helper()
	if got := find(t, report, name); got.want() != want {
		t.Errorf("%s: got %+v, want %+v (%s)", name, got.want(), want, got.Detail)
	}
}

// TestTypeFilters installs filters that the gate alone would misread.
func TestTypeFilters(t *testing.T) {
	for _, tt := range []struct {
		filter string
		absent want // where the real call is made, and the kernel has no AF_ALG
		there  want // where it has
		unsure want // where the real call is not made
	}{
		{"odd-types", want{Absent, "EAFNOSUPPORT", "ok", Uncertain}, want{Open, "", "ok", Uncertain}, want{Undecided, "EPERM", "ok", Uncertain}},
		{"the-type-that-works", want{Absent, "EAFNOSUPPORT", "ok", Passes}, want{Open, "", "ok", Passes}, want{Loadable, "", "ok", Passes}},
		{"denies-with-einval", want{Closed, "EINVAL", "ok", Passes}, want{Closed, "EINVAL", "ok", Passes}, want{Loadable, "", "ok", Passes}},
	} {
		t.Run(tt.filter, func(t *testing.T) {
			report := probed(t, roleFiltered, tt.filter, "socket")
			want := tt.unsure
			switch report.AFALG.State {
			case kernel.Absent:
				want = tt.absent
			case kernel.Builtin, kernel.Loaded:
				want = tt.there
			}
			if got := find(t, report, "socket"); got.want() != want {
				t.Errorf("got %+v, want %+v (%s)", got.want(), want, got.Detail)
			}
		})
	}
}

// TestCannotAsk shows that a prober that cannot ask says so, and never that all
// is well.
func TestCannotAsk(t *testing.T) {
	self, _ := os.Executable()
	out, err := exec.Command(self, roleFiltered, "no-execve", "socket").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "asking the kernel for route socket: asking in a child process /proc/self/exe: ") {
		t.Errorf("got %v, %s", err, out)
	}
}

// TestEmptyRoot runs the prober where only itself exists: no /proc, a user
// namespace, and a useless argv[0].
func TestEmptyRoot(t *testing.T) {
	kerneltest.NeedUserNamespaces(t)
	root := t.TempDir()
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	// The prober is static, unlike this program where it has the race detector.
	build := exec.Command("go", "test", "-c", "-o", filepath.Join(root, "prober"), ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", build.Args, err, out)
	}
	for _, path := range []string{"/prober", "./prober"} {
		t.Run(path, func(t *testing.T) { probedNowhere(t, root, path) })
	}
}

func probedNowhere(t *testing.T, root, path string) {
	var out, diagnosis bytes.Buffer
	id := []syscall.SysProcIDMap{{ContainerID: 1000, HostID: os.Getuid(), Size: 1}}
	gid := []syscall.SysProcIDMap{{ContainerID: 1000, HostID: os.Getgid(), Size: 1}}
	cmd := &exec.Cmd{
		Path: path, Args: []string{"nowhere", roleProbe}, Dir: "/", Env: []string{}, Stdout: &out, Stderr: &diagnosis,
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET,
			Chroot:     root, UidMappings: id, GidMappings: gid,
		},
	}
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, diagnosis.String())
	}
	report := readReport(t, out.Bytes())
	open := slices.ContainsFunc(report.Routes, func(r Route) bool { return r.Verdict.Open() })
	if report.AFALG.State != kernel.Unknown || !open || report.Seccomp.Mode == "unknown" {
		t.Errorf("report %+v", report)
	}
	loadable := want{Loadable, "", "ok", Passes}
	checkOutcomes(t, report, map[string]want{
		"socket": loadable, "compat-socketcall": loadable, "io_uring/io_uring": loadable, "io_uring/io_uring SQPOLL": loadable,
		"io_uring/i386 io_uring SQPOLL": loadable, "inherited": {Closed, "", "ok", Uncertain},
	})
}

func TestInherited(t *testing.T) {
	const domain = unix.AF_NETLINK
	before := inherited(domain)
	fd, err := unix.Socket(domain, unix.SOCK_RAW, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	after := inherited(domain)
	if before.Verdict != Closed || after.Verdict != Open || after.Detail != fmt.Sprintf("descriptor %d is an AF_ALG socket", fd) {
		t.Errorf("before %+v, after %+v", before, after)
	}
}

func TestUnknownRoute(t *testing.T) {
	report, err := Run(context.Background(), Options{Routes: []afalg.Route{"sockets"}})
	if err == nil || err.Error() != `route "sockets": there is no such route` {
		t.Errorf("got %+v, %v", report, err)
	}
}

func TestHung(t *testing.T) {
	p := prober{opt: Options{Child: []string{roleAnswer}, Timeout: time.Nanosecond}}
	answers, err := p.ask(context.Background(), make([]ask, 3))
	if err != nil || len(answers) != 3 || !answers[0].Hung || !answers[2].Hung {
		t.Errorf("got %+v, %v", answers, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := p.ask(ctx, make([]ask, 3)); err != context.Canceled {
		t.Errorf("a cancelled context: %v", err)
	}
}

func TestChildThatLies(t *testing.T) {
	for _, tt := range []struct{ out, err string }{
		{"nonsense\n", `a child process of the prober wrote "nonsense\n", which answers nothing`},
		{"{}\n{}\n", `a child process of the prober wrote "{}\n", which answers nothing`},
	} {
		_, err := decodeAnswers(bytes.NewBufferString(tt.out), 1)
		if err == nil || err.Error() != tt.err {
			t.Errorf("got %v, want %s", err, tt.err)
		}
	}
	if got, err := decodeAnswers(bytes.NewBufferString("{\"OK\":true}\n{\"OK"), 2); err != nil || len(got) != 1 || !got[0].OK {
		t.Errorf("a torn line: %+v, %v", got, err)
	}
}

func TestExecFn(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := filepath.Abs(execFn()); err != nil || filepath.Base(got) != filepath.Base(self) {
		t.Errorf("got %q, %v, want %q", got, err, self)
	}
}

func TestSeccompOf(t *testing.T) {
	for _, tt := range []struct {
		status string
		want   Seccomp
	}{
		{"Seccomp:\t2\nSeccomp_filters:\t3\n", Seccomp{"filter", 3}},
		{"Seccomp:\t1\n", Seccomp{"strict", -1}},
		{"Seccomp:\t0\nSeccomp_filters:\t0\n", Seccomp{"none", 0}},
	} {
		dir := t.TempDir()
		own, err := os.ReadFile("/proc/self/status")
		if err != nil {
			t.Fatal(err)
		}
		before, rest, _ := strings.Cut(string(own), "Seccomp:")
		_, after, _ := strings.Cut(rest, "Seccomp_filters:")
		_, after, _ = strings.Cut(after, "\n")
		if err := os.WriteFile(filepath.Join(dir, "status"), []byte(before+tt.status+after), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := seccompOf(dir); got != tt.want {
			t.Errorf("%q: got %+v, want %+v", tt.status, got, tt.want)
		}
	}
	if got := seccompOf("/nonexistent"); got.Mode == "unknown" || got.Filters != -1 {
		t.Errorf("without /proc: %+v", got)
	}
}
