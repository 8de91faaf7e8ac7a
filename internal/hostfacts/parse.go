package hostfacts

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/bounded"
	"github.com/afalg-policy/afalg-policy/internal/printable"
)

// Limits of texts in bytes. Debian 12's are 6 KiB, 660 KiB, 10 KiB and 260 KiB.
const (
	maxBuiltin = 1 << 20
	maxDep     = 4 << 20
	maxLoaded  = 1 << 20
	maxConfig  = 2 << 20 // unpacked
)

// maxName bounds the name of a module: the kernel has 56 bytes on 64-bit machines.
const maxName = 64

// modulesOf lists the modules that a text names, one a line, each by the path of its
// file before the end of the line or a colon: modules.builtin and modules.dep.
func modulesOf(text []byte, limit int) ([]string, error) {
	return lines(text, limit, func(line string) (string, error) {
		file, _, _ := strings.Cut(line, ":")
		base := path.Base(file)
		name, ending, ok := strings.Cut(base, ".ko")
		if !ok || ending != "" && ending != ".xz" && ending != ".gz" && ending != ".zst" {
			return "", errors.New("is no file of a module")
		}
		return moduleName(name)
	})
}

// loadedOf lists the modules that /proc/modules names.
func loadedOf(text []byte) ([]string, error) {
	return lines(text, maxLoaded, func(line string) (string, error) {
		name, rest, ok := strings.Cut(line, " ")
		if !ok || len(strings.Fields(rest)) < 4 {
			return "", errors.New("is no line of /proc/modules")
		}
		return moduleName(name)
	})
}

func moduleName(name string) (string, error) {
	for _, r := range name {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' {
			return "", errors.New("has a name that no module has")
		}
	}
	if name == "" || len(name) > maxName {
		return "", errors.New("has a name that no module has")
	}
	return Name(name), nil
}

// lines reads each line that is not empty, up to a limit of bytes.
func lines[T any](text []byte, limit int, read func(line string) (T, error)) ([]T, error) {
	if len(text) > limit {
		return nil, &bounded.TooLargeError{Limit: int64(limit)}
	}
	var all []T
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		line = strings.TrimRight(line, "\r\n")
		if line == "" {
			continue
		}
		item, err := read(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %q %w", n, printable.Cut(line, 80), err)
		}
		all = append(all, item)
	}
	return all, nil
}

// option is an option of the kernel.
type option struct{ name, value string }

// configOf reads the options of a kernel, as a text or packed by gzip.
func configOf(text []byte) (map[string]string, error) {
	text, err := unpacked(text)
	if err != nil {
		return nil, err
	}
	all, err := lines(text, maxConfig, func(line string) (option, error) {
		if rest, ok := strings.CutPrefix(line, "# CONFIG_"); ok {
			if name, ok := strings.CutSuffix(rest, " is not set"); ok {
				return option{name, "n"}, nil
			}
		}
		if strings.HasPrefix(line, "#") {
			return option{}, nil
		}
		name, value, ok := strings.Cut(line, "=")
		name, known := strings.CutPrefix(name, "CONFIG_")
		if !ok || !known || name == "" {
			return option{}, errors.New("is no option of a kernel")
		}
		return option{name, value}, nil
	})
	if err != nil {
		return nil, err
	}
	config := map[string]string{}
	for _, o := range all {
		if was, seen := config[o.name]; o.name != "" && seen && was != o.value {
			return nil, fmt.Errorf("CONFIG_%s is given twice, as %s and as %s", printable.Cut(o.name, 80), printable.Cut(was, 80), printable.Cut(o.value, 80))
		}
		config[o.name] = o.value
	}
	delete(config, "")
	if len(config) == 0 {
		return nil, errors.New("it has no option of a kernel")
	}
	return config, nil
}

// unpacked takes gzip off.
func unpacked(text []byte) ([]byte, error) {
	if !bytes.HasPrefix(text, []byte{0x1f, 0x8b}) {
		return text, nil
	}
	packed, err := gzip.NewReader(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	text, err = bounded.ReadAll(packed, maxConfig)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("it is cut off")
	}
	return text, err
}

// libsepol finds the version of libsepol in dpkg's status: "3.4".
func libsepol(status string) string {
	ours := false
	for line := range strings.Lines(status) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch key {
		case "Package":
			ours = value == "libsepol1" || value == "libsepol2"
		case "Version":
			if ours {
				version, _, _ := strings.Cut(value, "-")
				return printable.Cut(version, 40)
			}
		}
	}
	return ""
}

// setting finds the value of KEY=VALUE in a text, the last one.
func setting(text, key string) (value string) {
	for line := range strings.Lines(text) {
		name, v, ok := strings.Cut(strings.TrimSpace(line), "=")
		if ok && strings.TrimSpace(name) == key {
			value = strings.TrimSpace(v)
		}
	}
	return printable.Cut(value, 80)
}
