package vouch

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/tools/txtar"

	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// Containers of testdata; the files' comments say how they were made.
const (
	podmanWeb   = "66147408a957dc0798279cce420214ff8f7ae5916516842da4537dae58874fbe"
	podmanRm    = "89cc7006f3dc19ec58c723857a2237ed34f01e9c5f1e4213cefb2e19cdfb723b"
	podmanRf    = "52f170dd367202c377dd82296cb6068374e8bc65b6236cb84de4cd3efacf97cf"
	podmanLayer = "490ef68d11d683f634427eaef1943be9c9d9856d2abdcd6112114bbe805873d3"
	podmanID    = "sha256:bd1389e5f3be893006c1086b9d012196d4a2e5c82c1e36a0df8a28c906a0627e"
	podmanFirst = "sha256:9a9cb4f6d92f741e4995ba9433a85b88293bde4f4c7d02eb43004337625c5066"
	podmanLater = "sha256:b86e411369d8a5a2a2ce396037dadc841139e74499a2541e5f5ba46fc5e86072"
	dockerWeb   = "b3b2dc484e2d293772b0d7ed6485cf0a1282477d7239bfa32e873b5b6dde9a0e"
	dockerID    = "sha256:909a31173fd3dd207c9b8b75e5e4452eaf26064506546e55f5d3acb8a8ed1733"
	criWeb      = "50f8ea3eac23d13922311cd0b1c12d9c400590c703eae2213dd1e4d3756b5a9d"
	criPause    = "ad5d0bcec5017736bb861cb31246bf3604bd19cfd0d7e584325c8eb08a72012f"
)

