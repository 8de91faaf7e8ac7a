package plan

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/policy"
)

const differencesBefore = `version: 1
name: node
deny: {families: [AF_RXRPC]}
allow:
  - rule: fips
    binaries: [/usr/bin/kcapi-hasher, /usr/bin/sha512hmac]
    users: [root]
    algorithms: {hash: ["hmac(sha512)", "hmac(sha256)"]}
  - rule: units
    units: [a.service, b.service]
    algorithms: {aead: ["gcm(aes)"]}
  - rule: open
    capabilities: [CAP_NET_ADMIN]
    algorithms: {skcipher: ["*"]}
containers:
  grants:
    - {rules: [fips, open], platforms: [docker, podman], names: [web]}
    - {socketcall: broker, labels: {app: steam}}
`

func TestDifferences(t *testing.T) {
	load := func(text string) *Plan { return mustLoad(t, "p", "-- p --\n"+text) }
	before := load(differencesBefore)
	for _, tt := range []struct {
		name     string
		old, new string
		want     []Difference
	}{
		{"nothing", "name: node", "name: other", nil},
		{"a name of a rule", "rule: units", "rule: other", nil},
		{"what is allowed anyway", "  - rule: units\n", "  - rule: more\n    binaries: [/usr/bin/sha512hmac]\n    users: [root]\n    units: [u.service]\n    algorithms: {hash: [\"hmac(sha512)\"]}\n  - rule: units\n", nil},
		{"a further algorithm", `["hmac(sha512)", `, `["hmac(sha512)", sha1, `, []Difference{
			{NowAllowed, "hash:sha1 for /usr/bin/kcapi-hasher, user root"}, {NowAllowed, "hash:sha1 for /usr/bin/sha512hmac, user root"}}},
		{"a binary less", ", /usr/bin/sha512hmac]", "]", []Difference{{NowDenied, "hash:hmac(sha256), hash:hmac(sha512) for /usr/bin/sha512hmac, user root"}}},
		{"a condition less", "    users: [root]\n", "", []Difference{
			{NowAllowed, "hash:hmac(sha256), hash:hmac(sha512) for /usr/bin/kcapi-hasher"}, {NowAllowed, "hash:hmac(sha256), hash:hmac(sha512) for /usr/bin/sha512hmac"}}},
		{"a condition more", "    units: [a", "    users: [1000]\n    units: [a", []Difference{
			{NowDenied, "aead:gcm(aes) for in a.service"}, {NowDenied, "aead:gcm(aes) for in b.service"}}},
		{"a digest", "/usr/bin/kcapi-hasher,", "{path: /usr/bin/kcapi-hasher, sha256: '" + hexA + "'},", []Difference{
			{NowDenied, "hash:hmac(sha256), hash:hmac(sha512) for /usr/bin/kcapi-hasher, user root"}}},
		{"strict-exec", "sha512hmac]\n", "sha512hmac]\n    strict-exec: true\n", []Difference{
			{NowDenied, "hash:hmac(sha256), hash:hmac(sha512) for /usr/bin/kcapi-hasher, user root"}, {NowDenied, "hash:hmac(sha256), hash:hmac(sha512) for /usr/bin/sha512hmac, user root"}}},
		{"a type that is open no more", `["*"]`, `["xts(aes)"]`, []Difference{{NowDenied, "every other skcipher for CAP_NET_ADMIN"}}},
		{"everybody", "    units: [a.service, b.service]\n", "    anyone: true\n", []Difference{{NowAllowed, "aead:gcm(aes) for anyone"}}},
		{"a family", "AF_RXRPC", "AF_RDS", []Difference{{NowChanged, "closed: AF_RDS, was AF_RXRPC"}}},
		{"errnos", "deny: {", "deny: {bind-errno: EACCES, socket-errno: EPERM, ", []Difference{
			{NowChanged, "socket-errno: EPERM, was EAFNOSUPPORT"}, {NowChanged, "bind-errno: EACCES, was ENOENT"}}},
		{"zero-copy", "deny: {", "deny: {zero-copy: false, ", []Difference{{NowChanged, "zero-copy: false, was not said"}}},
		{"unconfined", "containers:\n", "containers:\n  unconfined: harden\n", []Difference{{NowChanged, "unconfined: harden, was refuse"}}},
		{"left to the kernel half", "containers:\n", "containers:\n  unconfined: lsm\n", []Difference{{NowChanged, "unconfined: lsm, was refuse"}}},
		{"a grant less", "[fips, open]", "[fips]", []Difference{
			{NowTaken, "rule open: container of docker, named web"}, {NowTaken, "rule open: container of podman, named web"}}},
		{"a container more", "names: [web]", "names: [web, db]", []Difference{
			{NowGranted, "rule fips, rule open: container of docker, named db"}, {NowGranted, "rule fips, rule open: container of podman, named db"}}},
		{"decided by the kernel half", "names: [web]", "names: [web], decided-by: lsm", []Difference{
			{NowGranted, "rule fips by the kernel half, rule open by the kernel half: container of docker, named web"},
			{NowGranted, "rule fips by the kernel half, rule open by the kernel half: container of podman, named web"},
			{NowTaken, "rule fips, rule open: container of docker, named web"}, {NowTaken, "rule fips, rule open: container of podman, named web"}}},
		{"sockets", "socketcall: broker, ", "rules: [fips], ", []Difference{
			{NowGranted, `rule fips: container with app="steam"`}, {NowTaken, `the sockets of 32-bit programs: container with app="steam"`}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := strings.Replace(differencesBefore, tt.old, tt.new, 1)
			if text == differencesBefore {
				t.Fatal("nothing was changed")
			}
			if d := cmp.Diff(tt.want, Differences(before, load(text))); d != "" {
				t.Error(d)
			}
		})
	}
	if d := Differences(before, before); d != nil {
		t.Errorf("the same: %v", d)
	}
	if all := Differences(nil, before); len(all) == 0 || all[0].Change != NowAllowed {
		t.Errorf("from nothing: %v", all)
	}
	if all := Differences(before, nil); len(all) == 0 || all[0].Change != NowDenied {
		t.Errorf("to nothing: %v", all)
	}
}

// A policy of nonsense costs no more than the comparisons allowed.
func TestDifferencesAreBounded(t *testing.T) {
	many := policy.Rule{Name: "r", Anyone: true}
	for range 400 {
		many.Units = append(many.Units, "u.service")
		many.Users = append(many.Users, "root")
	}
	many.Algorithms = []policy.Algorithm{{}}
	all := Differences(&Plan{}, &Plan{Rules: []policy.Rule{many}})
	if len(all) == 0 || !strings.HasPrefix(all[len(all)-1].What, "there are more subjects") {
		t.Errorf("%v", all)
	}
}
