package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/broker"
	"github.com/afalg-policy/afalg-policy/internal/notify"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/subject"
	"github.com/afalg-policy/afalg-policy/internal/telemetry"
)

// firstFD is the number of the first descriptor that os/exec passes on.
const firstFD = 3

// many is an order for a broker that serves many workloads, as an agent does.
type many struct {
	brokered
	Procs    int    // GOMAXPROCS; 0 for the default
	Workload string // path of the program
	Filter   string // path
	Dir      string // where the workloads write
	Count    int
	Seconds  int // 0: ten sessions each, and idle then
	// Neighbour is a workload beside them; none if it has no command.
	Neighbour neighbour
}

// usage is the use of resources by a broker's process.
type usage struct {
	Procs, RSS, Threads, FDs, Goroutines int // RSS in kB
	CPU                                  time.Duration
	Failed                               int64 // reported to its observer
}

// idleTime is for how long the use of the processor is measured while all are
// idle.
const idleTime = 2 * time.Second

// serveMany is the process of the broker. It starts the workloads, prints its
// usage as JSON, and ends with them.
func serveMany(args []string) error {
	var o many
	if err := json.Unmarshal([]byte(args[0]), &o); err != nil {
		return err
	}
	runtime.GOMAXPROCS(o.Procs)
	if err := raiseLimit(); err != nil {
		return err
	}
	p, err := o.plan()
	if err != nil {
		return err
	}
	observer, err := newAgentObserver()
	if err != nil {
		return err
	}
	b, err := o.start(p, observer)
	if err != nil {
		return err
	}
	w, err := o.launch()
	if err != nil {
		return err
	}
	for range o.Count {
		l, err := w.listener()
		if err != nil {
			return err
		}
		go b.Serve(context.Background(), l, broker.NewWorkload("", p))
	}
	if err := o.Neighbour.start(b, p); err != nil {
		return err
	}
	w.goAhead.Close()
	u, err := o.watch(w)
	u.Failed = observer.failed.Load()
	return errors.Join(err, json.NewEncoder(os.Stdout).Encode(u))
}

// start makes a broker with what an agent's has.
func (o many) start(p *plan.Plan, observer plan.Observer) (*broker.Broker, error) {
	pairs, err := startPairs()
	if err != nil {
		return nil, err
	}
	options := o.options(pairs)
	options.Observer = observer
	options.Subjects, err = subject.NewReader(subject.Options{Digests: 64, Recent: broker.Recent})
	if err != nil {
		return nil, err
	}
	return broker.New(options)
}

// agentObserver is an agent's observer, with a log file and metrics.
type agentObserver struct {
	plan.Observer
	failed atomic.Int64
}

func newAgentObserver() (*agentObserver, error) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	log := telemetry.NewLog(null, telemetry.LogOptions{})
	return &agentObserver{Observer: telemetry.Multi(log, telemetry.NewMetrics("bench"))}, nil
}

func (a *agentObserver) Failed(what string, err error) {
	a.failed.Add(1)
	a.Observer.Failed(what, err)
}

// raiseLimit makes room for the descriptors of all workloads; root may have
// more than it was given.
func raiseLimit() error {
	const enough = 1 << 16
	if unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: enough, Max: enough}) == nil {
		return nil
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	limit.Cur = limit.Max
	return unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
}

// socketPair is one descriptor of a pair, and the other as a file to pass on.
func socketPair() (ours int, theirs *os.File, err error) {
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, nil, err
	}
	return ends[0], os.NewFile(uintptr(ends[1]), "socket"), nil
}

// startPairs starts the helper that makes placeholders; it ends with us.
func startPairs() (socket int, err error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return -1, err
	}
	defer theirs.Close()
	cmd := exec.Command("/proc/self/exe", "pairs")
	cmd.ExtraFiles, cmd.Stderr = []*os.File{theirs}, os.Stderr
	return ours, cmd.Start()
}

