//go:build vm

package vmtest

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/afalg-policy/afalg-policy/internal/testing/box"
)

// factor multiplies the tries of the attacks that need luck or time: 200 makes
// 100,000 tries of each race.
func factor() int {
	if n, err := strconv.Atoi(os.Getenv("AFALG_POLICY_ATTACKS")); err == nil && n > 0 {
		return n
	}
	return 1
}

func times(n int) string { return strconv.Itoa(n * factor()) }

// pending has so many calls wait at once. The broker denies them all, which
// takes no kernel with AF_ALG.
func pending(calls string) attack {
	return attack{name: "pending", users: rootOnly, before: watched("pending", "-"), script: "exec $B block " + calls,
		want: "EAFNOSUPPORT " + calls + "\nrun exited with 0\ntree ended\n"}
}

// TestBoxPending has 10,000 calls wait at once. For each answer the kernel
// searches the list of all: that takes seconds here, and an emulated processor
// minutes.
func TestBoxPending(t *testing.T) {
	files := buildAttacks(t)
	t.Parallel()
	vm := box.Start(t)
	putAttacks(t, vm, files)
	pending("10000").try(t, vm, asRoot)
}

// watched has "attack watch" run "run": it measures the broker, stops it, or
// kills it.
func watched(mode, step string) []string { return []string{attackDir + "attack", "watch", mode, step} }

const (
	raced  = "operations some\nof another algorithm none\ndenied and bound none\n"
	steady = "descriptors steady\nthreads steady\nmemory steady\nrun exited with 0\ntree ended\n"
	served = "beside it served\nafter its end served\n"
)

// races need luck, or time.
func races() []attack {
	leak := watched("leak", "-")
	return []attack{
		{name: "descriptor moved", users: rootOnly, script: "$A dup2 " + times(500), want: raced,
			free: "operations some\nof another algorithm some\ndenied and bound some\n"},
		{name: "address rewritten", users: rootOnly, script: "$A rewrite " + times(500), want: raced,
			free: "operations some\nof another algorithm some\ndenied and bound none\n"},
		{name: "family changed", flags: brokerSocketcall, script: "$A32 family " + times(200), want: "made some\nrefused none\nAF_ALG none\n",
			control: "$A32 family 5000", free: "made some\nrefused none\nAF_ALG some\n"},
		{name: "family changed, no grant", grant: "digest", flags: brokerSocketcall, script: "$A32 family " + times(200),
			want: "made some\nrefused some\nAF_ALG none\n"},
		{name: "sessions", users: rootOnly, before: leak, script: "exec $A sessions " + times(500), want: "failed 0\n" + steady},
		{name: "kills", before: leak, script: "exec $A kills " + times(100), want: "failed 0\nkilled " + times(100) + "\n" + steady},
		{name: "circles", users: rootOnly, before: leak, script: "exec $A circles 600", want: "failed 0\n" + steady},
		{name: "failing socketcalls", users: []string{asNobody}, once: true, flags: brokerSocketcall, before: leak, script: "exec $A32 failing 300",
			want: strings.Repeat("socketpair EOPNOTSUPP\nraw EPERM\n", 2) + "failed 0\n" + steady},
		pending("2000"),
		{name: "flood", users: []string{asNobody}, script: "$A flood 8", want: "alone served\nbeside the flood served\n"},
		{name: "stuck", users: rootOnly, script: "$A stuck 1", want: served, free: served},
		{name: "stuck, 3", users: rootOnly, script: "$A stuck 3", want: served},
		// A workload with four calls that do not return is not served
		// meanwhile.
		{name: "stuck, 8", users: rootOnly, script: "$A stuck 8", want: "beside it not served\nafter its end served\n"},
	}
}

const (
	brokerEnded = "afalg-policy: the broker has ended (killed), and nothing can decide about AF_ALG any more: the command and all that it started were killed\n"
	frontEnded  = "afalg-policy: the process that run began as was killed: the command and all that it started were killed\n"
)

