package probe

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A process may die of a question at once. The answer before has to be written
// by then, or that question answers for the one before.
func TestAnswersAreWrittenBeforeTheNextQuestion(t *testing.T) {
	const n = 1000
	var out strings.Builder
	answers, written, lost := make(chan answer), make(chan struct{}), make(chan int, 1)
	go func() {
		count := 0
		for i := range n {
			answers <- answer{OK: true}
			<-written
			if strings.Count(out.String(), "\n") != i+1 {
				count++
			}
		}
		lost <- count
	}()
	if err := relay(unix.Getpid(), n, answers, written, &out); err != nil {
		t.Fatal(err)
	}
	if lost := <-lost; lost > 0 {
		t.Errorf("%d of %d answers were not written when the next question was put", lost, n)
	}
}
