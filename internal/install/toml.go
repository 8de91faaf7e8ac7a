package install

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/afalg-policy/afalg-policy/internal/edit"
	"github.com/afalg-policy/afalg-policy/internal/install/host"
)

// table is a table of a TOML file.
type table map[string]any

func parseTOML(shown string, src []byte) (table, error) {
	t := table{}
	err := toml.Unmarshal(src, &t)
	var bad *toml.DecodeError
	if errors.As(err, &bad) {
		line, column := bad.Position()
		return nil, fmt.Errorf("%s:%d:%d: %w; correct it", shown, line, column, err)
	} else if err != nil {
		return nil, fmt.Errorf("%s: %w", shown, err)
	}
	return t, nil
}

// table returns a table below, or nil.
func (t table) table(path ...string) table {
	for _, name := range path {
		switch below := t[name].(type) {
		case map[string]any:
			t = below
		default:
			return nil
		}
	}
	return t
}

func (t table) text(name string) string {
	s, _ := t[name].(string)
	return s
}

// texts returns a list of strings, and whether the file sets it.
func (t table) texts(name string) ([]string, bool) {
	list, set := t[name].([]any)
	var texts []string
	for _, v := range list {
		if s, ok := v.(string); ok {
			texts = append(texts, s)
		}
	}
	return texts, set
}

// readLayers reads the main files and then the drop-ins beside ours; later ones
// win. add takes each file, and returns a setting that would replace ours.
// Behind ours, such a setting is an error. hidden says whether files whose
// names begin with a dot are read.
func readLayers(h *host.Host, main []string, ours, suffix string, hidden bool, add func(p string, t table) (sets string)) error {
	dropIns, err := h.List(path.Dir(ours), suffix)
	if err != nil {
		return err
	}
	for _, p := range append(main, dropIns...) {
		if !h.Exists(p) || p == ours || !hidden && strings.HasPrefix(path.Base(p), ".") {
			continue
		}
		data, err := h.Follow(p)
		if err != nil {
			return err
		}
		t, err := parseTOML(h.Shown(p), data)
		if err != nil {
			return err
		}
		if sets := add(p, t); p > ours && path.Dir(p) == path.Dir(ours) && sets != "" {
			return fmt.Errorf("%s sets %s and is read after %s, so that this would not hold; give it a name that sorts before", h.Shown(p), sets, ours)
		}
	}
	return nil
}

// setting is one value of a TOML file.
type setting struct {
	path  []string
	value any // string, bool, int, []string
}

func editTOML(shown string, src []byte, settings []setting) ([]byte, error) {
	for _, s := range settings {
		var err error
		if src, err = edit.TOML(src, s.path, s.value); err != nil {
			return nil, inFile(shown, err)
		}
	}
	return src, nil
}
