//go:build vm

package vmtest

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// socketsPolicy gives one container its 32-bit sockets, another one a rule.
func socketsPolicy(t *testing.T) []byte {
	return fmt.Appendf(containerPolicy(t), `containers:
  grants:
    - socketcall: broker
      names: [steam]
    - rules: [digest]
      names: [granted]
`)
}

// askSockets has 32-bit programs ask for sockets: one by both calls, and one as
// the C library does it.
const askSockets = `/raw 2 1; /raw 38; /i386 2 38; true`

// Output of askSockets: where nothing is refused, where socketcall is, and
// where socketcall is left to the agent.
const (
	freeSockets = "socket ok\nsocketcall ok\nsocket ok\nsocketcall ok\n2 open\n38 open\n"
	noSockets   = "socket ok\nsocketcall EAFNOSUPPORT\nsocket EAFNOSUPPORT\nsocketcall EAFNOSUPPORT\n2 EAFNOSUPPORT\n38 EAFNOSUPPORT\n"
	ownSockets  = "socket ok\nsocketcall ok\nsocket EAFNOSUPPORT\nsocketcall EAFNOSUPPORT\n2 open\n38 EAFNOSUPPORT\n"
)

// TestLongSockets32 shows that the container that is granted its 32-bit sockets
// has them, that no other has, and that AF_ALG is closed to all.
func TestLongSockets32(t *testing.T) {
	engines := slices.DeleteFunc(engines(), func(e engine) bool { return e.name != "docker" && e.name != "podman" })
	files := buildPlatforms(t, engines)
	programs := map[string]string{"/srv/raw": rawClient(t, "socketcall"), "/srv/i386": clients(t)["i386"], "/srv/send": rawClient(t, "send32")}
	t.Parallel()
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			vm := bootPlatforms(t, e.kernel)
			for path, binary := range programs {
				vm.Output(t, "install", "-D", binary, path)
			}
			p := newPlatformTest(t, e, vm, files)
			p.begin(t, files.archive)
			vm.WriteFile(t, agentPolicy, socketsPolicy(t), 0o644)
			p.expectSockets(t, "free", freeSockets)
			p.installAll(t)
			p.expectSockets(t, "ordinary", noSockets)
			p.expectSockets(t, "granted", noSockets)
			p.expectSockets(t, "steam", ownSockets)
			p.testSent(t)
		})
	}
}

func (p *platformTest) expectSockets(t *testing.T, name, want string) {
	t.Helper()
	c := workload{
		name: name, args: []string{"sh", "-c", askSockets},
		options: []string{"--volume=/srv/raw:/raw:ro", "--volume=/srv/i386:/i386:ro"},
	}
	r := p.try(t, p.vm, c)
	if d := cmp.Diff(want, string(r.Stdout)); d != "" || r.Exit != 0 {
		t.Errorf("%s: exit status %d, -want +got:\n%s\n%s", name, r.Exit, d, r.Stderr)
	}
}

// denied is an address that the agent's unit may send nothing to.
const denied = "203.0.113.1"

// testSent shows that a socket which the agent makes is not filtered as the
// agent's: its unit says IPAddressDeny=any, and the container's datagrams pass.
func (p *platformTest) testSent(t *testing.T) {
	t.Helper()
	unit := p.vm.Output(t, "systemctl", "show", "-P", "IPAddressDeny", agentUnit)
	if unit == "" {
		t.Fatal("the agent's unit filters nothing")
	}
	p.vm.WriteFile(t, "/etc/systemd/system/filtered.service", fmt.Appendf(nil, `[Service]
Type=oneshot
IPAddressDeny=any
IPAddressAllow=localhost
StandardOutput=file:/run/filtered
ExecStart=sh -c "ip address add %[1]s/32 dev lo; /srv/send %[1]s; ip address delete %[1]s/32 dev lo"
`, denied), 0o644)
	p.vm.Output(t, "systemctl", "daemon-reload")
	p.vm.Output(t, "systemctl", "start", "filtered")
	if got := p.vm.Output(t, "cat", "/run/filtered"); got != "sendto EPERM" {
		t.Fatalf("control: a unit that filters says %q", got)
	}

	// The network of a container is there once it has started: the address is
	// put there meanwhile.
	c := workload{name: "steam", options: []string{"--volume=/srv/send:/send:ro"}, args: []string{"sh", "-c",
		"until grep -q " + denied + " /proc/net/fib_trie; do sleep .1; done; /send " + denied}}
	address := fmt.Sprintf(`"$@" &
until nsenter -n -t $(%[1]s inspect -f '{{.State.Pid}}' %[2]s) ip address add %[3]s/32 dev lo 2>/dev/null; do sleep .1; kill -0 $! || break; done
wait $!`, p.remove[0], c.name, denied)
	r := p.vm.Run(t, append([]string{"sh", "-c", address, "sh"}, p.run(c)...)...)
	if got := string(r.Stdout); got != "sent\n" {
		t.Errorf("the container says %q, exit status %d\n%s", got, r.Exit, r.Stderr)
	}
}