// unpack writes an archive of testdata as the platform would, with $DIR
// replaced, and returns that directory.
func unpack(t testing.TB, name string) string {
	t.Helper()
	archive, err := txtar.ParseFile(filepath.Join("testdata", name+".txtar"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	noDefaults(t, dir)
	for _, f := range archive.Files {
		put(t, filepath.Join(dir, f.Name), strings.ReplaceAll(strings.TrimSuffix(string(f.Data), "\n"), "$DIR", dir))
	}
	return dir
}

// put writes a file, and the directories that it needs, for this user alone.
func put(t testing.TB, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// noDefaults hides the stores of this machine.
func noDefaults(t testing.TB, dir string) {
	saved := []string{podmanGraph, dockerRoot, dockerConfigDir, containerdImages}
	podmanGraph, dockerRoot = dir+"/default/podman", dir+"/default/docker"
	dockerConfigDir, containerdImages = dir+"/default/etc/docker", dir+"/default/containerd"
	t.Cleanup(func() {
		podmanGraph, dockerRoot, dockerConfigDir, containerdImages = saved[0], saved[1], saved[2], saved[3]
	})
}

// source returns a spec of an unpacked archive, with some of its text replaced.
func source(t testing.TB, dir, platform, id, name string, oldnew ...string) Source {
	t.Helper()
	src, err := os.ReadFile(filepath.Join(dir, "spec", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(oldnew); i += 2 {
		if !bytes.Contains(src, []byte(oldnew[i])) {
			t.Fatalf("%s.json does not contain %q", name, oldnew[i])
		}
	}
	s := Source{Platform: platform, ID: id, Spec: config(t, []byte(strings.NewReplacer(oldnew...).Replace(string(src))))}
	if platform == "containerd" {
		s.Bundle = filepath.Join(dir, "state/io.containerd.runtime.v2.task/k8s.io", id)
	}
	return s
}

func config(t testing.TB, text []byte) *profile.Config {
	t.Helper()
	c, err := profile.ReadConfig(text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// want compares all that is known of a container, except for the annotations
// that platforms set on each.
func want(t *testing.T, got, want plan.Container) {
	t.Helper()
	for _, annotations := range []map[string]string{got.Vouched.Annotations, got.Claimed.Annotations} {
		maps.DeleteFunc(annotations, func(k, _ string) bool {
			return strings.HasPrefix(k, "io.podman.annotations.") || strings.HasPrefix(k, "io.kubernetes.cri") || k == "io.container.manager"
		})
	}
	if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
		t.Errorf("not what is wanted (-want +got):\n%s", d)
	}
}

// refused wants an error, and a container with no vouched facts but those in
// vouched.
func refused(t *testing.T, s Source, text string, vouched plan.Identity) {
	t.Helper()
	c, err := Container(s)
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("error %v, want one with %q", err, text)
	}
	if d := cmp.Diff(vouched, c.Vouched, cmpopts.EquateEmpty()); d != "" {
		t.Errorf("vouched for (-want +got):\n%s", d)
	}
}

func TestPlatforms(t *testing.T) {
	if got, want := Platforms(), []string{"containerd", "crio", "docker", "oci", "podman"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestOCI(t *testing.T) {
	c, err := Container(Source{Platform: "oci", ID: "web", Spec: config(t, []byte(`{"annotations": {"example.com/role": "crypto"}}`))})
	if err != nil {
		t.Fatal(err)
	}
	want(t, c, plan.Container{
		Platform: "oci", ID: "web",
		Vouched: plan.Identity{Name: "web"},
		Claimed: plan.Identity{Annotations: map[string]string{"example.com/role": "crypto"}},
	})
}

func TestPodman(t *testing.T) {
	dir := unpack(t, "podman")
	images := []string{podmanFirst, podmanLater, podmanID}
	claimed := map[string]string{
		"img.example/a":                        "frommanifest",
		"org.opencontainers.image.base.digest": "sha256:75a070d0adbf272802cc663d0830ce2a416f7947490a60aeafa5d92ea0f3d528",
		"org.opencontainers.image.base.name":   "",
		"org.opencontainers.image.stopSignal":  "15",
	}
	for _, id := range []string{"", podmanWeb} { // of a precreate hook, and of a wrapper
		c, err := Container(source(t, dir, "podman", id, "web"))
		if err != nil {
			t.Fatal(err)
		}
		want(t, c, plan.Container{
			Platform: "podman", ID: podmanWeb,
			Vouched: plan.Identity{Name: "web", Images: images, Annotations: map[string]string{"own.example/b": "user"}},
			Claimed: plan.Identity{Annotations: claimed},
			Asks:    []string{"wifi"},
		})
	}
	c, err := Container(source(t, dir, "podman", "", "webrm"))
	if err != nil {
		t.Fatal(err)
	}
	want(t, c, plan.Container{
		Platform: "podman", ID: podmanRm,
		Vouched: plan.Identity{Name: "webrm", Images: images},
		Claimed: plan.Identity{Annotations: claimed},
		Asks:    []string{"wifi"},
	})
	c, err = Container(source(t, dir, "podman", "", "rf"))
	if err != nil {
		t.Fatal(err)
	}
	want(t, c, plan.Container{
		Platform: "podman", ID: podmanRf,
		Vouched: plan.Identity{Name: "rf"},
		Claimed: plan.Identity{Annotations: map[string]string{"org.opencontainers.image.stopSignal": "15"}},
	})
}

// Newer versions keep containers that end with the machine in another file, in
// the run directory if the whole store is transient.
func TestPodmanVolatile(t *testing.T) {
	for _, at := range []string{"graph/vfs-containers", "run/vfs-containers"} {
		dir := unpack(t, "podman")
		from := filepath.Join(dir, "graph/vfs-containers/containers.json")
		put(t, filepath.Join(dir, at, "x"), "")
		if err := os.Rename(from, filepath.Join(dir, at, "volatile-containers.json")); err != nil {
			t.Fatal(err)
		}
		put(t, from, "")
		c, err := Container(source(t, dir, "podman", "", "web"))
		if err != nil || c.Vouched.Name != "web" {
			t.Errorf("in %s: name %q, %v", at, c.Vouched.Name, err)
		}
	}
}

// The roots of each driver of containers/storage are found.
func TestPodmanRoots(t *testing.T) {
	layer := strings.Repeat("a", 64)
	for path, want := range map[string]string{
		"/g/overlay/" + layer + "/merged":      "/g overlay " + layer,
		"/g/vfs/dir/" + layer:                  "/g vfs " + layer,
		"/g/btrfs/subvolumes/" + layer:         "/g btrfs " + layer,
		"/g/zfs/graph/" + layer:                "/g zfs " + layer,
		"/g/overlay/" + layer + "/diff":        "",
		"/g/vfs/dir/" + layer + "/vfs":         "",
		"/g/vfs/dir/" + layer[1:]:              "",
		"/overlay/" + layer + "/merged":        "",
		"g/overlay/" + layer + "/merged":       "",
		"/g/overlay/x/" + layer + "/merged":    "",
		"/g/overlay/" + layer + "/merged/etc/": "",
	} {
		at, err := podmanTrace(Source{Spec: &profile.Config{Root: path}})
		got := ""
		if err == nil {
			got = fmt.Sprintf("%s %s %s", at.graph, at.driver, at.layer)
		}
		if got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

func TestDocker(t *testing.T) {
	dir := unpack(t, "docker")
	c, err := Container(source(t, dir, "docker", dockerWeb, "web", `"annotations": null`, `"annotations": {"example.com/role": "crypto", "org.opencontainers.image.x": "y"}`))
	if err != nil {
		t.Fatal(err)
	}
	want(t, c, plan.Container{
		Platform: "docker", ID: dockerWeb,
		Vouched: plan.Identity{
			Name: "web", Images: []string{dockerID},
			Labels:      map[string]string{"mine": "1"},
			Annotations: map[string]string{"example.com/role": "crypto"},
		},
		Claimed: plan.Identity{
			Labels:      map[string]string{"app": "image", "fromimage": "yes", "io.afalg-policy.grant": "wifi"},
			Annotations: map[string]string{"org.opencontainers.image.x": "y"},
		},
		Asks: []string{"wifi"},
	})
}

// Docker writes NAME@DIGEST when it has pulled an image.
func TestDockerPulled(t *testing.T) {
	dir := unpack(t, "docker")
	a, b, other := "sha256:"+strings.Repeat("a", 64), "sha256:"+strings.Repeat("b", 64), "sha256:"+strings.Repeat("c", 64)
	put(t, dir+"/docker/image/vfs/repositories.json", fmt.Sprintf(
		`{"Repositories":{"r/web":{"r/web:1":%[1]q,"r/web@%[2]s":%[1]q},"q/web":{"q/web@%[3]s":%[1]q,"q/web@%[4]s":%[4]q}}}`, dockerID, a, b, other))
	c, err := Container(source(t, dir, "docker", dockerWeb, "web"))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{dockerID, a, b}; !slices.Equal(c.Vouched.Images, want) {
		t.Errorf("images %q, want %q", c.Vouched.Images, want)
	}
}

// The data is found where the root is, where daemon.json says, and by default.
func TestDockerRoots(t *testing.T) {
	for _, root := range []string{"$DIR/docker/overlay2/x/merged", "$DIR/docker/devicemapper/mnt/x/rootfs", "$DIR/docker/rootfs/overlayfs/x", "/elsewhere"} {
		dir := unpack(t, "docker")
		put(t, dockerConfigDir+"/daemon.json", `{"data-root": "`+dir+`/docker"}`)
		checkRoot(t, dir, root)
	}
	dir := unpack(t, "docker")
	dockerRoot = dir + "/docker"
	checkRoot(t, dir, "/elsewhere")
}

func checkRoot(t *testing.T, dir, root string) {
	t.Helper()
	s := source(t, dir, "docker", dockerWeb, "web", dir+"/docker/vfs/dir/da2bf36f2569a500c806a24751b852d02598ac5ac67e9c519d1b2233c349afad", strings.ReplaceAll(root, "$DIR", dir))
	if c, err := Container(s); err != nil || c.Vouched.Name != "web" {
		t.Errorf("root %s: name %q, %v", root, c.Vouched.Name, err)
	}
}

// The bundle of a step of a BuildKit build has a place that dockerd alone
// chooses.
func TestDockerBuild(t *testing.T) {
	dir := unpack(t, "docker")
	dockerRoot = dir + "/docker"
	const id = "mg6ck5a0ziu2oqr9r8mlxlcz7"
	real := dockerRoot + "/buildkit/executor/" + id
	for _, at := range []string{real, dockerRoot + "/other/executor/" + id, dir + "/buildkit/executor/" + id} {
		put(t, at+"/config.json", "{}")
	}
	for bundle, build := range map[string]bool{
		real: true, real + "/": true, "": false, dockerRoot + "/buildkit/executor/other": false, dockerRoot + "/buildkit/executor/../executor": false,
		dockerRoot + "/other/executor/" + id: false, dir + "/buildkit/executor/" + id: false,
	} {
		c, err := Container(Source{Platform: "docker", ID: id, Bundle: bundle, Spec: config(t, []byte(`{"annotations": {"a": "b"}}`))})
		if c.Vouched.Build != build || (err == nil) != build || c.Vouched.Name != "" {
			t.Errorf("%s: %+v, %v", bundle, c.Vouched, err)
		}
	}
	if err := os.Chmod(filepath.Dir(real), 0o777); err != nil {
		t.Fatal(err)
	}
	if c, _ := Container(Source{Platform: "docker", ID: id, Bundle: real, Spec: config(t, []byte(`{}`))}); c.Vouched.Build {
		t.Error("others can put a bundle there")
	}
	if c, _ := Container(source(t, dir, "docker", dockerWeb, "web")); c.Vouched.Build {
		t.Error("an ordinary container is taken for a build")
	}
}

// Docker keeps its images in containerd (from its source, not captured).
func TestDockerContainerdImages(t *testing.T) {
	image := `{"config":{"Labels":{"app":"image"}}}`
	manifest := `{"schemaVersion":2,"config":{"digest":"` + digestOf([]byte(image)) + `"}}`
	index := "sha256:" + strings.Repeat("1", 64)
	for _, at := range []string{"docker/containerd/daemon", "default/containerd"} {
		dir := unpack(t, "docker")
		put(t, dir+"/docker/containers/c1/config.v2.json", `{"ID":"c1","Name":"/new","Driver":"overlayfs","Image":"`+index+`","ImageManifest":{"digest":"`+digestOf([]byte(manifest))+`"},"Config":{"Labels":{"app":"image","mine":"1"}}}`)
		for _, blob := range []string{image, manifest} {
			put(t, filepath.Join(dir, at, "io.containerd.content.v1.content/blobs/sha256", strings.TrimPrefix(digestOf([]byte(blob)), "sha256:")), blob)
		}
		c, err := Container(source(t, dir, "docker", "c1", "web"))
		if err != nil {
			t.Fatal(err)
		}
		want(t, c, plan.Container{
			Platform: "docker", ID: "c1",
			Vouched: plan.Identity{Name: "new", Images: sortedOnce([]string{index, digestOf([]byte(manifest)), digestOf([]byte(image))}), Labels: map[string]string{"mine": "1"}},
			Claimed: plan.Identity{Labels: map[string]string{"app": "image"}},
		})
	}
}

func TestContainerd(t *testing.T) {
	dir := unpack(t, "containerd")
	c, err := Container(source(t, dir, "containerd", criWeb, "container"))
	if err != nil {
		t.Fatal(err)
	}
	want(t, c, plan.Container{
		Platform: "containerd", ID: criWeb,
		Vouched: plan.Identity{Name: "web", Namespace: "prod", Pod: "web-0", Annotations: map[string]string{"example.com/role": "crypto", "example.com/c": "kubelet"}},
	})
	digest := "sha256:" + strings.Repeat("d", 64)
	c, err = Container(source(t, dir, "containerd", criWeb, "container", "pause:1", "pause@"+digest))
	if err != nil || !slices.Equal(c.Vouched.Images, []string{digest}) {
		t.Errorf("images %q, %v", c.Vouched.Images, err)
	}
	s := source(t, dir, "containerd", "ctr1", "container")
	s.Bundle = filepath.Join(dir, "state/io.containerd.runtime.v2.task/default/ctr1")
	put(t, s.Bundle+"/config.json", "")
	c, err = Container(s)
	if err != nil {
		t.Fatal(err)
	}
	want(t, c, plan.Container{
		Platform: "containerd", ID: "ctr1",
		Vouched: plan.Identity{Name: "ctr1", Namespace: "default"},
		Claimed: plan.Identity{Annotations: map[string]string{"example.com/role": "crypto", "example.com/c": "kubelet"}},
	})
}

func TestCRIO(t *testing.T) {
	dir := unpack(t, "crio")
	c, err := Container(source(t, dir, "crio", "c0ffee", "container"))
	if err != nil {
		t.Fatal(err)
	}
	kube := map[string]string{"io.kubernetes.container.name": "web", "io.kubernetes.pod.name": "web-0", "io.kubernetes.pod.namespace": "prod", "io.kubernetes.pod.uid": "u1"}
	annotations := map[string]string{"example.com/role": "crypto", "io.kubernetes.container.hash": "5d41402a"}
	for k, v := range kube {
		annotations[k] = v
	}
	want(t, c, plan.Container{
		Platform: "crio", ID: "c0ffee",
		Vouched: plan.Identity{
			Name: "web", Pod: "web-0", Namespace: "prod",
			Images: []string{"sha256:" + strings.Repeat("a", 64), "sha256:" + strings.Repeat("b", 64)},
			Labels: kube, Annotations: annotations,
		},
		Claimed: plan.Identity{Annotations: map[string]string{"org.opencontainers.image.stopSignal": "15"}},
	})
}
