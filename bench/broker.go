package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/broker"
	"github.com/afalg-policy/afalg-policy/internal/filter/harden"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/launch"
	"github.com/afalg-policy/afalg-policy/internal/notify"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/subject"
	"github.com/afalg-policy/afalg-policy/internal/telemetry"
)

// brokered is the input of the broker's processes.
type brokered struct {
	Policy  string            // path
	Users   map[uint32]string // named by the policy
	StandIn bool              // ordinary sockets in place of AF_ALG
	Counts  string            // a file for the number of answered calls; "" for none
}

func (o brokered) plan() (*plan.Plan, error) {
	p, _, err := plan.Load(o.Policy, plan.ReadFile)
	return p, err
}

// filter is the filter that run loads for a command.
func (o brokered) filter() ([]unix.SockFilter, error) {
	p, err := o.plan()
	if err != nil {
		return nil, err
	}
	arch, err := profile.ArchByName(runtime.GOARCH)
	if err != nil {
		return nil, err
	}
	filter, _, err := harden.RunFilter(p, harden.RunOptions{Arch: arch, Socketcall: harden.SocketcallDeny})
	return filter, err
}

// options are the options of a broker, without its observer.
func (o brokered) options(pairs int) broker.Options {
	options := broker.Options{
		Pairs:    broker.NewPairs(pairs),
		UserName: func(uid uint32) string { return o.Users[uid] },
	}
	if o.StandIn {
		options.Crypto = standIn{}
	}
	return options
}

// stages are the processes of this program, by their first argument.
var stages = map[string]func(args []string) (status int, err error){
	"brokered": become,
	"guard":    func(args []string) (int, error) { return launch.Guard(args, []string{"broker"}, broker.MakePairs) },
	"broker":   func(args []string) (int, error) { return 0, serve(args) },
	"many":     func(args []string) (int, error) { return 0, serveMany(args) },
	"pairs":    func([]string) (int, error) { return 0, makePairs() },
}

// stage runs one of the stages; false if args name none.
func stage(args []string) (status int, is bool) {
	if len(args) == 0 || stages[args[0]] == nil {
		return 0, false
	}
	status, err := stages[args[0]](args[1:])
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %s: %v\n", args[0], err)
		status = max(status, 1)
	}
	return status, true
}

// become runs a command under the broker, as run does.
func become(args []string) (int, error) {
	var o brokered
	if err := json.Unmarshal([]byte(args[0]), &o); err != nil {
		return 0, err
	}
	filter, err := o.filter()
	if err != nil {
		return 0, err
	}
	return launch.Front(launch.Order{Command: args[1:], Filter: filter, Details: []byte(args[0])}, []string{"guard"})
}

func serve(args []string) error {
	runtime.GOMAXPROCS(broker.Processors) // as run does
	a, err := launch.Attach(args)
	if err != nil {
		return err
	}
	var o brokered
	if err := json.Unmarshal(a.Order.Details, &o); err != nil {
		return err
	}
	p, err := o.plan()
	if err != nil {
		return err
	}
	options := o.options(a.Helpers[0])
	options.Subjects, err = subject.NewReader(subject.Options{Digests: 64, Recent: broker.Recent})
	if err != nil {
		return err
	}
	c := &counter{file: o.Counts, answered: map[string]int{}}
	if options.Observer, err = o.observer(c); err != nil {
		return err
	}
	b, err := broker.New(options)
	if err != nil {
		return err
	}
	return launch.Broker(a, launch.Service{
		Serve: func(l *notify.Listener) error { return b.Serve(context.Background(), l, broker.NewWorkload("", p)) },
		Ended: c.save,
	})
}

// observer is what run has without a log file, or one that counts.
func (o brokered) observer(c *counter) (plan.Observer, error) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	log := telemetry.NewLog(null, telemetry.LogOptions{DeniedOnly: true})
	if o.Counts == "" {
		return telemetry.Multi(log), nil
	}
	return telemetry.Multi(log, c), nil
}

// counter counts the calls that reached the broker.
type counter struct {
	file     string
	mu       sync.Mutex
	answered map[string]int
}

func (*counter) Decided(plan.Record) {}
func (*counter) Sessions(int)        {}
func (*counter) Failed(what string, err error) {
	fmt.Fprintf(os.Stderr, "bench: the broker failed: %s: %v\n", what, err)
}

func (c *counter) Answered(call string, _ time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answered[call]++
}

func (c *counter) save() error {
	if c.file == "" {
		return nil
	}
	// A call is counted after its answer: perhaps not yet the last one.
	time.Sleep(50 * time.Millisecond)
	c.mu.Lock()
	answered := maps.Clone(c.answered)
	c.mu.Unlock()
	text, err := json.Marshal(answered)
	if err != nil {
		return err
	}
	return os.WriteFile(c.file, text, 0o600)
}

// standIn does what the C floor does with -s.
type standIn struct{}

func (standIn) Socket() (int, error) {
	return unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
}
func (standIn) Bind(int, *unix.SockaddrALG, bool) error      { return nil }
func (standIn) SetOption(int, int, []byte, uint32) error     { return nil }
func (s standIn) Accept(int, int) (operation int, err error) { return s.Socket() }
