//go:build vm

package vmtest

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// installed is where the tests of platforms have the program: its directories
// are root's, as "install" asks.
const installed = "/usr/local/bin/afalg-policy"

// engine is a platform by the tool that people use to start containers on it.
type engine struct {
	name     string // of the test
	platform string // of "afalg-policy install"
	// needs builds what the host lacks, and returns a function that puts it
	// into the machine before anything is started.
	needs func(t *testing.T) func(vm *VM)
	// kernel is the one on which TestMachine has the platform.
	kernel string
	// unboxed names what a box cannot have: containerd 2 needs a controller for
	// each pod, and podman builds need a capability that the host may lack.
	unboxed, unboxedBuilds bool
	also                   []string // platforms that are installed with it
	unit                   string   // its service; "" if it has none
	load                   []string // loads the images; the archive follows
	run                    func(c workload) []string
	exec                   func(name string, args ...string) []string
	remove                 []string // ends and removes a container
	again                  []string // starts a container again; nil where it outlives the daemon
	// free is a container to which the platform closes no route but these.
	free   workload
	closed []string
	// others are other ways to start a container, or to exec in one, that
	// change nothing.
	others map[string]func(c workload) []string
	execs  map[string]func(name string, args ...string) []string
	// execGranted is the output of clients started in a container with a grant;
	// "" for that of the container itself.
	execGranted string
	// old is the tool by which containers can be made and not started.
	old string
	// builds are commands that run the last step of the Dockerfile in the
	// directory $0, by the name of the builder.
	builds map[string]string
	// unconfined are options that remove the profile.
	unconfined map[string][]string
	// stolen has a container bring the profile of another one, with its grants,
	// from that file; nil where profiles cannot carry any.
	stolen []string
	// raw has a runtime take the filter that allows everything instead of the
	// profile; nil where no runtime can be asked for that.
	raw []string
	// vouched are workloads that the test policy knows by a vouched fact.
	vouched []workload
	// claiming are workloads that claim a fact that would be enough.
	claiming []workload
}

const stolenProfile = "/srv/stolen.json"

// workload is one container.
type workload struct {
	name       string
	image      string   // "plain" if empty
	options    []string // of the tool
	unconfined bool     // "run" does not ask for a profile by itself
	args       []string
	detach     bool
}

func (c workload) named() string { return imageName(c.image) }

func (c workload) lifetime() string {
	if c.detach {
		return "--detach"
	}
	return "--rm"
}

func imageName(image string) string {
	if image == "" {
		image = "plain"
	}
	return "localhost/" + image + ":1"
}

// dockerLike is the command line that docker and podman share. Options follow
// "run".
func dockerLike(tool []string, options ...string) func(workload) []string {
	return func(c workload) []string {
		return slices.Concat(tool, []string{"run", c.lifetime(), "--network=none", "--name=" + c.name,
			"--volume=" + installed + ":/afalg-policy:ro"}, options, c.options, []string{c.named()}, c.args)
	}
}

func dockerLikeExec(tool string, options ...string) func(string, ...string) []string {
	return func(name string, args ...string) []string {
		return slices.Concat([]string{tool, "exec"}, options, []string{name}, args)
	}
}

// ctrRun asks for containerd's default profile: ctr has none by itself.
func ctrRun(options ...string) func(workload) []string {
	return func(c workload) []string {
		// A box may be without the controllers that shares take.
		args := []string{"ctr", "run", c.lifetime(), "--cpu-shares=0", "--mount", "type=bind,src=" + installed + ",dst=/afalg-policy,options=rbind:ro"}
		if !c.unconfined {
			args = append(args, "--seccomp")
		}
		return slices.Concat(args, options, c.options, []string{c.named(), c.name}, c.args)
	}
}

func ctrExec(name string, args ...string) []string {
	return append([]string{"ctr", "task", "exec", "--exec-id", fmt.Sprint("e", time.Now().UnixNano()), name}, args...)
}

// docker is Debian's: another one without a builder may come first in PATH.
const docker = "/usr/bin/docker"

// dockerAgain starts a container again. On a slow machine Docker begins before
// containerd has forgotten the one that ended, says "already exists", and leaves it to
// who asked to try again.
const dockerAgain = `"$0" stop --time=0 "$1"
for i in $(seq 20); do "$0" start "$1" && exit; sleep 2; done
exit 1`

