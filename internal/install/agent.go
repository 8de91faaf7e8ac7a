package install

import (
	"fmt"
	"path"
	"strings"

	"github.com/afalg-policy/afalg-policy/dist"
	"github.com/afalg-policy/afalg-policy/internal/install/host"
	"github.com/afalg-policy/afalg-policy/internal/unit"
)

const (
	agentService = unit.AgentService
	agentSocket  = unit.AgentSocket
	// for the sockets of 32-bit programs
	agentSocketcall = unitDir + "/" + agentService + ".d/zz-afalg-policy-socketcall.conf"
	agentWants      = unitDir + "/sockets.target.wants/" + agentSocket
	bootWants       = unitDir + "/multi-user.target.wants/" + agentService
)

func agent() platform {
	return platform{
		name:     agentName,
		programs: []string{"systemctl"},
		files:    agentFiles,
		restart:  []string{"systemctl daemon-reload", "systemctl restart " + agentSocket + " " + agentService},
		removed:  []string{"systemctl stop " + agentService + " " + agentSocket, "systemctl daemon-reload"},
		unit:     agentService,
		active:   agentActive,
		probe:    agentProbe,
	}
}

// hidden lists the directories that the unit does not see (ProtectHome=,
// PrivateTmp=).
var hidden = []string{"/home", "/root", "/run/user", "/tmp", "/var/tmp"}

func agentFiles(h *host.Host, o Options) (job, error) {
	for flag, p := range map[string]string{"--policy": o.Policy, "--program": o.Program} {
		for _, dir := range hidden {
			if strings.HasPrefix(p, dir+"/") {
				return job{}, host.Usage("%s %s: the agent's unit does not see %s; name a file elsewhere", flag, p, dir)
			}
		}
	}
	words := []string{"agent", o.Policy}
	if o.NRI {
		words = append(words, "--nri")
	}
	start, err := execStart(o.Program, words...)
	if err != nil {
		return job{}, err
	}
	service, err := setUnit(dist.AgentService, "ExecStart", start)
	if err != nil {
		return job{}, err
	}
	socket, err := setUnit(dist.AgentSocket, "ListenStream", strings.ReplaceAll(o.Agent, "%", "%%"))
	if err != nil {
		return job{}, err
	}
	files := []host.File{
		{Path: path.Join(unitDir, agentService), Mode: host.Plain, Data: []byte(comment(agentName) + service)},
		{Path: path.Join(unitDir, agentSocket), Mode: host.Plain, Data: []byte(comment(agentName) + socket)},
	}
	if o.sockets() {
		files = append(files, host.File{Path: agentSocketcall, Mode: host.Plain, Data: []byte(comment(agentName) + dist.AgentSocketcall)})
	}
	return job{files: append(files,
		host.File{Path: agentWants, Link: path.Join(unitDir, agentSocket)},
		host.File{Path: bootWants, Link: path.Join(unitDir, agentService)},
	)}, nil
}

// setUnit replaces the one line of a unit that sets key.
func setUnit(unit, key, value string) (string, error) {
	lines := strings.Split(unit, "\n")
	found := 0
	for i, line := range lines {
		if strings.HasPrefix(line, key+"=") {
			lines[i] = key + "=" + value
			found++
		}
	}
	if found != 1 {
		return "", fmt.Errorf("the unit has %d lines %s=", found, key)
	}
	return strings.Join(lines, "\n"), nil
}
