package host

import (
	"fmt"

	"github.com/afalg-policy/afalg-policy/internal/gen"
)

func cloudInitNotes(c carried) []string {
	notes := []string{
		"Give it to a new instance as user data, alone or as a part of what it has. cloud-init acts on it once, at the first boot: an instance that runs already does not change.",
		"It takes effect as cloud-init writes files, in the first boot: what was loaded or opened before stays until a reboot.",
		"The initramfs has a copy of modprobe.d of its own, which this leaves as it is: update-initramfs -u -k all, or dracut -f --regenerate-all, makes it anew.",
		"Undo it on an instance with: rm the files; reboot.",
		"SELinux modules are not part of it.",
	}
	if len(c.arguments) > 0 {
		notes[1] += " The kernel arguments take effect at the next boot; \"power_state: {mode: reboot}\" in the user data makes that one follow."
		notes[3] = "Undo it on an instance with: rm the files; update-grub, or grubby --update-kernel=ALL --remove-args=ARGUMENT for each kernel argument; reboot."
	}
	return notes
}

// The types have what the output uses of cloud-init's cloud-config.
type (
	cloudConfig struct {
		WriteFiles []cloudFile `yaml:"write_files,omitempty"`
		RunCmd     [][]string  `yaml:"runcmd,omitempty"`
	}
	cloudFile struct {
		Path        string `yaml:"path"`
		Owner       string `yaml:"owner"`
		Permissions string `yaml:"permissions"`
		Content     string `yaml:"content"`
	}
)

func writeCloudInit(c carried) ([]gen.File, error) {
	files := c.files
	var config cloudConfig
	for _, path := range c.below(sysctlDir) {
		config.RunCmd = append(config.RunCmd, []string{setSysctls, path})
	}
	if len(c.arguments) > 0 {
		files = append(files, grubFile(c.arguments))
		config.RunCmd = append(config.RunCmd, append([]string{"sh", "-c", tellBootLoader, "afalg-policy"}, c.arguments...))
	}
	for _, f := range files {
		config.WriteFiles = append(config.WriteFiles, cloudFile{
			Path: "/" + f.Path, Owner: "root:root", Permissions: fmt.Sprintf("%#o", fileMode), Content: string(f.Data),
		})
	}
	text, err := yamlText("#cloud-config\n"+c.head, config)
	return []gen.File{{Path: "afalg-policy.cloud-config.yaml", Data: text}}, err
}

const (
	sysctlDir = "/etc/sysctl.d/"
	// setSysctls sets those of one file as they are set at each boot.
	setSysctls = "/usr/lib/systemd/systemd-sysctl"
)
