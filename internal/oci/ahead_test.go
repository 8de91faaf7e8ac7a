package oci

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// counted is a memo that counts what had to be proved.
type counted struct {
	*Memo
	puts int
}

func (c *counted) Put(key string, value []byte) {
	c.puts++
	c.Memo.Put(key, value)
}

// defaultSpec is a container with Docker's default profile.
func defaultSpec(t *testing.T, caps ...string) (*profile.Profile, []byte) {
	t.Helper()
	base, err := profile.Docker().On(profile.Host{Arch: specs.ArchX86_64, Caps: profile.DefaultCaps()})
	if err != nil {
		t.Fatal(err)
	}
	seccomp, err := base.Resolve(profile.Host{})
	if err != nil {
		t.Fatal(err)
	}
	spec, err := json.Marshal(specs.Spec{
		Version: "1.0.2",
		Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: caps}},
		Linux:   &specs.Linux{Seccomp: seccomp},
	})
	if err != nil {
		t.Fatal(err)
	}
	return base, spec
}

// TestAhead proves a default profile before a container has it. Neither the
// container, nor the gate behind it, proves anything then: with other
// capabilities that lead to the same profile, or after the rules of the policy
// were changed. A change of what the policy closes is another
// question.
func TestAhead(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "proofs")
	m, err := OpenMemo(dir, "x")
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	memo := &counted{Memo: m}
	o := options(t, "refuse")
	o.Memo = memo
	rxrpc, _ := afalg.FamilyByName("AF_RXRPC")
	o.Plan.Families = []policy.Family{{Name: "AF_RXRPC", Number: rxrpc}}
	base, spec := defaultSpec(t, profile.DefaultCaps()...)
	if err := o.Ahead(base, nil, false); err != nil {
		t.Fatal(err)
	}
	if memo.puts == 0 {
		t.Fatal("nothing was proved ahead")
	}
	_, fewer := defaultSpec(t, "CAP_CHOWN")
	for _, tt := range []struct {
		name    string
		spec    []byte
		change  func(*plan.Plan)
		unknown bool
	}{
		{"the default", spec, func(*plan.Plan) {}, false},
		{"fewer capabilities", fewer, func(*plan.Plan) {}, false},
		{"another rule", spec, func(p *plan.Plan) {
			p.Rules, p.Digest = slices.Clone(p.Rules[:1]), "sha256:other"
		}, false},
		{"another grant", spec, func(p *plan.Plan) { p.Grants, p.Digest = nil, "sha256:third" }, false},
		{"another line", spec, func(p *plan.Plan) {
			p.Families = slices.Clone(p.Families)
			p.Families[0].Pos.Line++
		}, false},
		{"another family", spec, func(p *plan.Plan) { p.Families = nil }, true},
		{"another errno", spec, func(p *plan.Plan) { p.SocketErrno = plan.Errno{Name: "EPERM", Number: 1} }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			changed := o
			policy := *o.Plan
			tt.change(&policy)
			changed.Plan = &policy
			memo.puts = 0
			out, err := changed.harden(tt.spec, plain)
			if err != nil {
				t.Fatal(err)
			}
			mustCheck(t, changed, out.Spec.Text(), plain)
			if (memo.puts > 0) != tt.unknown {
				t.Errorf("%d proofs, want some: %v", memo.puts, tt.unknown)
			}
		})
	}
}

// TestForget removes what other builds proved, and keeps one's own.
func TestForget(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "proofs")
	for _, build := range []string{"old", "new"} {
		m, err := OpenMemo(dir, build)
		if err != nil {
			t.Fatal(err)
		}
		m.Put("key", []byte(build))
		m.Close()
	}
	if err := Forget(dir, "new"); err != nil {
		t.Fatal(err)
	}
	kept, err := os.ReadDir(dir)
	if err != nil || len(kept) != 1 {
		t.Fatalf("%v, %v", kept, err)
	}
	m, err := OpenMemo(dir, "new")
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if got, ok := m.Get("key"); !ok || string(got) != "new" {
		t.Errorf("%q, %v", got, ok)
	}
}

// TestMemoParent refuses a memo below a directory that others can write to,
// who could put another in its place.
func TestMemoParent(t *testing.T) {
	parent := t.TempDir()
	if err := os.Chmod(parent, 0o777); err != nil {
		t.Fatal(err)
	}
	_, err := OpenMemo(filepath.Join(parent, "proofs"), "x")
	want := fmt.Sprintf("%s is no directory that only this user can write to (mode 0777, user %d)", parent, os.Geteuid())
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want %s", err, want)
	}
}
