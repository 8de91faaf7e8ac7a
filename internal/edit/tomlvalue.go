package edit

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// valueText writes a value: a string, a bool, an int or a []string.
func valueText(value any, quote byte) string {
	switch v := value.(type) {
	case string:
		return stringText(v, quote)
	case []string:
		list := make([]string, len(v))
		for i := range v {
			list[i] = stringText(v[i], quote)
		}
		return "[" + strings.Join(list, ", ") + "]"
	default:
		return fmt.Sprint(v)
	}
}

// dotted writes a path.
func dotted(path []string, quote byte) string {
	keys := make([]string, len(path))
	for i := range path {
		keys[i] = keyText(path[i], quote)
	}
	return strings.Join(keys, ".")
}

func keyText(key string, quote byte) string {
	bare := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_'
	}
	if key != "" && strings.IndexFunc(key, func(r rune) bool { return !bare(r) }) < 0 {
		return key
	}
	return stringText(key, quote)
}

// stringText writes a string in single quotes, if quote asks for them and it
// needs no escape, or in double quotes, with the escapes of TOML 0.4.
func stringText(s string, quote byte) string {
	if quote == '\'' && strings.IndexFunc(s, func(r rune) bool { return r == '\'' || isControl(r) }) < 0 {
		return "'" + s + "'"
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteRune('\\')
			b.WriteRune(r)
		case isControl(r):
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

func checkUTF8(texts ...string) error {
	for _, s := range texts {
		if !utf8.ValidString(s) {
			return fmt.Errorf("%s is not UTF-8", strconv.Quote(s))
		}
	}
	return nil
}
