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

	"github.com/afalg-policy/afalg-policy/internal/profile"
)

const startPolicy = `version: 1
name: bench
containers:
  unconfined: harden
`

// benchStart prints what the start of a container costs with the wrapper
// runtime, and what the hooks take.
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
	fmt.Printf("starting a container, %d times each\n\n", 10*rounds)
	t := newTable()
	t.AppendHeader(table.Row{"what", "median ms", "slowest ms", "added ms"})
	plain, err := s.measure(10*rounds, false, s.runc)
	if err != nil {
		return err
	}
	for _, m := range []struct {
		name string
		cold bool
		run  func() error
		base float64
	}{
		{"runc run, by itself", false, s.runc, middle(plain)},
		{"runc run, by the wrapper", false, s.wrapped, middle(plain)},
		{"the same, a profile never seen", true, s.wrapped, middle(plain)},
		{"the wrapper, a command that passes", false, s.through, 0},
		{"hook precreate", false, s.precreate, 0},
		{"the same, a profile never seen", true, s.precreate, 0},
	} {
		times, err := s.measure(10*rounds, m.cold, m.run)
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		added := ""
		if m.base > 0 {
			added = fmt.Sprintf("%.1f", middle(times)-m.base)
		}
		t.AppendRow(table.Row{m.name, fmt.Sprintf("%.1f", middle(times)), fmt.Sprintf("%.1f", slices.Max(times)), added})
	}
	t.Render()
	return nil
}

// starter starts containers from one bundle, whose profile is Docker's.
type starter struct {
	dir, program string
	config       []byte
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
	docker, err := profile.Docker()
	if err != nil {
		return err
	}
	spec.Linux.Seccomp, err = profile.Resolve(docker, profile.Host{Arch: specs.ArchX86_64, Caps: profile.DefaultCaps()})
	if err != nil {
		return err
	}
	spec.Process.Terminal, spec.Process.Args = false, []string{"/busybox", "true"}
	if s.config, err = json.Marshal(spec); err != nil {
		return err
	}
	return os.WriteFile(s.path("config.json"), s.config, 0o600)
}

// measure times a command, in milliseconds. cold forgets first what was proved.
func (s *starter) measure(n int, cold bool, run func() error) ([]float64, error) {
	if err := run(); err != nil {
		return nil, err
	}
	times := make([]float64, n)
	for i := range times {
		if cold {
			if err := os.RemoveAll("/run/afalg-policy/proofs"); err != nil {
				return nil, err
			}
		}
		start := time.Now()
		if err := run(); err != nil {
			return nil, err
		}
		times[i] = float64(time.Since(start).Microseconds()) / 1000
	}
	return times, nil
}

func quiet(stdin []byte, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, stderr.Bytes())
	}
	return nil
}

func (s *starter) runtime() []string {
	return []string{"--root", s.path("state"), "run", "--bundle", s.dir, "afalg-policy-bench"}
}

func (s *starter) runc() error { return quiet(nil, "runc", s.runtime()...) }

func (s *starter) wrap(args ...string) []string {
	return append([]string{"runtime", "--policy", s.path("policy.yaml"), "--runtime-path", "runc", "--"}, args...)
}

func (s *starter) wrapped() error { return quiet(nil, s.program, s.wrap(s.runtime()...)...) }

func (s *starter) through() error { return quiet(nil, s.program, s.wrap("--version")...) }

func (s *starter) precreate() error {
	return quiet(s.config, s.program, "hook", "precreate", "--policy", s.path("policy.yaml"))
}
