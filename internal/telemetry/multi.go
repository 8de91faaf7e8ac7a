package telemetry

import (
	"time"

	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// Multi tells each observer of the list what it is told, in this order. A nil
// in the list is left out.
func Multi(list ...plan.Observer) plan.Observer {
	var all multi
	for _, o := range list {
		if o != nil {
			all = append(all, o)
		}
	}
	if len(all) == 1 {
		return all[0]
	}
	return all
}

type multi []plan.Observer

func (m multi) Decided(r plan.Record) {
	for _, o := range m {
		o.Decided(r)
	}
}

func (m multi) Answered(call string, took time.Duration) {
	for _, o := range m {
		o.Answered(call, took)
	}
}

func (m multi) Sessions(change int) {
	for _, o := range m {
		o.Sessions(change)
	}
}

func (m multi) Failed(what string, err error) {
	for _, o := range m {
		o.Failed(what, err)
	}
}
