// Package unit knows the units of systemd: their names, the drop-ins that this
// program owns, and the settings that a manager or its files give them.
package unit

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Dir has an administrator's units and drop-ins.
const Dir = "/etc/systemd/system"

// This program puts these files into directories of drop-ins. systemd sorts
// files by name, whatever directory they are in, and the last one counts. Of
// one name it reads only the file in the nearest directory. Two purposes may
// not share a name: the file for a unit would hide the other for all services.
const (
	// Closure closes AF_ALG. An assignment behind it could reset its list.
	Closure = "zz-afalg-policy.conf"
	// Runtime leads a platform's daemon to the wrapper.
	Runtime = "zz-afalg-policy-runtime.conf"
)

// EveryService is the unit whose drop-ins apply to each service that has none
// of the same file name.
const EveryService = "service"

// The units of the agent.
const (
	AgentService = "afalg-policy-agent.service"
	AgentSocket  = "afalg-policy-agent.socket"
)

// The units of the policy in the kernel.
const (
	LSMService = "afalg-policy-lsm.service" // puts it in force, and holds it
	LSMRefresh = "afalg-policy-lsm-refresh.service"
	LSMPath    = "afalg-policy-lsm.path" // starts the refresh
	LSMCheck   = "afalg-policy-lsm-check.service"
	LSMTimer   = "afalg-policy-lsm-check.timer" // starts the check
)

// DropIn returns the path of a drop-in below a directory of units.
func DropIn(unit, file string) string { return unit + ".d/" + file }

// sections maps the unit types that start processes of their own, by suffix, to
// the section with their settings.
var sections = map[string]string{
	".service": "Service",
	".socket":  "Socket",
	".mount":   "Mount",
	".swap":    "Swap",
}

// maxName leaves room for ".d" in a directory's name, which has at most 255
// bytes.
const maxName = 253

// Section checks a unit's name by systemd's grammar and returns the section for
// its settings. The name is then safe as a directory.
func Section(unit string) (string, error) {
	dot := strings.LastIndexByte(unit, '.')
	if dot <= 0 {
		return "", fmt.Errorf("%q: a unit's name ends in its type, as in iwd.service", unit)
	}
	section, ok := sections[unit[dot:]]
	switch {
	case !ok:
		return "", fmt.Errorf("%q: only %s take these settings", unit, strings.Join(slices.Sorted(maps.Keys(sections)), ", "))
	case len(unit) > maxName:
		return "", fmt.Errorf("%q: longer than %d bytes", unit, maxName)
	case unit[0] == '@':
		return "", fmt.Errorf("%q: no name before @", unit)
	}
	if i := strings.IndexFunc(unit, notInName); i >= 0 {
		return "", fmt.Errorf("%q: %q cannot stand in a unit's name", unit, []rune(unit[i:])[0])
	}
	return section, nil
}

func notInName(r rune) bool {
	switch {
	case '0' <= r && r <= '9', 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z':
		return false
	default:
		return !strings.ContainsRune(`:-_.\@`, r)
	}
}

// Template returns the template that a unit is an instance of, or "".
func Template(unit string) string {
	name, rest, ok := strings.Cut(unit, "@")
	dot := strings.LastIndexByte(rest, '.')
	if !ok || dot <= 0 {
		return ""
	}
	return name + "@" + rest[dot:]
}
