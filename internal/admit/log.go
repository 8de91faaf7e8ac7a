package admit

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/afalg-policy/afalg-policy/internal/filter/harden"
	"github.com/afalg-policy/afalg-policy/internal/logfile"
	"github.com/afalg-policy/afalg-policy/internal/oci"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// Log is the log of --decision-log: one line of JSON for each
// container, and one for each claim that did not count. A nil log keeps
// nothing.
type Log struct {
	file *logfile.File
	*slog.Logger
}

// OpenLog opens the log in a file, which is made if it is missing; "" is none.
func OpenLog(path string) (*Log, error) {
	if path == "" {
		return nil, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, err
	}
	f, err := logfile.Open(path, 0o600)
	if err != nil {
		return nil, err
	}
	return &Log{f, slog.New(slog.NewJSONHandler(f, nil))}, nil
}

// Close closes the file.
func (l *Log) Close() {
	if l != nil {
		l.file.Close()
	}
}

// Container writes what became of a container.
func (l *Log) Container(stage string, c plan.Container, out oci.Outcome, err error) {
	if l == nil {
		return
	}
	for _, r := range out.Refused {
		l.Warn("claim", slog.String("container", c.ID), slog.String("name", c.Vouched.Name),
			slog.String("rule", r.Rule), slog.String("reason", r.Text))
	}
	level, verdict, reason, grants := slog.LevelInfo, string(out.Verdict), out.Reason, out.Grants
	if err != nil {
		level, verdict, reason, grants = slog.LevelError, "refused", err.Error(), nil
	}
	attrs := []any{
		slog.String("verdict", verdict), slog.String("stage", stage), slog.String("platform", c.Platform),
		slog.String("container", c.ID), slog.String("name", c.Vouched.Name),
	}
	if c.Vouched.Pod != "" {
		attrs = append(attrs, slog.String("namespace", c.Vouched.Namespace), slog.String("pod", c.Vouched.Pod))
	}
	if len(c.Vouched.Images) > 0 {
		attrs = append(attrs, slog.Any("images", c.Vouched.Images))
	}
	if len(grants) > 0 {
		attrs = append(attrs, slog.Any("grants", grants))
	}
	if err == nil && out.Left {
		attrs = append(attrs, slog.String("decided-by", policy.DecidedByLSM))
	}
	if err == nil && out.Brokered {
		attrs = append(attrs, slog.String("socketcall", string(harden.SocketcallBroker)))
	}
	if reason != "" {
		attrs = append(attrs, slog.String("reason", reason))
	}
	l.Log(context.Background(), level, "container", attrs...)
}

// unregistered logs that a container could not be registered in the kernel.
func (l *Log) unregistered(id, platform string, err error) {
	if l != nil {
		l.Warn("registration", slog.String("container", id), slog.String("platform", platform), slog.String("reason", err.Error()))
	}
}

// policy writes that the policy is not in force as it stands.
func (l *Log) policy(text string) {
	if l != nil {
		l.Error("policy", slog.String("reason", text))
	}
}

// identity writes that a platform could not be asked about a container.
func (l *Log) identity(c plan.Container, err error) {
	if l != nil {
		l.Warn("identity", slog.String("container", c.ID), slog.String("platform", c.Platform), slog.String("reason", err.Error()))
	}
}