func engines() []engine {
	return []engine{
		{
			// Debian's docker has containerd start its containers, so both
			// wrappers are on the way.
			name: "docker", platform: "docker", kernel: "6.1", old: docker, also: []string{"containerd"}, unit: "docker", load: []string{docker, "load", "--input"},
			run: dockerLike([]string{docker}), exec: dockerLikeExec(docker),
			remove: []string{docker, "rm", "--force"}, again: []string{"sh", "-c", dockerAgain, docker},
			others: map[string]func(workload) []string{"runc by name": dockerLike([]string{docker}, "--runtime=runc")},
			execs:  map[string]func(string, ...string) []string{privileged: dockerLikeExec(docker, "--privileged")},
			builds: map[string]string{
				"classic":  "DOCKER_BUILDKIT=0 " + docker + ` build --no-cache --network=none "$0"`,
				"BuildKit": "DOCKER_BUILDKIT=1 " + docker + ` build --no-cache --network=none --progress=plain "$0"`,
			},
			unconfined: map[string][]string{
				privileged:                {"--privileged"},
				"unconfined":              {"--security-opt=seccomp=unconfined"},
				"unconfined runc by name": {"--security-opt=seccomp=unconfined", "--runtime=runc"},
			},
			vouched: []workload{
				{name: "granted"}, {name: "by-digest", image: "known"}, {name: "by-label", options: []string{"--label=app=web"}},
			},
			claiming: []workload{
				{name: "labelled", image: "claiming"}, {name: "asking", options: []string{"--env=AFALG_POLICY_GRANT=digest"}},
			},
		},
		{
			name: "podman", platform: "podman", kernel: "6.12", unboxedBuilds: true, old: "podman", load: []string{"podman", "load", "--input"},
			run: dockerLike([]string{"podman"}), exec: dockerLikeExec("podman"),
			remove: []string{"podman", "rm", "--force", "--time=0"}, again: []string{"podman", "restart", "--time=0"},
			closed: []string{"io_uring"},
			others: map[string]func(workload) []string{
				"runc":              dockerLike([]string{"podman", "--runtime=runc"}, "--cgroups=enabled"), // it has no other way
				"without our hooks": dockerLike([]string{"podman", "--hooks-dir=/srv"}),
			},
			execs: map[string]func(string, ...string) []string{privileged: dockerLikeExec("podman", "--privileged")},
			// crun hands a listener over for the first process alone.
			execGranted: strings.Repeat("libkcapi - Error: AF_ALG: socket syscall failed (errno: -38)\n", 3),
			builds: map[string]string{
				"by a runtime": `podman build --no-cache --network=none "$0"`,
				"by chroot":    `podman build --no-cache --isolation=chroot "$0"`,
			},
			unconfined: map[string][]string{"unconfined": {"--security-opt=seccomp=unconfined"}, privileged: {"--privileged"}},
			stolen:     []string{"--security-opt=seccomp=" + stolenProfile},
			raw:        []string{"--annotation=run.oci.seccomp_bpf_data=BgAAAAAA/38="},
			vouched: []workload{
				{name: "granted"}, {name: "by-digest", image: "known"}, {name: "by-annotation", options: []string{"--annotation=app=web"}},
			},
			claiming: []workload{
				{name: "annotated", options: []string{"--annotation=io.afalg-policy.grant=digest"}},
				{name: "asking", options: []string{"--env=AFALG_POLICY_GRANT=digest"}},
			},
		},
		{
			name: "containerd", platform: "containerd", kernel: "6.1", unit: "containerd", load: []string{"ctr", "image", "import"},
			run: ctrRun(), exec: ctrExec, remove: ctrRemove,
			others:     map[string]func(workload) []string{"another shim": ctrRun("--runtime=io.containerd.runc.v1")},
			unconfined: map[string][]string{privileged: {"--privileged"}, "no profile": nil},
			vouched:    []workload{{name: "granted"}},
			claiming: []workload{
				{name: "labelled", options: []string{"--label=app=web"}}, {name: "asking", options: []string{"--env=AFALG_POLICY_GRANT=digest"}},
			},
		},
		pods(engine{name: "pods on containerd 1.6", kernel: "6.1", needs: podsOn1}),
		// The profile of containerd 2 closes most routes by itself.
		pods(engine{name: "pods on containerd 2", kernel: "6.12", unboxed: true, needs: podsOn2, free: workload{options: []string{"--unconfined"}}}),
	}
}

// pods has containers in pods, through the interface that the kubelet uses.
func pods(e engine) engine {
	e.platform, e.unit = "containerd", "containerd"
	e.load = []string{"ctr", "--namespace=k8s.io", "image", "import"}
	e.run = func(c workload) []string {
		args := []string{podTool, "run", "--mount=" + installed + "=/afalg-policy"}
		if c.detach {
			args = append(args, "--detach")
		}
		return slices.Concat(args, c.options, []string{c.named(), c.name}, c.args)
	}
	e.exec = func(name string, args ...string) []string { return append([]string{podTool, "exec", name}, args...) }
	e.remove = []string{podTool, "rm"}
	e.unconfined = map[string][]string{privileged: {"--privileged"}, "unconfined": {"--unconfined"}}
	e.vouched = []workload{{name: "granted"}, {name: "known", options: []string{"--namespace=crypto"}}}
	e.claiming = []workload{{name: "asking", options: []string{"--env=AFALG_POLICY_GRANT=digest"}}}
	return e
}

