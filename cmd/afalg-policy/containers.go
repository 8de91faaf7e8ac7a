package main

import (
	"io"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/afalg-policy/afalg-policy/internal/admit"
	"github.com/afalg-policy/afalg-policy/internal/bounded"
	"github.com/afalg-policy/afalg-policy/internal/filter/harden"
	"github.com/afalg-policy/afalg-policy/internal/gen"
	"github.com/afalg-policy/afalg-policy/internal/lsm"
	"github.com/afalg-policy/afalg-policy/internal/oci"
	"github.com/afalg-policy/afalg-policy/internal/term"
	"github.com/afalg-policy/afalg-policy/internal/vouch"
)

const (
	defaultPolicy = "/etc/afalg-policy/policy.yaml"
	defaultAgent  = gen.DefaultAgent
)

// containerFlags are those of what works on one container as it starts: the
// hooks and the wrapper runtime.
type containerFlags struct {
	policy      string
	platform    *choice
	agent       string
	onAgentDown *choice
	socketcall  *choice
	accept      []string
	decisionLog string
}

func addContainerFlags(cmd *cobra.Command, platform string) *containerFlags {
	f := &containerFlags{}
	flags := cmd.Flags()
	flags.StringVar(&f.policy, "policy", defaultPolicy, "`POLICY` to apply: a path, or builtin:NAME")
	others := slices.DeleteFunc(vouch.Platforms(), func(p string) bool { return p == platform })
	f.platform = newChoice(append([]string{platform}, others...)...)
	addChoice(cmd, f.platform, "platform", "", "`PLATFORM` that vouches for the container's name and image: "+strings.Join(f.platform.words, ", "))
	flags.StringVar(&f.agent, "agent", defaultAgent, "`SOCKET` of the agent, for containers with grants")
	f.onAgentDown = newChoice("refuse", "deny")
	addChoice(cmd, f.onAgentDown, "on-agent-down", "", "refuse a container with grants while there is no agent, or deny it AF_ALG")
	f.socketcall = addSocketcall(cmd)
	flags.StringArrayVar(&f.accept, "accept", nil, "`NAME` of a wider gap that was taken on for the containers of this host; may be repeated")
	flags.StringVar(&f.decisionLog, "decision-log", "", "`FILE` to append a line of JSON to for each container")
	return f
}

// addSocketcall adds the flag for all containers; a grant is for one.
func addSocketcall(cmd *cobra.Command) *choice {
	c := newChoice(string(harden.SocketcallDeny), string(harden.SocketcallBroker), string(harden.SocketcallKeep))
	addChoice(cmd, c, "socketcall", "", "what becomes of socketcall, by which 32-bit programs make sockets: denied, left to the agent, or kept, which leaves AF_ALG open to them")
	return c
}

// open checks the flags. A container does not fail because nobody could write
// it down: warn is told of that.
func (f *containerFlags) open(stage string, warn func(text string)) (*admit.Starting, error) {
	endsSoon()
	if err := harden.CheckBroker(f.agent); err != nil {
		return nil, usagef("--agent: %w", err)
	}
	return admit.Open(admit.Options{
		Stage: stage, Policy: f.policy, Platform: f.platform.value, Agent: f.agent, Tool: toolName(),
		DenyWithoutAgent: f.onAgentDown.value == "deny", Socketcall: harden.Socketcall(f.socketcall.value),
		Accepted: f.accept, KernelHalf: lsm.InForce, Log: f.decisionLog, Warn: warn,
	}), nil
}

// endsSoon spares a command that ends within a second most collections of
// garbage, which take a fifth of a proof; unless it needs much memory.
func endsSoon() {
	debug.SetGCPercent(400)
	debug.SetMemoryLimit(256 << 20)
}

// stdinTime is how long a hook waits for what a runtime writes at once.
const stdinTime = 10 * time.Second

// readStdin reads what a runtime gives to a hook.
func readStdin(in io.Reader, what string) ([]byte, error) {
	if f, ok := in.(*os.File); ok && term.IsTerminal(f) {
		return nil, usagef("%s is read from standard input, which is a terminal", what)
	}
	type result struct {
		text []byte
		err  error
	}
	read := make(chan result, 1)
	go func() {
		text, err := bounded.ReadAll(in, oci.MaxSpec)
		read <- result{text, err}
	}()
	select {
	case r := <-read:
		switch {
		case r.err != nil:
			return nil, usagef("read %s from standard input: %w", what, r.err)
		case len(strings.TrimSpace(string(r.text))) == 0:
			return nil, usagef("nothing on standard input, where %s is expected: container runtimes call this hook, and write it there", what)
		}
		return r.text, nil
	case <-time.After(stdinTime):
		return nil, usagef("%s did not come on standard input within %v", what, stdinTime)
	}
}
