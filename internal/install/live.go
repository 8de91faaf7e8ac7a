package install

import (
	"context"
	"fmt"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/install/host"
)

// ReplacePolicy replaces the file of a policy that platforms use.
func ReplacePolicy(p string, text []byte) error {
	if err := host.CheckPath("policy", p); err != nil {
		return err
	}
	h, err := host.Open("/")
	if err != nil {
		return err
	}
	defer h.Close()
	return h.Replace(p, text)
}

// Following lists the platforms that were installed with a policy, and notes
// what the policy needs and the host lacks.
func Following(policy string, needs Needs) (platformNames, notes []string, err error) {
	h, err := host.Open("/")
	if err != nil {
		return nil, nil, err
	}
	defer h.Close()
	for _, p := range platforms() {
		r, err := h.ReadRecord(p.name)
		if err != nil {
			return nil, nil, err
		}
		if r == nil || r.Options["policy"] != policy {
			continue
		}
		if p.starts {
			platformNames = append(platformNames, p.name)
		}
	}
	if platformNames != nil {
		o := Options{Needs: needs}
		notes = o.agentNotes(h)
	}
	return platformNames, notes, nil
}

// TellAgent makes the agent of this host read its policy again. It reports
// whether an agent runs.
func TellAgent(ctx context.Context) (told bool, err error) {
	state, err := ask(ctx, "systemctl", "is-active", agentService)
	if strings.TrimSpace(state) != "active" {
		return false, nil // or there is no systemd
	}
	if err != nil {
		return false, err
	}
	if _, err := ask(ctx, "systemctl", "reload", agentService); err != nil {
		return false, fmt.Errorf("systemctl reload %s: %w", agentService, err)
	}
	return true, nil
}
