package policies_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
	"github.com/afalg-policy/afalg-policy/policies"
)

func TestNames(t *testing.T) {
	want := []string{
		"acvp", "baseline", "bluetooth", "cryptsetup", "desktop", "fips", "hardlink", "iwd", "kafs-client",
		"linux-7.3", "openssl-afalg", "page-cache", "qemu", "strongswan", "systemd-before-250",
	}
	if diff := cmp.Diff(want, policies.Names()); diff != "" {
		t.Error(diff)
	}
}

func TestReadUnknown(t *testing.T) {
	for _, name := range []string{"", "fip", "fips.yaml", "../policies/fips", "policies"} {
		_, err := policies.Read(name)
		want := "file does not exist: the shipped policies are " +
			"acvp, baseline, bluetooth, cryptsetup, desktop, fips, hardlink, iwd, kafs-client, " +
			"linux-7.3, openssl-afalg, page-cache, qemu, strongswan, systemd-before-250"
		if !errors.Is(err, fs.ErrNotExist) || err.Error() != want {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestSchema(t *testing.T) {
	if !json.Valid(policies.Schema()) {
		t.Error("the embedded schema is no JSON")
	}
}

func load(t *testing.T, name string) *plan.Plan {
	t.Helper()
	p, _, err := plan.Load(policy.BuiltinPrefix+name, func(name string) ([]byte, error) {
		return policies.Read(strings.TrimPrefix(name, policy.BuiltinPrefix))
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Each policy is valid, has its own name, and names the sources of its facts.
func TestShipped(t *testing.T) {
	for _, name := range policies.Names() {
		if p := load(t, name); p.Name != name {
			t.Errorf("policy %s calls itself %s", name, p.Name)
		}
		summary, err := policies.Summary(name)
		if err != nil || summary == "" {
			t.Errorf("%s: summary %q, %v", name, summary, err)
		}
		src, err := policies.Read(name)
		if err != nil {
			t.Fatal(err)
		}
		if name != "baseline" && !strings.Contains(string(src), "# Where the facts come from: ") {
			t.Errorf("%s does not say where its facts come from", name)
		}
	}
}

// Only the policy for test builds opens a whole type, and only the algorithms
// that Linux gives to everybody are open to everybody.
func TestNoneIsWiderThanItSays(t *testing.T) {
	for _, name := range policies.Names() {
		for _, r := range load(t, name).Rules {
			if r.Anyone && name != "linux-7.3" {
				t.Errorf("%s: rule %s is for anyone", name, r.Name)
			}
			for _, a := range r.Algorithms {
				if a.Name == "*" && name != "acvp" {
					t.Errorf("%s: rule %s opens every %s", name, r.Name, a.Type)
				}
			}
		}
	}
}

// The desktop policy allows what its three parts allow, rule by rule.
func TestDesktop(t *testing.T) {
	var want []string
	for _, name := range []string{"bluetooth", "cryptsetup", "iwd"} {
		for _, r := range load(t, name).Rules {
			want = append(want, fmt.Sprint(r))
		}
	}
	slices.Sort(want)
	var got []string
	for _, r := range load(t, "desktop").Rules {
		got = append(got, fmt.Sprint(r))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// The policy page-cache closes its preset and nothing else, to everybody.
func TestPageCache(t *testing.T) {
	p := load(t, "page-cache")
	want := []string{"AF_KEY", "AF_RDS", "AF_RXRPC", "AF_NETLINK protocol NETLINK_XFRM"}
	got := p.ClosedNames()
	slices.Sort(got[:3])
	if !slices.Equal(got, want) || len(p.Rules) > 0 {
		t.Errorf("closes %v and has %d rules, want %v", got, len(p.Rules), want)
	}
}

// TestVerdicts asks each shipped policy the questions of its archive in
// testdata/policy. A line of "verdicts" is "allow RULE KEY=VALUE…", or "deny
// KEY=VALUE…"; an unknown uid, unit or digest is left out.
func TestVerdicts(t *testing.T) {
	for _, name := range policies.Names() {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join("..", "testdata", "policy", name+".txtar")
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			p := load(t, name)
			answers := map[string]int{}
			for _, f := range archive.Files {
				if f.Name != "verdicts" {
					continue
				}
				for i, line := range strings.Split(string(f.Data), "\n") {
					line, _, _ = strings.Cut(line, "#")
					if words := strings.Fields(line); len(words) > 0 {
						askLine(t, p, fmt.Sprintf("%s, verdict line %d", path, i+1), words)
						answers[words[0]]++
					}
				}
			}
			if answers["deny"] == 0 || answers["allow"] == 0 && len(p.Rules) > 0 {
				t.Errorf("%s asks too little: %v", path, answers)
			}
		})
	}
}

func askLine(t *testing.T, p *plan.Plan, at string, words []string) {
	t.Helper()
	want, words := words[0], words[1:]
	if want == "allow" {
		want, words = "allow "+words[0], words[1:]
	}
	r, err := request(words)
	if err != nil {
		t.Errorf("%s: %v", at, err)
		return
	}
	got := "deny"
	if d := plan.Decide(p, r); d.Allowed {
		got = "allow " + d.Rule.Name
	}
	if got != want {
		t.Errorf("%s: %s, want %s\n%s", at, got, want, plan.Explain(p, r))
	}
}

func request(words []string) (plan.Request, error) {
	var r plan.Request
	for _, word := range words {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "binary":
			r.Binary = value
		case "uid":
			r.UID = new(uint32)
			if _, err := fmt.Sscan(value, r.UID); err != nil {
				return r, err
			}
		case "unit":
			r.Unit = value
		case "cap":
			r.Capabilities = append(r.Capabilities, value)
		case "algorithm":
			typ, name, ok := strings.Cut(value, ":")
			if !ok {
				return r, fmt.Errorf("algorithm %q without a type", value)
			}
			r.Algorithm = afalg.Algorithm{Type: afalg.Type(typ), Name: name}
		default:
			return r, fmt.Errorf("unknown word %q", word)
		}
	}
	return r, nil
}
