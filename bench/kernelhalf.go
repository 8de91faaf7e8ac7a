package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/afalg-policy/afalg-policy/internal/lsm"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// clock is that of a machine. An emulated one can count instructions by it.
type clock struct {
	shift int // of QEMU's -icount: an instruction takes 2^shift ns; less than 0 for time
}

func (c clock) counts() bool { return c.shift >= 0 }

// of returns the instructions of so many ticks or nanoseconds, or these.
func (c clock) of(ns float64) float64 {
	if c.counts() {
		return ns / float64(int(1)<<c.shift)
	}
	return ns
}

// whole words what took so long.
func (c clock) whole(took time.Duration) string {
	if c.counts() {
		return fmt.Sprintf("%.1f M", c.of(float64(took.Nanoseconds()))/1e6)
	}
	return fmt.Sprintf("%.1f ms", float64(took.Microseconds())/1000)
}

func (c clock) String() string {
	if c.counts() {
		return "instructions of the processor, by the machine's clock"
	}
	return "time; ticks of the processor for single calls"
}

// kernelHalf is one run of the benchmarks of the kernel half.
type kernelHalf struct {
	*brokerBench
	clock      clock
	attachment lsm.Attachment
	called     callTable
	loaded     loadTable
	start      time.Duration // the yardstick
	sessioned  sessionTable
}

// benchKernelHalf prints the costs of the kernel half. Its policies are in force
// for the whole host meanwhile.
func benchKernelHalf(rounds, shift int, built string) error {
	return withKernelHalf(rounds, shift, built, func(k *kernelHalf) []func() error {
		steps := []func() error{
			func() error { return k.count("nothing") },
			func() error { return k.session("without it", direct) },
			func() error { return k.load("all programs, and one rule", k.policy("false", false)) },
			func() error { return k.count("kernel half") },
			func() error { return k.session("the kernel half", direct) },
			func() error { return k.load("all programs, zero-copy refused", k.policy("true", false)) },
			func() error { return k.count("zero-copy refused") },
		}
		if k.attachment == lsm.LSM {
			steps = append(steps,
				func() error { return k.load("all programs, and strict-exec", k.policy("true", true)) },
				func() error { return k.count("strict-exec") })
		}
		return append(steps, k.swaps, k.print, k.memory)
	})
}

// benchHalves prints what a session costs through the broker, and through the
// kernel half.
func benchHalves(rounds int, built string) error {
	return withKernelHalf(rounds, -1, built, func(k *kernelHalf) []func() error {
		return []func() error{
			func() error { return k.session("without it", direct) },
			func() error { return k.session("the broker", throughBroker) },
			func() error { return k.load("", k.policy("false", false)) },
			func() error { return k.session("the kernel half", direct) },
			func() error { k.sessioned.print(k.clock); return nil },
		}
	})
}

func withKernelHalf(rounds, shift int, built string, steps func(*kernelHalf) []func() error) (err error) {
	if _, err := lsm.ReadState(); !errors.Is(err, lsm.ErrNotLoaded) {
		return errors.Join(errors.New("a policy is loaded in the kernel, and the benchmark would replace it: take it out with `afalg-policy lsm unload`, or run this elsewhere"), err)
	}
	b, err := newBrokerBench(rounds, built)
	if err != nil {
		return err
	}
	defer b.close()
	k := &kernelHalf{brokerBench: b, clock: clock{shift}}
	if k.start, err = k.yardstick(); err != nil {
		return err
	}
	fmt.Printf("figures are %s\nto start a program and wait for its end, the yardstick: %s\n\n", k.clock, k.clock.whole(k.start))
	if err := k.possible(); err != nil {
		fmt.Printf("no figures of the kernel half from this host, and no native ratios: %v\n", err)
		return nil
	}
	defer func() { err = errors.Join(err, lsm.Unload()) }()
	for _, step := range steps(k) {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (k *kernelHalf) print() error {
	k.called.print(k.clock)
	k.loaded.print(k.clock, k.start)
	k.sessioned.print(k.clock)
	return nil
}

// possible reports why the kernel does not take the programs, or nil.
func (k *kernelHalf) possible() error {
	h, err := lsm.Look()
	if err != nil {
		return err
	}
	if k.attachment, err = h.Choose(); err != nil {
		return err
	}
	if !k.real {
		return errors.New("the kernel has no AF_ALG")
	}
	fmt.Printf("Linux %s, attached by %s\n\n", h.Release, k.attachment)
	return nil
}

// yardstick is what it takes to start a program that does nothing.
func (k *kernelHalf) yardstick() (time.Duration, error) {
	var all []float64
	for range 9 {
		began := time.Now()
		if err := exec.Command(k.programs.path("count"), "exit").Run(); err != nil {
			return 0, err
		}
		all = append(all, float64(time.Since(began)))
	}
	return time.Duration(middle(all)), nil
}

// policy lists the programs that are timed.
func (k *kernelHalf) policy(zeroCopy string, strict bool) func() (string, error) {
	return func() (string, error) {
		rule, err := k.rule()
		if strict {
			rule += "    strict-exec: true\n"
		}
		return "version: 1\nname: bench\ndeny: {zero-copy: " + zeroCopy + "}\nallow:\n" + rule, err
	}
}

// load puts a policy in force, and times that.
func (k *kernelHalf) load(what string, policy func() (string, error)) error {
	text, err := policy()
	if err != nil {
		return err
	}
	path := filepath.Join(k.dir, "kernel.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return err
	}
	p, _, err := plan.Load(path, plan.ReadFile)
	if err != nil {
		return err
	}
	began := time.Now()
	_, _, err = lsm.Load(context.Background(), p, lsm.Options{Policy: path, Tool: "bench"})
	k.loaded.add(what, time.Since(began))
	return err
}
