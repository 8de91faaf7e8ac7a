package vouch

import (
	"cmp"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// Each test here is an attempt to look like another container.

func TestAttackID(t *testing.T) {
	dir := unpack(t, "docker")
	for _, id := range []string{"../web", "..", ".", "a/b", "-rf", ".hidden", "a\x00b", "a b", "ä", strings.Repeat("a", maxID+1)} {
		for _, platform := range Platforms() {
			s := source(t, dir, "oci", id, "web")
			s.Platform = platform
			refused(t, s, "container ID", plan.Identity{})
		}
	}
	for _, platform := range Platforms() {
		if platform != "podman" {
			refused(t, Source{Platform: platform, Spec: &profile.Config{}}, "the ID of the container is not known", plan.Identity{})
		}
	}
	refused(t, Source{Platform: "lxc", ID: "web", Spec: &profile.Config{}}, `platform "lxc": it must be one of containerd, crio, docker, oci, podman`, plan.Identity{})
	refused(t, Source{Platform: "oci", ID: "web"}, "the spec of the container is not known", plan.Identity{})
}

// The spec of one container comes with the ID of another.
func TestAttackOtherID(t *testing.T) {
	dir := unpack(t, "podman")
	refused(t, source(t, dir, "podman", podmanRm, "web"), "the spec is of container "+podmanWeb, plan.Identity{})
	dir = unpack(t, "containerd")
	s := source(t, dir, "containerd", criWeb, "container")
	s.Bundle = filepath.Join(filepath.Dir(s.Bundle), criPause)
	refused(t, s, "containerd's are STATE/", plan.Identity{})
	dir = unpack(t, "crio")
	refused(t, source(t, dir, "crio", "other", "container"), `is "c0ffee", and the container is other`, plan.Identity{})
	dir = unpack(t, "docker")
	refused(t, source(t, dir, "docker", "other", "web"), "has a container other: it may be a step of a build", plan.Identity{})
	put(t, dir+"/docker/containers/other/config.v2.json", `{"ID":"`+dockerWeb+`","Name":"/web"}`)
	refused(t, source(t, dir, "docker", "other", "web"), "the configuration of container other is that of", plan.Identity{})
}

// podman run --rootfs names the root of another container.
func TestAttackRootOfAnother(t *testing.T) {
	dir := unpack(t, "podman")
	refused(t, source(t, dir, "podman", "", "rf", dir+"/rootfs", dir+"/graph/vfs/dir/"+podmanLayer), "it must be one", plan.Identity{})
	// The root is of a container that does not exist any more.
	refused(t, source(t, dir, "podman", "", "rf", dir+"/rootfs", dir+"/graph/vfs/dir/"+strings.Repeat("a", 64)), "the root of container", plan.Identity{})
	// A container with an image has its root in the store.
	refused(t, source(t, dir, "podman", "", "web", dir+"/graph/vfs/dir/"+podmanLayer, dir+"/rootfs"), "its root is not in", plan.Identity{})
}

// An image has a volume at the place where libpod mounts its file.
func TestAttackVolume(t *testing.T) {
	dir := unpack(t, "podman")
	own := dir + "/run/vfs-containers/" + podmanRf + "/userdata/.containerenv"
	refused(t, source(t, dir, "podman", "", "rf", own, dir+"/graph/volumes/"+podmanWeb+"/_data"), "tells neither", plan.Identity{})
	refused(t, source(t, dir, "podman", "", "rf", own, dir+"/graph/volumes/x/_data/run/vfs-containers/"+podmanWeb+"/userdata/.containerenv/x"), "tells neither", plan.Identity{})
}

// A store lies inside the root of a container, whose files are root's there
// too.
func TestAttackStoreInRoot(t *testing.T) {
	dir := unpack(t, "docker")
	root := dir + "/docker/overlay2/x/merged"
	put(t, root+"/containers/evil/config.v2.json", `{"ID":"evil","Name":"/web"}`)
	put(t, root+"/../containers/evil/config.v2.json", `{"ID":"evil","Name":"/web"}`)
	layer := dir + "/docker/vfs/dir/da2bf36f2569a500c806a24751b852d02598ac5ac67e9c519d1b2233c349afad"
	for _, path := range []string{root, root + "/", root + "/../merged", "rootfs", "", "/"} {
		refused(t, source(t, dir, "docker", "evil", "web", layer, path), "has a container evil", plan.Identity{})
	}
}

// The image's claims must not count, whatever else cannot be read.
func TestAttackUnreadableImage(t *testing.T) {
	dir := unpack(t, "docker")
	content := dir + "/docker/image/vfs/imagedb/content/sha256/" + strings.TrimPrefix(dockerID, "sha256:")
	check := func(text string) {
		t.Helper()
		refused(t, source(t, dir, "docker", dockerWeb, "web"), text, plan.Identity{Name: "web", Images: []string{dockerID}})
		c, _ := Container(source(t, dir, "docker", dockerWeb, "web"))
		if c.Claimed.Labels["mine"] != "1" || c.Claimed.Labels["fromimage"] != "yes" {
			t.Errorf("claimed %q", c.Claimed.Labels)
		}
	}
	put(t, content, `{"config":{"Labels":{}}}`)
	check("has another digest")
	if err := os.Remove(content); err != nil {
		t.Fatal(err)
	}
	check("is not in")

	dir = unpack(t, "podman")
	manifests, err := filepath.Glob(dir + "/graph/vfs-images/*/manifest")
	if err != nil || len(manifests) != 1 {
		t.Fatal(manifests, err)
	}
	left := plan.Identity{Name: "web", Images: []string{podmanFirst, podmanLater, podmanID}}
	for _, spoil := range []struct {
		text string
		do   func() error
	}{
		{"has not the digest", func() error { put(t, manifests[0], `{"annotations":{}}`); return nil }},
		{"no such file", func() error { return os.Remove(manifests[0]) }},
	} {
		try(t, spoil.do())
		refused(t, source(t, dir, "podman", "", "web"), spoil.text, left)
		if c, _ := Container(source(t, dir, "podman", "", "web")); c.Claimed.Annotations["own.example/b"] != "user" {
			t.Errorf("claimed %q", c.Claimed.Annotations)
		}
	}
	left.Images = []string{podmanID}
	put(t, dir+"/graph/vfs-images/images.json", "[]")
	refused(t, source(t, dir, "podman", "", "web"), "0 images", left)
	id := strings.TrimPrefix(podmanID, "sha256:")
	put(t, dir+"/graph/vfs-images/images.json", `[{"id":"`+id+`","big-data-digests":{"`+podmanID+`":"`+podmanID+`"}}]`)
	refused(t, source(t, dir, "podman", "", "web"), "no manifest in", left)
	put(t, dir+"/graph/vfs-images/images.json", `[{"id":"`+id+`","big-data-digests":{"manifest":"md5:1"}}]`)
	refused(t, source(t, dir, "podman", "", "web"), `"manifest" has the digest "md5:1"`, left)
}

// A tag now leads to another manifest of the same configuration: the
// annotations that the first manifest put into the spec are still the image's.
func TestAttackSecondManifest(t *testing.T) {
	dir := unpack(t, "podman")
	c, err := Container(source(t, dir, "podman", "", "web", `"own.example/b"`, `"later.example/z"`))
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"img.example/a", "later.example/z"} {
		if v, ok := c.Vouched.Annotations[key]; ok || c.Claimed.Annotations[key] == "" {
			t.Errorf("%s: vouched for as %q, claimed as %q", key, v, c.Claimed.Annotations[key])
		}
	}
}

