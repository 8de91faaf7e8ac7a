package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/hostfacts"
	"github.com/afalg-policy/afalg-policy/internal/install/host"
)

const (
	settingsName = "host"
	modprobeDir  = "/etc/modprobe.d"
	sysctlDir    = "/etc/sysctl.d"
	grubDir      = "/etc/default/grub.d"
	grubFile     = grubDir + "/afalg-policy.cfg"
	argumentFile = "/etc/afalg-policy/kernel-arguments"
	wasPrefix    = "was " // begins the option of a record that has the value of a sysctl before
)

// settings close what the policy uses nowhere for the whole host, as "generate
// host" does. The sysctls are in force at once.
func settings() platform {
	return platform{
		name:     settingsName,
		programs: []string{"modprobe"},
		configs:  []string{modprobeDir, sysctlDir},
		files:    settingsFiles,
		commands: settingsCommands,
		active:   settingsActive,
		probe:    settingsProbe,
		start:    settingsStart,
		stop:     settingsStop,
	}
}

func settingsFiles(h *host.Host, o Options) (job, error) {
	made, err := o.Settings()
	if err != nil {
		return job{}, err
	}
	var j job
	for _, p := range slices.Sorted(maps.Keys(made)) {
		j.files = append(j.files, host.File{Path: "/" + p, Mode: host.Plain, Data: append([]byte(comment(settingsName)), made[p]...)})
	}
	text, ok := made[strings.TrimPrefix(argumentFile, "/")]
	if !ok {
		return j, nil
	}
	line := strings.Join(argumentsIn(text), " ")
	if info, err := h.Stat(grubDir); err == nil && info.IsDir() {
		j.files = append(j.files, host.File{Path: grubFile, Mode: host.Plain, Data: fmt.Appendf([]byte(comment(settingsName)), "GRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX %s\"\n", line)})
	} else {
		j.notes = append(j.notes, fmt.Sprintf("the boot loader has to be given %s: %s says how", line, h.Shown(argumentFile)))
	}
	return j, nil
}

// argumentsIn are the arguments of the kernel in a file of them.
func argumentsIn(text []byte) (arguments []string) {
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			arguments = append(arguments, line)
		}
	}
	return arguments
}

// settingsCommands bring the files of a record to where they are read from.
func settingsCommands(h *host.Host, r *host.Record) (commands []string) {
	if r.Entry(grubFile) != nil {
		commands = append(commands, "update-grub")
	}
	for _, tool := range []struct{ name, command string }{
		{"dracut", "dracut -f --regenerate-all"}, {"update-initramfs", "update-initramfs -u -k all"}, {"mkinitcpio", "mkinitcpio -P"},
	} {
		if _, err := h.LookPath(tool.name); err == nil {
			return append(commands, tool.command)
		}
	}
	return commands
}

// installedText is what a record put into a directory.
func installedText(r *host.Record, dir string) (text string) {
	for _, e := range r.Files {
		if path.Dir(e.Path) == dir {
			text += string(e.After.Data)
		}
	}
	return text
}

// settingsStart sets the sysctls that this kernel has.
func settingsStart(_ context.Context, r *host.Record) error {
	return writeSysctls(hostfacts.Set(installedText(r, sysctlDir)))
}

// settingsStop gives them the values that they had.
func settingsStop(_ context.Context, r *host.Record, _ bool) error {
	before := map[string]string{}
	for key := range hostfacts.Set(installedText(r, sysctlDir)) {
		if value, ok := r.Options[wasPrefix+key]; ok {
			before[key] = value
		}
	}
	return writeSysctls(before)
}

func sysctlPath(key string) string { return "/proc/sys/" + strings.ReplaceAll(key, ".", "/") }

func writeSysctls(values map[string]string) error {
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(values)) {
		f, err := os.OpenFile(sysctlPath(key), os.O_WRONLY, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the kernel has none, or not yet
		}
		if err == nil {
			_, err = f.WriteString(values[key] + "\n")
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			errs = append(errs, hosterr.Errorf("set %s to %s: %w", key, values[key], err))
		}
	}
	return errors.Join(errs...)
}

