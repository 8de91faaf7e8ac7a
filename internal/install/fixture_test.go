package install

import "github.com/afalg-policy/afalg-policy/internal/install/host/hosttest"

var (
	must     = hosttest.Must
	snapshot = hosttest.Snapshot
	without  = hosttest.Without
	equal    = hosttest.Equal
	write    = hosttest.Write
)
