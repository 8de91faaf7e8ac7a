//go:build vm

package vmtest

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// attack is a way to reach an algorithm that the policy does not allow, or the
// broker. It is tried under "run", and without, to show that it is an attack.
type attack struct {
	name   string
	script string // for a shell: $A is the program that the policy allows, $B a copy of it elsewhere
	grant  string // "path" if empty
	flags  []string
	before []string // the command that runs "run" itself
	users  []string // everyone if empty
	once   bool     // on the newest kernel alone: slow, and about the broker rather than the kernel
	want   string   // under "run"
	free   string   // without; not tried if empty
	// The script to try without, if it differs: errnos differ from kernel to
	// kernel, and a race that nobody slows down takes more tries.
	control string
	// For attacks after which "run" does not end well.
	exit   int
	stderr string
}

const (
	asRoot   = "root"
	asNobody = "nobody" // uid 65534
)

var (
	everyone = []string{asRoot, asNobody}
	rootOnly = []string{asRoot}
)

// userOn returns the one of the users who tries on a kernel: the first on the
// newest, the last on another. Where kernels differ, they do so for all users.
func userOn(version string, users []string) string {
	if newest(version) {
		return users[0]
	}
	return users[len(users)-1]
}

// Output of "attack try".
const (
	tryFree    = "hmac(sha512) 64\nsha256 32\n"
	tryAllowed = "hmac(sha512) 64\nsha256 bind:ENOENT\n"
	tryDenied  = "hmac(sha512) socket:EAFNOSUPPORT\nsha256 socket:EAFNOSUPPORT\n"
)

const (
	attackDir    = "/opt/attack/"
	attackPolicy = attackDir + "policy.yaml"
)

const attackRules = `version: 1
name: attacks
allow:
  - rule: path
    binaries: [{path: /opt/attack/attack}, {path: /opt/attack/attack32}]
    algorithms: {hash: ["hmac(sha512)"]}
  - rule: digest
    binaries: [{path: /opt/attack/attack, sha256: %x}]
    algorithms: {hash: ["hmac(sha512)"]}
  - rule: anyone
    anyone: true
    algorithms: {hash: ["hmac(sha512)"]}
`

// TestLongAttacks tries each attack on the broker, on each kernel and as each
// user, for as long as AFALG_POLICY_ATTACKS says.
func TestLongAttacks(t *testing.T) {
	files := buildAttacks(t)
	t.Parallel()
	for _, version := range Kernels() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			vm := Boot(t, version, Options{})
			putAttacks(t, vm, files)
			for _, attacks := range [][]attack{names, passing, identity, tree(version), socketcalls, races(), stops()} {
				for _, a := range attacks {
					if newest(version) || !a.once {
						t.Run(a.name, func(t *testing.T) { a.try(t, vm, userOn(version, a.by())) })
					}
				}
			}
			t.Run("routes", func(t *testing.T) { testBrokeredRoutes(t, vm, userOn(version, everyone)) })
		})
	}
}

