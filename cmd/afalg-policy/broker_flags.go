package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
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
		return replaceable(os.Lstat, b.Learn, b.Learn, fs.FileMode.IsRegular)
	}
	return nil
}

// warn says loudly what learning means.
func (b *brokerFlags) warn(t *tui) {
	if b.Learn == "" {
		return
	}
	t.notef("WARNING: learning: NOTHING IS ENFORCED, every algorithm is allowed to everybody%s", b.exceptions())
}

func (b *brokerFlags) exceptions() string {
	if len(b.DenyTypes) == 0 {
		return ""
	}
	return " but those of type " + strings.Join(b.DenyTypes, ", ")
}
