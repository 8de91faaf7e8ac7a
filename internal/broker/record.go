package broker

import (
	"time"

	"github.com/afalg-policy/afalg-policy/internal/plan"
)

type nobody struct{}

func (nobody) Decided(plan.Record)            {}
func (nobody) Answered(string, time.Duration) {}
func (nobody) Sessions(int)                   {}
func (nobody) Failed(string, error)           {}
