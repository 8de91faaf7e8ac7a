package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/afalg-policy/afalg-policy/internal/gen"
	"github.com/afalg-policy/afalg-policy/internal/gen/host"
	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/hostfacts"
	"github.com/afalg-policy/afalg-policy/internal/install"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

func hostTarget() target {
	return target{
		name:  "host",
		short: "Write modprobe.d, sysctl.d and kernel arguments for a host",
		long: `Host writes what closes, for the whole host, what the policy uses nowhere: types
of algorithms that no rule allows, AF_ALG itself if none allows any, and what
"deny" closes besides. modprobe then refuses the modules, the kernel does not
set up what is built in (initcall_blacklist=), and sysctls are set where the
kernel has a switch of its own.

These settings see neither who asks nor the algorithm. Of a type that a rule
uses, everything stays open to everybody: each such rule is a wider gap, which
has to be accepted by its name. Another target closes the rest.

Without facts of the host the output is right for any. With --host-root / it is
for this one, with another directory for the image below it; --kernel-release,
--modules-builtin and --config tell single facts, and count before what files
say. What is known to be a module then needs no argument of the kernel.

What the output breaks, what it leaves open, when it takes effect and how it is
undone is said on standard error, and in the files. No argument of the kernel is
set by itself: the file says how each boot loader is given it. The initramfs has
a copy of modprobe.d.

--form writes the same settings as a fleet takes them: as a role of Ansible, as
user data of cloud-init or Bottlerocket, for Butane, or as a MachineConfig. The
comment at the head says when it takes effect, and how it is undone.`,
		example: `  afalg-policy generate host builtin:baseline -o out
  afalg-policy generate host policy.yaml --host-root / --accept iwd -o out
  afalg-policy generate host policy.yaml --modules-builtin modules.builtin --kernel-release 5.14.0-570.el9.x86_64 -o out
  afalg-policy generate host builtin:baseline --form machineconfig --role worker -o out`,
		directory: true,
		tells:     true,
		flags:     hostFlags,
	}
}

// maxFacts bounds a file with facts in bytes.
const maxFacts = 16 << 20

func hostFlags(cmd *cobra.Command) generator {
	f := cmd.Flags()
	root := f.String("host-root", "", "read the facts of the host below `DIR`; / is this one")
	release := f.String("kernel-release", "", "the kernel's `RELEASE`, as uname -r prints it")
	builtin := f.String("modules-builtin", "", "`FILE` with what is built in: the kernel's modules.builtin")
	config := f.String("config", "", "`FILE` with the kernel's options, as /boot/config-*, or packed as /proc/config.gz")
	var names []string
	for _, form := range host.Forms() {
		names = append(names, form.Name)
	}
	form := newChoice(names...)
	addChoice(cmd, form, "form", "", "what to write the settings as")
	role := f.String("role", "", "`NAME` of the pool of nodes that a MachineConfig is for; "+host.DefaultRole+" without it")
	return func(p *plan.Plan, c gen.Common) ([]gen.File, []plan.Gap, error) {
		if *role != "" && form.value != "machineconfig" {
			return nil, nil, usagef("--role is of --form machineconfig alone")
		}
		facts, err := factsOf(*root, *release, *builtin, *config)
		if err != nil {
			return nil, nil, err
		}
		made, _, gaps, err := host.Host(p, facts, formOf(form.value), host.Options{Common: c, Role: *role})
		return made, gaps, err
	}
}

func formOf(name string) host.Form {
	for _, form := range host.Forms() {
		if form.Name == name {
			return form
		}
	}
	return host.Form{} // the flag takes no other name
}

// factsOf reads the facts that the command line names.
func factsOf(root, release, builtin, config string) (hostfacts.Facts, error) {
	given := hostfacts.Given{Release: release}
	for _, file := range []struct {
		path string
		text *[]byte
	}{{builtin, &given.Builtin}, {config, &given.Config}} {
		if file.path == "" {
			continue
		}
		text, err := readInput(file.path, maxFacts)
		if err != nil {
			return hostfacts.Facts{}, err
		}
		*file.text = append([]byte{}, text...) // an empty file says something
	}
	read := func() (hostfacts.Facts, error) { return hostfacts.Told(given) }
	if root != "" {
		read = func() (hostfacts.Facts, error) { return hostfacts.Read(root, given) }
	}
	f, err := read()
	var told *hostfacts.GivenError
	var option *install.OptionError
	switch {
	case err == nil:
		return f, nil
	case errors.As(err, &told), errors.As(err, &option):
		return f, usagef("facts of the host: %w", err)
	}
	return f, hosterr.Errorf("facts of the host: %w", err)
}
