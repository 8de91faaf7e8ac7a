// Package doctor looks at a host, and concludes: what its kernel has of AF_ALG, who
// uses it, what is in force, who may use what, what to do next, and what can go.
//
// It changes nothing, and makes the kernel load no module: it makes no socket but
// Unix ones. To read filters, threads under one are stopped for some microseconds
// each, as package live says.
//
// What is found is a value, and conclusions are functions of it. What could not be
// asked is unknown, and never "unused" or "closed".
package doctor

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/bounded"
	"github.com/afalg-policy/afalg-policy/internal/deploy"
	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/hostfacts"
	"github.com/afalg-policy/afalg-policy/internal/install"
	"github.com/afalg-policy/afalg-policy/internal/kernel"
	"github.com/afalg-policy/afalg-policy/internal/live"
	"github.com/afalg-policy/afalg-policy/internal/lsm"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/report"
	"github.com/afalg-policy/afalg-policy/internal/telemetry"
	"github.com/afalg-policy/afalg-policy/internal/term"
)

// Options say what to look at.
type Options struct {
	// Root is where the host's files are. If it is not "/", its processes and its
	// kernel cannot be asked, and are unknown.
	Root   string
	Policy string   // whose rules allow; "" for the one that is installed
	Logs   []string // of decisions, as run and agent write them
	Tool   report.Build
}

// The words of the report, shortly.
const (
	yes     = report.Yes
	no      = report.No
	unknown = report.Unknown
)

// Bounds of the questions that take time. What has no answer by then is unknown.
const (
	socketTime   = 3 * time.Second
	packageTime  = time.Second
	platformTime = 15 * time.Second // a busy service manager is slow
	maxLog       = 64 << 20         // the end of a log that is longer
)

// found is what was collected of a host.
type found struct {
	root     string
	now      time.Time
	name, id string
	system   string
	release  string
	machine  string
	asRoot   bool
	partial  bool // some processes of the host are not to be seen at all
	afalg    kernel.AFALG
	facts    hostfacts.Facts
	autoload string            // why no module can be loaded; "" if one may
	modules  map[string]module // loaded ones
	blocked  map[string]string // modules, and where it says that they are not loaded
	columns  []column
	plan     *plan.Plan // nil if there is no policy
	policy   string     // its name
	known    []known
	listing  []string // units whose lists have AF_ALG
	systemd  bool     // it runs
	holding  holding
	people   map[int]person // holders, by process
	filters  *report.Host   // nil if they were not asked
	half     *lsm.Status    // nil if it was not asked
	uses     []lsm.Use
	platform []install.Status
	log      logged
	unasked  []report.Unasked
}

// logged is what logs of decisions say.
type logged struct {
	read        int // files
	first, last time.Time
	lines       []telemetry.Line // the last of each executable, unit, algorithm and rule
	missing     bool             // lines are missing, or could not be read
}

// person is who a process is.
type person struct {
	command string
	exe     string // as the kernel shows it
	place   report.Place
}

// Examine looks at a host. The error is a *hosterr.Error if it cannot at all, or that
// of a policy or a log that was named.
func Examine(ctx context.Context, o Options) (*report.Doctor, error) {
	f, err := collect(ctx, o)
	if err != nil {
		return nil, err
	}
	return f.conclude(o.Tool)
}

func collect(ctx context.Context, o Options) (*found, error) {
	if info, err := os.Stat(o.Root); err != nil {
		return nil, hosterr.Errorf("look at the host: %w", err)
	} else if !info.IsDir() {
		return nil, hosterr.Errorf("look at the host: %s is no directory", o.Root)
	}
	f := &found{root: o.Root, now: time.Now().UTC(), machine: runtime.GOARCH, asRoot: os.Geteuid() == 0}
	if err := f.readPolicy(o.Policy); err != nil {
		return nil, err
	}
	f.columns = columnsOf(f.plan)
	for _, path := range o.Logs {
		if err := f.log.read1(path); err != nil {
			return nil, fmt.Errorf("log %s: %w", path, err)
		}
	}
	f.readFiles()
	if o.Root != "/" {
		f.afalg = kernel.AFALG{State: kernel.Unknown, Why: "the host does not run here"}
		for _, what := range []string{"processes", "the running kernel", "the kernel half", "platforms"} {
			f.leave(what, errors.New("only the files of the host are here"))
		}
		return f, nil
	}
	f.askKernel()
	f.askProcesses()
	if info, err := os.Stat("/run/systemd/system"); err == nil {
		f.systemd = info.IsDir()
	}
	f.askKernelHalf()
	f.askPlatforms(ctx)
	return f, nil
}

