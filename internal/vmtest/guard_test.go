//go:build vm

package vmtest

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The kernel half decides for every process of the machine. Here $A and $A32 are
// listed, $S is listed with strict-exec, $C may use what the others may not, and
// $B is a copy that nobody lists. $N runs a command as an ordinary user, $R as
// root without the capability that a rule asks for.
const guardRules = `version: 1
name: guard
allow:
  - rule: listed
    binaries: [{path: /opt/attack/attack}, {path: /opt/attack/attack32}]
    algorithms: {hash: ["hmac(sha512)"]}
  - rule: strict
    binaries: [{path: /opt/attack/strict}]
    strict-exec: true
    algorithms: {hash: ["hmac(sha512)"]}
  - rule: second
    binaries: [{path: /opt/attack/second}]
    algorithms: {hash: [sha256]}
  - rule: user
    users: ["65533"]
    algorithms: {skcipher: ["*"]}
  - rule: capability
    capabilities: [CAP_SYS_PACCT]
    algorithms: {hash: [sha1]}
  - rule: kcapi
    binaries: [{path: /usr/bin/kcapi-dgst}]
    algorithms: {hash: [sha256]}
` + guardUnits

const guardSettings = `D=/opt/attack A=/opt/attack/attack A32=/opt/attack/attack32 S=/opt/attack/strict C=/opt/attack/second B=/opt/attack/other
N="setpriv --reuid=65534 --regid=65534 --clear-groups"
R="setpriv --bounding-set=-sys_pacct --inh-caps=-sys_pacct"
L=/lib64/ld-linux-x86-64.so.2
`

// lsmAttached says how the programs are attached.
const (
	lsmAttached     = "lsm"
	fmodRetAttached = "fmod_ret"
)

// guardedLine is a question about the policy in the kernel. The script is tried
// with nothing loaded as well, which shows that an attack is one.
type guardedLine struct {
	name   string
	script string
	free   string
	want   string
}

// lsmCommand is the command of the kernel half.
func lsmCommand(t testing.TB) string { return program(t) + " lsm" }

// askLines runs all scripts in one shell, and returns what each printed.
func askLines(t *testing.T, vm *VM, lines []guardedLine) map[string]string {
	t.Helper()
	var text strings.Builder
	text.WriteString("set -a\n" + guardSettings)
	for i, l := range lines {
		fmt.Fprintf(&text, "echo '== %d'; echo \"== $(cut -d' ' -f1 /proc/uptime) %s\" >&2\ntimeout %d sh -c \"$(cat <<'END'\n%s\nEND\n)\" </dev/null\n", i, l.name, 600*factor(), l.script)
	}
	r := vm.Command(t, Command{Args: []string{"sh", "-c", text.String()}, Timeout: time.Duration(factor()) * 15 * time.Minute})
	t.Logf("%v\n%s", r.Took.Round(time.Millisecond), r.Stderr)
	got := map[string]string{}
	for i, part := range strings.Split(string(r.Stdout), "== ")[1:] {
		number, rest, _ := strings.Cut(part, "\n")
		if number != fmt.Sprint(i) || i >= len(lines) {
			t.Fatalf("lines in disorder:\n%s", r.Stdout)
		}
		got[lines[i].name] = rest
	}
	return got
}

