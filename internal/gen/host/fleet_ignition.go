package host

import (
	"net/url"

	"go.yaml.in/yaml/v4"

	"github.com/afalg-policy/afalg-policy/internal/gen"
)

// fileMode is what a file of the host gets.
const fileMode = 0o644

func machineConfigName(role string) string { return "99-" + role + "-afalg-policy" }

func machineConfigNotes(c carried) []string {
	return []string{
		"Apply it with: oc apply -f FILE. It is for OpenShift 4.14 and later, and for the nodes of the pool " + c.role + ".",
		"It takes effect node by node: the Machine Config Operator drains and reboots the nodes of the pool, and does so again when this is taken back. See it with: oc get machineconfigpool " + c.role + ".",
		"Undo it with: oc delete machineconfig " + machineConfigName(c.role) + ".",
		"The kernel of RHEL CoreOS has AF_ALG built in: for AF_ALG modprobe.d does nothing there, and the kernel arguments do all.",
		"The initramfs of the image stays as it is: modprobe.d holds from the real root file system on.",
		"A MachineConfig loads no SELinux module: that takes semodule on each node. The files get the label that the policy of the node has for their paths.",
	}
}

// The types have what the output uses of a MachineConfig, and of version 3.4.0
// of Ignition's configuration in it.
type (
	machineConfig struct {
		APIVersion string              `yaml:"apiVersion"`
		Kind       string              `yaml:"kind"`
		Metadata   machineConfigMeta   `yaml:"metadata"`
		Spec       machineConfigObject `yaml:"spec"`
	}
	machineConfigMeta struct {
		Labels map[string]string `yaml:"labels"`
		Name   string            `yaml:"name"`
	}
	machineConfigObject struct {
		Config          ignition `yaml:"config"`
		KernelArguments []string `yaml:"kernelArguments,omitempty"`
	}
	ignition struct {
		Ignition ignitionVersion  `yaml:"ignition"`
		Storage  *ignitionStorage `yaml:"storage,omitempty"`
	}
	ignitionVersion struct {
		Version string `yaml:"version"`
	}
	ignitionStorage struct {
		Files []ignitionFile `yaml:"files"`
	}
	ignitionFile struct {
		Contents  ignitionResource `yaml:"contents"`
		Mode      int              `yaml:"mode"`
		Overwrite bool             `yaml:"overwrite"`
		Path      string           `yaml:"path"`
	}
	ignitionResource struct {
		Compression string `yaml:"compression"`
		Source      string `yaml:"source"`
	}
)

func writeMachineConfig(c carried) ([]gen.File, error) {
	object := machineConfig{
		APIVersion: "machineconfiguration.openshift.io/v1",
		Kind:       "MachineConfig",
		Metadata: machineConfigMeta{
			Labels: map[string]string{"machineconfiguration.openshift.io/role": c.role},
			Name:   machineConfigName(c.role),
		},
		Spec: machineConfigObject{
			Config:          ignition{Ignition: ignitionVersion{"3.4.0"}},
			KernelArguments: c.arguments,
		},
	}
	if len(c.files) > 0 {
		object.Spec.Config.Storage = &ignitionStorage{}
	}
	for _, f := range c.files {
		object.Spec.Config.Storage.Files = append(object.Spec.Config.Storage.Files, ignitionFile{
			Contents:  ignitionResource{Source: "data:," + url.PathEscape(string(f.Data))},
			Mode:      fileMode,
			Overwrite: true,
			Path:      "/" + f.Path,
		})
	}
	text, err := yamlText(c.head, object)
	return []gen.File{{Path: machineConfigName(c.role) + ".yaml", Data: text}}, err
}

func butaneNotes(carried) []string {
	return []string{
		"Turn it into a configuration of Ignition with: butane --strict FILE. It is for Fedora CoreOS, and merges into another by ignition.config.merge.",
		"It takes effect at the first boot of a new machine, before any service of it starts: the kernel arguments by a reboot within that boot. Ignition changes no machine that runs already.",
		"Undo it on a machine with: rm the files; rpm-ostree kargs --delete-if-present=ARGUMENT for each kernel argument; reboot.",
		"The initramfs of the image stays as it is: modprobe.d holds from the real root file system on.",
		"Ignition loads no SELinux module: that takes semodule on each machine.",
	}
}

// The types have what the output uses of Butane's variant fcos.
type (
	butane struct {
		Variant         string           `yaml:"variant"`
		Version         string           `yaml:"version"`
		Storage         *butaneStorage   `yaml:"storage,omitempty"`
		KernelArguments *butaneArguments `yaml:"kernel_arguments,omitempty"`
	}
	butaneStorage struct {
		Files []butaneFile `yaml:"files"`
	}
	butaneFile struct {
		Path      string         `yaml:"path"`
		Mode      octal          `yaml:"mode"`
		Overwrite bool           `yaml:"overwrite"`
		Contents  butaneContents `yaml:"contents"`
	}
	butaneContents struct {
		Inline string `yaml:"inline"`
	}
	butaneArguments struct {
		ShouldExist []string `yaml:"should_exist"`
	}
)

// octal is a number that people read as the mode of a file.
type octal string

// MarshalYAML writes the number as it stands.
func (o octal) MarshalYAML() (any, error) {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: string(o)}, nil
}

func writeButane(c carried) ([]gen.File, error) {
	object := butane{Variant: "fcos", Version: "1.5.0"}
	if len(c.files) > 0 {
		object.Storage = &butaneStorage{}
	}
	for _, f := range c.files {
		object.Storage.Files = append(object.Storage.Files, butaneFile{
			Path: "/" + f.Path, Mode: "0644", Overwrite: true, Contents: butaneContents{string(f.Data)},
		})
	}
	if len(c.arguments) > 0 {
		object.KernelArguments = &butaneArguments{c.arguments}
	}
	text, err := yamlText(c.head, object)
	return []gen.File{{Path: "afalg-policy.bu", Data: text}}, err
}
