package nri

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/nri/pkg/api"
	"google.golang.org/protobuf/proto"

	"github.com/afalg-policy/afalg-policy/internal/filter/harden"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/kube"
	"github.com/afalg-policy/afalg-policy/internal/oci"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/printable"
	"github.com/afalg-policy/afalg-policy/internal/vouch"
)

// session is what a runtime asks over one connection. The names of its methods are
// NRI's.
type session struct {
	p       *Plugin
	timeout func() time.Duration // after which the runtime gives up
	refused error
	last    atomic.Int64 // when a question was answered

	mu      sync.Mutex
	answers map[string]*answer
}

// answer is what CreateContainer said, until the runtime asks about it.
type answer struct {
	profile *api.LinuxSeccomp // nil: the container's own stays
	at      time.Time
}

// maxAnswers bounds those that the runtime never asked about, because another plugin
// refused the container.
const maxAnswers = 64

// Configure refuses runtimes to whose containers a plugin does harm.
func (s *session) Configure(_ context.Context, _, runtime, version string) (api.EventMask, error) {
	if err := CheckRuntime(printable.Line(runtime), printable.Line(version)); err != nil {
		s.refused = err
		return 0, err
	}
	timeout := s.timeout()
	s.p.change(func(st *State) {
		*st = State{Connected: true, Runtime: printable.Line(runtime + " " + version), Timeout: timeout.String()}
	})
	s.p.o.Told.Connected(true)
	s.p.o.Note(fmt.Sprintf("NRI: connected to %s %s, which waits %v for an answer", printable.Line(runtime), printable.Line(version), timeout))
	return 0, nil // all events that have a method
}

// Synchronize names the containers that run and were not given their profile. They
// stay as they are: nobody can put a filter on a process of others.
func (s *session) Synchronize(_ context.Context, pods []*api.PodSandbox, containers []*api.Container) ([]*api.ContainerUpdate, error) {
	podOf := map[string]*api.PodSandbox{}
	for _, pod := range pods {
		podOf[pod.GetId()] = pod
	}
	var unproved []string
	for _, c := range containers {
		pod := podOf[c.GetPodSandboxId()]
		if ours(pod, c) {
			continue
		}
		if n := c.GetLinux().GetSeccompPolicy(); n == nil || !s.p.o.Given.Has(text(specOf(n))) {
			unproved = append(unproved, printable.Line(strings.Join([]string{pod.GetNamespace(), pod.GetName(), c.GetName()}, "/")))
		}
	}
	s.p.change(func(st *State) { st.Unproved = unproved })
	s.p.o.Told.Unproved(len(unproved))
	if len(unproved) > 0 {
		s.p.o.Note(fmt.Sprintf("NRI: %d containers run that were not given their profile: they stay as they are until they are started again (%s)", len(unproved), some(unproved)))
	}
	return nil, nil
}

// some names a few.
func some(names []string) string {
	const few = 8
	if len(names) > few {
		return strings.Join(names[:few], ", ") + ", …"
	}
	return strings.Join(names, ", ")
}

// patience is how long an answer may take: well below the time after which the
// runtime goes on without one, and no longer than others should wait, for it asks
// about one container at a time.
func (s *session) patience() time.Duration {
	const most = 10 * time.Second
	return min(s.timeout()*2/3, most)
}

// CreateContainer answers with the profile, or refuses the container.
func (s *session) CreateContainer(ctx context.Context, pod *api.PodSandbox, c *api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
	began := time.Now()
	s.p.begun.Store(began.UnixNano())
	defer s.p.begun.Store(0)
	defer s.answered()
	ctx, cancel := context.WithTimeout(ctx, s.patience())
	defer cancel()
	d := s.inTime(ctx, pod, c)
	s.p.o.Log.Container("nri", d.container, d.Outcome, d.err)
	s.p.o.Told.Answered(d.word(), time.Since(began))
	if d.err != nil {
		s.p.o.Note(printable.Line(fmt.Sprintf("NRI: %s/%s/%s is refused: %v", pod.GetNamespace(), pod.GetName(), c.GetName(), d.err)))
		return nil, nil, fmt.Errorf("afalg-policy: %w", d.err)
	}
	s.remember(c.GetId(), &answer{d.profile, time.Now()})
	adjust := &api.ContainerAdjustment{}
	if d.profile != nil {
		adjust.SetLinuxSeccompPolicy(d.profile)
	}
	return adjust, nil, nil
}

// ValidateContainerAdjustment refuses a container whose profile is not the one that
// CreateContainer gave it, and one about which that was not asked, or was too late.
func (s *session) ValidateContainerAdjustment(_ context.Context, r *api.ValidateContainerAdjustmentRequest) error {
	defer s.answered()
	given := s.take(r.GetContainer().GetId())
	switch {
	case given == nil:
		return errors.New("afalg-policy: nothing was decided about the container in time")
	case !proto.Equal(given.profile, r.GetAdjust().GetLinux().GetSeccompPolicy()):
		return errors.New("afalg-policy: another plugin has replaced the seccomp profile that was proved")
	}
	for key := range r.GetAdjust().GetAnnotations() {
		config := profile.Config{Annotations: map[string]string{key: ""}}
		if err := config.OwnFilter(); err != nil {
			return fmt.Errorf("afalg-policy: another plugin adds to the container: %w", err)
		}
	}
	return nil
}

func (s *session) remember(id string, a *answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.answers) >= maxAnswers {
		clear(s.answers)
	}
	s.answers[id] = a
}

func (s *session) take(id string) *answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.answers[id]
	delete(s.answers, id)
	return a
}

func (s *session) answered() { s.last.Store(time.Now().UnixNano()) }

