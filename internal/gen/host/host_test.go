package host

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/gen"
	"github.com/afalg-policy/afalg-policy/internal/hostfacts"
	"github.com/afalg-policy/afalg-policy/internal/kernel"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

const head = "version: 1\nname: p\n"

// rule is a policy with one rule.
func rule(what string) string {
	return head + "allow: [{rule: r, binaries: [/bin/r], " + what + "}]\n"
}

// said is what settings are, without what they say of themselves.
type said struct{ Modules, Arguments, Sysctls, Gaps []string }

func sayOf(t *testing.T, text string, f hostfacts.Facts) said {
	t.Helper()
	s, gaps, err := Decide(load(t, text), f, Options{})
	if err != nil {
		t.Fatal(err)
	}
	var all said
	for _, m := range s.Modules {
		all.Modules = append(all.Modules, m.Module)
	}
	for _, a := range s.Arguments {
		all.Arguments = append(all.Arguments, a.Value)
	}
	for _, c := range s.Sysctls {
		all.Sysctls = append(all.Sysctls, c.Key+"="+c.Value)
	}
	for _, g := range gaps {
		all.Gaps = append(all.Gaps, g.String())
	}
	return all
}

const seesNobody = "a setting of the host sees neither who asks nor the algorithm: "

func TestDecide(t *testing.T) {
	any := hostfacts.Facts{}
	modules := told(t, hostfacts.Given{Release: "6.12.0", Builtin: []byte{}, Config: []byte(
		"CONFIG_CRYPTO_USER_API=m\nCONFIG_CRYPTO_USER_API_AEAD=m\nCONFIG_CRYPTO_USER_API_HASH=m\nCONFIG_CRYPTO_USER_API_RNG=m\nCONFIG_CRYPTO_USER_API_SKCIPHER=m\nCONFIG_XFRM_USER=m\nCONFIG_AF_RXRPC=m\nCONFIG_RDS=m\nCONFIG_NET_KEY=m\n")})
	el9 := told(t, hostfacts.Given{Release: "5.14.0", Builtin: []byte(el9)})
	hasRestrict := hostfacts.Facts{Version: kernel.Version{Major: 6, Minor: 12}, Sysctls: map[string]string{restrictKey: "1"}}
	for _, tt := range []struct {
		name, policy string
		facts        hostfacts.Facts
		want         said
	}{
		{"nothing is allowed, modules", head, modules, said{
			Modules: []string{"af_alg", "algif_aead", "algif_hash", "algif_rng", "algif_skcipher"}}},
		{"nothing is allowed, built in", head, el9, said{
			Modules:   []string{"af_alg", "algif_aead", "algif_hash", "algif_rng", "algif_skcipher"},
			Arguments: []string{"af_alg_init", "algif_aead_init", "algif_hash_init", "algif_skcipher_init", "rng_init"}}},
		{"nothing is known", head, any, said{
			Modules:   []string{"af_alg", "algif_aead", "algif_hash", "algif_rng", "algif_skcipher"},
			Arguments: []string{"af_alg_init", "algif_aead_init", "algif_hash_init", "algif_skcipher_init", "rng_init"},
			Sysctls:   []string{"crypto.af_alg_restrict=2"}}},
		{"a rule keeps its type, and the family", rule("users: [root], algorithms: {hash: [hmac(sha512)]}"), el9, said{
			Modules:   []string{"algif_aead", "algif_rng", "algif_skcipher"},
			Arguments: []string{"algif_aead_init", "algif_skcipher_init", "rng_init"},
			Gaps:      []string{"wider: r: " + seesNobody + "AF_ALG type hash stays open to every process; close it by another target too"}}},
		{"the list of Linux covers the rule", rule("users: [root], algorithms: {hash: [hmac(sha512)]}"), hasRestrict, said{
			Modules:   []string{"algif_aead", "algif_rng", "algif_skcipher"},
			Arguments: []string{"algif_aead_init", "algif_skcipher_init", "rng_init"},
			Sysctls:   []string{"crypto.af_alg_restrict=1"},
			Gaps:      []string{"wider: r: " + seesNobody + "AF_ALG type hash stays open to every process; close it by another target too"}}},
		{"the list of Linux denies what the rule allows", rule("algorithms: {hash: [sha1, hmac(sha512)], aead: [gcm(aes)]}"), hasRestrict, said{
			Modules:   []string{"algif_rng", "algif_skcipher"},
			Arguments: []string{"algif_skcipher_init", "rng_init"},
			Gaps: []string{
				"stricter: af-alg-restrict: Linux 7.3 and later deny aead:gcm(aes) of rule r, hash:hmac(sha512) of rule r unless crypto.af_alg_restrict is 0, which opens AF_ALG to everybody: it is left as it is",
				"wider: r: " + seesNobody + "AF_ALG type aead, AF_ALG type hash stays open to every process; close it by another target too"}}},
		{"everything is allowed to everybody", head + `allow: [{rule: r, anyone: true, algorithms: {aead: ["*"], hash: ["*"], rng: ["*"], skcipher: ["*"]}}]`, modules, said{}},
		{"denied classes", head + "deny: {families: [AF_RXRPC], sockets: [{family: AF_NETLINK, protocol: NETLINK_XFRM}]}\nallow: [{rule: r, anyone: true, algorithms: {aead: [\"*\"], hash: [\"*\"], rng: [\"*\"], skcipher: [\"*\"]}}]", modules, said{
			Modules: []string{"rxrpc", "xfrm_user"}}},
		{"a class that no module has alone", head + "deny: {sockets: [{family: AF_PACKET, type: SOCK_RAW}]}\n" + hashOnly, modules, said{
			Modules: []string{"algif_aead", "algif_rng", "algif_skcipher"},
			Gaps:    []string{"wider: sockets: AF_PACKET type SOCK_RAW stays open: no module has this part of the family alone"}}},
		{"a class of which nothing is known", head + "deny: {sockets: [{family: AF_NETLINK, protocol: NETLINK_AUDIT}]}\n" + hashOnly, modules, said{
			Modules: []string{"algif_aead", "algif_rng", "algif_skcipher", "net-pf-16-proto-9"},
			Gaps:    []string{"wider: sockets: AF_NETLINK protocol NETLINK_AUDIT stays open where it is built in or loaded: which module has it is not known, and only its load on demand is stopped"}}},
		{"a rule opens a class", head + "deny: {presets: [page-cache]}\nallow: [{rule: r, units: [ipsec.service], sockets: [{family: AF_NETLINK, protocol: NETLINK_XFRM}]}]", modules, said{
			Modules: []string{"af_alg", "af_key", "algif_aead", "algif_hash", "algif_rng", "algif_skcipher", "rds", "rds_rdma", "rds_tcp", "rxrpc"},
			Gaps:    []string{"wider: r: " + seesNobody + "AF_NETLINK protocol NETLINK_XFRM stays open to every process; close it by another target too"}}},
		{"two classes of one module, one open", head + "deny: {families: [AF_ATMPVC, AF_ATMSVC]}\nallow: [{rule: r, units: [a.service], sockets: [{family: AF_ATMPVC}], algorithms: {aead: [\"*\"], hash: [\"*\"], rng: [\"*\"], skcipher: [\"*\"]}}]", modules, said{
			Gaps: []string{
				"wider: sockets: AF_ATMSVC stays open: a rule needs atm",
				"wider: r: " + seesNobody + "AF_ALG type aead, AF_ALG type hash, AF_ALG type rng, AF_ALG type skcipher, AF_ATMPVC stays open to every process; close it by another target too"}}},
		{"a socket option", head + "deny: {socket-options: [{level: SOL_TCP, option: TCP_ULP}]}\n" + hashOnly, modules, said{
			Modules: []string{"algif_aead", "algif_rng", "algif_skcipher"},
			Gaps:    []string{"wider: socket-options: no setting of a host closes TCP_ULP of SOL_TCP"}}},
		{"user namespaces", head + "deny: {user-namespaces: true}\n" + hashOnly, modules, said{
			Modules: []string{"algif_aead", "algif_rng", "algif_skcipher"},
			Sysctls: []string{"kernel.apparmor_restrict_unprivileged_userns=1", "kernel.unprivileged_userns_clone=0", "user.max_user_namespaces=0"}}},
		{"user namespaces that a rule opens", head + "deny: {user-namespaces: true}\nallow: [{rule: r, units: [podman.service], user-namespaces: true}]", modules, said{
			Modules: []string{"af_alg", "algif_aead", "algif_hash", "algif_rng", "algif_skcipher"},
			Gaps:    []string{"wider: r: " + seesNobody + "user namespaces stays open to every process; close it by another target too"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := sayOf(t, tt.policy, tt.facts)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// The list of Linux asks for capabilities in its second half: who surely has one is
// known of root, and of who must have it.
func TestWhoIsPrivileged(t *testing.T) {
	for conditions, want := range map[string]string{
		"users: [root]": "1", "users: ['0']": "1", "capabilities: [CAP_NET_ADMIN]": "1", "capabilities: [CAP_SYS_ADMIN, CAP_NET_ADMIN]": "1",
		"users: [nobody]": "", "users: [root, nobody]": "", "capabilities: [CAP_NET_ADMIN, CAP_SYS_RAWIO]": "", "units: [a.service]": "",
	} {
		s, _, err := Decide(load(t, rule(conditions+", algorithms: {hash: [hmac(sha512)]}")), hostfacts.Facts{}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		level := ""
		for _, c := range s.Sysctls {
			level += c.Value
		}
		if level != want {
			t.Errorf("%s: level %q, want %q", conditions, level, want)
		}
	}
}

// A rule for everybody is no gap where it opens a whole type, and nothing else.
func TestForEverybody(t *testing.T) {
	modern := hostfacts.Facts{Version: kernel.Version{Major: 6}}
	for names, want := range map[string]int{`"*"`: 0, "sha1": 1, `sha1, sha256`: 1} {
		if got := sayOf(t, head+"allow: [{rule: r, anyone: true, algorithms: {hash: ["+names+"]}}]", modern).Gaps; len(got) != want {
			t.Errorf("%s: %q", names, got)
		}
	}
}

// A host that boots with fips=1 keeps what its boot needs, unless it is given up by
// name.
func TestFIPSBoot(t *testing.T) {
	f := hostfacts.Facts{Version: kernel.Version{Major: 6}, Cmdline: []string{"quiet", "fips=1"}}
	for text, want := range map[string]bool{head: true, rule("algorithms: {aead: [gcm(aes)]}"): true, onlyFIPS: false} {
		gaps := sayOf(t, text, f).Gaps
		if got := slices.ContainsFunc(gaps, func(g string) bool { return strings.HasPrefix(g, "breaking: fips-boot: ") }); got != want {
			t.Errorf("%s: gaps %q", text, gaps)
		}
		f := f
		f.Cmdline = []string{"fips=0", "xfips=1"}
		if gaps := sayOf(t, text, f).Gaps; slices.ContainsFunc(gaps, func(g string) bool { return strings.Contains(g, "fips-boot") }) {
			t.Errorf("%s: without fips=1: %q", text, gaps)
		}
	}
	var open *plan.UnacceptedError
	if _, _, _, err := Host(load(t, head), f, Forms()[0], Options{}); !errors.As(err, &open) {
		t.Errorf("%v", err)
	}
}

func TestNoGrants(t *testing.T) {
	_, _, err := Decide(load(t, rule("algorithms: {hash: [sha1]}")), hostfacts.Facts{}, Options{Common: gen.Common{Grants: []string{"r"}}})
	if want := "--grant r: a setting of a host does not see who holds a rule; what any rule uses stays open"; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

// hashOnly lets everybody have a type, so that there is no gap for it.
const hashOnly = `allow: [{rule: r, anyone: true, algorithms: {hash: ["*"]}}]` + "\n"

func TestWhatIsBuiltIn(t *testing.T) {
	builtin := hostfacts.Given{Release: "5.14.0", Builtin: []byte(el9)}
	noSymbols := builtin
	noSymbols.Config = []byte("CONFIG_CRYPTO_USER_API=y\nCONFIG_CRYPTO_USER_API_AEAD=y\nCONFIG_CRYPTO_USER_API_HASH=y\nCONFIG_CRYPTO_USER_API_RNG=y\nCONFIG_CRYPTO_USER_API_SKCIPHER=y\n# CONFIG_KALLSYMS is not set\n")
	busybox := hostfacts.Facts{Modprobe: "busybox", Version: kernel.Version{Major: 6}}
	policy := head + hashOnly
	for _, tt := range []struct {
		name  string
		facts hostfacts.Facts
		want  []string
	}{
		{"found by its symbols", told(t, builtin), nil},
		{"no symbols", told(t, noSymbols), []string{
			"wider: algif_aead: AF_ALG type aead stays open: algif_aead is built in, and the kernel has no CONFIG_KALLSYMS, by which it finds what initcall_blacklist names",
			"wider: algif_rng: AF_ALG type rng stays open: algif_rng is built in, and the kernel has no CONFIG_KALLSYMS, by which it finds what initcall_blacklist names",
			"wider: algif_skcipher: AF_ALG type skcipher stays open: algif_skcipher is built in, and the kernel has no CONFIG_KALLSYMS, by which it finds what initcall_blacklist names"}},
		{"busybox", busybox, []string{
			"wider: algif_aead: AF_ALG type aead stays open: modprobe is busybox's, which reads no install lines; install kmod",
			"wider: algif_rng: AF_ALG type rng stays open: modprobe is busybox's, which reads no install lines; install kmod",
			"wider: algif_skcipher: AF_ALG type skcipher stays open: modprobe is busybox's, which reads no install lines; install kmod"}},
	} {
		if diff := cmp.Diff(tt.want, sayOf(t, policy, tt.facts).Gaps); diff != "" {
			t.Errorf("%s: -want +got:\n%s", tt.name, diff)
		}
	}
}

// Every module that is not known to be built in is refused, and every one that may
// be gets its argument: a fact that is missing or in doubt takes nothing away.
func TestDoubtTakesNothingAway(t *testing.T) {
	p := load(t, head+"deny: {presets: [page-cache, unused]}\n")
	least := func(f hostfacts.Facts) said { return sayOf(t, head+"deny: {presets: [page-cache, unused]}\n", f) }
	any := least(hostfacts.Facts{})
	s, _, err := Decide(p, hostfacts.Facts{}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range s.Modules {
		for _, presence := range []hostfacts.Presence{hostfacts.Unknown, hostfacts.Builtin, hostfacts.Module, hostfacts.Absent} {
			f := hostfacts.Facts{Modules: map[string]hostfacts.Presence{m.Module: presence}}
			got := least(f)
			if !slices.Equal(got.Modules, any.Modules) {
				t.Errorf("%s %q: refused %q", m.Module, presence, got.Modules)
			}
			if (presence == hostfacts.Unknown || presence == hostfacts.Builtin) && !slices.Equal(got.Arguments, any.Arguments) {
				t.Errorf("%s %q: arguments %q", m.Module, presence, got.Arguments)
			}
		}
	}
}

func TestSettled(t *testing.T) {
	p := load(t, rule("algorithms: {hash: [sha1]}"))
	var open *plan.UnacceptedError
	if _, _, _, err := Host(p, hostfacts.Facts{}, Forms()[0], Options{}); !errors.As(err, &open) || len(open.Gaps) != 1 || open.Gaps[0].Name != "r" {
		t.Errorf("%v", err)
	}
	o := Options{Common: gen.Common{Accept: []string{"r"}}}
	var notes []string
	o.Tell = func(text string) { notes = append(notes, text) }
	files, _, _, err := Host(p, hostfacts.Facts{}, Forms()[0], o)
	if err != nil || len(files) != 4 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, want := range []string{"breaks: ", "leaves open: ", "takes effect: ", "undo: "} {
		if !slices.ContainsFunc(notes, func(n string) bool { return strings.HasPrefix(n, want) }) {
			t.Errorf("no note says %q: %q", want, notes)
		}
		for _, f := range files {
			if word := strings.TrimSuffix(want, ": "); word == "undo" && !strings.Contains(string(f.Data), "Undo: ") {
				t.Errorf("%s does not say how to undo it", f.Path)
			}
		}
	}
	everything := load(t, head+`allow: [{rule: r, anyone: true, algorithms: {aead: ["*"], hash: ["*"], rng: ["*"], skcipher: ["*"]}}]`)
	if _, _, _, err := Host(everything, hostfacts.Facts{Version: kernel.Version{Major: 6}}, Forms()[0], Options{}); !errors.Is(err, ErrNothing) {
		t.Errorf("%v", err)
	}
}

// kmod reads the file, and would load none of its modules, by their names with dashes
// or underscores, whatever a later file says. TestLongHost has a kernel that would.
func TestModprobeReads(t *testing.T) {
	modprobe, err := exec.LookPath("modprobe")
	if err != nil {
		if modprobe = "/usr/sbin/modprobe"; !exists(modprobe) {
			t.Fatal("there is no modprobe: run scripts/install test")
		}
	}
	files, s, _, err := Host(load(t, wholeHost), hostfacts.Facts{}, Forms()[0], Options{Common: gen.Common{Accept: []string{"sockets"}}})
	if err != nil {
		t.Fatal(err)
	}
	config, empty, tree := t.TempDir(), t.TempDir(), t.TempDir()
	i := slices.IndexFunc(files, func(f gen.File) bool { return f.Path == ModprobePath })
	if err := os.WriteFile(filepath.Join(config, filepath.Base(ModprobePath)), files[i].Data, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(config, "zz.conf"), []byte("install algif_aead /sbin/modprobe --ignore-install algif_aead\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	say := func(config, module string) string {
		out, _ := exec.Command(modprobe, "-n", "-v", "-d", tree, "-S", "1.0", "-C", config, module).CombinedOutput()
		return string(out)
	}
	for _, m := range s.Modules {
		for _, name := range []string{m.Module, strings.ReplaceAll(m.Module, "_", "-")} {
			if got := say(config, name); got != "install /bin/false\n" && !strings.HasSuffix(got, "install /bin/false \n") {
				t.Errorf("%s: %q", name, got)
			}
			if got := say(empty, name); strings.Contains(got, "/bin/false") {
				t.Errorf("without the file, %s: %q", name, got)
			}
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// Each class of the catalogue that has modules is closed by them alone, where it is
// denied alone.
func TestEveryClassOfTheCatalogue(t *testing.T) {
	for _, c := range policy.Classes() {
		if c.Socket == nil || len(c.Modules) == 0 {
			continue
		}
		p := &plan.Plan{}
		if class := c.Socket.Class(); class.Whole() {
			p.Families = []policy.Family{{Name: c.Socket.Family, Number: class.Family}}
		} else {
			p.Sockets = []policy.Socket{*c.Socket}
		}
		s, gaps, err := Decide(p, hostfacts.Facts{}, Options{})
		if err != nil || len(gaps) > 0 {
			t.Errorf("%s: %v, %v", c, gaps, err)
		}
		for _, module := range c.Modules {
			if hostfacts.Option(module) == "" {
				t.Errorf("%s: which option brings %s is not known", c, module)
			}
			if !slices.ContainsFunc(s.Modules, func(m ModprobeRule) bool { return m.Module == module }) {
				t.Errorf("%s: %s is not refused", c, module)
			}
		}
		for _, call := range c.Initcalls {
			if !slices.ContainsFunc(s.Arguments, func(a KernelArgument) bool { return a.Value == call }) {
				t.Errorf("%s: %s is not skipped", c, call)
			}
		}
	}
}
