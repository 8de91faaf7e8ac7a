package lsm

import (
	"strings"
	"testing"

	"github.com/afalg-policy/afalg-policy/internal/lsm/table"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// A host that has everything leaves the gaps of the table alone.
func TestAssumedHost(t *testing.T) {
	unit := strings.Repeat("u", 200) + ".service"
	text := `version: 1
name: p
allow:
  - rule: all
    binaries: [/usr/bin/a, {path: /usr/bin/b, sha256: ` + strings.Repeat("a", 64) + `}]
    users: [alice, root]
    units: [a.service, ` + unit + `]
    algorithms: {hash: [sha1]}
  - rule: again
    binaries: [/usr/bin/b]
    algorithms: {hash: [sha1]}
`
	p, _, err := plan.Load("p.yaml", func(string) ([]byte, error) { return []byte(text), nil })
	if err != nil {
		t.Fatal(err)
	}
	_, gaps, err := table.Compile(p, assumed(p), table.Options{})
	if err != nil || len(gaps) != 1 || gaps[0].Name != "all" || !strings.Contains(gaps[0].Text, unit) {
		t.Errorf("%v, %v", gaps, err)
	}
	if _, gaps, _ := table.Compile(p, table.Host{}, table.Options{}); len(gaps) < 4 {
		t.Errorf("a host that has nothing leaves %v", gaps)
	}
}