// Limits of what an agent that ends waits for: all in all, for the second question
// about a container, and for an answer to leave.
const (
	settling = 2 * time.Second
	second   = time.Second
	leaving  = 100 * time.Millisecond
)

// settle waits until the runtime waits for nothing. It would refuse a container about
// which it is not answered any more.
func (s *session) settle() {
	for end := time.Now().Add(settling); s.waitedFor() && time.Now().Before(end); {
		time.Sleep(leaving / 4)
	}
}

func (s *session) waitedFor() bool {
	if s.p.begun.Load() != 0 || time.Since(time.Unix(0, s.last.Load())) < leaving {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.answers {
		if time.Since(a.at) < second {
			return true
		}
	}
	return false
}

// decision is what becomes of a container.
type decision struct {
	oci.Outcome
	container plan.Container
	profile   *api.LinuxSeccomp // to give to the runtime
	err       error
}

// The words for what is no verdict.
const (
	refused = "refused"
	late    = "late" // refused, because nothing was decided in time
)

// Verdicts are the words that an Observer is told.
func Verdicts() []string {
	return []string{string(oci.Closed), string(oci.Granted), string(oci.Unconfined), refused, late}
}

func (d decision) word() string {
	var l *lateError
	switch {
	case errors.As(d.err, &l):
		return late
	case d.err != nil:
		return refused
	}
	return string(d.Verdict)
}

// lateError says that the runtime would not have waited. What was begun goes on, and
// the container starts when it is tried again.
type lateError struct{ after time.Duration }

func (e *lateError) Error() string {
	return fmt.Sprintf("its seccomp profile was not proved within %v, which is what the runtime waits for a plugin, and a bit less; the proof goes on, and the container starts when it is tried again: raise plugin_request_timeout of containerd (afalg-policy install containerd --nri)", e.after)
}

// inTime refuses where the runtime would go on without an answer.
func (s *session) inTime(ctx context.Context, pod *api.PodSandbox, c *api.Container) decision {
	decided := make(chan decision, 1)
	go func() {
		d := decision{container: plan.Container{Platform: "containerd", ID: c.GetId()}}
		defer func() {
			if r := recover(); r != nil {
				s.p.o.Note(printable.Line(fmt.Sprintf("NRI: %v\n%s", r, debug.Stack())))
				d.err = fmt.Errorf("a fault of this program: %v", r)
			}
			decided <- d
		}()
		s.decide(ctx, pod, c, &d)
	}()
	select {
	case d := <-decided:
		return d
	case <-ctx.Done():
		return decision{
			container: plan.Container{Platform: "containerd", ID: c.GetId(), Vouched: plan.Identity{Name: c.GetName(), Pod: pod.GetName(), Namespace: pod.GetNamespace()}},
			err:       &lateError{s.patience()},
		}
	}
}

// decide is the answer, however long it takes.
func (s *session) decide(ctx context.Context, pod *api.PodSandbox, c *api.Container, d *decision) {
	q := ask(pod, c)
	d.container = q.container
	if ours(pod, c) {
		d.Outcome = oci.Outcome{Verdict: oci.Unconfined, Reason: "it is the agent's own container, which makes the sockets that the policy allows"}
		return
	}
	o := s.p.o.OCI
	o.Plan, o.KeptOnly = s.p.o.Plan(), true
	d.Outcome, d.profile, d.err = q.answer(o)
	if errors.Is(d.err, harden.ErrNotKept) {
		d.err = s.prove(ctx, q.proof(o))
		if d.err == nil {
			d.Outcome, d.profile, d.err = q.answer(o)
		}
	}
	switch {
	case errors.Is(d.err, harden.ErrNotKept):
		d.err = errors.New("its seccomp profile was proved, and the proof was not kept: root alone must be able to write to /var/cache/afalg-policy/proofs")
	case d.err == nil && d.profile != nil:
		s.p.o.Given.Add(text(specOf(d.profile)))
	case d.err == nil && q.seccomp != nil:
		s.p.o.Given.Add(text(q.seccomp))
	}
}

// prove has something proved that nobody asked for before, and whatever other
// containers may need of the same profile after it.
func (s *session) prove(ctx context.Context, f Proof) error {
	switch err := s.p.prover.ask(ctx, f); {
	case err != nil && ctx.Err() != nil:
		return &lateError{s.patience()}
	case err != nil:
		return err
	}
	if f.Seccomp != nil && !f.Whole && s.p.o.Bases.Add(f.Seccomp) {
		s.p.o.Ahead()
	}
	return nil
}

// ours is the container of an agent: of this one, or of the one that takes over from
// it. Both names are the kubelet's word.
func ours(pod *api.PodSandbox, c *api.Container) bool {
	return pod.GetNamespace() == kube.Namespace && c.GetName() == kube.AgentContainer
}

// ask reads what the runtime says of a container.
func ask(pod *api.PodSandbox, c *api.Container) question {
	q := question{
		seccomp: specOf(c.GetLinux().GetSeccompPolicy()),
		config:  profile.Config{Env: c.GetEnv(), Annotations: c.GetAnnotations()},
	}
	for _, n := range c.GetLinux().GetNamespaces() {
		q.config.Namespaces = append(q.config.Namespaces, profile.Namespace{Type: n.GetType(), Path: n.GetPath()})
	}
	q.container = vouch.NRI(vouch.Told{
		ID: c.GetId(), Namespace: pod.GetNamespace(), Pod: pod.GetName(), Name: c.GetName(),
		Labels: c.GetLabels(), PodLabels: pod.GetLabels(), PodAnnotations: pod.GetAnnotations(),
		Digests: []string{c.GetImage().GetDigest(), c.GetImage().GetConfigDigest()},
		Spec:    &q.config,
	})
	return q
}
