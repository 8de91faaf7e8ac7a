package live

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// inspector stands in for an engine; each knows some containers.
const inspector = `#!/bin/sh
[ "$1 $2 $3 $4" = "inspect --type container --format" ] || { echo "bad call: $*" >&2; exit 9; }
case "$6" in
web) echo "100 running";;
both) echo "100 running";;
twice) echo "200 running";;
off) echo "0 exited";;
odd) echo "hello";;
*) echo "first line" >&2; echo "Error: No such container: $6" >&2; exit 1;;
esac
`

const ociRuntime = `#!/bin/sh
[ "$1" = state ] || { echo "bad call: $*" >&2; exit 9; }
case "$2" in
both) echo '{"ociVersion":"1.0.2","id":"both","pid":100,"status":"running"}';;
twice) echo '{"id":"twice","pid":300,"status":"running"}';;
new) echo '{"id":"new","pid":400,"status":"created"}';;
bad) echo '{"id":';;
*) echo "container does not exist" >&2; exit 1;;
esac
`

func TestFindContainer(t *testing.T) {
	tests := []struct {
		engines, name string
		want          Container
		err           string
	}{
		{"docker runc", "web", Container{"web", "docker", 100}, ""},
		{"docker runc", "both", Container{"both", "docker", 100}, ""},
		{"docker runc", "runc:both", Container{"both", "runc", 100}, ""},
		{"docker runc", "twice", Container{}, "container twice may be process 200 of docker or process 300 of runc: name the engine, as in docker:twice, or the process"},
		{"docker runc", "runc:twice", Container{"twice", "runc", 300}, ""},
		{"docker runc", "none", Container{}, "container none: docker: exit status 1: Error: No such container: none; runc: exit status 1: container does not exist"},
		{"podman", "off", Container{}, "container off: podman: the container is exited and has no process"},
		{"podman", "odd", Container{}, `container odd: podman: read its answer: strconv.Atoi: parsing "hello": invalid syntax`},
		{"crun", "new", Container{}, "container new: crun: the container is created but not started: its filter is not in place yet"},
		{"crun", "bad", Container{}, "container bad: crun: read its answer: unexpected end of JSON input"},
		{"", "web", Container{}, "container web: there is no docker, podman, runc, crun here to ask; name its process instead"},
		{"docker", "runc:web", Container{}, "container web: there is no runc here to ask; name its process instead"},
		{"docker", "lxc:web", Container{}, "container lxc:web: no such engine; there are docker, podman, runc, crun"},
		{"docker", "--format", Container{}, `container "--format": not a container's name`},
		{"docker", "../web", Container{}, `container "../web": not a container's name`},
		{"docker", "", Container{}, `container "": not a container's name`},
	}
	scripts := map[string]string{"docker": inspector, "podman": inspector, "runc": ociRuntime, "crun": ociRuntime}
	for _, tt := range tests {
		t.Run(tt.engines+"/"+tt.name, func(t *testing.T) {
			dir := t.TempDir()
			t.Setenv("PATH", dir)
			for name, script := range scripts {
				if !slices.Contains(strings.Fields(tt.engines), name) {
					continue
				}
				if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			got, err := FindContainer(t.Context(), tt.name)
			text := ""
			if err != nil {
				text = err.Error()
			}
			if got != tt.want || text != tt.err {
				t.Errorf("got  %+v, %s\nwant %+v, %s", got, text, tt.want, tt.err)
			}
			if noEngine := tt.engines == "" || tt.engines == "docker" && tt.name == "runc:web"; noEngine != (kindOf(err) == "this process on this host") {
				t.Errorf("the error is about %s", kindOf(err))
			}
		})
	}
}
