package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/install/host"
	"github.com/afalg-policy/afalg-policy/internal/kube"
)

// kubernetesName is the platform that puts profiles where a kubelet finds those that
// pods name (Localhost). Nothing reads them before a pod names one, so that nothing
// is started again.
const (
	kubernetesName = "kubernetes"
	kubeletService = "kubelet.service"
)

// GapGranted is what has to be accepted for the profiles of grants: a pod may name
// any file of the node, and has what it opens, unless admission ties each to its
// namespaces.
const GapGranted = "granted-profiles"

func kubernetes() platform {
	return platform{
		name:     kubernetesName,
		dataOnly: true,
		programs: []string{"kubelet"},
		configs:  []string{kube.KubeletRoot, "/etc/kubernetes"},
		files:    kubernetesFiles,
		commands: func(*host.Host, *host.Record) []string { return nil },
		active:   func(context.Context, *host.Record) error { return nil },
		besides:  kubernetesBesides,
		left:     "pods that run keep their filters; new ones that name a profile of ours are not started (CreateContainerError) until they name another, or it is installed again: take the admission policies of \"generate kubernetes\" back first",
	}
}

// kubeletArguments are the files in which kubeadm and packages keep arguments.
var kubeletArguments = []string{"/var/lib/kubelet/kubeadm-flags.env", "/etc/default/kubelet", "/etc/sysconfig/kubelet"}

// seccompRoot is the directory below which the kubelet looks for profiles. Its
// configuration file has no key for that, only its command line.
func (o *Options) seccompRoot(h *host.Host) (string, error) {
	if o.KubeletRoot != "" {
		return path.Join(o.KubeletRoot, path.Base(kube.SeccompRoot)), nil
	}
	flags, err := daemonFlags(h, kubeletService, kubeletArguments, "--root-dir")
	if err != nil {
		return "", err
	}
	root, where := kube.KubeletRoot, ""
	for _, f := range flags {
		switch {
		case !path.IsAbs(f.value) || path.Clean(f.value) != f.value:
			return "", fmt.Errorf("%s: the kubelet is given %s %s, which is no plain path; name its directory with --kubelet-root", f.where, f.name, f.value)
		case where != "" && f.value != root:
			return "", fmt.Errorf("%s and %s give the kubelet two directories; name the one that counts with --kubelet-root", where, f.where)
		}
		root, where = f.value, f.where
	}
	return path.Join(root, path.Base(kube.SeccompRoot)), nil
}

func kubernetesFiles(h *host.Host, o Options) (job, error) {
	root, err := o.seccompRoot(h)
	if err != nil {
		return job{}, err
	}
	made, err := o.Profiles()
	if err != nil {
		return job{}, err
	}
	var j job
	for _, name := range slices.Sorted(maps.Keys(made)) {
		if path.Clean(name) != name || !strings.HasPrefix(name, kube.ProfileDir+"/") {
			return job{}, fmt.Errorf("the profile %s would not lie below %s", name, kube.ProfileDir)
		}
		j.files = append(j.files, host.File{Path: path.Join(root, name), Mode: host.Plain, Data: made[name]})
	}
	j.notes = append(j.notes, fmt.Sprintf("a profile is in force for pods that name it (localhostProfile: %s), and for no other: the admission policies of \"generate kubernetes\" see to that", kube.DefaultProfile))
	return j, nil
}

// kubernetesBesides compares the profiles with those that the policy makes now.
func kubernetesBesides(_ context.Context, r *host.Record, o StatusOptions, s Status) []string {
	if s.Policy != Yes {
		return nil // it makes none
	}
	options := recorded(r.Options)
	options.Version = r.Program
	made, err := o.Profiles(options)
	if err == nil {
		err = profilesDiffer(r, made)
	}
	if err != nil {
		return []string{"not active: " + err.Error()}
	}
	return nil
}

// profilesDiffer returns why what a record has is not what its policy makes now.
func profilesDiffer(r *host.Record, made map[string][]byte) error {
	has := map[string][]byte{}
	for _, e := range r.Files {
		if _, name, ok := strings.Cut(e.Path, "/"+path.Base(kube.SeccompRoot)+"/"); ok {
			has[name] = e.After.Data
		}
	}
	if maps.EqualFunc(has, made, bytes.Equal) {
		return nil
	}
	return errors.New("the policy makes other profiles now: run \"afalg-policy install kubernetes\" again, or \"afalg-policy apply\"")
}

// Recorded are the options with which a platform of this host was installed; nil if
// it was not.
func Recorded(name string) (*Options, error) {
	h, err := host.Open("/")
	if err != nil {
		return nil, err
	}
	defer h.Close()
	r, err := readRecord(h, name)
	if err != nil || r == nil {
		return nil, err
	}
	return recorded(r.Options), nil
}
