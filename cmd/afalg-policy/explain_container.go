package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/report"
)

// containerFacts are what a platform would vouch for, as flags spell it.
type containerFacts struct {
	platform            *choice
	identity            plan.Identity
	labels, annotations []string
}

func addContainerFacts(cmd *cobra.Command) *containerFacts {
	c := &containerFacts{platform: newChoice("docker", "podman", "containerd", "crio", "oci")}
	f := cmd.Flags()
	addChoice(cmd, c.platform, "platform", "", "`PLATFORM` that starts the container: "+strings.Join(c.platform.words, ", "))
	f.StringVar(&c.identity.Name, "name", "", "`NAME` of the container that asks: what it is granted holds, and no more")
	f.StringArrayVar(&c.identity.Images, "image", nil, "`DIGEST` of its image, sha256:…; may be repeated")
	f.BoolVar(&c.identity.Build, "build", false, "it is a step of an image build")
	f.StringVar(&c.identity.Namespace, "namespace", "", "`NAMESPACE` that it is in")
	f.StringVar(&c.identity.Pod, "pod", "", "`POD` that it is in")
	f.StringArrayVar(&c.labels, "label", nil, "label of the container, as `KEY=VALUE`; may be repeated")
	f.StringArrayVar(&c.annotations, "annotation", nil, "annotation of the container, as `KEY=VALUE`; may be repeated")
	return c
}

// container is nil if no flag says anything of one.
func (f *containerFacts) container() (*plan.Container, error) {
	i := f.identity
	var err error
	if i.Labels, err = pairsOf("--label", f.labels); err != nil {
		return nil, err
	}
	if i.Annotations, err = pairsOf("--annotation", f.annotations); err != nil {
		return nil, err
	}
	if !i.Build && i.Name == "" && i.Namespace == "" && i.Pod == "" && len(i.Images)+len(i.Labels)+len(i.Annotations) == 0 {
		return nil, nil
	}
	return &plan.Container{Platform: f.platform.value, Vouched: i}, nil
}

func pairsOf(flag string, texts []string) (map[string]string, error) {
	pairs := map[string]string{}
	for _, text := range texts {
		key, value, found := strings.Cut(text, "=")
		if !found {
			return nil, usagef("%s %s: write KEY=VALUE", flag, text)
		}
		pairs[key] = value
	}
	return pairs, nil
}

// showHeld prints what a container is granted.
func showHeld(t *tui, p *plan.Plan, c plan.Container, asJSON bool) error {
	held := report.NewHeld(p, c)
	return t.answer(held, asJSON, held.Verdict != report.Denied)
}