// Steps of a build run the commands of the build file, on the image of their
// base.
func TestAttackBuild(t *testing.T) {
	dir := unpack(t, "podman")
	list := dir + "/graph/vfs-containers/containers.json"
	put(t, list, `[{"id":"`+podmanWeb+`","names":["img1-working-container"],"image":"`+strings.TrimPrefix(podmanID, "sha256:")+`","layer":"`+podmanLayer+`","metadata":""}]`)
	refused(t, source(t, dir, "podman", "", "web"), "was not made by podman create or run", plan.Identity{})
}

// The store gives the container no valid name.
func TestAttackNames(t *testing.T) {
	dir := unpack(t, "podman")
	list := dir + "/graph/vfs-containers/containers.json"
	for _, names := range []string{`[]`, `["a","web"]`, `"web"`, `null`} {
		put(t, list, `[{"id":"`+podmanWeb+`","names":`+names+`,"NAMES":["web"],"image":"","layer":"`+podmanLayer+`","metadata":"{\"name\":\"x\"}"}]`)
		refused(t, source(t, dir, "podman", "", "web"), "names in", plan.Identity{})
	}
	put(t, list, `[{"id":"`+podmanWeb+`","names":["x"],"names":["web"],"layer":"`+podmanLayer+`","metadata":"{\"name\":\"x\"}"}]`)
	refused(t, source(t, dir, "podman", "", "web"), "stands twice", plan.Identity{})
}