var ctrRemove = []string{"sh", "-c", `ctr task rm --force "$0"; ctr container rm "$0"`}

const podTool = "/usr/local/bin/pod"

const containerdConfig = "/etc/containerd/config.toml"

// Pods need controllers and capabilities that a box may lack: shares of time,
// and protection when memory is short.

// podsOn1 has pods on Debian's containerd.
func podsOn1(t *testing.T) func(vm *VM) {
	t.Helper()
	tool := goPrograms(t, "./pod")
	return func(vm *VM) {
		vm.Output(t, "install", tool+"/pod", podTool)
		vm.WriteFile(t, containerdConfig, []byte(`version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  disable_cgroup = true
  restrict_oom_score_adj = true
`), 0o644)
	}
}

// podsOn2 puts containerd 2, which Debian 12 does not have, in the place of
// Debian's.
func podsOn2(t *testing.T) func(vm *VM) {
	t.Helper()
	tool, programs := goPrograms(t, "./pod"), goPrograms(t, "tool")
	return func(vm *VM) {
		vm.Output(t, "install", tool+"/pod", podTool)
		vm.Output(t, "sh", "-c", "install "+programs+"/* /usr/bin && containerd --version | grep ' 2\\.'")
		vm.WriteFile(t, containerdConfig, []byte(`version = 3
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = 'localhost/pause:1'
`), 0o644)
	}
}

// goPrograms builds programs of the module that has containerd 2, and returns
// their directory.
func goPrograms(t *testing.T, packages ...string) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("go", append([]string{"build", "-C", "../../testdata/vm/containerd", "-trimpath", "-ldflags=-s -w",
		"-tags=no_btrfs,no_devmapper,no_zfs", "-o", dir + "/"}, packages...)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
	return dir
}

// Podman's own settings: there is no bus, by which it would ask systemd for
// cgroups; and a box may be without controllers, and without the capability by
// which crun fills them.
const (
	vmContainers  = "[engine]\ncgroup_manager = \"cgroupfs\"\n"
	boxContainers = vmContainers + "[containers]\ncgroups = \"disabled\"\npids_limit = 0\n"
)

// setUp gives a machine with systemd stores on file systems that support
// layers, and the program.
func setUp(t *testing.T, vm *VM, containersConf string) {
	t.Helper()
	for _, store := range []string{"containerd", "containers", "docker"} {
		dir := "/var/lib/" + store
		vm.Output(t, "mkdir", "-p", dir)
		vm.Output(t, "mount", "-t", "tmpfs", "-o", "mode=711", store, dir)
	}
	vm.WriteFile(t, "/etc/default/docker", []byte(`DOCKER_OPTS="--iptables=false --ip6tables=false --bridge=none"`+"\n"), 0o644)
	vm.WriteFile(t, "/etc/containers/containers.conf", []byte(containersConf), 0o644)
	for _, unit := range []string{"docker", "containerd", agentUnit} { // there is no journal
		vm.WriteFile(t, "/etc/systemd/system/"+unit+".service.d/log.conf",
			fmt.Appendf(nil, "[Service]\nStandardError=append:/run/%[1]s.log\nStandardOutput=append:/run/%[1]s.log\n", unit), 0o644)
	}
	vm.Output(t, "systemctl", "daemon-reload")
	vm.Output(t, "install", "-D", program(t), installed)
}

// start starts the platform's service, and gives it the images.
func (e engine) start(t *testing.T, vm *VM, archive string) {
	t.Helper()
	if e.unit != "" {
		r := vm.Command(t, Command{Args: []string{"systemctl", "start", e.unit}, Timeout: 4 * time.Minute})
		if r.Exit != 0 {
			t.Fatalf("%s does not start: %s%s", e.unit, r.Stderr, vm.Run(t, "tail", "-n", "20", "/run/"+e.unit+".log").Stdout)
		}
	}
	r := vm.Command(t, Command{Args: append(slices.Clone(e.load), archive), Timeout: 4 * time.Minute})
	if r.Exit != 0 {
		t.Fatalf("%v: %s", e.load, r.Stderr)
	}
}

// try runs a container to its end, or to its start.
func (e engine) try(t *testing.T, vm *VM, c workload) Result {
	t.Helper()
	return vm.Command(t, Command{Args: e.run(c), Timeout: 4 * time.Minute})
}

