package gen

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
)

// upstreamKernel has the features of a kernel without a distribution's own
// patches: network mediation of version 8, and none for Unix sockets.
const upstreamKernel = "/usr/share/apparmor-features/features"

// unpinned is a configuration of apparmor_parser without policy-features, as
// AppArmor ships it. Debian's pins them, which hides what a missing abi does.
const unpinned = "--config-file=/dev/null"

// appArmorParser runs the real parser, which neither loads nor caches.
func appArmorParser(t *testing.T, text string, args ...string) (output string, err error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "profile")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	args = append([]string{"--skip-kernel-load", "--skip-cache", "--quiet", unpinned, "--kernel-features", upstreamKernel}, args...)
	cmd := exec.Command("apparmor_parser", append(args, path)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	return out.String(), err
}

func compileAppArmor(t *testing.T, text string) string {
	t.Helper()
	out, err := appArmorParser(t, text, "--stdout")
	if err != nil {
		t.Fatalf("%v: %s\n%s", err, out, text)
	}
	return out
}

// loadable makes a profile of what the target wrote.
func loadable(text string, o AppArmorOptions) string {
	if !o.Abstraction {
		return text
	}
	return "abi <abi/3.0>,\nprofile p {\n  network,\n" + text + "}\n"
}

// baseline is the profile without our rules: Docker's, or the one that includes
// the abstraction.
func baseline(t *testing.T, o AppArmorOptions) string {
	t.Helper()
	if o.Abstraction {
		return loadable("", o)
	}
	a := appArmor{AppArmorOptions: o, plan: wirelessPlan()}
	if err := a.resolve(); err != nil {
		t.Fatal(err)
	}
	text, err := dockerProfile(a.AppArmorOptions)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func withoutNetworkDenials(text string) string {
	return strings.Join(slices.DeleteFunc(strings.Split(text, "\n"), deniesNetwork), "\n")
}

func deniesNetwork(line string) bool {
	return strings.HasPrefix(strings.TrimSpace(line), "deny network ")
}

// enforced are the cases whose rules hold under the parser's own defaults.
func enforced(o AppArmorOptions) bool { return !slices.Contains(o.Accept, "abi") }

// accepted reports whether the installed parser knows the case's abi; one that it
// does not know has to keep the profile from loading.
func accepted(t *testing.T, o AppArmorOptions) bool {
	t.Helper()
	if o.ABI != ABIKernel {
		return true
	}
	out, err := appArmorParser(t, "abi <kernel>,\nprofile p {}\n")
	if err != nil && !strings.Contains(out, "failed to find features abi 'kernel'") {
		t.Fatalf("%v: %s", err, out)
	}
	return err == nil
}

// The compiled profile is asked about each family: those denied are closed for
// every type of socket, and each other one is as in the base.
func TestAppArmorCompiled(t *testing.T) {
	for _, c := range appArmorCases {
		t.Run(c.name, func(t *testing.T) {
			text := loadable(appArmorText(t, c.opts), c.opts)
			if !accepted(t, c.opts) {
				if out, err := appArmorParser(t, text); err == nil {
					t.Fatalf("a parser that does not know the abi took the profile: %s", out)
				}
				return
			}
			a := appArmor{AppArmorOptions: c.opts, plan: wirelessPlan()}
			if err := a.resolve(); err != nil {
				t.Fatal(err)
			}
			ours, base := compileAppArmor(t, text), compileAppArmor(t, baseline(t, c.opts))
			denied := a.denied()
			if !enforced(c.opts) {
				denied = nil // the gap that was accepted
			}
			compareFamilies(t, readPolicydb(t, ours), readPolicydb(t, base), denied)
			if compileAppArmor(t, withoutNetworkDenials(text)) != compileAppArmor(t, withoutNetworkDenials(baseline(t, c.opts))) {
				t.Error("more than network rules differs from the base")
			}
		})
	}
}

// lastFamily is the last of any kernel so far, AF_MCTP.
const lastFamily = 45

// compareFamilies puts every question to both profiles. Before apparmor_parser
// 5.0 a denial does not reach the types without a name, as a gap says.
func compareFamilies(t *testing.T, ours, base policydb, denied []uint32) {
	t.Helper()
	for n := uint32(0); n <= lastFamily; n++ {
		for sockType := uint32(0); sockType < 16; sockType++ {
			got, had := ours.creates(n, sockType), base.creates(n, sockType)
			named := slices.Contains(namedTypes, sockType)
			granted := n == afalg.Family && !slices.Contains(denied, n)
			var wrong string
			switch {
			case slices.Contains(denied, n) && named && got:
				wrong = "open"
			case !slices.Contains(denied, n) && !granted && got != had:
				wrong = "not as in the base"
			case got && !had && !granted:
				wrong = "open, unlike in the base"
			}
			if wrong != "" {
				t.Errorf("%s, type %d: %s", afalg.FamilyName(n), sockType, wrong)
			}
		}
	}
}

// namedTypes are the socket types that AppArmor has names for.
var namedTypes = []uint32{unix.SOCK_STREAM, unix.SOCK_DGRAM, unix.SOCK_RAW, unix.SOCK_RDM, unix.SOCK_SEQPACKET, unix.SOCK_PACKET}

// The command of the documents refuses every profile whose rules would be dropped,
// and no other.
func TestAppArmorStrictLoad(t *testing.T) {
	option := strictLoad[strings.LastIndex(strictLoad, " ")+1:]
	for _, c := range appArmorCases {
		if !accepted(t, c.opts) {
			continue
		}
		out, err := appArmorParser(t, loadable(appArmorText(t, c.opts), c.opts), option)
		if (err == nil) != enforced(c.opts) {
			t.Errorf("%s: loads: %t, enforced: %t: %s", c.name, err == nil, enforced(c.opts), out)
		}
	}
}

// Nobody who moves from Docker's profile gets more: ours has each of its rules
// in the same order, and besides them denials of families alone.
func TestAppArmorKeepsDocker(t *testing.T) {
	for _, c := range appArmorCases {
		if c.opts.Abstraction {
			continue
		}
		want := ruleLines(baseline(t, c.opts))
		if len(c.opts.Grants) > 0 { // accepted by name
			want = slices.DeleteFunc(want, func(line string) bool { return line == "deny network alg," })
		}
		var got []string
		for _, line := range ruleLines(appArmorText(t, c.opts)) {
			if !deniesNetwork(line) || slices.Contains(want, line) {
				got = append(got, line)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: -Docker's +ours:\n%s", c.name, diff)
		}
	}
}

// ruleLines are the lines of a profile less comments, except for the include
// of old, which looks like one.
func ruleLines(text string) []string {
	var lines []string
	for _, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line != "" && (!strings.HasPrefix(line, "#") || strings.HasPrefix(line, "#include")) {
			lines = append(lines, line)
		}
	}
	return lines
}

// The table is what Docker's pinned seccomp profile denies to socket, and what
// its AppArmor profile denies since v0.2.2.
func TestAppArmorDockerFamilies(t *testing.T) {
	newest := strings.Fields("ax25 ipx appletalk netrom rose econet atmsvc irda wanpipe isdn caif alg vsock")
	var table, seccomp []string
	for n := uint32(0); n <= lastFamily; n++ {
		name, ok := appArmorFamily(n)
		if !ok {
			continue
		}
		if n == afalg.Family || slices.Contains(dockerFamilies, n) {
			table = append(table, name)
		}
		if !dockerAllows(t, uint64(n)) {
			seccomp = append(seccomp, name)
		}
	}
	if diff := cmp.Diff(seccomp, table); diff != "" {
		t.Errorf("-seccomp +table:\n%s", diff)
	}
	if diff := cmp.Diff(newest, table); diff != "" {
		t.Errorf("-AppArmor v0.2.2 +table:\n%s", diff)
	}
}

// dockerAllows evaluates the rules on socket that hold for a container without
// capabilities.
func dockerAllows(t *testing.T, family uint64) bool {
	t.Helper()
	for _, r := range profile.Docker().Syscalls {
		if !slices.Contains(r.Names, "socket") || r.Action != specs.ActAllow || r.Includes != nil {
			continue
		}
		holds := true
		for _, a := range r.Args {
			compared := map[specs.LinuxSeccompOperator]bool{
				specs.OpEqualTo: family == a.Value, specs.OpLessThan: family < a.Value, specs.OpGreaterThan: family > a.Value,
			}
			ok, known := compared[a.Op]
			if !known || a.Index != 0 {
				t.Fatalf("a rule on socket that the test cannot read: %+v", r)
			}
			holds = holds && ok
		}
		if holds {
			return true
		}
	}
	return false
}
