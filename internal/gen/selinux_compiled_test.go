package gen

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/afalg-policy/afalg-policy/internal/testing/selinuxtest"
)

// openPolicy allows everything, in each way that CIL has.
const openPolicy = "../../testdata/vm/selinux.cil"

// without takes statements of a kind out of a module.
func without(text, statement string) string {
	var kept []string
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "("+statement+" ") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

func compileModule(t *testing.T, text string, base ...string) error {
	t.Helper()
	_, err := selinuxtest.Compile(t, append(base, selinuxtest.Write(t, selinuxModule, text))...)
	return err
}

// nobodyElse says by other means that no type but one may use AF_ALG in any way.
const nobodyElse = `(typeattribute others)
(typeattributeset others (not (holder_t)))
(typeattribute labels)
(typeattributeset labels (all))
(neverallow others labels (alg_socket (all)))
`

// TestSELinuxCompiled has SELinux's compiler take each output with a policy that
// allows everything. Without the deny rules the neverallow rules find that.
func TestSELinuxCompiled(t *testing.T) {
	for _, c := range selinuxCases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			text := selinuxText(t, c.plan, c.opts)
			base := []string{openPolicy}
			compile := selinuxtest.CompileOlder
			if c.opts.Userspace == "" {
				base, compile = append(base, selinuxtest.Write(t, "nobody.cil", nobodyElse)), selinuxtest.Compile
			}
			if _, err := compile(t, append(base, selinuxtest.Write(t, selinuxModule, text))...); err != nil {
				t.Error(err)
			}
			err := compileModule(t, without(text, "deny"), openPolicy)
			const violated = "neverallow check failed"
			if constrains := c.opts.Userspace != ""; constrains && err != nil || !constrains && (err == nil || !strings.Contains(err.Error(), violated)) {
				t.Errorf("without deny rules: %v", err)
			}
		})
	}
}

// TestSELinuxDebian does the same with Debian's own policy.
func TestSELinuxDebian(t *testing.T) {
	base := selinuxtest.Debian(t)
	p := selinuxPlan()
	text := selinuxText(t, p, SELinuxOptions{
		Kernel: "6.12", Domains: map[string][]string{"iwd": {"NetworkManager_t", "bluetooth_t"}},
		Common: Common{Accept: append(acceptClasses, "iwd")},
	})
	if err := compileModule(t, text, base...); err != nil {
		t.Error(err)
	}
	err := compileModule(t, without(text, "deny"), base...)
	if err == nil || !strings.Contains(err.Error(), "unconfined_domain_type domain (alg_socket") {
		t.Errorf("without deny rules: %v", err)
	}
}

// TestSELinuxClosesOnError: what the host does not have stops the compiler, and
// nothing is loaded then.
func TestSELinuxClosesOnError(t *testing.T) {
	held := func(domain string) string {
		return selinuxText(t, algorithmsPlan(), SELinuxOptions{Domains: map[string][]string{"iwd": {domain}}, Common: Common{Accept: []string{"iwd"}}})
	}
	mctp := algorithmsPlan()
	mctp.Families[0].Name, mctp.Families[0].Number = "AF_MCTP", 45
	for _, tt := range []struct{ name, text, want string }{
		{"an attribute is no domain", held("domain"), "is a typealias, but aliases a typeattribute"},
		{"no such type", held("iwd_t"), "Failed to resolve typealiasactual statement"},
		{"no such class", selinuxText(t, mctp, SELinuxOptions{}), "Failed to resolve deny statement"},
	} {
		if err := compileModule(t, tt.text, openPolicy); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	if err := compileModule(t, held("apart.inner_t"), openPolicy); err != nil {
		t.Errorf("a type of a block: %v", err)
	}
}

// TestSELinuxModule installs the module by semodule, into a store of its own,
// and shows that no priority comes before it.
func TestSELinuxModule(t *testing.T) {
	store := t.TempDir()
	modules, settings := filepath.Join(store, "var/lib/selinux/test/active/modules"), filepath.Join(store, "etc/selinux/semanage.conf")
	if err := errors.Join(os.MkdirAll(modules, 0o755), os.MkdirAll(filepath.Dir(settings), 0o755)); err != nil {
		t.Fatal(err)
	}
	// Only the checks of rules are wanted, and no program that labels files.
	const conf = "expand-check = 1\n[setfiles]\npath = /bin/true\n[end]\n[sefcontext_compile]\npath = /bin/true\n[end]\n"
	if err := os.WriteFile(settings, []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	semodule := func(args ...string) (string, error) {
		out, err := selinuxtest.Command(t, selinuxtest.Semodule, append([]string{"--path", store, "--store", "test", "--noreload"}, args...)...).CombinedOutput()
		return string(out), err
	}
	must := func(args ...string) {
		t.Helper()
		if out, err := semodule(args...); err != nil {
			t.Fatalf("semodule %v: %v\n%s", args, err, out)
		}
	}
	compiled := func() string {
		t.Helper()
		found, err := filepath.Glob(filepath.Join(store, "etc/selinux/test/policy/policy.*"))
		if err != nil || len(found) != 1 {
			t.Fatalf("%v, %v", found, err)
		}
		data, err := os.ReadFile(found[0])
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	text := selinuxText(t, algorithmsPlan(), SELinuxOptions{})
	check := selinuxtest.Write(t, "check.cil", strings.ReplaceAll(without(text, "deny"), "afalg_policy", "check"))
	late := selinuxtest.Write(t, "late.cil", "(allow plain_t holder_t (alg_socket (create bind)))\n")

	must("--install", openPolicy)
	before := compiled()
	if _, err := semodule("--install", check); err == nil {
		t.Error("the control: nothing was allowed before")
	}
	must("--install", selinuxtest.Write(t, selinuxModule, text))
	must("--install", check)
	must("--priority", "999", "--install", late)
	must("--priority", "999", "--remove", "late")
	must("--remove", "check")
	must("--remove", strings.TrimSuffix(selinuxModule, ".cil"))
	if compiled() != before {
		t.Error("to remove the module does not restore the policy")
	}
}
