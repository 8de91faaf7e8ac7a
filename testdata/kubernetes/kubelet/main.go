// Command kubelet says of pods what Kubernetes makes of them: it reads texts of one
// pod each, separated by NUL bytes, from standard input, and writes a line for each.
//
//	refused REASON                    by the strict decoder, the API server or the kubelet
//	pod NAME=PROFILE:FILE/PRIVILEGED… what the kubelet passes to the runtime for each container
//
// With -seccomp-default the kubelet has seccompDefault. The functions that decide are
// Kubernetes' own, of packages that it would take half an hour to link: whoever builds
// this puts their text, from the module, into taken.go.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/core"
)

// kubeGenericRuntimeManager has what the functions read of the kubelet's.
type kubeGenericRuntimeManager struct{ seccompProfileRoot string }

func main() {
	seccompDefault := flag.Bool("seccomp-default", false, "the kubelet has seccompDefault")
	flag.Parse()
	texts, err := io.ReadAll(os.Stdin)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	scheme := runtime.NewScheme()
	if err := v1.AddToScheme(scheme); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	decoder := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	for _, text := range bytes.Split(texts, []byte{0}) {
		line, err := judge(decoder, text, *seccompDefault)
		if err != nil {
			line = "refused " + strings.ReplaceAll(err.Error(), "\n", " ")
		}
		fmt.Println(line)
	}
}

func judge(decoder runtime.Decoder, text []byte, seccompDefault bool) (string, error) {
	object, _, err := decoder.Decode(text, nil, nil)
	if err != nil && !onlyUnknown(err) {
		return "", err
	}
	pod, ok := object.(*v1.Pod)
	if !ok {
		return "", fmt.Errorf("a %T", object)
	}
	if s := pod.Spec.SecurityContext; s != nil {
		if err := valid(s.SeccompProfile); err != nil {
			return "", err
		}
	}
	containers := append(append([]v1.Container{}, pod.Spec.InitContainers...), pod.Spec.Containers...)
	for _, e := range pod.Spec.EphemeralContainers {
		containers = append(containers, v1.Container(e.EphemeralContainerCommon))
	}
	line := "pod"
	for _, c := range containers {
		if s := c.SecurityContext; s != nil {
			if err := valid(s.SeccompProfile); err != nil {
				return "", err
			}
		}
		manager := &kubeGenericRuntimeManager{}
		profile, err := manager.getSeccompProfile(pod.Annotations, c.Name, pod.Spec.SecurityContext, c.SecurityContext, seccompDefault)
		if err != nil {
			return "", err
		}
		effective := DetermineEffectiveSecurityContext(pod, &c)
		privileged := effective.Privileged != nil && *effective.Privileged
		line += fmt.Sprintf(" %s=%s:%s/%t", c.Name, profile.ProfileType, profile.LocalhostRef, privileged)
	}
	return line, nil
}

// onlyUnknown reports whether an error is about unknown fields alone, which a client
// may have the API server drop.
func onlyUnknown(err error) bool {
	strict, is := runtime.AsStrictDecodingError(err)
	if !is {
		return false
	}
	for _, e := range strict.Errors() {
		if !strings.HasPrefix(e.Error(), "unknown field") {
			return false
		}
	}
	return true
}

// valid asks the validation of the API server.
func valid(p *v1.SeccompProfile) error {
	if p == nil {
		return nil
	}
	internal := &core.SeccompProfile{Type: core.SeccompProfileType(p.Type), LocalhostProfile: p.LocalhostProfile}
	return validateSeccompProfileField(internal, field.NewPath("seccompProfile")).ToAggregate()
}
