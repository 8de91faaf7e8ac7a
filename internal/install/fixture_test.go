package install

import (
	"golang.org/x/tools/txtar"

	"github.com/afalg-policy/afalg-policy/internal/testing/hosttest"
)

var (
	must     = hosttest.Must
	snapshot = hosttest.Snapshot
	without  = hosttest.Without
	equal    = hosttest.Equal
	write    = hosttest.Write
)

func archiveOf(settings string) *txtar.Archive { return &txtar.Archive{Comment: []byte(settings)} }
