package install

import (
	"context"
	"errors"
	"fmt"

	"github.com/afalg-policy/afalg-policy/internal/install/host"
)

// standingError says that files did not come in force, and that something else
// was in force before.
type standingError struct{ error }

func (e *standingError) Unwrap() error { return e.error }

// startOrBack puts in force what was installed. Where that fails, everything is
// as it was: the files, and what was in force under them.
func (p platform) startOrBack(h *host.Host, old, installed *host.Record) error {
	ctx, cancel := context.WithTimeout(context.Background(), askTime)
	defer cancel()
	err := p.start(ctx, installed)
	if err == nil {
		return nil
	}
	back, cancel := context.WithTimeout(context.Background(), askTime)
	defer cancel()
	var standing *standingError
	if undone := p.back(back, h, old, installed, errors.As(err, &standing)); undone != nil {
		return errors.Join(err, fmt.Errorf("and what was before could not be brought back: run install or uninstall again: %w", undone))
	}
	return fmt.Errorf("%w; everything is as it was", err)
}

func (p platform) back(ctx context.Context, h *host.Host, old, installed *host.Record, leave bool) error {
	if old == nil {
		c, err := h.Plan(installed, nil, nil)
		if err != nil {
			return err
		}
		return errors.Join(c.Apply(), p.stop(ctx, installed, leave))
	}
	again := host.NewRecord(old.Platform, old.Program, old.Options)
	c, err := h.Plan(installed, old.Installed(), again)
	if err != nil {
		return err
	}
	if err := c.Apply(); err != nil {
		return err
	}
	return p.start(ctx, again)
}
