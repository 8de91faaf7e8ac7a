package policy

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// withoutPos compares the meanings of policies.
var withoutPos = cmp.Options{
	cmp.Comparer(func(Pos, Pos) bool { return true }),
	cmp.FilterPath(func(p cmp.Path) bool { return p.String() == "File" }, cmp.Ignore()),
}

func TestFormat(t *testing.T) {
	p, _, err := Parse("p", []byte(everything))
	if err != nil {
		t.Fatal(err)
	}
	const want = `version: 1
name: fips-node.2
include: ["builtin:baseline", "../site.yaml"]
deny:
  socket-errno: EPERM
  bind-errno: ENOENT
  presets: [page-cache]
  families: [AF_RXRPC, AF_NETLINK]
  sockets:
    - family: AF_NETLINK
      protocol: NETLINK_XFRM
    - family: AF_CAN
      type: SOCK_RAW
      protocol: "1234"
  socket-options:
    - level: SOL_TCP
      option: TCP_ULP
  user-namespaces: true
  zero-copy: true
allow:
  - rule: fips-integrity-check
    binaries:
      - path: /usr/bin/kcapi-hasher
        sha256: "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
      - path: "/opt/with space/ünï"
    strict-exec: true
    users: [root, "0", "1000"]
    capabilities: [CAP_NET_ADMIN]
    units: [dracut-pre-pivot.service]
    algorithms:
      hash: ["hmac(sha512)", sha1]
      skcipher: ["adiantum(xchacha12,aes)"]
    sockets:
      - family: AF_NETLINK
        type: SOCK_DGRAM
        protocol: NETLINK_XFRM
    socket-options:
      - level: SOL_TCP
        option: TCP_ULP
    user-namespaces: true
  - rule: everyone
    anyone: true
    algorithms:
      rng: ["*"]
containers:
  unconfined: harden
  grants:
    - rules: [fips-integrity-check, everyone]
      decided-by: lsm
      platforms: [podman, docker]
      names: [web.1, a_b]
      images: ["sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"]
      namespaces: [k8s.io, a--b]
      pods: [web-0]
      labels:
        app: ""
        "on": "yes"
        "ünï: #1": "a \"b\"\\c"
      annotations:
        example.com/role: crypto
    - rules: [of-an-include]
      socketcall: broker
      names: [b]
    - socketcall: broker
      builds: true
      names: [c]
expect-open:
  - reason: "what the host runs: #1"
    outside-containers: true
    units: [cron.service]
    binaries: [/usr/sbin/cron]
`
	if diff := cmp.Diff(want, string(Format(p))); diff != "" {
		t.Errorf("text (-want +got):\n%s", diff)
	}
	checkRoundTrip(t, p)
}

// checkRoundTrip fails unless p, printed and read again, is p.
func checkRoundTrip(t *testing.T, p *Policy) {
	t.Helper()
	text := Format(p)
	again, _, err := Parse("again", text)
	if err != nil {
		t.Fatalf("%v\nin\n%s", err, text)
	}
	if diff := cmp.Diff(p, again, withoutPos); diff != "" {
		t.Fatalf("policy (-first +again):\n%s\nin\n%s", diff, text)
	}
	if second := Format(again); string(second) != string(text) {
		t.Fatalf("printed once:\n%s\nprinted twice:\n%s", text, second)
	}
}

// Some YAML readers take these words for something else than text.
func TestFormatQuotes(t *testing.T) {
	for in, want := range map[string]string{
		"sha256": "sha256", "/usr/bin/a": "/usr/bin/a", "a.service": "a.service", "x@y.service": "x@y.service",
		"": `""`, "yes": `"yes"`, "No": `"No"`, "null": `"null"`, "TRUE": `"TRUE"`, "n": `"n"`, "0": `"0"`, "1e3": `"1e3"`,
		"2024-01-01": `"2024-01-01"`, "*": `"*"`, "-": `"-"`, "~": `"~"`, "a: b": `"a: b"`, "a #b": `"a #b"`,
		`a"b\c`: `"a\"b\\c"`, "é": `"é"`, "<<": `"<<"`, "a,b": `"a,b"`,
	} {
		if got := plain(in); got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
}

// FuzzParse holds the promise that a policy means what it prints: an accepted
// one is printed, reads back and is equal; a refused one is refused with a
// place.
func FuzzParse(f *testing.F) {
	f.Add([]byte(everything))
	for _, pattern := range []string{"../../testdata/errors/*.yaml", "../../policies/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			src, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(src)
		}
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		p, _, err := Parse("fuzz", src)
		if err == nil {
			checkRoundTrip(t, p)
			return
		}
		list, ok := err.(ErrorList)
		if p != nil || !ok || len(list) == 0 {
			t.Fatalf("%v, %T %v", p, err, err)
		}
		for _, e := range list {
			if e.Pos.Line < 1 || e.Pos.Col < 1 || e.Text == "" {
				t.Fatalf("no place or text: %+v", e)
			}
		}
	})
}
