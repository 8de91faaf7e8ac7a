package seccomp

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// MaxRules bounds the input of libseccomp, whose time grows with the square of
// it. Each effective rule takes an instruction or more.
const MaxRules = 2 * unix.BPF_MAXINSNS

// Compile returns the program that the runtime would load for the profile. A
// child process with a limit of time and of memory does the work, and ends with
// this one. A *LimitError means that it exceeded the limit of time.
func Compile(profile *specs.LinuxSeccomp, o Options) (*Program, error) {
	if n := countRules(profile); n > MaxRules {
		return nil, fmt.Errorf("%d rules: libseccomp is given %d at most, and a filter has %d instructions at most", n, MaxRules, unix.BPF_MAXINSNS)
	}
	ways := waysWith(o)
	message, err := encode(request{profile, ways}, maxRequest)
	if err != nil {
		return nil, fmt.Errorf("the profile as JSON: %w", err)
	}
	defer Keep()()
	programs, err := compilers.once(sha256.Sum256(message), func() ([]*Program, error) { return compilers.compile(message, len(ways)) })
	if err != nil {
		return nil, explain(err, profile)
	}
	return programs[slices.Index(ways, o)].clone(), nil
}

// waysWith lists the ways to compile together: a caller that asks for one
// runtime asks for the other later.
func waysWith(o Options) []Options {
	if o.Level != 0 || !slices.Contains(Runtimes(), o.Runtime) {
		return []Options{o}
	}
	var ways []Options
	for _, r := range Runtimes() {
		ways = append(ways, Options{Runtime: r, Native: o.Native})
	}
	return ways
}

func (p *pool) compile(message []byte, ways int) ([]*Program, error) {
	a, err := p.ask(message)
	if err != nil {
		return nil, err
	}
	if a.Error != "" {
		return nil, errors.New(a.Error)
	}
	if len(a.Programs) != ways {
		return nil, fmt.Errorf("the compiler answered with %d programs instead of %d", len(a.Programs), ways)
	}
	var programs []*Program
	for _, one := range a.Programs {
		programs = append(programs, &Program{unpackInsns(one.Insns), one.Level, one.Arches})
	}
	return programs, nil
}

func (p *Program) clone() *Program {
	return &Program{slices.Clone(p.Insns), p.Level, slices.Clone(p.Arches)}
}

// Keep keeps compilers and their results for the next profile until release is
// called: a command that compiles several profiles gets them sooner. Without a
// keeper, none is left.
func Keep() (release func()) {
	compilers.mu.Lock()
	compilers.keepers++
	compilers.mu.Unlock()
	return sync.OnceFunc(compilers.release)
}

// compilers are those of this process.
var compilers = &pool{places: make(chan struct{}, runtime.GOMAXPROCS(0))}

type pool struct {
	places  chan struct{} // one for each compiler that works
	mu      sync.Mutex
	keepers int
	idle    []*compiler
	made    map[[sha256.Size]byte]func() ([]*Program, error)
}

// mostMade bounds the results kept.
const mostMade = 128

// once compiles a new profile, for all callers that ask meanwhile. It forgets
// an error: another try may succeed.
func (p *pool) once(key [sha256.Size]byte, compile func() ([]*Program, error)) ([]*Program, error) {
	p.mu.Lock()
	made, ok := p.made[key]
	if !ok {
		made = sync.OnceValues(compile)
		if p.made == nil || len(p.made) >= mostMade {
			p.made = map[[sha256.Size]byte]func() ([]*Program, error){}
		}
		p.made[key] = made
	}
	p.mu.Unlock()
	programs, err := made()
	if err != nil {
		p.mu.Lock()
		delete(p.made, key)
		p.mu.Unlock()
	}
	return programs, err
}

func (p *pool) ask(message []byte) (reply, error) {
	p.places <- struct{}{}
	defer func() { <-p.places }()
	c, err := p.take()
	if err != nil {
		return reply{}, fmt.Errorf("starting a process that compiles (/proc/self/exe): %w", err)
	}
	a, err := c.ask(message)
	if err != nil {
		return reply{}, c.died(err)
	}
	p.put(c)
	return a, nil
}

func (p *pool) take() (*compiler, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.idle); n > 0 {
		c := p.idle[n-1]
		p.idle = p.idle[:n-1]
		return c, nil
	}
	return startCompiler()
}

func (p *pool) put(c *compiler) {
	if c.worn() {
		c.end()
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle = append(p.idle, c)
}

func (p *pool) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.keepers--; p.keepers > 0 {
		return
	}
	for _, c := range p.idle {
		c.end()
	}
	p.idle, p.made = nil, nil
}

// died ends a compiler that gave no answer, and says why.
func (c *compiler) died(err error) error {
	state := c.end()
	var limit *LimitError
	if errors.As(err, &limit) {
		return err
	}
	var how string
	if state != nil {
		how = state.String()
	}
	var died *diedError
	if errors.As(err, &died) && died.said != "" {
		return fmt.Errorf("libseccomp %s died (%s): %s", Version(), how, died.said)
	}
	return fmt.Errorf("libseccomp %s died (%s) on it", Version(), how)
}

// countRules counts the rules as the runtimes give them to libseccomp.
func countRules(profile *specs.LinuxSeccomp) (n int) {
	for _, s := range profile.Syscalls {
		each := 1
		if repeats(s.Args) {
			each = len(s.Args)
		}
		n += len(s.Names) * each
	}
	return n
}

// explain adds the most likely cause to a limit error: rules for one call that
// compare different arguments, which libseccomp combines with each other.
func explain(err error, profile *specs.LinuxSeccomp) error {
	var limit *LimitError
	if !errors.As(err, &limit) {
		return err
	}
	conditional := map[string]int{}
	most := ""
	for _, s := range profile.Syscalls {
		for _, name := range s.Names {
			if len(s.Args) == 0 {
				continue
			}
			if conditional[name]++; conditional[name] > conditional[most] {
				most = name
			}
		}
	}
	if most == "" {
		return fmt.Errorf("compiling a profile of %d rules with libseccomp %s: %w", countRules(profile), Version(), err)
	}
	return fmt.Errorf("compiling a profile of %d rules with libseccomp %s: %w: rules for one call that compare different arguments multiply, and %q has %d with conditions; give it fewer",
		countRules(profile), Version(), err, most, conditional[most])
}