// stops kill the parts of "run", before and in each of the four steps. A daemon
// below it goes through them too.
func stops() (list []attack) {
	for step := range 5 {
		list = append(list, attack{
			name: fmt.Sprint("broker killed, step ", step), users: rootOnly, before: watched("broker", strconv.Itoa(step)), script: "$A endless",
			want: "opened afterwards nothing\nrun exited with 3\ntree ended\n", stderr: brokerEnded,
		})
	}
	return append(list,
		attack{name: "broker killed", users: []string{asNobody}, before: watched("broker", "4"), script: "$A endless",
			want: "opened afterwards nothing\nrun exited with 3\ntree ended\n", stderr: brokerEnded},
		attack{name: "front killed", before: watched("front", "2"), script: "$A endless",
			want: "run died of 9\ntree ended\n", stderr: frontEnded},
		attack{name: "both killed", users: rootOnly, before: watched("both", "3"), script: "$A endless",
			want: "opened afterwards nothing\nrun died of 9\ntree ended\n"},
		// Nobody is left to kill the daemon, which gets ENOSYS for an answer.
		attack{name: "all killed", users: rootOnly, before: watched("all", "3"), script: "$A endless",
			want: "opened afterwards nothing\nrun died of 9\ntree lives on\n"},
	)
}

// tree attacks the parts of "run", and the descriptors that it was started
// with.
func tree(version string) []attack {
	inherited := func(what string) []string { return []string{attackDir + "attack", "inherit", what} }
	const socket = "afalg-policy: descriptor 7, passed in from outside, is an AF_ALG socket, which no filter restricts: start the command without it\n"
	const ring = "afalg-policy: descriptor 7, passed in from outside, is an io_uring, by which the command could make sockets: start it without\n"
	return []attack{
		{name: "own filters", script: `$A filters`, want: "listener EBUSY\nallow ok\nlog ok\n" + tryAllowed, free: "listener ok\nallow ok\nlog ok\n" + tryFree},
		{name: "rob", users: rootOnly, script: `exec $A rob`, want: robbed("child", "ok", "ok") + robbed("broker", "EPERM", "EACCES") +
			robbed("guard", "EPERM", "EACCES") + peers(version)},
		{name: "rob", users: []string{asNobody}, script: `exec $A rob`, want: strings.Replace(robbed("child", "ok", "ok"), "fd/2 ok", "fd/2 EACCES", 1) + // root's pipe
			robbed("broker", "EPERM", "EACCES") + robbed("guard", "EPERM", "EACCES") + peers(version)},
		{name: "inherited parent", before: inherited("parent"), script: "echo started", exit: 1, stderr: socket},
		{name: "inherited operation", before: inherited("operation"), script: "echo started", exit: 1, stderr: socket},
		{name: "inherited io_uring", before: inherited("io_uring"), script: "echo started", exit: 1, stderr: ring},
	}
}

// robbed is the result of taking a process apart, by calls and by /proc. The
// filter refuses pidfd_getfd for any process.
func robbed(who, call, file string) string {
	return fmt.Sprintf(`%[1]s pidfd_getfd EPERM
%[1]s fd/2 %[3]s
%[1]s mem %[3]s
%[1]s environ %[3]s
%[1]s cwd %[3]s
%[1]s ns/net %[3]s
%[1]s process_vm_readv %[2]s
%[1]s ptrace %[2]s
`, who, call, file)
}

// peers is the maker of the placeholder: the guard, which has nothing to take.
func peers(version string) string {
	if version == "6.1" {
		return "SO_PEERCRED guard\nSO_PEERPIDFD ENOPROTOOPT\n"
	}
	return "SO_PEERCRED guard\nSO_PEERPIDFD guard\nSO_PEERPIDFD, pidfd_getfd EPERM\n"
}

var brokerSocketcall = []string{"--socketcall", "broker"}

// ordinarySockets is what "attack ordinary" prints where sockets work.
func ordinarySockets(raw, packet, algPair string) string {
	return fmt.Sprintf(`tcp4 ok
tcp6 ok
udp4 ok
unix stream ok
unix datagram ok
socketpair stream ok
socketpair datagram ok
socketpair seqpacket ok
raw %s
packet %s
family 63 EAFNOSUPPORT
alg socketpair %s
null arguments EFAULT
call 99 EINVAL
`, raw, packet, algPair)
}