func compareLines(t *testing.T, vm *VM, lines []guardedLine, want func(guardedLine) string) {
	t.Helper()
	lines = slices.DeleteFunc(slices.Clone(lines), func(l guardedLine) bool { return want(l) == "" })
	got := askLines(t, vm, lines)
	for _, l := range lines {
		t.Run(l.name, func(t *testing.T) {
			if d := cmp.Diff(strings.SplitAfter(want(l), "\n"), strings.SplitAfter(got[l.name], "\n")); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

func inForce(l guardedLine) string  { return l.want }
func unloaded(l guardedLine) string { return l.free }

// bindRoutes are the lines of "guard routes" for a listed executable.
func bindRoutes(denied, allowed, deniedByRing, allowedByRing, pair string) string {
	var text strings.Builder
	for _, route := range []string{"socket", "high bits", "int $0x80", "socketcall", "x32"} {
		fmt.Fprintf(&text, "%s ok, denied %s, allowed %s\n", route, denied, allowed)
	}
	for _, route := range []string{"io_uring", "io_uring, async"} {
		fmt.Fprintf(&text, "%s ok, denied %s, allowed %s\n", route, deniedByRing, allowedByRing)
	}
	return text.String() + "socketpair " + pair + "\n"
}

const noRoutes = `socket EAFNOSUPPORT
high bits EAFNOSUPPORT
int $0x80 EAFNOSUPPORT
socketcall EAFNOSUPPORT
x32 EAFNOSUPPORT
io_uring EAFNOSUPPORT
io_uring, async EAFNOSUPPORT
socketpair EAFNOSUPPORT
`

const guardLengths = `family 38 length 25-36 ENOENT
family 38 length 37-128 ok
family 0 length 37-128 ok
family 1 length 37-128 ok
family 2 length 37-128 ok
family 65535 length 37-128 ok
`

func lent(first, after, denied string) string {
	return "lent " + first + "\nlent, failing bind EINVAL\nlent, after a failing bind " + after +
		"\ntried, denied " + denied + "\ntried, missing ENOENT\ntried, allowed ok\ntried 64\n"
}

// oldSockets is what becomes of sockets from before the load. An operation socket
// goes on: status lists it.
const oldSockets = `unbound, denied ENOENT
unbound, allowed ok
bound accept:EINVAL
bound, failing bind EINVAL
bound, after a failing bind accept:EINVAL
bound and used, bind EINVAL
bound and used, after a bind accept:EINVAL
operation, cloned accept:EINVAL
operation 32
`

const (
	preloadedFree    = "preloaded\n" + tryFree
	preloadedAllowed = "preloaded\n" + tryAllowed
	preloadedDenied  = "preloaded\n" + tryDenied
)

func exchanged(program, try string) string {
	return "exchange ok\nexecutable " + program + "\n" + try
}

const notExchanged = "exchange EPERM\nexecutable /usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2\n" + tryDenied

// reached is the result of reaching into a process.
func reached(by, taken string) string {
	mem := by
	if by != "ok" {
		mem = "EACCES"
	}
	return fmt.Sprintf("mem %s\nprocess_vm_writev %[2]s\npidfd_getfd %[2]s\n%[3]sptrace %[2]s\n", mem, by, taken)
}

const reach = `$N %[1]s guard hold >/tmp/held &
while ! [ -s /tmp/held ]; do sleep .1; done
read pid fd where </tmp/held
$N $B guard reach $pid $fd $where
kill -9 $pid; rm /tmp/held`

// guardLines are tried under guardRules.
func guardLines(version, attachment string) []guardedLine {
	ringDenied, ringAllowed := "ENOENT", "ok"
	ringFree := "ok"
	oddFree := strings.Replace(guardOdd, "up ENOENT", "up EEXIST", 1)
	if version == "6.1" { // IORING_OP_BIND is in Linux 6.11
		oddFree = guardOdd
		ringDenied, ringAllowed, ringFree = "EINVAL", "EINVAL", "EINVAL"
	}
	lines := []guardedLine{
		{"listed", `$N $A try`, tryFree, tryAllowed},
		{"listed, 32 bits", `$N $A32 try`, tryFree, tryAllowed},
		{"not listed", `$N $B try`, tryFree, tryDenied},
		{"not listed, root", `$R $B try`, tryFree, tryDenied},
		{"routes, listed", `$N $A guard routes`, bindRoutes("ok", "ok", ringFree, ringFree, "EOPNOTSUPP"),
			bindRoutes("ENOENT", "ok", ringDenied, ringAllowed, "EOPNOTSUPP")},
		{"routes, not listed", `$N $B guard routes`, bindRoutes("ok", "ok", ringFree, ringFree, "EOPNOTSUPP"), noRoutes},
		{"lengths", `cd $(mktemp -d); $A lengths`, guardLengths, guardLengths},
		{"odd names", `$N $A guard odd`, oddFree, guardOdd},
		{"names", `$N $A names`, "", brokeredNames},
		{"rebind", `$N $A rebind`, "denied ok\nstill 32\n" + rebound, "denied ENOENT\nstill 64\n" + strings.Replace(rebound, "EOPNOTSUPP", "EINVAL", 1)},
		{"pass", `$N $A pass $B $A`, passed("64", "ok"), passed("accept:EINVAL", "ENOENT")},
		{"lent", `$N $C guard lend $A`, lent("32", "32", "ok"), lent("accept:EINVAL", "accept:EINVAL", "ENOENT")},

		{"kcapi-dgst", `for n in 256 384; do $N kcapi-dgst -c sha$n --hex -i /etc/hostname | cut -d' ' -f1 >/tmp/dgst; sha${n}sum </etc/hostname | cut -d' ' -f1 | cmp -s - /tmp/dgst && echo the same; done`,
			"the same\nthe same\n", "the same\n"},

		{"symbolic link", `T=$(mktemp -d); ln -s $A $T/link; $N $A try`, tryFree, tryAllowed},
		{"copy", `cp $A /tmp/copy; $N /tmp/copy try`, tryFree, tryDenied},
		{"loader", `$N $L $A try`, tryFree, tryDenied},
		{"anonymous", strings.Replace(anonymous, "python3", "$N python3", 1), tryFree, tryDenied},
		{"bind mount", `cp $B /tmp/over; $R unshare -m sh -c "mount --bind /tmp/over $A; $A try"`, tryFree, tryDenied},
		{"overlay", overlaid, tryFree, tryDenied},
		{"elsewhere", `mkdir -p /tmp/elsewhere; $R unshare -m sh -c "mount --bind $D /tmp/elsewhere; /tmp/elsewhere/attack try"`, tryFree, tryAllowed},
		{"root elsewhere", strings.ReplaceAll(rooted, "chroot", "$R chroot"), tryFree, tryAllowed},
		{"user namespace", `$N unshare -Ur $A try`, tryFree, tryDenied},

		{"capability", `setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=+sys_pacct --ambient-caps=+sys_pacct $B guard ask hash sha1`, "hash:sha1 ok\n", "hash:sha1 ok\n"},
		{"capability, user namespace", `$N unshare -Ur $B guard ask hash sha1`, "hash:sha1 ok\n", "hash:sha1 socket:EAFNOSUPPORT\n"},
		{"user", `set -f; for n in 'skcipher cbc(aes)' 'skcipher *' 'hash sha1'; do setpriv --reuid=65533 --regid=65533 --clear-groups $B guard ask $n; done`,
			"skcipher:cbc(aes) ok\nskcipher:* bind:ENOENT\nhash:sha1 ok\n", "skcipher:cbc(aes) ok\nskcipher:* bind:ENOENT\nhash:sha1 bind:ENOENT\n"},

		{"exchange", `$N $L $B guard exchange $A own`, exchanged("/opt/attack/attack", tryFree), notExchanged},
		{"exchange, shared", `$N $L $B guard exchange $A shared`, exchanged("/opt/attack/attack", tryFree), notExchanged},
		// What a rule without strict-exec does not refuse.
		{"preload", `$N env LD_PRELOAD=$D/preload.so $A try`, "preloaded\n" + tryFree, preloadedAllowed},
		{"traced", `$N $B guard traceme $A`, tryFree, tryAllowed},
		{"supervisor", `$N $B guard inject $A $D/preload.so stays`, preloadedFree, preloadedDenied},
		{"supervisor, gone", `$N $B guard inject $A $D/preload.so goes`, preloadedFree, preloadedAllowed},
		{"reach", fmt.Sprintf(reach, "$A"), reached("ok", "taken 64\n"), reached("ok", "taken 64\n")},

		{"strict", `$N $S try`, tryFree, tryAllowed},
		{"strict, preload", `$N env LD_PRELOAD=$D/preload.so $S try`, "preloaded\n" + tryFree, tryAllowed},
		{"strict, traced", `$N $B guard traceme $S`, tryFree, tryDenied},
		{"strict, supervisor", `$N $B guard inject $S $D/preload.so stays`, preloadedFree, preloadedDenied},
		{"strict, supervisor gone", `$N $B guard inject $S $D/preload.so goes`, preloadedFree, preloadedDenied},
		{"strict, exchange", `$N $L $B guard exchange $S shared`, exchanged("/opt/attack/strict", tryFree), notExchanged},
		{"strict, reach", fmt.Sprintf(reach, "$S"), reached("ok", "taken 64\n"), reached("EPERM", "")},

		{"loops, not listed", "$N $B guard loops socket 6 " + times(1) + " ''", "socket raced some, passed some\n", "socket raced some, passed none\n"},
		{"loops, listed", "$N $A guard loops bind 6 " + times(1) + " ''", "bind raced some, passed some\n", "bind raced some, passed none\n"},
		{"zero-copy", `$N $A guard zerocopy`, guardCopies("64"), guardCopies(refusedCopy(version))},
		{"execs", `$N $B guard execs $A ` + times(10000), "raced some, passed some\n", "raced some, passed none\n"},
		{"capabilities of root's", `setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=+cap_39,+cap_38 --ambient-caps=+cap_39,+cap_38 $B guard objects`,
			"maps EPERM\nlinks EPERM\nmap by number EPERM\n", "maps EPERM\nlinks EPERM\nmap by number EPERM\n"},
	}
	lines = append(lines, unitLines()...)
	if attachment == fmodRetAttached { // strict-exec holds for nobody
		for i := range lines {
			switch lines[i].name {
			case "strict":
				lines[i].want = tryDenied
			case "strict, preload":
				lines[i].want = preloadedDenied
			case "strict, reach":
				lines[i].want = ""
			}
		}
	}
	return lines
}

const overlaid = `T=$(mktemp -d); mount -t tmpfs none $T; mkdir $T/up $T/work $T/all; chmod 755 $T
mount -t overlay -o lowerdir=$D,upperdir=$T/up,workdir=$T/work none $T/all && $N $T/all/attack try; umount $T/all; umount $T`

const guardOdd = `no name EINVAL
empty name ENOENT
103 bytes ENOENT
104 bytes ENOENT
allowed, filled up ENOENT
allowed, cut off ok
star ENOENT
path ENOENT
`

func refusedCopy(version string) string {
	if version == "6.1" {
		return "result:EOPNOTSUPP"
	}
	return "send:EOPNOTSUPP"
}

func guardCopies(pages string) string {
	return fmt.Sprintf("splice %[1]s\nsend after splice 64\nvmsplice %[1]s\nsendfile %[1]s\nsend 64\nwrite 64\nMSG_ZEROCOPY 64\nMSG_SPLICE_PAGES 64\n", pages)
}

// TestGuard tries the attacks on the kernel half, one attachment a kernel.
func TestGuard(t *testing.T) {
	testGuard(t, map[string]string{"6.1": fmodRetAttached, "6.12": lsmAttached}, false)
}

// TestLongGuard tries them with the other attachment, shows that each is an
// attack, and goes on to root's.
func TestLongGuard(t *testing.T) {
	testGuard(t, map[string]string{"6.1": lsmAttached, "6.12": fmodRetAttached}, true)
}

func testGuard(t *testing.T, attachments map[string]string, long bool) {
	files := buildAttacks(t)
	t.Parallel()
	for _, version := range Kernels() {
		attachment := attachments[version]
		t.Run(version+"/"+attachment, func(t *testing.T) {
			t.Parallel()
			o := Options{Append: "preempt=full"}
			if attachment == fmodRetAttached {
				o.Append += " lsm=lockdown,yama,apparmor"
			}
			vm := Boot(t, version, o)
			setUpGuard(t, vm, files)
			lines := guardLines(version, attachment)
			if long {
				t.Run("free", func(t *testing.T) { compareLines(t, vm, lines, unloaded) })
			}
			if attachment == fmodRetAttached {
				t.Run("preempted", func(t *testing.T) { testPreempted(t, vm) })
			}
			if newest(version) && long {
				t.Run("classes", func(t *testing.T) { testGuardClasses(t, vm) })
			}
			if !t.Run("load", func(t *testing.T) { testGuardLoad(t, vm, attachment) }) {
				return
			}
			t.Run("in force", func(t *testing.T) { compareLines(t, vm, lines, inForce) })
			if long && attachment == fmodRetAttached {
				t.Run("root", func(t *testing.T) { testGuardRoot(t, vm) })
			}
		})
	}
}

func setUpGuard(t *testing.T, vm *VM, files map[string][]byte) {
	t.Helper()
	for name, data := range files {
		vm.WriteFile(t, attackDir+name, data, 0o755)
	}
	vm.WriteFile(t, attackDir+"guard.yaml", []byte(guardRules), 0o644)
	vm.WriteFile(t, attackDir+"other.yaml", []byte(otherRules), 0o644)
	vm.WriteFile(t, attackDir+"disk.yaml", []byte(diskRules), 0o644)
	vm.Output(t, "sh", "-ec", guardSettings+"cp $B $S; cp $B $C; echo 0 >/proc/sys/kernel/yama/ptrace_scope")
}

// testPreempted has a kernel that preempts refuse the load. Programs that are
// attached by fmod_ret would be skipped there.
func testPreempted(t *testing.T, vm *VM) {
	r := vm.Run(t, "sh", "-c", lsmCommand(t)+" load /opt/attack/guard.yaml")
	const why = "this kernel's preemption is full: a program attached in another way would be skipped now and then, and what is skipped is allowed"
	if r.Exit != 3 || !strings.Contains(string(r.Stderr), why) {
		t.Errorf("exit status %d, want 3\n%s", r.Exit, r.Stderr)
	}
	vm.Output(t, "sh", "-ec", "echo voluntary >/sys/kernel/debug/sched/preempt")
}

// testGuardLoad loads the policy while sockets from before are open, on a kernel
// that is locked down.
func testGuardLoad(t *testing.T, vm *VM, attachment string) {
	const script = `echo integrity >/sys/kernel/security/lockdown
mkfifo /tmp/go; $N $A guard old </tmp/go >/tmp/old & exec 3>/tmp/go
while ! [ -s /tmp/old ]; do sleep .1; done
%[1]s load /opt/attack/guard.yaml >&2
%[1]s status; echo "status $?"
echo >&3; wait; cat /tmp/old`
	r := vm.Command(t, Command{Args: shell(guardSettings + fmt.Sprintf(script, lsmCommand(t))), Timeout: 10 * time.Minute})
	status, old, _ := strings.Cut(string(r.Stdout), "status 0\n")
	pid, old, _ := strings.Cut(old, "\n")
	operation := regexp.MustCompile(`socket\s+` + pid + `\s+7\s+operation: it works on\s+/opt/attack/attack\n`)
	if !operation.MatchString(status) || !strings.Contains(status, attachment+": ") {
		t.Errorf("status\n%s\nwants %s, and %s\n%s", status, attachment, operation, r.Stderr)
	}
	if d := cmp.Diff(strings.SplitAfter(oldSockets, "\n"), strings.SplitAfter(old, "\n")); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

// otherRules need other programs than guardRules.
const otherRules = `version: 1
name: other
deny: {families: [AF_RXRPC], zero-copy: false}
allow:
  - rule: listed
    binaries: [{path: /opt/attack/attack}]
    algorithms: {hash: ["hmac(sha512)"]}
`

// diskRules need those of otherRules, and have another table.
const diskRules = otherRules + `  - rule: disk
    binaries: [{path: /mnt/all/listed}]
    algorithms: {hash: ["hmac(sha512)"]}
`

// reused puts another file in the place of a listed one, until the file system
// gives it the number of the one that has gone. Overlays give files the number
// that they have below.
const reused = `modprobe -a loop ext4 overlay; truncate -s 8M /tmp/disk; mkfs.ext4 -q /tmp/disk; mkdir -p /mnt/disk /mnt/all
mount -o loop /tmp/disk /mnt/disk; mkdir /mnt/disk/up /mnt/disk/work
mount -t overlay -o lowerdir=$D,upperdir=/mnt/disk/up,workdir=/mnt/disk/work none /mnt/all
cp $B /mnt/all/listed; mkdir -m 777 /mnt/all/public; number=$(stat -c %%i /mnt/all/listed)
%s load /opt/attack/disk.yaml >&2
$N /mnt/all/listed guard ask hash 'hmac(sha512)'
rm /mnt/all/listed; sync; echo 2 >/proc/sys/vm/drop_caches
n=0; while n=$((n+1)); [ $n -lt 50 ]; do $N touch /mnt/all/public/$n; [ $(stat -c %%i /mnt/all/public/$n) = $number ] && break; done
$N cp $B /mnt/all/public/mine; cat $B >/mnt/all/public/$n; chmod 755 /mnt/all/public/$n; [ $(stat -c %%i /mnt/all/public/$n) = $number ] && echo "the same number"
$N /mnt/all/public/$n guard ask hash 'hmac(sha512)'`

// testGuardRoot does what only root can do: to the tables, to the pins, and by
// other loads.
func testGuardRoot(t *testing.T, vm *VM) {
	const pins = "/sys/fs/bpf/afalg-policy"
	lsm := lsmCommand(t)
	load := func(policy string) string { return lsm + " load /opt/attack/" + policy + " >&2; echo loaded $?\n" }
	status := "\n" + lsm + ` status >/dev/null 2>/tmp/faults; echo "status $?"; grep -o 'fault: .*' /tmp/faults` + "\n"
	lines := []guardedLine{
		{name: "tables", script: "$B guard tables " + pins + "/map_slot " + pins + "/link_guard_bind", want: "table ok\ntable, changed EPERM\nlink, detached EOPNOTSUPP\n"},
		{name: "replaced under load", script: "(nice -n 19 $N $A guard loops bind 1 900 /tmp/stop & nice -n 19 $N $B guard loops socket 1 900 /tmp/stop & wait) >/tmp/loops &\nsleep 1\n" +
			load("other.yaml") + load("disk.yaml") + "touch /tmp/stop; wait; sort /tmp/loops",
			want: strings.Repeat("loaded 0\n", 2) + "bind raced some, passed none\nsocket raced some, passed none\n"},
		{name: "zero-copy let through", script: "$N $A guard zerocopy", want: guardCopies("64")},
		{name: "file number", script: fmt.Sprintf(reused, lsm), want: "hash:hmac(sha512) ok\nthe same number\nhash:hmac(sha512) socket:EAFNOSUPPORT\n"},
		{name: "no table", script: "$B guard empty " + pins + "/map_slot; $N $A try" + status,
			want: "slot, emptied ok\nhmac(sha512) socket:EPERM\nsha256 socket:EPERM\nstatus 1\n" + "fault: no table is in the slot: everything is denied; load the policy again\n"},
		// On this root no file has a generation, so one that was changed in any way is another.
		{name: "hard link", script: load("guard.yaml") + "ln $A $D/hard; $N $D/hard try; rm $D/hard; $N $A try\n" + lsm + " refresh >&2; echo $?; $N $A try",
			want: "loaded 0\n" + tryDenied + tryDenied + "0\n" + tryAllowed},
		{name: "audit", script: lsm + " load /opt/attack/guard.yaml --audit >&2; $N $B try" + status + lsm + " learn --paths 2>/dev/null | grep -A2 'path: /opt/attack/other'",
			want: tryFree + "status 1\n      - path: /opt/attack/other\n    algorithms:\n      hash: [\"hmac(sha512)\", sha256]\n"},
		{name: "pin gone", script: "rm " + pins + "/link_guard_bind" + status, want: "status 1\n" + "fault: guard_bind: its pin is gone: it decides no more; load the policy again\n"},
		{name: "unmounted", script: "umount -l /sys/fs/bpf" + status + "$N $B guard ask hash sha256", want: "status 1\n" + gonePins + "hash:sha256 ok\n"},
		{name: "mounted anew", script: "mount -t bpf bpf /sys/fs/bpf\n" + load("guard.yaml") + status + "$N $A try; $N $B try", want: "loaded 0\nstatus 0\n" + tryAllowed + tryDenied},
		{name: "confidentiality", script: "echo confidentiality >/sys/kernel/security/lockdown\n" + lsm + " load /opt/attack/guard.yaml; echo loaded $?; $N $A try; $N $B try",
			want: "loaded 3\n" + tryAllowed + tryDenied},
		{name: "unloaded", script: lsm + " unload >&2; echo $?; for n in $(seq 100); do $N $B guard ask hash sha256 | grep ok && break; sleep .1; done", want: "0\nhash:sha256 ok\n"},
	}
	compareLines(t, vm, lines, inForce)
}

const gonePins = `fault: /sys/fs/bpf is no BPF file system: mount -t bpf bpf /sys/fs/bpf
fault: guard_socket: its pin is gone: it decides no more; load the policy again
fault: guard_bind: its pin is gone: it decides no more; load the policy again
fault: guard_accept: its pin is gone: it decides no more; load the policy again
fault: guard_prctl: its pin is gone: it decides no more; load the policy again
fault: the maps under /sys/fs/bpf/afalg-policy are gone, or are of another version: load the policy again
`
