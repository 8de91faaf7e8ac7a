package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/gen"
	"github.com/afalg-policy/afalg-policy/internal/oci"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/profile"
	"github.com/afalg-policy/afalg-policy/internal/vouch"
)

const (
	defaultPolicy = "/etc/afalg-policy/policy.yaml"
	defaultAgent  = "/run/afalg-policy/agent.sock"
)

// containerFlags are those of what works on one container as it starts: the
// hooks and the wrapper runtime.
type containerFlags struct {
	policy      string
	platform    *choice
	agent       string
	onAgentDown *choice
	socketcall  *choice
	decisionLog string
}

func addContainerFlags(cmd *cobra.Command, platform string) *containerFlags {
	f := &containerFlags{}
	flags := cmd.Flags()
	flags.StringVar(&f.policy, "policy", defaultPolicy, "`POLICY` to apply: a path, or builtin:NAME")
	others := slices.DeleteFunc(vouch.Platforms(), func(p string) bool { return p == platform })
	f.platform = newChoice(append([]string{platform}, others...)...)
	addChoice(cmd, f.platform, "platform", "", "who vouches for the container's name and image")
	flags.StringVar(&f.agent, "agent", defaultAgent, "`SOCKET` of the agent, for containers with grants")
	f.onAgentDown = newChoice("refuse", "deny")
	addChoice(cmd, f.onAgentDown, "on-agent-down", "", "refuse a container with grants while there is no agent, or deny it AF_ALG")
	f.socketcall = newChoice(string(gen.SocketcallDeny), string(gen.SocketcallBroker))
	addChoice(cmd, f.socketcall, "socketcall", "", "what becomes of socketcall, which 32-bit programs use")
	flags.StringVar(&f.decisionLog, "decision-log", "", "`FILE` to append a line of JSON to for each container")
	return f
}

// starting is one container on its way. It says nothing on standard error but
// why the container is refused: that of a runtime is the container's own.
type starting struct {
	*containerFlags
	stage string // precreate, createRuntime or runtime
	log   *containerLog
	memo  *oci.Memo // nil: nothing is kept
	// restored containers bring their names from a checkpoint, and nobody
	// vouches for them.
	restored bool
}

// open checks the flags. A container does not fail because nobody could write
// it down: warn is told of that.
func (f *containerFlags) open(stage string, warn func(text string)) (*starting, error) {
	s := &starting{containerFlags: f, stage: stage}
	if err := gen.CheckBroker(f.agent); err != nil {
		return nil, usagef("--agent: %w", err)
	}
	var err error
	if s.log, err = openContainerLog(f.decisionLog); err != nil {
		warn(fmt.Sprintf("afalg-policy: the decision log: %v", err))
	}
	return s, nil
}

func (s *starting) close() {
	s.log.close()
	if s.memo != nil {
		s.memo.Close()
	}
}

// options are made of the flags.
func (s *starting) options() (oci.Options, error) {
	p, _, err := plan.Load(s.policy, readPolicy)
	if err != nil {
		return oci.Options{}, err
	}
	arch, err := profile.ArchByName(runtime.GOARCH)
	if err != nil {
		return oci.Options{}, hostError("%w", err)
	}
	o := oci.Options{
		Plan: p, Tool: toolName(), Arch: arch, Agent: s.agent,
		DenyWithoutAgent: s.onAgentDown.value == "deny",
		Brokered:         s.socketcall.value == string(gen.SocketcallBroker),
	}
	if s.memo, err = oci.OpenMemo(filepath.Join(stateDir(), "proofs"), buildIdentity()); err == nil {
		o.Memo = s.memo
	}
	return o, nil
}

// decide is what one of the hooks or the wrapper asks of a spec.
type decide func(o oci.Options, spec *oci.Spec, c plan.Container) (oci.Outcome, error)

// settle decides about a container, and writes down what was decided.
func (s *starting) settle(source vouch.Source, ask decide) (oci.Outcome, error) {
	out, c, err := s.ask(source, ask)
	s.log.container(s.stage, c, out, err)
	return out, err
}

func (s *starting) ask(source vouch.Source, ask decide) (oci.Outcome, plan.Container, error) {
	c := plan.Container{Platform: source.Platform, ID: source.ID}
	o, err := s.options()
	if err != nil {
		return oci.Outcome{}, c, err
	}
	spec, err := oci.ReadSpec(source.Spec)
	if err != nil {
		return oci.Outcome{}, c, specError(source, err)
	}
	if c, err = vouch.Container(source); err != nil {
		s.log.identity(c, err)
	}
	if s.restored {
		c.Vouched, c.Claimed = plan.Identity{}, c.Vouched
	}
	out, err := ask(o, spec, c)
	return out, c, specError(source, err)
}

// specError says which spec an error is about.
func specError(source vouch.Source, err error) error {
	var refused *oci.NotStartedError
	if err == nil || errors.As(err, &refused) {
		return err
	}
	name := "the spec"
	if source.Bundle != "" {
		name = filepath.Join(source.Bundle, oci.ConfigName)
	}
	return &inputError{name, err}
}

// stateDir is where things are kept until the machine is shut down: root's, or
// the one of a user who runs containers without being root.
func stateDir() string {
	const own = "/run/afalg-policy"
	if os.Geteuid() == 0 && os.MkdirAll(own, 0o755) == nil && unix.Access(own, unix.W_OK) == nil {
		return own
	}
	return filepath.Join(runDir(), "afalg-policy")
}

// runDir is the directory for this user's state.
func runDir() string {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" && filepath.IsAbs(dir) {
		return dir
	}
	if os.Geteuid() == 0 {
		return "/run"
	}
	return fmt.Sprintf("/run/user/%d", os.Geteuid())
}

// buildIdentity tells this build from any other: what another one proved does
// not count.
func buildIdentity() string {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/exe", &st); err != nil {
		return fmt.Sprint(toolName(), os.Getpid())
	}
	return fmt.Sprint(toolName(), st.Dev, st.Ino, st.Size, st.Mtim, st.Ctim)
}

// stdinTime is how long a hook waits for what a runtime writes at once.
const stdinTime = 10 * time.Second

// readStdin reads what a runtime gives to a hook.
func readStdin(in io.Reader, what string) ([]byte, error) {
	if f, ok := in.(*os.File); ok && isTerminal(f) {
		return nil, usagef("%s is read from standard input, which is a terminal", what)
	}
	type result struct {
		text []byte
		err  error
	}
	read := make(chan result, 1)
	go func() {
		text, err := io.ReadAll(io.LimitReader(in, oci.MaxSpec+1))
		read <- result{text, err}
	}()
	select {
	case r := <-read:
		switch {
		case r.err != nil:
			return nil, usagef("read %s from standard input: %w", what, r.err)
		case len(r.text) > oci.MaxSpec:
			return nil, usagef("%s on standard input has more than %d bytes", what, oci.MaxSpec)
		case len(strings.TrimSpace(string(r.text))) == 0:
			return nil, usagef("nothing on standard input, where %s is expected: container runtimes call this hook, and write it there", what)
		}
		return r.text, nil
	case <-time.After(stdinTime):
		return nil, usagef("%s did not come on standard input within %v", what, stdinTime)
	}
}