var (
	// socketcalls are those of 32-bit programs.
	socketcalls = []attack{
		{name: "socketcall denied", script: `$A32 socketcall`, want: tryDenied, free: socketcallFree},
		{name: "socketcall", users: rootOnly, flags: brokerSocketcall, script: `$A32 ordinary`,
			want: ordinarySockets("ok", "EAFNOSUPPORT", "EAFNOSUPPORT"), free: ordinarySockets("ok", "ok", "EOPNOTSUPP")},
		{name: "socketcall", users: []string{asNobody}, flags: brokerSocketcall, script: `$A32 ordinary`, want: unprivileged, free: unprivilegedFree},
		{name: "socketcall, user dropped", users: rootOnly, flags: brokerSocketcall,
			script: `setpriv --reuid=65534 --regid=65534 --clear-groups $A32 ordinary`, want: unprivileged, free: unprivilegedFree},
		{name: "socketcall, capability dropped", users: rootOnly, flags: brokerSocketcall,
			script: `setpriv --bounding-set=-net_raw --inh-caps=-net_raw $A32 ordinary`, want: unprivileged, free: unprivilegedFree},
		{name: "socketcall, user namespace", flags: brokerSocketcall, script: `unshare -Ur $A32 ordinary`, want: unprivileged, free: unprivilegedFree},
		{name: "socketcall of AF_ALG", flags: brokerSocketcall, script: `$A32 socketcall; $A32 try`,
			want: "hmac(sha512) 64 64\nsha256 bind:ENOENT\n" + tryAllowed, free: socketcallFree + tryFree},
		{name: "socketcall of AF_ALG, no grant", grant: "digest", flags: brokerSocketcall, script: `$A32 socketcall`, want: tryDenied, free: socketcallFree},
		{name: "network namespace", users: rootOnly, flags: brokerSocketcall, script: `$A32 namespace`, want: ownNetwork, free: ownNetwork},
		{name: "cgroup cut off", users: rootOnly, flags: brokerSocketcall, script: `$A32 cgroup`, want: cutOff, free: cutOff},
	}
	unprivileged     = ordinarySockets("EPERM", "EAFNOSUPPORT", "EAFNOSUPPORT")
	unprivilegedFree = ordinarySockets("EPERM", "EPERM", "EOPNOTSUPP")
)

const (
	socketcallFree = "hmac(sha512) 64 64\nsha256 32 32\n"
	cutOff         = `outside
by socketcall sent
by socket sent
inside
by socketcall EPERM
by socket EPERM
inside, an ordinary user
by socketcall EPERM
by socket EPERM
`
	ownNetwork = "as by socket yes\nanother one yes\nas by socket yes\n"
)

// testBrokeredRoutes has the prober ask every route, as a stranger and as a
// binary that the policy allows an algorithm.
func testBrokeredRoutes(t *testing.T, vm *VM, user string) {
	for _, c := range []struct {
		grant, socketcall, own, indirect string
	}{
		{"path", "deny", "closed EAFNOSUPPORT", "closed EAFNOSUPPORT"},
		{"path", "broker", "closed EAFNOSUPPORT", "closed EAFNOSUPPORT"},
		{"anyone", "deny", "brokered -", "closed EAFNOSUPPORT"},
		{"anyone", "broker", "brokered -", "brokered -"},
	} {
		t.Run(c.grant+", socketcall "+c.socketcall+"/"+user, func(t *testing.T) {
			args := []string{program(t), "run", attackPolicy, "--grant", c.grant, "--socketcall", c.socketcall, "--", program(t), "probe", "--load"}
			r := vm.Command(t, Command{Args: as(user, args)})
			want := fmt.Sprintf("socket %s\nsocket-highbits %[1]s\ncompat-socket %[1]s\ncompat-socketcall %s\nx32-socket %[1]s\nio_uring closed ENOSYS\nsocketpair closed EAFNOSUPPORT\ninherited closed -\n", c.own, c.indirect)
			got := ""
			for line := range strings.Lines(string(r.Stdout)) {
				got += strings.Join(strings.Split(line, "\t")[:3], " ") + "\n"
			}
			if got != want || r.Exit != 0 {
				t.Errorf("exit status %d\n%s\nwant\n%s\n%s", r.Exit, got, want, r.Stderr)
			}
		})
	}
}
