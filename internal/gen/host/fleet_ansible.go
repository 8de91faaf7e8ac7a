package host

import (
	"embed"
	"io/fs"
	"path"
	"slices"

	"github.com/afalg-policy/afalg-policy/internal/gen"
)

// ansibleRole has the files of the role that are the same for every policy: what
// differs is in its variables.
//
//go:embed ansible
var ansibleRole embed.FS

// ansibleDir is the role, by its name.
const ansibleDir = "afalg_policy"

func ansibleNotes(carried) []string {
	return []string{
		"Give the hosts the role " + ansibleDir + ", as root, from a directory in roles_path. The variable afalg_policy_state is present, or absent to take everything back. Run it with --check --diff to see what would change.",
		"It takes effect at once for sysctls and for modules that are not loaded yet, and at the next boot for others and for kernel arguments. The role says which modules are loaded, and reboots nothing.",
		"The initramfs has a copy of modprobe.d of its own: afalg_policy_initramfs=true makes it anew, for all kernels. Keep one that boots.",
		"Undo it with: ansible-playbook PLAYBOOK -e afalg_policy_state=absent. Sysctls and loaded modules stay as they are until the next boot.",
		"Kernel arguments go to grubby, or to GRUB by /etc/default/grub.d; on a host that has neither the role stops. Before a role with other kernel arguments is used, take back the old one.",
		"SELinux modules are not part of it.",
	}
}

// ansibleVars are the variables of the role that nobody sets.
type ansibleVars struct {
	Files       []string `yaml:"afalg_policy_files"`
	Gone        []string `yaml:"afalg_policy_gone"`
	SysctlFiles []string `yaml:"afalg_policy_sysctl_files"`
	SetSysctls  string   `yaml:"afalg_policy_set_sysctls"`
	Modules     []string `yaml:"afalg_policy_modules"`
	Arguments   []string `yaml:"afalg_policy_arguments"`
	GrubFile    string   `yaml:"afalg_policy_grub_file"`
}

func writeAnsible(c carried) ([]gen.File, error) {
	vars := ansibleVars{
		Files: c.below("/"), Gone: c.gone(), SysctlFiles: c.below(sysctlDir), SetSysctls: setSysctls,
		Modules: []string{}, Arguments: c.arguments, GrubFile: "/" + grubPath,
	}
	if vars.Arguments == nil {
		vars.Arguments = []string{}
	}
	for _, m := range c.Modules {
		vars.Modules = append(vars.Modules, m.Module)
	}
	text, err := yamlText("---\n", vars)
	if err != nil {
		return nil, err
	}
	out := []gen.File{{Path: ansibleDir + "/vars/main.yml", Data: text}}
	carry := c.files
	if len(c.arguments) > 0 {
		carry = append(slices.Clone(carry), grubFile(c.arguments))
	}
	for _, f := range carry {
		out = append(out, gen.File{Path: path.Join(ansibleDir, "files", f.Path), Data: f.Data})
	}
	err = fs.WalkDir(ansibleRole, "ansible", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := ansibleRole.ReadFile(name)
		out = append(out, gen.File{Path: ansibleDir + name[len("ansible"):], Data: append([]byte(c.head), data...)})
		return err
	})
	return out, err
}

// gone are files of the host that an earlier policy may have put there.
func (c carried) gone() []string {
	gone := []string{}
	for _, name := range []string{ModprobePath, SysctlPath, UdevPath} {
		if !slices.ContainsFunc(c.files, func(f gen.File) bool { return f.Path == name }) {
			gone = append(gone, "/"+name)
		}
	}
	return gone
}