// was keeps the values that an earlier installation noted of sysctls: those of now
// are its own.
func (o *Options) was(old *host.Record) {
	if old == nil {
		return
	}
	for key := range o.Sysctls {
		if value, ok := old.Options[wasPrefix+key]; ok {
			o.Sysctls[key] = value
		}
	}
}

// settingsActive asks modprobe, the kernel and its command line.
func settingsActive(ctx context.Context, r *host.Record) error {
	f, err := hostfacts.Read("/", hostfacts.Given{})
	if err != nil {
		return err
	}
	faults := settingsFaults(r, f)
	for _, module := range hostfacts.Refused(installedText(r, modprobeDir)) {
		if f.Presence(module) == hostfacts.Builtin {
			continue // modprobe has nothing to load
		}
		out, err := ask(ctx, "modprobe", "--dry-run", "--verbose", module)
		switch {
		case strings.Contains(out, "install /bin/false"):
		case err != nil:
			faults = append(faults, fmt.Sprintf("modprobe cannot say whether it refuses %s: %v", module, err))
		default:
			faults = append(faults, fmt.Sprintf("modprobe would load %s: another file of modprobe.d comes before", module))
		}
	}
	if faults == nil {
		return nil
	}
	return errors.New(strings.Join(faults, "; "))
}

// settingsFaults is what is not in force of a record, by the facts of the host.
func settingsFaults(r *host.Record, f hostfacts.Facts) (faults []string) {
	for _, module := range hostfacts.Refused(installedText(r, modprobeDir)) {
		if f.IsLoaded(module) {
			faults = append(faults, fmt.Sprintf("%s is loaded: unload it (modprobe -r %s), or boot again", module, module))
		}
	}
	want := hostfacts.Set(installedText(r, sysctlDir))
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if now, ok := f.Sysctls[key]; ok && now != want[key] {
			faults = append(faults, fmt.Sprintf("%s is %s and not %s: sysctl --system sets it, if no later file says otherwise", key, now, want[key]))
		}
	}
	for _, argument := range argumentsIn([]byte(installedText(r, path.Dir(argumentFile)))) {
		if missing := hostfacts.MissingArguments(f.Cmdline, argument); missing != "" {
			faults = append(faults, fmt.Sprintf("the kernel was started without %s: in force after the boot loader has it, and the next boot", missing))
		}
	}
	return faults
}

// asked is an algorithm of each type that every kernel has. A bind to it loads
// what can be loaded.
var asked = map[string]unix.SockaddrALG{
	"algif_aead":     {Type: "aead", Name: "gcm(aes)"},
	"algif_hash":     {Type: "hash", Name: "sha256"},
	"algif_rng":      {Type: "rng", Name: "stdrng"},
	"algif_skcipher": {Type: "skcipher", Name: "cbc(aes)"},
}

// settingsProbe binds to an algorithm of each type whose module is refused.
func settingsProbe(ctx context.Context, _ string) error {
	h, err := host.Open("/")
	if err != nil {
		return err
	}
	defer h.Close()
	r, err := h.ReadRecord(settingsName)
	if err != nil || r == nil {
		return errors.Join(err, fs.ErrNotExist)
	}
	closed := hostfacts.Refused(installedText(r, modprobeDir))
	var open []string
	for _, module := range slices.Sorted(maps.Keys(asked)) {
		if address := asked[module]; slices.Contains(closed, module) && binds(&address) {
			open = append(open, module)
		}
	}
	if open != nil {
		return fmt.Errorf("a socket was bound by %s", strings.Join(open, ", "))
	}
	return ctx.Err()
}

func binds(address *unix.SockaddrALG) bool {
	fd, err := unix.Socket(unix.AF_ALG, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return unix.Bind(fd, address) == nil
}
