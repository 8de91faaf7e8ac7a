package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
)

const startPolicy = `version: 1
name: bench
containers:
  unconfined: harden
`

// benchStart prints the cost of a container's start with the wrapper runtime,
// and that of the hooks.
func benchStart(rounds int, program string) error {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s := starter{dir: dir, program: program}
	if err := s.prepare(); err != nil {
		return err
	}
	cases := []*startCase{
		{name: "runc run, by itself", run: s.runc},
		{name: "runc run, by the wrapper", run: s.wrapped, adds: true},
		{name: "the same, a platform's default never seen since boot", seen: beforeBoot, run: s.wrapped, adds: true},
		{name: "the same, an unknown profile", seen: never, run: s.wrapped, adds: true},
		{name: "the wrapper, a command that passes", run: s.through},
		{name: "hook precreate", run: s.precreate},
		{name: "the same, a platform's default never seen since boot", seen: beforeBoot, run: s.precreate},
		{name: "the same, an unknown profile", seen: never, run: s.precreate},
	}
	fmt.Printf("starting a container, %d times each, in turn\n\n", 10*rounds)
	for i := range 1 + 10*rounds { // the first is not counted
		for _, c := range cases {
			took, err := c.time()
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			if i > 0 {
				c.took = append(c.took, took)
			}
		}
	}
	t := newTable()
	t.AppendHeader(table.Row{"what", "median ms", "slowest ms", "added ms", "processor ms", "added ms"})
	for _, c := range cases {
		t.AppendRow(c.row(cases[0]))
	}
	t.Render()
	return nil
}

// startCase is one way to start something, and what that took.
type startCase struct {
	name string
	seen seen
	run  func() (*os.ProcessState, error)
	adds bool // to the first case
	took []taken
}

// taken are milliseconds: in all, and of processors, which a busy machine changes
// less.
type taken struct{ all, processor float64 }

func (c *startCase) time() (taken, error) {
	if err := c.seen.forget(); err != nil {
		return taken{}, err
	}
	start := time.Now()
	ended, err := c.run()
	if err != nil {
		return taken{}, err
	}
	return taken{time.Since(start).Seconds() * 1000, (ended.UserTime() + ended.SystemTime()).Seconds() * 1000}, nil
}

// row has the medians, and those of what was added to the first case in the same
// turn.
func (c *startCase) row(first *startCase) table.Row {
	var all, processor, added, addedProcessor []float64
	for i, t := range c.took {
		all, processor = append(all, t.all), append(processor, t.processor)
		added = append(added, t.all-first.took[i].all)
		addedProcessor = append(addedProcessor, t.processor-first.took[i].processor)
	}
	row := table.Row{c.name, ms(middle(all)), ms(slices.Max(all)), "", ms(middle(processor)), ""}
	if c.adds {
		row[3], row[5] = ms(middle(added)), ms(middle(addedProcessor))
	}
	return row
}

func ms(n float64) string { return fmt.Sprintf("%.1f", n) }

// starter starts containers from one bundle, whose profile is Docker's.
type starter struct {
	dir, program string
	config       []byte
	started      int // containers so far: no two have the same name
}

func (s *starter) path(name string) string { return filepath.Join(s.dir, name) }

func (s *starter) prepare() error {
	if err := errors.Join(os.Mkdir(s.path("rootfs"), 0o755), os.WriteFile(s.path("policy.yaml"), []byte(startPolicy), 0o600)); err != nil {
		return err
	}
	if out, err := exec.Command("cp", "/bin/busybox", s.path("rootfs/busybox")).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	if out, err := exec.Command("runc", "spec", "--bundle", s.dir).CombinedOutput(); err != nil {
		return fmt.Errorf("runc spec: %w: %s", err, out)
	}
	return s.fill()
}

// fill gives the spec Docker's profile and a command that ends at once.
func (s *starter) fill() error {
	text, err := os.ReadFile(s.path("config.json"))
	if err != nil {
		return err
	}
	var spec specs.Spec
	if err := json.Unmarshal(text, &spec); err != nil {
		return err
	}
	spec.Linux.Seccomp, err = profile.Docker().Resolve(profile.Host{Arch: specs.ArchX86_64, Caps: profile.DefaultCaps()})
	if err != nil {
		return err
	}
	spec.Process.Terminal, spec.Process.Args = false, []string{"/busybox", "true"}
	if s.config, err = json.Marshal(spec); err != nil {
		return err
	}
	return os.WriteFile(s.path("config.json"), s.config, 0o600)
}

// seen says when a profile was last seen.
type seen int

const (
	before seen = iota
	beforeBoot
	never
)

// forget removes the files that a reboot removes, or all proofs.
func (s seen) forget() error {
	var err error
	if s >= beforeBoot {
		err = os.RemoveAll("/run/afalg-policy/proofs")
	}
	if s == never {
		err = errors.Join(err, os.RemoveAll("/var/cache/afalg-policy/proofs"))
	}
	return err
}

func quiet(stdin []byte, name string, args ...string) (*os.ProcessState, error) {
	cmd := exec.Command(name, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", name, err, stderr.Bytes())
	}
	return cmd.ProcessState, nil
}

func (s *starter) runtime() []string {
	s.started++
	return []string{"--root", s.path("state"), "run", "--bundle", s.dir, fmt.Sprint("afalg-policy-bench-", s.started)}
}

func (s *starter) runc() (*os.ProcessState, error) { return quiet(nil, "runc", s.runtime()...) }

func (s *starter) wrap(args ...string) []string {
	return append([]string{"runtime", "--policy", s.path("policy.yaml"), "--runtime-path", "runc", "--"}, args...)
}

func (s *starter) wrapped() (*os.ProcessState, error) {
	return quiet(nil, s.program, s.wrap(s.runtime()...)...)
}

func (s *starter) through() (*os.ProcessState, error) {
	return quiet(nil, s.program, s.wrap("--version")...)
}

func (s *starter) precreate() (*os.ProcessState, error) {
	return quiet(s.config, s.program, "hook", "precreate", "--policy", s.path("policy.yaml"))
}
