package doctor

import (
	"os"

	"github.com/afalg-policy/afalg-policy/internal/live"
)

var (
	selfPID     = os.Getpid()
	machineHere = live.Machine
)
