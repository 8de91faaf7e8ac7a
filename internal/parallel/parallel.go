// Package parallel runs jobs on all processors.
package parallel

import (
	"runtime"
	"sync"
)

// Each runs n jobs, as many at a time as there are processors, and waits for all.
// It returns the first error in the order of the jobs, so that the same input
// fails in the same way.
func Each(n int, job func(int) error) error {
	errs := make([]error, n)
	var group sync.WaitGroup
	free := make(chan struct{}, runtime.GOMAXPROCS(0))
	for i := range n {
		free <- struct{}{}
		group.Go(func() {
			defer func() { <-free }()
			errs[i] = job(i)
		})
	}
	group.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