// buildAttacks returns the files of attackDir by name.
func buildAttacks(t *testing.T) map[string][]byte {
	t.Helper()
	dir := t.TempDir()
	build := func(name string, flags ...string) []byte {
		path := filepath.Join(dir, name)
		compile(t, path, append([]string{"-Wextra"}, flags...)...)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	sources, err := filepath.Glob("../../testdata/clients/attack*.c")
	if err != nil || len(sources) == 0 {
		t.Fatalf("no sources of the attacks: %v", err)
	}
	sources = append(sources, "-pthread")
	// It needs a library of which it takes nothing: any other does in its place.
	program := build("attack", append([]string{"-Wl,--no-as-needed", "-l:libdl.so.2", "-Wl,--as-needed"}, sources...)...)
	return map[string][]byte{
		"attack": program, "other": program,
		"attack32":    build("attack32", append([]string{"-m32", "-static"}, sources...)...),
		"preload.so":  build("preload.so", append([]string{"-shared", "-fPIC", "-DPRELOAD"}, sources...)...),
		"policy.yaml": fmt.Appendf(nil, attackRules, sha256.Sum256(program)),
	}
}

func putAttacks(t *testing.T, vm *VM, files map[string][]byte) {
	t.Helper()
	for name, data := range files {
		vm.WriteFile(t, attackDir+name, data, 0o755)
	}
}

// by returns those who are to try it.
func (a attack) by() []string {
	if a.users == nil {
		return everyone
	}
	return a.users
}

func (a attack) try(t *testing.T, vm *VM, user string) {
	t.Run(user, func(t *testing.T) {
		grant := a.grant
		if grant == "" {
			grant = "path"
		}
		run := append([]string{program(t), "run", attackPolicy, "--grant", grant}, a.flags...)
		run = as(user, append(append(run, "--"), shell(a.script)...))
		a.compare(t, vm, slices.Concat(a.before, run), a.want, a.exit)
	})
	if a.free != "" {
		control := a.control
		if control == "" {
			control = a.script
		}
		free := a.by()[0]
		t.Run(free+", no broker", func(t *testing.T) { a.compare(t, vm, as(free, shell(control)), a.free, 0) })
	}
}

func shell(script string) []string { return []string{"sh", "-c", script} }

func as(user string, args []string) []string {
	if user == asRoot {
		return args
	}
	return append([]string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"}, args...)
}

func (a attack) compare(t *testing.T, vm *VM, args []string, want string, exit int) {
	t.Helper()
	r := vm.Command(t, Command{
		Args: args, Timeout: time.Duration(factor()) * 5 * time.Minute,
		Env: []string{"A=" + attackDir + "attack", "B=" + attackDir + "other", "A32=" + attackDir + "attack32", "D=" + attackDir},
	})
	figures, told := split(string(r.Stderr))
	t.Logf("%v\n%s", r.Took.Round(time.Millisecond), figures)
	if d := cmp.Diff(strings.SplitAfter(want, "\n"), strings.SplitAfter(string(r.Stdout), "\n")); d != "" || r.Exit != exit {
		t.Errorf("exit status %d, want %d, -want +got:\n%s\n%s", r.Exit, exit, d, r.Stderr)
	}
	if a.stderr != "" && figures != a.stderr {
		t.Errorf("-want +got:\n%s", cmp.Diff(a.stderr, figures))
	}
	if strings.Contains(told, `"level":"ERROR"`) {
		t.Errorf("the broker told of an error:\n%s", told)
	}
}

// split divides standard error into the broker's records and other lines.
func split(text string) (figures, told string) {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "{") {
			told += line
		} else {
			figures += line
		}
	}
	return figures, told
}

// names are addresses that a filter or a broker could take for others.
var names = []attack{
	{name: "plain", script: `$A try`, want: tryAllowed, free: tryFree},
	{name: "not allowed", script: `$B try`, want: tryDenied, free: tryFree},
	{name: "undumpable", script: `$A undumpable`, users: rootOnly, want: tryAllowed, free: tryFree},
	{name: "undumpable", script: `$A undumpable`, users: []string{asNobody}, want: tryDenied, free: tryFree},
	{name: "lengths", script: `cd $(mktemp -d); $A lengths`, want: brokeredLengths, free: `family 38 length 25-36 ENOENT
family 38 length 37-128 ok
family 0 length 37-128 ok
family 1 length 37-128 ok
family 2 length 37-128 ok
family 65535 length 37-128 ok
`},
	{name: "names", script: `$A names`, want: brokeredNames, control: `$A names | grep -v ' E[A-Z]*$'`, free: `"hmac(sha512-generic)" 64
"sha512-generic" 64
"sha512" 64
"hmac(sha256)" 32
allowed, NUL, denied 64
denied, NUL, allowed 32
type, NUL, other type 64
skcipher digest:EINVAL
aead digest:EINVAL
rng digest:EOPNOTSUPP
`},
	{name: "rebind", script: `$A rebind`, want: "denied ENOENT\nstill 64\n" + rebound, free: "denied ok\nstill 32\n" + rebound},
	{name: "memory", script: `$A memory`, want: "key by serial ENOPROTOOPT\n" + badMemory(), control: `$A memory | grep -v serial`, free: badMemory()},
}

