package report

import (
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/install"
	"github.com/afalg-policy/afalg-policy/internal/term"
)

// Status is the result of status: how far platforms are under the policy.
type Status struct {
	Header
	Platforms []install.Status `json:"platforms"`
}

// NewStatus is the report of what was looked at.
func NewStatus(all []install.Status) *Status {
	word := No
	if install.Good(all) {
		word = Yes
	}
	return &Status{NewHeader("status", word), append([]install.Status{}, all...)}
}

// Text writes a table of the platforms, and the reasons as notes.
func (r *Status) Text(t *term.Printer) {
	var rows [][]string
	for _, s := range r.Platforms {
		rows = append(rows, []string{s.Platform, string(s.Policy), string(s.Installed), string(s.Active), string(s.Agent), string(s.Probed), term.Dash(strings.Join(s.Restart, " "))})
	}
	t.Table([]string{"platform", "policy", "installed", "active", "agent", "probed", "restart"}, rows)
	for _, s := range r.Platforms {
		for _, reason := range s.Reasons {
			t.Notef("%s: %s", s.Platform, reason)
		}
		if s.Remark != "" {
			t.Notef("remark: %s: %s", s.Platform, s.Remark)
		}
	}
	if len(r.Platforms) == 0 {
		t.Notef("no platform was found: %s", strings.Join(install.Platforms(), ", "))
	}
}