// Another client of containerd, in the namespace of Kubernetes, sets the
// annotations of the CRI plugin.
func TestAttackNamespaceOfKubernetes(t *testing.T) {
	dir := unpack(t, "containerd")
	s := source(t, dir, "containerd", "feed", "container")
	put(t, s.Bundle+"/config.json", "")
	c, err := Container(s)
	if err != nil {
		t.Fatal(err)
	}
	if c.Vouched.Pod != "" || c.Vouched.Namespace != "k8s.io" || c.Vouched.Name != "feed" || c.Vouched.Annotations != nil {
		t.Errorf("vouched for %+v", c.Vouched)
	}
	if c.Claimed.Annotations["example.com/role"] != "crypto" {
		t.Errorf("claimed %q", c.Claimed.Annotations)
	}
}

// The pod has annotations under keys that CRI does not set on a sandbox.
func TestAttackSandbox(t *testing.T) {
	dir := unpack(t, "containerd")
	digest := "sha256:" + strings.Repeat("e", 64)
	s := source(t, dir, "containerd", criPause, "sandbox", `image-name": "forged`, `image-name": "x@`+digest)
	c, err := Container(s)
	if err != nil {
		t.Fatal(err)
	}
	want(t, c, plan.Container{
		Platform: "containerd", ID: criPause,
		Vouched: plan.Identity{Pod: "web-0", Namespace: "prod"},
		Claimed: plan.Identity{Annotations: map[string]string{"example.com/role": "crypto"}},
	})

	dir = unpack(t, "crio")
	c, err = Container(source(t, dir, "crio", "5a4d", "sandbox"))
	if err != nil {
		t.Fatal(err)
	}
	if c.Vouched.Pod != "web-0" || c.Vouched.Namespace != "prod" || c.Vouched.Name != "" || c.Vouched.Images != nil || c.Vouched.Labels != nil || c.Vouched.Annotations != nil {
		t.Errorf("vouched for %+v", c.Vouched)
	}
}

// The pod has annotations under the keys of the kubelet's labels.
func TestAttackCRIOLabels(t *testing.T) {
	dir := unpack(t, "crio")
	for _, change := range [][2]string{
		{`\"io.kubernetes.pod.namespace\":\"prod\"`, `\"x\":\"y\"`},
		{`\"io.kubernetes.pod.namespace\":\"prod\"`, `\"io.kubernetes.pod.namespace\":\"other\"`},
		{`\"io.kubernetes.container.name\":\"web\"`, `\"io.kubernetes.Container.Name\":\"web\"`},
	} {
		refused(t, source(t, dir, "crio", "c0ffee", "container", change[0], change[1]), "is not the container's label of that name", plan.Identity{})
	}
	refused(t, source(t, dir, "crio", "c0ffee", "container", `{\"io`, `{\"io.kubernetes.pod.name\":\"x\",\"io`), "stands twice", plan.Identity{})
	refused(t, source(t, dir, "crio", "c0ffee", "container", "cri-o\"", "libpod\""), "this is no container of CRI-O", plan.Identity{})
}

