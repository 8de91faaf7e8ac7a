package hostfacts

import (
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/bounded"
	"github.com/afalg-policy/afalg-policy/internal/install/host"
	"github.com/afalg-policy/afalg-policy/internal/kernel"
	"github.com/afalg-policy/afalg-policy/internal/printable"
)

// Given are facts that somebody tells, each in place of what files say. An empty
// field tells nothing.
type Given struct {
	Release string // as uname -r prints it
	Builtin []byte // modules.builtin
	Config  []byte // options of the kernel, as a text or packed by gzip
}

// Told are facts as they were given, and no others.
func Told(g Given) (Facts, error) {
	var f Facts
	return f, f.tell(g)
}

// Read reads the facts of the host, or of the image, whose files are below a root.
// What is given counts instead. A file that cannot be read is unknown, and named in
// Facts.Unread; only what is given is an error.
func Read(root string, g Given) (Facts, error) {
	h, err := host.Open(root)
	if err != nil {
		return Facts{}, err
	}
	defer h.Close()
	r := reader{h: h}
	if r.Release = g.Release; r.Release == "" {
		r.Release = r.release()
	}
	r.modules(g)
	r.running()
	r.security()
	r.boot()
	if err := r.tell(g); err != nil {
		return Facts{}, err
	}
	return r.Facts, nil
}

// tell takes what is given, and concludes.
func (f *Facts) tell(g Given) error {
	if g.Release != "" {
		v, err := kernel.ParseRelease(g.Release)
		if err != nil {
			return &GivenError{"release", err}
		}
		f.Release, f.Version = g.Release, v
	} else if v, err := kernel.ParseRelease(f.Release); err == nil {
		f.Version = v
	}
	if g.Builtin != nil {
		if err := f.takeBuiltin(g.Builtin); err != nil {
			return &GivenError{"modules.builtin", err}
		}
	}
	if g.Config != nil {
		config, err := configOf(g.Config)
		if err != nil {
			return &GivenError{"options of the kernel", err}
		}
		f.Config = config
	}
	f.conclude()
	return nil
}

// GivenError says what is wrong with a text that was given.
type GivenError struct {
	What string
	Err  error
}

func (e *GivenError) Error() string { return e.What + ": " + e.Err.Error() }
func (e *GivenError) Unwrap() error { return e.Err }

// reader reads facts from files.
type reader struct {
	h *host.Host
	Facts
}

// text returns what a file says, or nothing.
func (r *reader) text(p string) ([]byte, bool) {
	info, err := r.h.Stat(p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false
	}
	var text []byte
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is " + bounded.Kind(info.Mode()))
	}
	if err == nil {
		text, err = r.h.Follow(p)
	}
	if err != nil {
		r.unread(p, err)
		return nil, false
	}
	r.Sources = append(r.Sources, p)
	return text, true
}

// word is what a file says, if that is one short line.
func (r *reader) word(p string) (string, bool) {
	text, ok := r.text(p)
	return printable.Cut(strings.TrimSpace(string(text)), 200), ok
}

func (r *reader) unread(p string, err error) {
	why := strings.TrimPrefix(err.Error(), "read "+r.h.Shown(p)+": ")
	r.Sources = slices.DeleteFunc(r.Sources, func(s string) bool { return s == p })
	r.Unread = append(r.Unread, Unread{p, why})
}

// take reads a file by a function that may refuse it.
func (r *reader) take(p string, read func([]byte) error) bool {
	text, ok := r.text(p)
	if !ok {
		return false
	}
	if err := read(text); err != nil {
		r.unread(p, err)
		return false
	}
	return true
}

// moduleDirs are the directories of kernels.
var moduleDirs = []string{"/lib/modules", "/usr/lib/modules"}

// release is that of the running kernel, or of the only one of an image.
func (r *reader) release() string {
	if word, ok := r.word("/proc/sys/kernel/osrelease"); ok {
		return word
	}
	var all []string
	for _, dir := range moduleDirs {
		kernels, err := r.h.List(dir, "")
		if err != nil {
			r.unread(dir, err)
		}
		for _, k := range kernels {
			all = append(all, path.Base(k))
		}
	}
	slices.Sort(all)
	if all = slices.Compact(all); len(all) > 1 {
		r.contradict("the image has more than one kernel, " + printable.Cut(strings.Join(all, " and "), 200) + ": nothing is read of any")
	}
	if len(all) != 1 {
		return ""
	}
	return all[0]
}

func (r *reader) modules(g Given) {
	if r.Release == "" || strings.ContainsAny(r.Release, "/\n") || r.Release == ".." {
		return
	}
	dir := moduleDirs[0]
	if !r.h.Exists(path.Join(dir, r.Release)) {
		dir = moduleDirs[1]
	}
	dir = path.Join(dir, r.Release)
	builtin := g.Builtin != nil
	if !builtin {
		builtin = r.take(path.Join(dir, "modules.builtin"), r.takeBuiltin)
	}
	files := r.take(path.Join(dir, "modules.dep"), r.takeFiles)
	r.Complete = builtin && files
	if g.Config != nil {
		return
	}
	for _, p := range []string{"/proc/config.gz", "/boot/config-" + r.Release, path.Join(dir, "config"), "/usr/lib/kernel/config-" + r.Release} {
		if r.take(p, r.takeConfig) {
			return
		}
	}
}

