package oci

import (
	"context"
	"log/slog"
	"os"
	"strings"
)

// Log is the log of a runtime (--log, --log-format), where containerd, Docker
// and Podman look for the reason of a failure.
type Log struct {
	Path string // "" for none; crun puts a type before it, as file:PATH
	JSON bool
}

// Fail writes an error as runtimes do. That it cannot is nobody's to hear.
func (l Log) Fail(text string) { l.write(slog.LevelError, text) }

// Warn writes a warning.
func (l Log) Warn(text string) { l.write(slog.LevelWarn, text) }

func (l Log) write(level slog.Level, text string) {
	path, ofFile := strings.CutPrefix(l.Path, "file:")
	elsewhere := strings.HasPrefix(path, "journald:") || strings.HasPrefix(path, "syslog:")
	if path == "" || elsewhere && !ofFile {
		return
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return
	}
	defer f.Close()
	o := &slog.HandlerOptions{ReplaceAttr: asRuntimes}
	var h slog.Handler = slog.NewTextHandler(f, o)
	if l.JSON {
		h = slog.NewJSONHandler(f, o)
	}
	slog.New(h).Log(context.Background(), level, text)
}

// asRuntimes writes the level as callers look for it.
func asRuntimes(_ []string, a slog.Attr) slog.Attr {
	switch {
	case a.Key != slog.LevelKey:
		return a
	case a.Value.String() == slog.LevelWarn.String():
		return slog.String(a.Key, "warning")
	default:
		return slog.String(a.Key, strings.ToLower(a.Value.String()))
	}
}
