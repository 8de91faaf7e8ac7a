package oci

import (
	"context"
	"log/slog"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/logfile"
)

// Log is the log of a runtime (--log, --log-format), where containerd, Docker
// and Podman look for the reason of a failure.
type Log struct {
	Path string // "" for none; crun puts a type before it, as file:PATH
	JSON bool
}

// Fail writes an error as runtimes do. Nobody hears of a log that cannot be written.
func (l Log) Fail(text string) { l.write(slog.LevelError, text) }

// Warn writes a warning.
func (l Log) Warn(text string) { l.write(slog.LevelWarn, text) }

func (l Log) write(level slog.Level, text string) {
	path, ofFile := strings.CutPrefix(l.Path, "file:")
	elsewhere := strings.HasPrefix(path, "journald:") || strings.HasPrefix(path, "syslog:")
	if path == "" || elsewhere && !ofFile {
		return
	}
	f, err := logfile.Open(path, 0o644)
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

// CallerLog finds the log in the arguments of a runtime, also in those that
// cannot be read otherwise: that they cannot is to stand there.
func CallerLog(args []string) (l Log) {
	for len(args) > 0 {
		o, value, used, err := readOption(args, globalOptions)
		switch {
		case err != nil:
			args = args[1:]
			if len(args) > 1 && strings.HasPrefix(args[1], "-") && !strings.HasPrefix(args[0], "-") {
				args = args[1:] // the unknown option's value
			}
			continue
		case used == 0:
			return l
		}
		l.take(o, value)
		args = args[used:]
	}
	return l
}

// take takes note of an option.
func (l *Log) take(o option, value string) {
	switch o.name {
	case "log":
		l.Path = value
	case "log-format":
		l.JSON = value == "json"
	}
}
