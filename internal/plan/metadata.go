package plan

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// Metadata is the content of listenerMetadata, which carries it from the
// generator of a profile to the agent. A runtime hands it over as it stands in
// a file that others may have written: the agent looks up the grants in a
// policy of its own.
type Metadata struct {
	Version int      `json:"version"` // metadataVersion
	Policy  string   `json:"policy"`  // the policy of the profile, for people
	Grants  []string `json:"grants"`  // names of the rules that the workload holds
}

// metadataVersion is the only version so far.
const metadataVersion = 1

// maxMetadata bounds the text, in bytes.
const maxMetadata = 64 << 10

// String is compact JSON of the current version, with the grants sorted and
// each once. ParseMetadata accepts it unless a name is invalid or the text too
// large.
func (m Metadata) String() string {
	m.Version = metadataVersion
	m.Grants = sortedBy(slices.Values(m.Grants), strings.Compare)
	if m.Grants == nil {
		m.Grants = []string{}
	}
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(m); err != nil { // a number and strings always encode
		return ""
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// ParseMetadata reads what String writes, in any order and spacing. It is
// strict: a silently dropped key could be a grant or its limit. Every key must
// appear once, exactly as it is written here, and nothing besides.
func ParseMetadata(s string) (Metadata, error) {
	m, err := parseMetadata(s)
	if err != nil {
		return Metadata{}, fmt.Errorf("listener metadata: %w", err)
	}
	return m, nil
}

func parseMetadata(s string) (Metadata, error) {
	values, err := members(s)
	if err != nil {
		return Metadata{}, err
	}
	var m Metadata
	if err := value(values, "version", "a whole number", &m.Version); err != nil {
		return Metadata{}, err
	}
	if m.Version != metadataVersion {
		return Metadata{}, fmt.Errorf("version %d: this program reads version %d", m.Version, metadataVersion)
	}
	if err := value(values, "policy", "text", &m.Policy); err != nil {
		return Metadata{}, err
	}
	if i := strings.IndexFunc(m.Policy, func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
		return Metadata{}, fmt.Errorf("policy %.100q: only printable characters may stand in it", m.Policy)
	}
	m.Grants, err = grants(values)
	return m, err
}

// metadataKeys are the keys of Metadata.
var metadataKeys = []string{"version", "policy", "grants"}

// members splits the object. Unmarshal alone would accept a key in another
// case, and the last of two.
func members(s string) (map[string]json.RawMessage, error) {
	if err := checkJSON(s); err != nil {
		return nil, err
	}
	d := json.NewDecoder(strings.NewReader(s))
	if start, err := d.Token(); err != nil || start != json.Delim('{') {
		return nil, errors.New("not a JSON object")
	}
	values := map[string]json.RawMessage{}
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return nil, err
		}
		key, _ := token.(string) // JSON allows nothing else here
		if !slices.Contains(metadataKeys, key) {
			return nil, fmt.Errorf("unknown key %.100q; the keys are %s", key, strings.Join(metadataKeys, ", "))
		}
		if _, again := values[key]; again {
			return nil, fmt.Errorf("the key %q stands twice", key)
		}
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return nil, err
		}
		values[key] = raw
	}
	return values, nil
}

// checkJSON refuses anything but one JSON value of a bearable size.
func checkJSON(s string) error {
	if len(s) > maxMetadata {
		return fmt.Errorf("%d bytes; at most %d are read", len(s), maxMetadata)
	}
	if !utf8.ValidString(s) {
		return errors.New("not UTF-8")
	}
	var all json.RawMessage
	if err := json.Unmarshal([]byte(s), &all); err != nil {
		return fmt.Errorf("not JSON: %w", err)
	}
	return nil
}

// value decodes one member; what describes the expected value.
func value(values map[string]json.RawMessage, key, what string, to any) error {
	raw, ok := values[key]
	if !ok {
		return fmt.Errorf("the key %q is missing", key)
	}
	// Unmarshal accepts null for anything, and changes nothing.
	if bytes.Equal(raw, []byte("null")) || json.Unmarshal(raw, to) != nil {
		return fmt.Errorf("%s must be %s", key, what)
	}
	return nil
}

// grants reads the names, and returns them sorted.
func grants(values map[string]json.RawMessage) ([]string, error) {
	const what = "a list of rule names"
	var list []*string // nil for null
	if err := value(values, "grants", what, &list); err != nil {
		return nil, err
	}
	if len(list) > policy.MaxRules {
		return nil, fmt.Errorf("%d grants; a policy has %d rules at most", len(list), policy.MaxRules)
	}
	names := make([]string, 0, len(list))
	seen := map[string]bool{}
	for _, name := range list {
		switch {
		case name == nil:
			return nil, fmt.Errorf("grants must be %s", what)
		case !policy.IsRuleName(*name):
			return nil, fmt.Errorf("grant %.100q is no name of a rule", *name)
		case seen[*name]:
			return nil, fmt.Errorf("grant %q stands twice", *name)
		}
		seen[*name] = true
		names = append(names, *name)
	}
	slices.Sort(names)
	return names, nil
}