// The kernel answers other lengths than the structure's: a placeholder is a Unix
// socket that has a name, and takes no other.
const brokeredLengths = `family 38 length 25-87 EINVAL
family 38 length 88-88 ok
family 38 length 89-128 EINVAL
family 0 length 37-87 EINVAL
family 0 length 88-88 ok
family 0 length 89-128 EINVAL
family 1 length 37-87 EINVAL
family 1 length 88-88 ok
family 1 length 89-128 EINVAL
family 2 length 37-87 EINVAL
family 2 length 88-88 ok
family 2 length 89-128 EINVAL
family 65535 length 37-87 EINVAL
family 65535 length 88-88 ok
family 65535 length 89-128 EINVAL
`

const brokeredNames = `"pcrypt(hmac(sha512))" ENOENT
"hmac(sha512-generic)" ENOENT
"sha512-generic" ENOENT
"sha512" ENOENT
"HMAC(SHA512)" ENOENT
"hmac(sha512) " ENOENT
" hmac(sha512)" ENOENT
"hmac(hmac(sha512))" ENOENT
"hmac(sha512)x" ENOENT
"hmac(sha51" ENOENT
"hmac(sha256)" ENOENT
"" ENOENT
64 bytes without end ENOENT
denied, filled with spaces ENOENT
allowed, NUL, denied 64
denied, NUL, allowed ENOENT
type, NUL, other type 64
type without end ENOENT
type with a byte more ENOENT
no type ENOENT
skcipher ENOENT
aead ENOENT
rng ENOENT
all features EINVAL
`

const rebound = `allowed, operation open EBUSY
key, operation open EBUSY
denied, operation open refused
allowed, operation closed ok
key, operation closed ok
at last 64
bind of an operation EOPNOTSUPP
`

// badMemory is the result of wrong pointers and lengths.
func badMemory() string {
	var text strings.Builder
	for _, call := range []string{"bind", "key"} {
		for _, where := range []string{"null", "low", "kernel", "end", "unreadable", "across the end"} {
			fmt.Fprintln(&text, call, where, "EFAULT")
		}
	}
	text.WriteString(`entropy ENOPROTOOPT
type 0 ENOPROTOOPT
iv ENOPROTOOPT
high ENOPROTOOPT
key of 128 KiB + 1 ENOMEM
key of 2 GiB ENOMEM
key of -1 EINVAL
key of 0 ok
accept flags EINVAL
in the end 64
`)
	return text.String()
}

// passing hands descriptors about.
var passing = []attack{
	{name: "pass", script: `$A pass $B $A`, want: passed("accept:EINVAL", "ENOENT"), free: passed("64", "ok")},
	{name: "shutdown", script: `$A shutdown`, want: "shutdown 0 ok\nshutdown 1 ok\nshutdown 2 ok\nbind ok\naccept digest:ENOKEY\n" + tryAllowed,
		free: "shutdown 0 EOPNOTSUPP\nshutdown 1 EOPNOTSUPP\nshutdown 2 EOPNOTSUPP\nbind ok\naccept digest:ENOKEY\n" + tryFree},
	{name: "over itself", script: `$A itself`, want: "sent over itself EPIPE\nsent over another EPIPE\n",
		free: "sent over itself EOPNOTSUPP\nsent over another EOPNOTSUPP\n"},
}

// passed is the result of a socket passed to others: another binary gets these
// results from accept and bind.
func passed(accept, bind string) string {
	return fmt.Sprintf(`operation, inherited by another binary 64
operation, sent to another binary 64
dup 64
fork 64
the same binary 64
the same binary, rebound ok
another binary %[1]s
another binary, rebound %[2]s
another binary, sent %[1]s
another binary, sent, rebound %[2]s
the same binary, sent 64
the same binary, sent, rebound ok
here still 64
kept over exec of another %[1]s
kept over exec of another, rebound %[2]s
`, accept, bind)
}

