// Command render makes objects of the chart and of the bases of Kustomize with the
// libraries of helm and kustomize, and asks Kubernetes' own code about objects.
//
//	render helm CHART VALUES…       the chart as helm installs it, in YAML
//	render lint CHART VALUES…       what "helm lint --strict" says; status 1 if anything
//	render kustomize DIRECTORY      what "kustomize build" prints
//	render check < OBJECTS          strict decoding and validation; Pod Security
//	render admit < QUESTION         a ValidatingAdmissionPolicy about updates of nodes
package main

import (
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	chartcommon "helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// release is where the documentation has the chart installed.
var release = chartcommon.ReleaseOptions{Name: "afalg-policy", Namespace: "kube-system", Revision: 1, IsInstall: true}

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "render:", err)
		os.Exit(1)
	}
}

func run(args []string, in io.Reader, out io.Writer) error {
	switch {
	case len(args) >= 2 && args[0] == "helm":
		return renderChart(args[1], args[2:], out)
	case len(args) >= 2 && args[0] == "lint":
		return lintChart(args[1], args[2:], out)
	case len(args) == 2 && args[0] == "kustomize":
		return renderKustomize(args[1], out)
	case len(args) == 1 && args[0] == "check":
		return check(in, out)
	case len(args) == 1 && args[0] == "admit":
		return admit(in, out)
	}
	return fmt.Errorf("usage: render helm|lint CHART VALUES…, render kustomize DIRECTORY, render check, render admit")
}

func values(files []string) (map[string]any, error) {
	all := map[string]any{}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		v, err := loader.LoadValues(f)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all = loader.MergeMaps(all, v)
	}
	return all, nil
}

func renderChart(dir string, files []string, out io.Writer) error {
	c, err := loader.Load(dir)
	if err != nil {
		return err
	}
	v, err := values(files)
	if err != nil {
		return err
	}
	all, err := util.ToRenderValues(c, v, release, nil)
	if err != nil {
		return err
	}
	texts, err := engine.Engine{Strict: true}.Render(c, all)
	if err != nil {
		return err
	}
	var names []string
	for name, text := range texts {
		if strings.HasSuffix(name, ".yaml") && strings.TrimSpace(text) != "" {
			names = append(names, name)
		}
	}
	// helm makes the namespace first, too: the others lie in it.
	slices.SortFunc(names, func(a, b string) int {
		if first := path.Base(b) == "namespace.yaml"; first || path.Base(a) == "namespace.yaml" {
			return map[bool]int{true: 1, false: -1}[first]
		}
		return strings.Compare(a, b)
	})
	for _, name := range names {
		fmt.Fprintf(out, "---\n%s\n", strings.TrimSpace(texts[name]))
	}
	return nil
}

func lintChart(dir string, files []string, out io.Writer) error {
	v, err := values(files)
	if err != nil {
		return err
	}
	found := false
	for _, m := range lint.RunAll(dir, v, release.Namespace).Messages {
		if m.Severity > support.InfoSev {
			found = true
			fmt.Fprintln(out, m)
		}
	}
	if found {
		return fmt.Errorf("lint finds faults")
	}
	return nil
}

func renderKustomize(dir string, out io.Writer) error {
	m, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		return err
	}
	text, err := m.AsYaml()
	if err == nil {
		_, err = out.Write(text)
	}
	return err
}
