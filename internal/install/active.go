package install

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"path"
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/install/host"
)

func dockerActive(ctx context.Context, r *host.Record) error {
	out, err := ask(ctx, "docker", localDocker, "info", "--format", "{{json .}}")
	if err != nil {
		return err
	}
	var info struct {
		DefaultRuntime  string
		SecurityOptions []string
	}
	if err := json.Unmarshal([]byte(out), &info); err != nil {
		return fmt.Errorf("docker info: %w", err)
	}
	if info.DefaultRuntime != dockerName {
		return fmt.Errorf("the default runtime of the daemon is %q: %w", info.DefaultRuntime, errStale)
	}
	if want := "name=seccomp,profile=" + profilePath("docker"); !slices.Contains(info.SecurityOptions, want) {
		return fmt.Errorf("the daemon has %s, not %s: %w", strings.Join(info.SecurityOptions, " "), want, errStale)
	}
	if err := current("dockerd", r, path.Dir(dockerWrapper)); err != nil {
		return err
	}
	h, err := host.Open("/")
	if err != nil {
		return err
	}
	defer h.Close()
	reaching := []string{dockerName}
	switch covered, err := containerdCovers(h); {
	case err != nil:
		return err
	case covered:
		reaching = append(reaching, "runc", shimV2)
	}
	return otherRuntimes(ctx, reaching, localDocker)
}

// otherRuntimes returns an error that names the containers whose runtime
// bypasses the wrappers: a container keeps the runtime with which it was made.
// client is the command line of the client.
func otherRuntimes(ctx context.Context, reaching []string, client ...string) error {
	ids, err := ask(ctx, "docker", append(slices.Clone(client), "ps", "-aq")...)
	if err != nil || strings.TrimSpace(ids) == "" {
		return err
	}
	out, err := ask(ctx, "docker", slices.Concat(client,
		[]string{"container", "inspect", "--format", "{{.Name}} {{.HostConfig.Runtime}}"}, strings.Fields(ids))...)
	if err != nil && !strings.Contains(err.Error(), "No such container") { // a container may go meanwhile
		return err
	}
	var others []string
	for line := range strings.Lines(out) {
		name, runtime, _ := strings.Cut(strings.TrimSpace(line), " ")
		if runtime != "" && !slices.Contains(reaching, runtime) {
			others = append(others, fmt.Sprintf("%s (%s)", strings.TrimPrefix(name, "/"), runtime))
		}
	}
	slices.Sort(others)
	const shown = 3
	what, more := "a container was made with another runtime, and does", ""
	if len(others) > 1 {
		what = fmt.Sprintf("%d containers were made with another runtime, and do", len(others))
	}
	switch {
	case others == nil:
		return nil
	case len(others) > shown:
		others, more = others[:shown], fmt.Sprintf(" and %d more", len(others)-shown)
	}
	return fmt.Errorf("%s not pass through the wrapper: %s%s; make them again, or, for runc, run \"afalg-policy install containerd\" as well", what, strings.Join(others, ", "), more)
}

// podmanActive asks podman itself, which reads its configuration at each run.
func podmanActive(ctx context.Context, r *host.Record) error {
	if r.Entry(path.Join(precreateHooks, "zz-afalg-policy-precreate.json")) != nil {
		return nil
	}
	out, err := ask(ctx, "podman", "info", "--format", "{{.Host.OCIRuntime.Path}}")
	if err != nil {
		return err
	}
	if p := strings.TrimSpace(out); !strings.HasPrefix(p, podmanWrappers+"/") {
		return fmt.Errorf("podman uses the runtime %s, not one of %s: look for a setting of engine.runtime", p, podmanWrappers)
	}
	return nil
}

func containerdActive(ctx context.Context, r *host.Record) error {
	if err := current("containerd", r, containerdWrappers); err != nil {
		return err
	}
	dump, err := containerdDump(ctx)
	if err != nil {
		return err
	}
	if name, program := bypassed(dump); name != "" {
		return fmt.Errorf("the handler %s executes %s, not a wrapper: install containerd again", name, program)
	}
	h, err := host.Open("/")
	if err != nil {
		return err
	}
	defer h.Close()
	return optRunc(h, dump)
}

// containerdDump is containerd's configuration as it has put it together itself.
func containerdDump(ctx context.Context) (table, error) {
	out, err := ask(ctx, "containerd", "config", "dump")
	if err != nil {
		return nil, err
	}
	return parseTOML("containerd config dump", []byte(out))
}

func crioActive(_ context.Context, r *host.Record) error { return current("crio", r, "") }

func agentActive(ctx context.Context, r *host.Record) error {
	for _, unit := range []string{agentSocket, agentService} {
		state, err := ask(ctx, "systemctl", "is-active", unit)
		if state = strings.TrimSpace(state); state != "" && state != "active" {
			return fmt.Errorf("%s is %s; start it", unit, state)
		} else if err != nil {
			return err
		}
	}
	main, err := ask(ctx, "systemctl", "show", "--property=MainPID", "--value", agentService)
	if err != nil {
		return err
	}
	d, err := readDaemon("/proc/" + strings.TrimSpace(main))
	if err != nil {
		return err
	}
	if !d.after(r.Moment) {
		return fmt.Errorf("%s was started before: %w", agentService, errStale)
	}
	return nil
}

// agentProbe asks whether the agent's socket takes notifications. systemd's
// watchdog sees to it that the agent answers them.
func agentProbe(ctx context.Context, _ string) error {
	h, err := host.Open("/")
	if err != nil {
		return err
	}
	defer h.Close()
	r, err := readRecord(h, agentName)
	if err != nil {
		return err
	}
	if r == nil {
		return fmt.Errorf("the agent is not installed")
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", r.Options["agent"])
	if err != nil {
		return err
	}
	return c.Close()
}
