package install

import (
	"errors"
	"fmt"

	"github.com/pelletier/go-toml/v2"

	"github.com/afalg-policy/afalg-policy/internal/edit"
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

// table returns a table below, or nothing.
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
