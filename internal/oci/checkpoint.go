package oci

import (
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/filter/harden"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// criuAnnotations is how annotations begin that give CRIU a configuration, by
// which it may take other images than those of the command line.
const criuAnnotations = "org.criu."

// Restored reports whether a container is restored from a checkpoint, by the
// state that runc gives to hooks; crun calls none then.
func Restored(s *specs.State) bool { return s.Status == specs.StateStopped }

// RefuseRestored is the gate's answer to a container that is restored past the
// wrapper: a hook is not told where the checkpoint is.
func (o Options) RefuseRestored(*Spec, plan.Container) (Outcome, error) {
	return Outcome{}, refuse("the container is restored from a checkpoint, whose processes bring their own filters, and this hook cannot see them: restore it by the wrapper runtime (afalg-policy install), which proves them")
}

// Restore is Harden for a container that is restored from a checkpoint, whose
// images are in a directory. Its processes come back with the filters that they
// had, whatever the spec says; the spec is for those that are started in the
// container later. So the checkpoint is refused unless its filters are closed.
func (o Options) Restore(spec *Spec, c plan.Container, images string) (Outcome, error) {
	out, err := o.Harden(spec, c)
	if err != nil {
		return out, err
	}
	for name := range spec.Config.Annotations {
		if strings.HasPrefix(name, criuAnnotations) {
			return out, refuse("the annotation %q has CRIU take a configuration, by which it may restore other images than those that were proved: remove it", name)
		}
	}
	if images == "" {
		return out, refuse("the command line does not say where the checkpoint is, and runtimes look for it in different places: name it by --image-path")
	}
	cp, err := readCheckpoint(images)
	if err != nil {
		return out, refuse("nothing can be proved of the checkpoint: %v; start the container anew", err)
	}
	e := o.engine()
	e.Grants = o.Plan.WithClasses(out.Grants)
	for _, stack := range cp.stacks {
		if err := harden.ProveFilter(o.Plan, stack, e); err != nil {
			return out, refuse("the checkpoint %s: a process was under a filter by which %v; what is restored keeps its filters: start the container anew", images, err)
		}
	}
	if o.Plan.Unconfined == plan.LSM && cp.unfiltered && !spec.apart() {
		return out, refuse("the checkpoint %s: a process was under no filter, and has no PID and cgroup namespace of its own, so that the kernel half takes it for the host's: start the container anew", images)
	}
	if cp.unfiltered {
		if !o.Plan.Unconfined.MayBeFree() {
			return out, refuse("the checkpoint %s: a process was under no filter (privileged, or seccomp=unconfined), and what is restored stays so: start the container anew, or say containers: unconfined: allow in the policy", images)
		}
		out.Verdict, out.Reason = Unconfined, "a process of the checkpoint has no filter, and the policy says containers: unconfined: "+string(o.Plan.Unconfined)
		out.Relies = o.Plan.Unconfined == plan.LSM
		return out, o.letThrough()
	}
	return out, nil
}