func (f *Facts) takeBuiltin(text []byte) error { return f.takeModules(text, maxBuiltin, Builtin) }
func (f *Facts) takeFiles(text []byte) error   { return f.takeModules(text, maxDep, Module) }

func (f *Facts) takeConfig(text []byte) (err error) {
	f.Config, err = configOf(text)
	return err
}

func (f *Facts) takeModules(text []byte, limit int, p Presence) error {
	names, err := modulesOf(text, limit)
	if err != nil {
		return err
	}
	if f.Modules == nil {
		f.Modules = map[string]Presence{}
	}
	for _, name := range names {
		if was, ok := f.Modules[name]; ok && was != p {
			if f.both == nil {
				f.both = map[string]bool{}
			}
			f.both[name] = true
		}
		f.Modules[name] = p
	}
	if p == Builtin {
		f.builtinRead = true
	}
	return nil
}

// sysctls are those that hardening is about.
var sysctls = []string{
	"crypto.af_alg_restrict", "kernel.apparmor_restrict_unprivileged_userns", "kernel.modprobe",
	"kernel.modules_disabled", "kernel.unprivileged_userns_clone", "user.max_user_namespaces",
}

// running reads what the running kernel says. An image has none of it.
func (r *reader) running() {
	r.take("/proc/modules", func(text []byte) error {
		names, err := loadedOf(text)
		if err != nil {
			return err
		}
		r.Loaded = map[string]bool{}
		for _, name := range names {
			r.Loaded[name] = true
		}
		return nil
	})
	for _, key := range sysctls {
		if value, ok := r.word("/proc/sys/" + strings.ReplaceAll(key, ".", "/")); ok {
			if r.Sysctls == nil {
				r.Sysctls = map[string]string{}
			}
			r.Sysctls[key] = value
		}
	}
	if text, ok := r.text("/proc/cmdline"); ok {
		r.Cmdline = []string{}
		for word := range strings.FieldsSeq(string(text)) {
			r.Cmdline = append(r.Cmdline, printable.Line(word))
		}
	}
}

func (r *reader) security() {
	if text, ok := r.word("/sys/kernel/security/lsm"); ok && text != "" {
		r.LSMs = strings.Split(text, ",")
	}
	if text, ok := r.text("/etc/selinux/config"); ok {
		r.SELinux.Mode, r.SELinux.Type = setting(string(text), "SELINUX"), setting(string(text), "SELINUXTYPE")
	}
	if word, ok := r.word("/sys/fs/selinux/enforce"); ok {
		r.SELinux.Mode = map[string]string{"0": "permissive", "1": "enforcing"}[word]
	} else if r.LSMs != nil && !r.HasLSM("selinux") && r.SELinux.Mode != "" {
		r.SELinux.Mode = "disabled"
	}
	for _, dir := range []string{"/var/lib/selinux", "/etc/selinux"} {
		stores, err := r.h.List(dir, "")
		if err != nil {
			r.unread(dir, err)
		}
		for _, s := range stores {
			if r.h.Exists(path.Join(s, "active")) || r.h.Exists(path.Join(s, "policy")) {
				r.SELinux.Policies = append(r.SELinux.Policies, printable.Line(path.Base(s)))
			}
		}
	}
	slices.Sort(r.SELinux.Policies)
	r.SELinux.Policies = slices.Compact(r.SELinux.Policies)
	if text, ok := r.text("/var/lib/dpkg/status"); ok {
		r.SELinux.Userspace = libsepol(string(text))
	}
}

// loaders are found by a file or a directory of theirs.
var loaders = []struct{ name, path string }{
	{"grub.d", "/etc/default/grub.d"},
	{"grub", "/etc/default/grub"},
	{"grubby", "/usr/sbin/grubby"},
	{"kernel-install", "/etc/kernel/cmdline"},
	{"rpm-ostree", "/run/ostree-booted"},
	{"extlinux", "/boot/extlinux/extlinux.conf"},
	{"zipl", "/etc/zipl.conf"},
}

// initramfsTools make an initramfs, the first that is there. dracut goes first:
// Debian has it in place of the other.
var initramfsTools = []string{"dracut", "update-initramfs", "mkinitcpio", "booster"}

func (r *reader) boot() {
	for _, l := range loaders {
		if r.h.Exists(l.path) {
			r.Loaders = append(r.Loaders, l.name)
		}
	}
	for _, tool := range initramfsTools {
		if _, err := r.h.LookPath(tool); err == nil {
			r.Initramfs = tool
			break
		}
	}
	if p, err := r.h.LookPath("modprobe"); err == nil {
		r.Modprobe = r.modprobe(p)
	}
}

// modprobe tells whose a program of that name is: both have it as a link.
func (r *reader) modprobe(p string) string {
	for _, whose := range []string{"kmod", "busybox"} {
		for _, dir := range []string{path.Dir(p), "/bin", "/usr/bin"} {
			a, err := r.h.Stat(p)
			b, err2 := r.h.Stat(path.Join(dir, whose))
			if err == nil && err2 == nil && sameFile(a, b) {
				return whose
			}
		}
	}
	return ""
}

// contradict notes facts that exclude each other.
func (f *Facts) contradict(text string) {
	if !slices.Contains(f.Contradictions, text) {
		f.Contradictions = append(f.Contradictions, text)
	}
}
