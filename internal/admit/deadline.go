package admit

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/oci"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// The limits of the decision about one container: a runtime waits for it, and the
// host with the runtime. Processor time is what counts on a busy machine. The wall is below
// the two minutes that a kubelet gives to a runtime.
var (
	mostTime = 30 * time.Second
	mostWall = 90 * time.Second
)

// decision is what was decided about a container.
type decision struct {
	oci.Outcome
	container plan.Container
	err       error
}

// InTime does work about one container, or returns an error once that takes too long.
// Work that goes on then ends with this process.
func InTime(work func() error) error {
	d, err := inTime(func() decision { return decision{err: work()} })
	if err != nil {
		return err
	}
	return d.err
}

// inTime returns what decide comes to, or an error once that takes too long.
// Work that goes on then ends with this process.
func inTime(decide func() decision) (decision, error) {
	decided := make(chan decision, 1)
	go func() { decided <- decide() }()
	start, began := processorTime(), time.Now()
	glance := time.NewTicker(mostWall / 1000)
	defer glance.Stop()
	for {
		select {
		case d := <-decided:
			return d, nil
		case <-glance.C:
			if processorTime()-start > mostTime || time.Since(began) > mostWall {
				return decision{}, fmt.Errorf("no decision within %v of processor time and %v in all, which is the most that one container gets: give it a smaller seccomp profile", mostTime, mostWall)
			}
		}
	}
}

// processorTime is what this process and its children took so far.
func processorTime() (sum time.Duration) {
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var used unix.Rusage
		if err := unix.Getrusage(who, &used); err == nil {
			sum += time.Duration(used.Utime.Nano() + used.Stime.Nano())
		}
	}
	return sum
}