// leave notes what could not be asked.
func (f *found) leave(what string, err error) {
	f.unasked = append(f.unasked, report.Unasked{What: what, Why: err.Error()})
}

// readPolicy reads the policy that was named or, without one, the one that platforms
// or the kernel half are under. Several are none: which one judges, nobody said.
func (f *found) readPolicy(name string) (err error) {
	if name != "" {
		f.policy = name
		f.plan, _, err = plan.Load(name, plan.ReadNamed)
		return err
	}
	names, err := install.Policies(f.root)
	if err != nil {
		f.leave("the policy of the host", err)
		return nil
	}
	if state, err := lsm.ReadState(); err == nil && f.root == "/" {
		names = appendNew(names, state.Policy)
	}
	switch len(names) {
	case 0:
	case 1:
		p, _, err := plan.Load(names[0], func(name string) ([]byte, error) { return f.readNamed(name) })
		if err != nil {
			f.leave("the policy "+names[0], err)
			return nil
		}
		f.plan, f.policy = p, names[0]
	default:
		f.leave("the policy of the host", fmt.Errorf("there are several (%s): name the one to judge by with --policy", strings.Join(names, ", ")))
	}
	return nil
}

func (f *found) readNamed(name string) ([]byte, error) {
	if filepath.IsAbs(name) {
		name = filepath.Join(f.root, name)
	}
	return plan.ReadNamed(name)
}

func appendNew(all []string, s string) []string {
	for _, other := range all {
		if other == s {
			return all
		}
	}
	return append(all, s)
}

// maxID bounds the files that name a host.
const maxID = 64 << 10

// readFiles reads what the files of the host say.
func (f *found) readFiles() {
	var err error
	if f.facts, err = hostfacts.Read(f.root, hostfacts.Given{}); err != nil {
		f.leave("facts of the host", err)
	}
	for _, u := range f.facts.Unread {
		f.leave(u.Path, errors.New(u.Why))
	}
	f.release = f.facts.Release
	if f.blocked, err = readBlocked(f.root); err != nil {
		f.leave("modprobe.d", err)
	}
	if f.known, err = knownHere(f.root); err != nil {
		f.leave("known users", err)
	}
	if f.listing, err = listing(f.root); err != nil {
		f.leave("units", err)
	}
	f.name, f.system = unknown, unknown
	if text, err := bounded.ReadFile(filepath.Join(f.root, "etc/hostname"), maxID); err == nil && strings.TrimSpace(string(text)) != "" {
		f.name = strings.TrimSpace(string(text))
	}
	if text, err := bounded.ReadFile(filepath.Join(f.root, "etc/os-release"), maxID); err == nil {
		f.system = prettyName(string(text))
	}
	if text, err := bounded.ReadFile(filepath.Join(f.root, "etc/machine-id"), maxID); err == nil {
		f.id = hostID(text)
	}
}

// hostID tells hosts apart. The machine's own identifier is not to be published.
func hostID(machineID []byte) string {
	text := bytes.TrimSpace(machineID)
	if len(text) == 0 {
		return ""
	}
	sum := sha256.Sum256(append([]byte("afalg-policy doctor\x00"), text...))
	return hex.EncodeToString(sum[:8])
}

func prettyName(osRelease string) string {
	for line := range strings.Lines(osRelease) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), "PRETTY_NAME="); ok {
			return strings.Trim(value, `"'`)
		}
	}
	return unknown
}

// askKernel asks the running kernel, which is no matter of files.
func (f *found) askKernel() {
	if release, err := kernel.Release(); err == nil {
		f.release = release
	}
	view := kernel.Running()
	f.afalg = view.AFALG(f.release)
	f.autoload, _ = view.NoAutoload()
	f.modules = readModules(view.Sys, f.columns)
	if f.facts.LSMs == nil {
		f.facts.LSMs = view.LSMs()
	}
	if name, err := os.Hostname(); err == nil {
		f.name = name
	}
}

// initialPIDs is what /proc/PID/ns/pid links to in the first PID namespace
// (PROC_PID_INIT_INO).
const initialPIDs = "pid:[4026531836]"

// hidden says why processes of the host may be missing in a procfs.
func hidden(proc string) error {
	mine, err := os.Readlink(filepath.Join(proc, "self/ns/pid"))
	switch {
	case err != nil:
		return err
	case mine != initialPIDs:
		return errors.New("this runs in a PID namespace of its own, as in a container: run it on the host")
	}
	if _, err := os.Stat(filepath.Join(proc, "1")); err != nil {
		return errors.New("/proc hides the processes of others from this user (hidepid): run this as root")
	}
	return nil
}

