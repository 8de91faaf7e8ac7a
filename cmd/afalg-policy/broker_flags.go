package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/decider"
	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/output"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// brokerFlags are those of run and of agent.
type brokerFlags struct {
	Log       string
	Metrics   string
	Learn     string
	DenyTypes []string
}

func addBrokerFlags(cmd *cobra.Command) *brokerFlags {
	b := &brokerFlags{}
	f := cmd.Flags()
	f.StringVar(&b.Log, "log", "", "append every decision to `FILE`, as a line of JSON")
	f.StringVar(&b.Metrics, "metrics", "", "serve Prometheus metrics at `ADDRESS`: unix:/PATH, or a loopback address with a port")
	f.StringVar(&b.Learn, "learn", "", "enforce nothing, and write the policy that allows what was used to `FILE`")
	f.StringArrayVar(&b.DenyTypes, "deny-type", nil, "`TYPE` that is denied even while learning; may be repeated")
	// The only error is an unknown flag, and it was added above.
	_ = cmd.RegisterFlagCompletionFunc("deny-type", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return typeNames(), cobra.ShellCompDirectiveNoFileComp
	})
	return b
}

func typeNames() []string {
	var names []string
	for _, t := range afalg.Types() {
		names = append(names, string(t))
	}
	return names
}

// check finds mistakes before anything is started.
func (b *brokerFlags) check() error {
	if len(b.DenyTypes) > 0 && b.Learn == "" {
		return usagef("--deny-type goes with --learn: without it the policy alone allows")
	}
	for _, t := range b.DenyTypes {
		if !slices.Contains(typeNames(), t) {
			return usagef("--deny-type %s: no such type; there are %s", t, strings.Join(typeNames(), ", "))
		}
	}
	if b.Learn != "" {
		// It is written at the end, and would be lost then.
		if dir, err := os.Stat(filepath.Dir(b.Learn)); err != nil || !dir.IsDir() {
			return usagef("--learn %s: there is no such directory", b.Learn)
		}
		return written(output.Replaceable(b.Learn))
	}
	return nil
}

// deciding is a decider, and where what it learns is written.
type deciding struct {
	*decider.Decider
	flags *brokerFlags
	t     *tui
	saved bool // what it learned, once
}

// open makes a decider for a plan.
func (b *brokerFlags) open(t *tui, p *plan.Plan, o decider.Options) (*deciding, error) {
	o.Log, o.Stream, o.Metrics, o.Version = b.Log, t.Notes, b.Metrics, buildInfo().Version
	o.Learn, o.DenyTypes = b.Learn != "", b.DenyTypes
	o.Note = func(text string) { t.Notef("afalg-policy: %s", text) }
	d, err := decider.New(p, o)
	if err != nil {
		return nil, hosterr.Errorf("%w", err)
	}
	return &deciding{Decider: d, flags: b, t: t}, nil
}

// save writes what was logged and learned so far.
func (d *deciding) save() error {
	d.Flush()
	text, rules := d.Learned("learned", "made by "+toolName()+" from what was used")
	if text == nil {
		return nil
	}
	file := d.flags.Learn
	if err := written(output.File(file, text)); err != nil {
		return fmt.Errorf("what was learned is lost: %w", err)
	}
	switch {
	case rules == 0:
		d.t.Notef("afalg-policy: nothing was learned: no algorithm was used that a rule can stand for; %s is a policy that denies everything", file)
	case !d.saved:
		d.t.Notef("learned: %s; nothing was enforced%s", file, d.flags.exceptions())
	}
	d.saved = true
	return nil
}

// warn says loudly what learning means.
func (b *brokerFlags) warn(t *tui) {
	if b.Learn == "" {
		return
	}
	t.Notef("WARNING: learning: NOTHING IS ENFORCED, every algorithm is allowed to everybody%s", b.exceptions())
}

func (b *brokerFlags) exceptions() string {
	if len(b.DenyTypes) == 0 {
		return ""
	}
	return " but those of type " + strings.Join(b.DenyTypes, ", ")
}
