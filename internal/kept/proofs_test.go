package kept

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// An agent that still proves writes to the directory that is to go.
func TestRemoveInUse(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "proofs")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	ready, ended := make(chan bool), make(chan bool)
	go func() {
		defer close(ended)
		end := time.Now().Add(200 * time.Millisecond)
		for i := 0; i <= 100 || time.Now().Before(end); i++ {
			if i == 100 {
				close(ready)
			}
			os.MkdirAll(filepath.Join(dir, strconv.Itoa(i)), 0o755)
		}
	}()
	<-ready
	err := removeInUse(dir)
	<-ended
	if err != nil {
		t.Error(err)
	}
}
