package policy

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
)

const (
	digest  = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	digestB = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210"
)

const everything = `# every part of the language
version: 1
name: fips-node.2
include: [builtin:baseline, ../site.yaml]
deny:
  socket-errno: EPERM
  bind-errno: ENOENT
  families: [AF_RXRPC, AF_ROUTE]
  zero-copy: true
  presets: [page-cache]
  sockets: [{family: AF_NETLINK, protocol: 6}, {family: AF_CAN, protocol: 1234, type: SOCK_RAW}]
  socket-options: [{level: SOL_TCP, option: TCP_ULP}]
  user-namespaces: true
allow:
  - rule: fips-integrity-check
    binaries:
      - path: /usr/bin/kcapi-hasher
        sha256: 0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef
      - "/opt/with space/ünï"
    strict-exec: true
    users: [root, 0, "1000"]
    capabilities: [CAP_NET_ADMIN]
    units: [dracut-pre-pivot.service]
    algorithms:
      skcipher: ["adiantum(xchacha12,aes)"]
      hash: ["hmac(sha512)", sha1]
    sockets: [{family: AF_NETLINK, type: SOCK_DGRAM, protocol: NETLINK_XFRM}]
    socket-options: [{level: 6, option: 31}]
    user-namespaces: true
  - rule: everyone
    anyone: true
    algorithms: {rng: ["*"]}
containers:
  unconfined: harden
  grants:
    - rules: [fips-integrity-check, everyone]
      platforms: [podman, docker]
      names: [web.1, a_b]
      images: [sha256:0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef]
      namespaces: [k8s.io, a--b]
      pods: [web-0]
      labels: {"on": "yes", app: "", "ünï: #1": 'a "b"\c'}
      annotations:
        example.com/role: crypto
      decided-by: lsm
    - {rules: [of-an-include], names: [b], socketcall: broker}
    - {socketcall: broker, names: [c], builds: true}
expect-open:
  - reason: "what the host runs: #1"
    outside-containers: true
    units: [cron.service]
    binaries: [/usr/sbin/cron]
`

