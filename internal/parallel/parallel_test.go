package parallel

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
)

func TestEach(t *testing.T) {
	var done, now, most atomic.Int64
	err := Each(100, func(i int) error {
		at := now.Add(1)
		defer now.Add(-1)
		for seen := most.Load(); at > seen && !most.CompareAndSwap(seen, at); seen = most.Load() {
		}
		runtime.Gosched()
		done.Add(1)
		if i%10 == 7 {
			return fmt.Errorf("job %d", i)
		}
		return nil
	})
	if done.Load() != 100 || err == nil || err.Error() != "job 7" {
		t.Errorf("%d jobs, %v", done.Load(), err)
	}
	if limit := int64(runtime.GOMAXPROCS(0)); most.Load() > limit {
		t.Errorf("%d at a time, want %d", most.Load(), limit)
	}
	if err := Each(0, nil); err != nil {
		t.Error(err)
	}
}