// identity has another program pass for the one that is allowed.
var identity = []attack{
	{name: "traced", script: `$A traced`, want: tryDenied + "attach ok\nattached after bind accept:EINVAL\n", free: tryFree + "attach ok\nattached after bind 64\n"},
	{name: "preload", script: `LD_PRELOAD=$D/preload.so $A try`, want: "preloaded\n" + tryAllowed, free: "preloaded\n" + tryFree}, // a limit: see docs
	{name: "symbolic link to it", script: `T=$(mktemp -d); ln -s $A $T/link; $T/link try`, want: tryAllowed, free: tryFree},
	{name: "copy", script: `T=$(mktemp -d); cp $A $T/attack; $T/attack try`, want: tryDenied, free: tryFree},
	{name: "digest of a copy", grant: "digest", script: `T=$(mktemp -d); cp $A $T/attack; $T/attack try`, want: tryDenied, free: tryFree},
	{name: "digest", grant: "digest", script: `$A try`, want: tryAllowed, free: tryFree},
	{name: "loader", script: `/lib64/ld-linux-x86-64.so.2 $A try`, want: tryDenied, free: tryFree},
	{name: "anonymous", script: anonymous, want: tryDenied, free: tryFree},
	{name: "PR_SET_MM", script: `$A setmm`, want: setMM("EPERM"), free: setMM("ok")},
	{name: "bind mount", script: mounted(`mount --bind $T/attack $A; $A try`), want: tryDenied, free: tryFree},
	{name: "bind mount, digest", grant: "digest", script: mounted(`mount --bind $T/attack $A; $A try`), want: tryDenied, free: tryFree},
	{name: "own mounts", script: mounted(`$A try`), want: tryDenied, free: tryFree},
	{name: "own mounts, digest", grant: "digest", script: mounted(`$A try`), want: tryAllowed, free: tryFree},
	{name: "root elsewhere", users: rootOnly, script: rooted, want: tryDenied, free: tryFree},
	{name: "hard link", users: rootOnly, script: `ln $A $D/hard; $D/hard try; rm $D/hard`, want: tryDenied, free: tryFree},
	{name: "symbolic link in its place", users: rootOnly, script: replaced(`ln -s $B $A; $A try`), want: tryDenied, free: tryFree},
	{name: "replaced", users: rootOnly, script: replaced(`cp $B $A; echo >>$A; $A try`), want: tryAllowed, free: tryFree},
	{name: "replaced, digest", users: rootOnly, grant: "digest", script: replaced(`cp $B $A; echo >>$A; $A try`), want: tryDenied, free: tryFree},
	{name: "script in its place", users: rootOnly, script: replaced(`printf '#!%s try\n' $B >$A; chmod 755 $A; $A`), want: tryDenied, free: tryFree},
	{name: "deleted", users: rootOnly, script: replaced(`cp $B $A; $A deleted $A`), want: tryDenied, free: tryFree},
	{name: "renamed over", users: rootOnly, script: replaced(`cp $B $A; cp $B $D/new; $A renamed $D/new $A`), want: tryDenied, free: tryFree},
}

// anonymous executes a copy that is no file.
const anonymous = `python3 -c '
import os, sys
fd = os.memfd_create("attack")
os.write(fd, open(sys.argv[1], "rb").read())
os.execv("/proc/self/fd/%d" % fd, [sys.argv[1], "try"])
' $A`

// rooted executes a copy that is at the allowed path in another root.
const rooted = `T=$(mktemp -d); mkdir -p $T/opt/attack $T/lib $T/lib64
for d in opt/attack lib lib64; do mount --bind /$d $T/$d; done
chroot $T $A try; umount $T/lib $T/lib64 $T/opt/attack`

// mounted is a script in a mount namespace of its own, where $T/attack is a
// program with other content.
func mounted(script string) string {
	return `T=$(mktemp -d); cp $A $T/attack; echo >>$T/attack; export T
if [ $(id -u) = 0 ]; then U="unshare -m"; else U="unshare -Urm"; fi
$U sh -c '` + script + `'`
}

// replaced is a script that finds nothing at the allowed path, and leaves it
// as it was.
func replaced(script string) string {
	return "mv $A $A.kept; " + script + "; rm -f $A; mv $A.kept $A"
}

func setMM(result string) string {
	return fmt.Sprintf("PR_SET_MM %[1]s\nhigh bits %[1]s\nint $0x80 %[1]s\nx32 %[1]s\n", result)
}
