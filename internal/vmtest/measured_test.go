package vmtest

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
)

var update = flag.Bool("update", false, "write docs/measured.md instead of comparing")

// grid is a table of measurements. The tests in virtual machines compare every
// cell with the machine; docs/measured.md shows the same tables.
type grid struct {
	title, text string
	rows        string // the meaning of the rows
	columns     []string
	cells       []cells
}

type cells struct {
	row   string
	cells []string
}

// column returns the cells of a column by row.
func (g grid) column(t testing.TB, column string) map[string]string {
	t.Helper()
	i := slices.Index(g.columns, column)
	if i < 0 {
		t.Fatalf("%s: no column %q", g.title, column)
	}
	found := map[string]string{}
	for _, r := range g.cells {
		if len(r.cells) != len(g.columns) {
			t.Fatalf("%s: %s has %d cells of %d", g.title, r.row, len(r.cells), len(g.columns))
		}
		found[r.row] = r.cells[i]
	}
	return found
}

func (g grid) markdown() string {
	var b strings.Builder
	line := func(cells ...string) { fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | ")) }
	fmt.Fprintf(&b, "## %s\n\n%s\n\n", g.title, g.text)
	line(append([]string{g.rows}, g.columns...)...)
	line(slices.Repeat([]string{"---"}, 1+len(g.columns))...)
	for _, r := range g.cells {
		line(append([]string{r.row}, r.cells...)...)
	}
	return b.String()
}

// seccompRoutes has the result of each route in a container. Docker's base
// answers EPERM where no rule allows a call, Podman's ENOSYS. Neither has a
// rule for io_uring, so that hardening has none to change; Docker's has none
// for high bits either.
var seccompRoutes = grid{
	title: "Containers under seccomp",
	text: `The prober alone in a container, with Docker's default capabilities. The bases
are Docker's default profile (github.com/moby/profiles), Podman's (Debian's
golang-github-containers-common) and none; hardened ones are made by
` + "`afalg-policy generate seccomp builtin:baseline --base BASE`" + `, and the
granted one from builtin:fips with --grant.`,
	rows:    "route",
	columns: []string{"no profile", "docker", "docker, hardened", "docker, granted", "podman", "podman, hardened", "none, hardened"},
	cells: []cells{
		{"socket", []string{"open", "EPERM", "EAFNOSUPPORT", "open", "open", "EAFNOSUPPORT", "EAFNOSUPPORT"}},
		{"socket-highbits", []string{"open", "EPERM*", "EPERM*", "EPERM*", "open", "EAFNOSUPPORT*", "EAFNOSUPPORT"}},
		{"compat-socket", []string{"open", "EPERM", "EAFNOSUPPORT", "open", "open", "EAFNOSUPPORT", "EAFNOSUPPORT"}},
		{"compat-socketcall", []string{"open", "open", "EAFNOSUPPORT*", "EAFNOSUPPORT*", "open", "EAFNOSUPPORT*", "EAFNOSUPPORT*"}},
		{"x32-socket", []string{"open", "EPERM", "EAFNOSUPPORT", "open", "open", "EAFNOSUPPORT", "EAFNOSUPPORT"}},
		{"io_uring", []string{"open", "EPERM*", "EPERM*", "EPERM*", "ENOSYS*", "ENOSYS*", "ENOSYS*"}},
		{"socketpair", []string{"open", "open", "EAFNOSUPPORT", "EAFNOSUPPORT", "open", "EAFNOSUPPORT", "EAFNOSUPPORT"}},
		{"inherited", []string{"closed", "closed", "closed", "closed", "closed", "closed", "closed"}},
	},
}

// otherRoutes has the result of each route under the other targets.
var otherRoutes = grid{
	title: "systemd units, and AppArmor or SELinux without seccomp",
	text: `The units have the drop-ins that ` + "`afalg-policy generate systemd`" + ` writes for every
service, for a service that holds a rule, and for one that lists its own
address families (AF_ALG among them); one unit is left out by --except. There,
SIGSYS meets calls of another ABI. AppArmor is the container profile, and a
program's own profile that includes the abstraction. SELinux is the module with
deny rules, and the one with constraints, under a policy that allows everything.`,
	rows:    "route",
	columns: []string{"unit left out", "unit", "unit with a grant", "unit with a list", "AppArmor, container", "AppArmor, program", "SELinux", "SELinux, domain with the rule"},
	cells: []cells{
		{"socket", []string{"open", "EAFNOSUPPORT", "open", "EAFNOSUPPORT", "EACCES", "EACCES", "EACCES", "open"}},
		{"socket-highbits", []string{"open", "EAFNOSUPPORT*", "EAFNOSUPPORT*", "EAFNOSUPPORT*", "EACCES", "EACCES", "EACCES", "open"}},
		{"compat-socket", []string{"open", "SIGSYS*", "SIGSYS*", "SIGSYS*", "EACCES", "EACCES", "EACCES", "open"}},
		{"compat-socketcall", []string{"open", "SIGSYS*", "SIGSYS*", "SIGSYS*", "EACCES", "EACCES", "EACCES", "open"}},
		{"x32-socket", []string{"open", "SIGSYS*", "SIGSYS*", "SIGSYS*", "EACCES", "EACCES", "EACCES", "open"}},
		{"io_uring", []string{"open", "ENOSYS/SIGSYS*", "ENOSYS/SIGSYS*", "ENOSYS/SIGSYS*", "EACCES", "EACCES", "EACCES", "open"}},
		{"socketpair", []string{"open", "open", "open", "open", "EACCES", "EACCES", "EACCES", "open"}},
		{"inherited", []string{"closed", "closed", "closed", "closed", "closed", "closed", "closed", "closed"}},
	},
}

// clientSockets has the results of statically linked C programs: for AF_UNIX,
// AF_INET, AF_INET6 and AF_NETLINK, and for AF_ALG.
var clientSockets = grid{
	title: "64-bit and 32-bit programs",
	text: `What programs get of the ordinary families (AF_UNIX, AF_INET, AF_INET6 and
AF_NETLINK) / of AF_ALG. The C library is Debian's glibc, whose 32-bit build goes
through socketcall; the last two programs make the call themselves. The columns are hardened profiles with --socketcall deny, which is the default, or
keep, and the latter with the AppArmor profile that has to stand behind it.`,
	rows:    "program",
	columns: []string{"docker, deny", "docker, keep", "docker, keep, AppArmor", "podman, deny", "podman, keep", "none, deny", "none, keep"},
	cells: []cells{
		{"64-bit, C library", []string{"open / EAFNOSUPPORT", "open / EAFNOSUPPORT", "open / EAFNOSUPPORT", "open / EAFNOSUPPORT", "open / EAFNOSUPPORT", "open / EAFNOSUPPORT", "open / EAFNOSUPPORT"}},
		{"32-bit, C library", []string{"EAFNOSUPPORT / EAFNOSUPPORT", "open / open", "open / EACCES", "EAFNOSUPPORT / EAFNOSUPPORT", "open / open", "EAFNOSUPPORT / EAFNOSUPPORT", "EAFNOSUPPORT / EAFNOSUPPORT"}},
		{"x32, C library", []string{"open / EAFNOSUPPORT", "open / EAFNOSUPPORT", "open / EAFNOSUPPORT", "open / EAFNOSUPPORT", "open / EAFNOSUPPORT", "open / EAFNOSUPPORT", "open / EAFNOSUPPORT"}},
		{"32-bit, socket", []string{"open / EAFNOSUPPORT", "open / EAFNOSUPPORT", "open / EAFNOSUPPORT", "open / EAFNOSUPPORT", "open / EAFNOSUPPORT", "open / EAFNOSUPPORT", "open / EAFNOSUPPORT"}},
		{"32-bit, socketcall", []string{"EAFNOSUPPORT / EAFNOSUPPORT", "open / open", "open / EACCES", "EAFNOSUPPORT / EAFNOSUPPORT", "open / open", "EAFNOSUPPORT / EAFNOSUPPORT", "EAFNOSUPPORT / EAFNOSUPPORT"}},
	},
}

const measuredFile = "../../docs/measured.md"

const measuredHead = `# Measured on real kernels

` + "`make test`" + `, ` + "`make test-all`" + ` and ` + "`make test-wide`" + ` boot Debian's 6.1 and 6.12 kernels
and compare each cell below with them, under runc and under crun. Every cell holds for
each kernel and each runtime. This file is written by ` + "`go generate ./internal/vmtest`" + `.

- **open**: an AF_ALG socket was obtained, and sha256 was bound on it. For
  socketpair, which gives no socket: the call reached the kernel's AF_ALG.
- **an errno, or SIGSYS**: refused with it, by every call of the route.
- **\*** behind it: an ordinary family is refused by that route as well.
- **closed**, for inherited: nothing was passed in. No filter sees this route.
`

// Every table of routes names every route.
func TestMeasuredRoutes(t *testing.T) {
	var routes []string
	for _, r := range afalg.Routes() {
		routes = append(routes, string(r.Route))
	}
	for _, g := range []grid{seccompRoutes, otherRoutes} {
		var rows []string
		for _, r := range g.cells {
			rows = append(rows, r.row)
		}
		if d := cmp.Diff(routes, rows); d != "" {
			t.Errorf("%s: -routes +rows:\n%s", g.title, d)
		}
	}
}

//go:generate go test . -run ^TestMeasuredDocument$ -update
func TestMeasuredDocument(t *testing.T) {
	parts := []string{measuredHead}
	for _, g := range []grid{seccompRoutes, otherRoutes, clientSockets} {
		parts = append(parts, g.markdown())
	}
	want := strings.Join(parts, "\n")
	if *update {
		if err := os.WriteFile(measuredFile, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(measuredFile)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, string(got)); d != "" {
		t.Errorf("-tables +%s (go generate rewrites):\n%s", measuredFile, d)
	}
}