// askProcesses looks who holds sockets, and what the filters of every process do.
func (f *found) askProcesses() {
	if err := hidden("/proc"); err != nil {
		f.partial = true
		f.leave("processes of the host", err)
	}
	f.holding = findHolders("/proc", algProtocol, time.Now().Add(socketTime))
	f.people = map[int]person{}
	for _, h := range f.holding.holders {
		f.people[h.pid] = whoIs(h.pid)
	}
	switch {
	case f.holding.why != nil:
		f.leave("open sockets", f.holding.why)
	case f.holding.unseen > 0:
		f.leave("open sockets", fmt.Errorf("the descriptors of %s were not all seen: %w", term.Count(f.holding.unseen, "process"), f.holding.because))
	}
	machine, abis, err := live.Machine()
	if err != nil {
		f.leave("filters", err)
		return
	}
	f.machine = machine
	q, err := questions(f.columns, abis)
	if err != nil {
		f.leave("filters", err)
		return
	}
	if f.filters, err = (report.HostQuestions{Questions: q, Plan: f.plan, Visible: true}).Ask(); err != nil {
		f.leave("filters", err)
	}
}

func whoIs(pid int) person {
	exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)) // "" if it is not shown
	command, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return person{strings.TrimSuffix(string(command), "\n"), exe, report.PlaceOf(pid)}
}

func (f *found) askKernelHalf() {
	half, err := lsm.Inspect()
	if err != nil && !errors.Is(err, lsm.ErrNotLoaded) {
		f.leave("the kernel half", err)
		return
	}
	f.half = half
	if half == nil || half.State == nil {
		return
	}
	if f.uses, err = lsm.Uses(); err != nil {
		f.leave("what the kernel half recorded", err)
		f.uses = nil
	}
}

// askPlatforms asks all at once, and each by itself: one that does not answer leaves
// the answers of the others. The kernel half has been asked.
func (f *found) askPlatforms(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, platformTime)
	defer cancel()
	names := slices.DeleteFunc(install.Platforms(), func(name string) bool { return name == "lsm" })
	answers := make([][]install.Status, len(names))
	errs := make([]error, len(names))
	var all sync.WaitGroup
	for i, name := range names {
		all.Go(func() { answers[i], errs[i] = askPlatform(ctx, name) })
	}
	all.Wait()
	for i, name := range names {
		if errs[i] != nil {
			f.leave("what is installed for "+name, errs[i])
		}
		f.platform = append(f.platform, answers[i]...)
	}
}

// askPlatform returns nothing for a platform that is not here.
func askPlatform(ctx context.Context, name string) ([]install.Status, error) {
	others := slices.DeleteFunc(install.Platforms(), func(other string) bool { return other == name })
	all, err := deploy.Status(ctx, install.StatusOptions{Without: others})
	if err == nil && ctx.Err() != nil {
		err = errors.New("it did not answer in time: see \"afalg-policy status\"")
	}
	if err != nil {
		return nil, err
	}
	return all, nil
}

// read1 reads a log, or the end of a long one.
func (l *logged) read1(path string) error {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0) // a FIFO would block
	if err != nil {
		var at *fs.PathError
		if errors.As(err, &at) {
			err = at.Err
		}
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("it is %s", bounded.Kind(info.Mode()))
	case info.Size() > maxLog:
		l.missing = true
		if _, err := file.Seek(info.Size()-maxLog, 0); err != nil {
			return err
		}
	}
	type key struct{ executable, unit, container, algorithm, rule, verdict string }
	last := map[key]int{}
	broken, err := telemetry.Read(bounded.Reader(file, maxLog+1), func(line telemetry.Line) {
		if l.first.IsZero() || line.Time.Before(l.first) {
			l.first = line.Time
		}
		if line.Time.After(l.last) {
			l.last = line.Time
		}
		l.missing = l.missing || line.Dropped > 0
		k := key{line.Executable, line.Unit, line.Container, line.Algorithm, line.Rule, line.Verdict}
		if i, seen := last[k]; seen {
			if line.Time.After(l.lines[i].Time) {
				l.lines[i] = line
			}
			return
		}
		if len(l.lines) == mostLines {
			l.missing = true
			return
		}
		last[k] = len(l.lines)
		l.lines = append(l.lines, line)
	})
	l.read++
	l.missing = l.missing || broken > 0
	return err
}

// mostLines bounds what is kept of logs.
const mostLines = 10_000
