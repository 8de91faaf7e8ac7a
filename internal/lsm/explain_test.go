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

// A load would leave every class open that is narrower than a family, and close
// families to those whom a rule allows them. A rule without algorithms has no entry
// in the table.
func TestClassesOfTheKernelHalf(t *testing.T) {
	const text = `version: 1
name: p
deny:
  families: [AF_PACKET]
  sockets: [{family: AF_NETLINK, protocol: NETLINK_XFRM}]
  socket-options: [{level: SOL_TCP, option: TCP_ULP}]
  user-namespaces: true
allow:
  - {rule: capture, binaries: [/nonexistent/tcpdump], sockets: [{family: AF_PACKET}]}
`
	p, _, err := plan.Load("p.yaml", func(string) ([]byte, error) { return []byte(text), nil })
	if err != nil {
		t.Fatal(err)
	}
	gaps := classGaps(p)
	var names []string
	for _, g := range gaps {
		names = append(names, string(g.Kind)+" "+g.Name)
	}
	if got := strings.Join(names, ", "); got != "breaking capture, wider sockets, wider socket-options, wider user-namespaces" {
		t.Error(got)
	}
	if err := plan.Settle(gaps, nil, []string{"capture", "sockets", "socket-options"}); err == nil || !strings.Contains(err.Error(), "--accept user-namespaces") {
		t.Errorf("not all is accepted: %v", err)
	}
	if asked, _, err := Gaps(p); err != nil || len(asked) != len(gaps) {
		t.Errorf("%v, %v", asked, err)
	}
	compiled, stricter, err := table.Compile(p, table.Host{}, table.Options{})
	if err != nil || len(compiled.Entries) != 1 || stricter != nil {
		t.Errorf("%d entries, %v, %v", len(compiled.Entries), stricter, err)
	}
}