// The bundle is not containerd's, or is one that anybody could have made.
func TestAttackBundle(t *testing.T) {
	dir := unpack(t, "containerd")
	s := source(t, dir, "containerd", criWeb, "container")
	good := s.Bundle
	for _, bundle := range []string{"", criWeb, "/" + criWeb, "/tmp/x/k8s.io/" + criWeb, good + "/x", filepath.Dir(good)} {
		s.Bundle = bundle
		refused(t, s, "containerd's are STATE/", plan.Identity{})
	}
	s.Bundle = good
	chmod(t, filepath.Dir(good), 0o777)
	refused(t, s, "others can write there", plan.Identity{})
	chmod(t, filepath.Dir(good), 0o700)
	if err := os.Rename(good, good+"x"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(good+"x", good); err != nil {
		t.Fatal(err)
	}
	refused(t, s, "not a directory", plan.Identity{})
}

// Docker would not have written these files.
func TestAttackDockerFiles(t *testing.T) {
	config := func(rest string) string { return `{"ID":"` + dockerWeb + `","Name":"/web"` + rest + `}` }
	for _, tt := range []struct{ file, content, want string }{
		{"", config(`,"name":"/other","id":"x"`), `image "": not a digest`}, // keys in another case are different keys
		{"", config(`,"Name":"/other"`), "stands twice"},
		{"", config(`,"Config":{"Labels":["a"]}`), "not an object"},
		{"", config(`,"Config":{"Labels":{"a":1}}`), "not an object of texts"},
		{"", config(`,"Image":"../../x"`), `image "../../x": not a digest`},
		{"", config(`,"Image":"` + dockerID + `","Driver":"../vfs"`), "no name of a file"},
		{"", config(`,"Image":"` + dockerID + `","Driver":"zfs","ImageManifest":{"digest":"../x"}`), "is not in"},
		{"", config(`,"Image":"` + dockerID + `","Driver":"zfs","ImageManifest":{"digest":"` + podmanID + `"}`), "no such file"},
		{"", "not JSON", "invalid character"},
		{"/docker/image/vfs/repositories.json", dockerID, "repositories.json"},
	} {
		dir := unpack(t, "docker")
		put(t, dir+cmp.Or(tt.file, "/docker/containers/"+dockerWeb+"/config.v2.json"), tt.content)
		c, err := Container(source(t, dir, "docker", dockerWeb, "web"))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want one with %q", tt.content, err, tt.want)
		}
		if c.Vouched.Labels != nil || c.Vouched.Name == "other" {
			t.Errorf("%s: vouched for %+v", tt.content, c.Vouched)
		}
	}
	dir := unpack(t, "docker")
	put(t, dockerConfigDir+"/daemon.json", "{")
	refused(t, source(t, dir, "docker", "other", "web"), "daemon.json", plan.Identity{})
	dir = unpack(t, "docker")
	chmod(t, dir+"/docker/containers", 0o777)
	refused(t, source(t, dir, "docker", dockerWeb, "web"), "others can write there", plan.Identity{})
}

// The content of the store must match its digest.
func TestAttackBlob(t *testing.T) {
	dir := unpack(t, "docker")
	put(t, dir+"/docker/containers/"+dockerWeb+"/config.v2.json", `{"ID":"`+dockerWeb+`","Name":"/web","Driver":"overlayfs","Image":"`+dockerID+`","ImageManifest":{"digest":"`+podmanID+`"},"Config":{"Labels":{"a":"b"}}}`)
	put(t, dir+"/default/containerd/io.containerd.content.v1.content/blobs/sha256/"+strings.TrimPrefix(podmanID, "sha256:"), `{}`)
	refused(t, source(t, dir, "docker", dockerWeb, "web"), "the content has another digest", plan.Identity{Name: "web", Images: sortedOnce([]string{dockerID, podmanID})})
}