// images are the content of the archive: one layer, under several
// configurations.
var images = map[string]map[string]any{
	"plain":    {"Cmd": []string{"sh"}},
	"known":    {"Labels": map[string]string{"known": "by its digest"}},
	"claiming": {"Labels": map[string]string{"app": "web", "io.afalg-policy.grant": "digest"}},
	"pause":    {"Cmd": []string{"sleep", "100000"}},
}

// platformFiles are the files for machines with platforms.
type platformFiles struct {
	archive string            // of images
	digests map[string]string // of the images
	put     map[string]func(vm *VM)
}

func buildPlatforms(t *testing.T, engines []engine) platformFiles {
	t.Helper()
	files := platformFiles{put: map[string]func(*VM){}}
	files.archive, files.digests = imageArchive(t)
	for _, e := range engines {
		if e.needs != nil {
			files.put[e.name] = e.needs(t)
		}
	}
	return files
}

// imageArchive writes the images as "docker save" does, which every platform
// can load, and returns the path.
func imageArchive(t *testing.T) (path string, digests map[string]string) {
	t.Helper()
	return imagesOf(t, baseLayer(t, nil), images)
}

func imagesOf(t *testing.T, layer []byte, images map[string]map[string]any) (path string, digests map[string]string) {
	t.Helper()
	type config struct {
		Architecture string         `json:"architecture"`
		OS           string         `json:"os"`
		Config       map[string]any `json:"config"`
		RootFS       map[string]any `json:"rootfs"`
		// buildah counts the layers that it names.
		History []map[string]string `json:"history"`
	}
	type entry struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	var archive tarball
	archive.file("layer.tar", 0o644, layer)
	var manifest []entry
	digests = map[string]string{}
	for name, settings := range images {
		settings := maps.Clone(settings)
		settings["Env"] = []string{"PATH=/bin:/usr/bin"}
		text := mustJSON(t, config{
			"amd64", "linux", settings, map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + sum(layer)}},
			[]map[string]string{{"created_by": "a test"}},
		})
		digests[name] = "sha256:" + sum(text)
		archive.file(sum(text)+".json", 0o644, text)
		manifest = append(manifest, entry{sum(text) + ".json", []string{imageName(name)}, []string{"layer.tar"}})
	}
	archive.file("manifest.json", 0o644, mustJSON(t, manifest))
	path = filepath.Join(t.TempDir(), "images.tar")
	if err := os.WriteFile(path, archive.finish(t), 0o600); err != nil {
		t.Fatal(err)
	}
	return path, digests
}

// baseLayer has a shell and a real client with its libraries: 4 MB. The map leads
// from a path in it to a program of the host besides.
func baseLayer(t *testing.T, besides map[string]string) []byte {
	t.Helper()
	const client = "/usr/bin/kcapi-dgst"
	libraries, err := exec.Command("ldd", client).Output()
	if err != nil {
		t.Fatalf("ldd %s: %v", client, err)
	}
	files := []string{client, "/etc/debian_version"}
	for _, word := range strings.Fields(string(libraries)) {
		if strings.HasPrefix(word, "/") {
			files = append(files, word)
		}
	}
	var layer tarball
	for _, dir := range []string{"bin", "etc", "lib", "lib64", "lib/x86_64-linux-gnu", "usr", "usr/bin", "tmp"} {
		layer.entry(tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755})
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		layer.file(strings.TrimPrefix(file, "/"), 0o755, data)
	}
	for in, from := range besides {
		data, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		layer.file(in, 0o755, data)
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	layer.file("bin/busybox", 0o755, busybox)
	for _, applet := range []string{"cat", "cp", "cut", "echo", "grep", "sh", "sleep"} {
		layer.entry(tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + applet, Linkname: "busybox"})
	}
	return layer.finish(t)
}

// tarball is an archive in memory.
type tarball struct {
	buf bytes.Buffer
	w   *tar.Writer
	err error
}

func (a *tarball) file(name string, mode int64, data []byte) {
	a.entry(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(data))})
	if a.err == nil {
		_, a.err = a.w.Write(data)
	}
}

func (a *tarball) entry(h tar.Header) {
	if a.w == nil {
		a.w = tar.NewWriter(&a.buf)
	}
	if a.err == nil {
		a.err = a.w.WriteHeader(&h)
	}
}

func (a *tarball) finish(t *testing.T) []byte {
	t.Helper()
	if a.err == nil {
		a.err = a.w.Close()
	}
	if a.err != nil {
		t.Fatal(a.err)
	}
	return a.buf.Bytes()
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func sum(data []byte) string {
	digest := sha256.Sum256(data)
	return hex.EncodeToString(digest[:])
}