func TestParse(t *testing.T) {
	got, warnings, err := Parse("dir/p.yaml", []byte(everything))
	if err != nil {
		t.Fatal(err)
	}
	at := func(line, col int) Pos { return Pos{"dir/p.yaml", line, col} }
	alg := func(t afalg.Type, name string, line, col int) Algorithm {
		return Algorithm{afalg.Algorithm{Type: t, Name: name}, at(line, col)}
	}
	want := &Policy{
		Name:    "fips-node.2",
		File:    "dir/p.yaml",
		Include: []Include{{"builtin:baseline", at(4, 11)}, {"../site.yaml", at(4, 29)}},
		Deny: Deny{
			SocketErrno: "EPERM",
			BindErrno:   "ENOENT",
			Families:    []Family{{"AF_RXRPC", 33, at(8, 14)}, {"AF_NETLINK", 16, at(8, 24)}},
			ZeroCopy:    Yes,
			Presets:     []Preset{{"page-cache", at(10, 13)}},
			Sockets: []Socket{
				{Family: "AF_NETLINK", Protocol: "NETLINK_XFRM", Pos: at(11, 13)},
				{Family: "AF_CAN", Type: "SOCK_RAW", Protocol: "1234", Pos: at(11, 48)},
			},
			SocketOptions:  []SocketOption{{"SOL_TCP", "TCP_ULP", at(12, 20)}},
			UserNamespaces: true,
		},
		Rules: []Rule{{
			Name: "fips-integrity-check",
			Pos:  at(15, 5),
			Binaries: []Binary{
				{"/usr/bin/kcapi-hasher", digest, at(17, 9)},
				{"/opt/with space/ünï", "", at(19, 9)},
			},
			StrictExec:   true,
			Users:        []string{"root", "0", "1000"},
			Capabilities: []string{"CAP_NET_ADMIN"},
			Units:        []string{"dracut-pre-pivot.service"},
			Algorithms: []Algorithm{
				alg(afalg.Hash, "hmac(sha512)", 26, 14),
				alg(afalg.Hash, "sha1", 26, 30),
				alg(afalg.Skcipher, "adiantum(xchacha12,aes)", 25, 18),
			},
			Sockets:        []Socket{{Family: "AF_NETLINK", Type: "SOCK_DGRAM", Protocol: "NETLINK_XFRM", Pos: at(27, 15)}},
			SocketOptions:  []SocketOption{{"SOL_TCP", "TCP_ULP", at(28, 22)}},
			UserNamespaces: true,
		}, {
			Name:       "everyone",
			Pos:        at(30, 5),
			Anyone:     true,
			Algorithms: []Algorithm{alg(afalg.RNG, "*", 32, 24)},
		}},
		Containers: Containers{
			Unconfined: "harden",
			Grants: []Grant{{
				Pos:         at(36, 7),
				Rules:       []GrantedRule{{"fips-integrity-check", at(36, 15)}, {"everyone", at(36, 37)}},
				Platforms:   []string{"podman", "docker"},
				Names:       []string{"web.1", "a_b"},
				Images:      []string{"sha256:" + digest},
				Namespaces:  []string{"k8s.io", "a--b"},
				Pods:        []string{"web-0"},
				Labels:      map[string]string{"on": "yes", "app": "", "ünï: #1": `a "b"\c`},
				Annotations: map[string]string{"example.com/role": "crypto"},
				DecidedBy:   "lsm",
			}, {
				Pos:   at(46, 7),
				Rules: []GrantedRule{{"of-an-include", at(46, 16)}},
				Names: []string{"b"}, Socketcall: "broker",
			}, {
				Pos:        at(47, 7),
				Socketcall: "broker",
				Names:      []string{"c"},
				Builds:     true,
			}},
		},
		ExpectOpen: []Expected{{
			Pos: at(49, 5), Reason: "what the host runs: #1", OutsideContainers: true,
			Units: []string{"cron.service"}, Binaries: []string{"/usr/sbin/cron"},
		}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("policy (-want +got):\n%s", diff)
	}
	if got, want := warningText(warnings), `dir/p.yaml:32:24: "*" opens every rng that a kernel has or will have`; got != want {
		t.Errorf("warnings:\n%s\nwant:\n%s", got, want)
	}
}

// The smallest policy allows nothing, in each of its spellings.
func TestParseSmallest(t *testing.T) {
	for name, src := range map[string]string{
		"block":            "version: 1\nname: x\n",
		"Windows lines":    "version: 1\r\nname: x\r\n",
		"document markers": "---\nversion: 1\nname: x\n...\n",
		"JSON":             "{\n\t\"version\": 1,\n\t\"name\": \"x\",\n\t\"allow\": []\n}\n",
		"no allow":         "version: 1\nname: x\nallow: []\n",
		"no containers":    "version: 1\nname: x\ncontainers: {}\n",
		"no grants":        "version: 1\nname: x\ncontainers: {grants: []}\n",
	} {
		t.Run(name, func(t *testing.T) {
			p, warnings, err := Parse("", []byte(src))
			if err != nil || len(warnings) > 0 {
				t.Fatal(err, warnings)
			}
			if diff := cmp.Diff(&Policy{Name: "x"}, p); diff != "" {
				t.Errorf("policy (-want +got):\n%s", diff)
			}
		})
	}
}

func TestShippedPoliciesParse(t *testing.T) {
	files, err := filepath.Glob("../../policies/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no shipped policies: %v", err)
	}
	for _, file := range files {
		src, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		p, _, err := Parse(file, src)
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		if want := strings.TrimSuffix(filepath.Base(file), ".yaml"); p.Name != want {
			t.Errorf("%s: the policy is named %q", file, p.Name)
		}
	}
}

func TestSuggest(t *testing.T) {
	for _, c := range []struct {
		typ        afalg.Type
		name, want string // want is "" for no suggestion
	}{
		{afalg.Hash, "hmac(sha-512)", "hash:hmac(sha512)"},
		{afalg.Hash, "HMAC(SHA256)", "hash:hmac(sha256)"},
		{afalg.Hash, "sha-1", "hash:sha1"},
		{afalg.Hash, "cmac(aes)", ""},
		{afalg.Hash, "hmac(sha3-256)", ""},
		{afalg.Hash, "ecb(aes)", "skcipher:ecb(aes)"},
		{afalg.Skcipher, "sha256", "hash:sha256"},
		{afalg.Skcipher, "xts(aess)", "skcipher:xts(aes)"},
		{afalg.AEAD, "authenc(hmac(sha-256),cbc(aes))", "aead:authenc(hmac(sha256),cbc(aes))"},
		{afalg.AEAD, "pcrypt(gcm(aes))", ""},
		{afalg.RNG, "stdrgn", "rng:stdrng"},
		{afalg.Hash, "", ""},
		{afalg.Hash, "-", ""},
		{afalg.Hash, strings.Repeat("s", 1<<20), ""},
		{"digest", "sha1", "hash:sha1"},
		{"digest", "nothing", ""},
	} {
		got, found := Suggest(c.typ, c.name)
		if found != (c.want != "") || found && got.String() != c.want {
			t.Errorf("%s:%.40s: got %v, %v; want %q", c.typ, c.name, got, found, c.want)
		}
	}
}