// workloads are the served processes.
type workloads struct {
	cmd     *exec.Cmd
	socket  int            // carries their listeners
	goAhead io.Closer      // starts them all
	stay    io.WriteCloser // ends the idle ones
}

func (o many) launch() (*workloads, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	wait, goAhead, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer wait.Close()
	w := &workloads{socket: ours, goAhead: goAhead}
	w.cmd = exec.Command(o.Workload, o.Dir, strconv.Itoa(o.Seconds), o.Filter, strconv.Itoa(o.Count))
	w.cmd.ExtraFiles, w.cmd.Stderr = []*os.File{wait, theirs}, os.Stderr
	if w.stay, err = w.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	return w, w.cmd.Start()
}

func (w *workloads) listener() (*notify.Listener, error) {
	_, fds, err := notify.ReceiveFDs(w.socket, make([]byte, 1), 1)
	if err != nil {
		return nil, err
	}
	if len(fds) != 1 {
		return nil, errors.New("the workloads ended early")
	}
	l, err := notify.NewListener(fds[0])
	if err == nil {
		_ = l.SetSyncWakeUp() // slower without it, before Linux 6.6
	}
	return l, err
}

// watch waits for the workloads. It measures this process while they idle, or
// when they have ended.
func (o many) watch(w *workloads) (u usage, err error) {
	if o.Seconds > 0 {
		if err := w.cmd.Wait(); err != nil {
			return u, fmt.Errorf("the workloads: %w", err)
		}
		return o.use()
	}
	for done := 0; done < o.Count; {
		time.Sleep(idleTime / 10)
		files, err := os.ReadDir(o.Dir)
		if err != nil {
			return u, err
		}
		done = len(files)
	}
	time.Sleep(idleTime)
	before, err := processor()
	if err != nil {
		return u, err
	}
	time.Sleep(idleTime)
	if u, err = o.use(); err != nil {
		return u, err
	}
	u.CPU -= before
	w.stay.Close()
	if err := w.cmd.Wait(); err != nil {
		return u, fmt.Errorf("the workloads: %w", err)
	}
	return u, nil
}

// use measures this process.
func (o many) use() (usage, error) {
	u := usage{Procs: runtime.GOMAXPROCS(0), Goroutines: runtime.NumGoroutine()}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return u, err
	}
	for line := range strings.Lines(string(status)) {
		fmt.Sscanf(line, "VmRSS: %d kB", &u.RSS)
		fmt.Sscanf(line, "Threads: %d", &u.Threads)
	}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return u, err
	}
	u.FDs = len(fds) - 1 // without the one that reads
	u.CPU, err = processor()
	return u, err
}

// processor is the processor time of this process.
func processor() (time.Duration, error) {
	var r unix.Rusage
	err := unix.Getrusage(unix.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano()), err
}

// serve runs a broker for many, in a process of its own.
func (b *brokerBench) serveMany(o many) (usage, []sample, error) {
	var u usage
	o.brokered, o.Workload = b.broker, b.programs.path("workload")
	o.Filter = filepath.Join(b.dir, "filter")
	var err error
	if o.Dir, err = os.MkdirTemp(b.dir, "many"); err != nil {
		return u, nil, err
	}
	details, err := json.Marshal(o)
	if err != nil {
		return u, nil, err
	}
	var said strings.Builder
	cmd := exec.Command("/proc/self/exe", "many", string(details))
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil || said.Len() > 0 {
		return u, nil, fmt.Errorf("the broker of many: %v: %.500s", err, said.String())
	}
	if err := json.Unmarshal(out, &u); err != nil {
		return u, nil, err
	}
	if u.Failed > 0 {
		return u, nil, fmt.Errorf("the broker told of %d failures", u.Failed)
	}
	samples, err := readSamples(o.Dir, o.Count)
	return u, samples, err
}

// makePairs is that helper. A broker that ends leaves requests unread.
func makePairs() error {
	if err := broker.MakePairs(firstFD); !errors.Is(err, unix.ECONNRESET) {
		return err
	}
	return nil
}
