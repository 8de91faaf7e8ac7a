package hostfacts

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/kernel"
	"github.com/afalg-policy/afalg-policy/internal/printable"
)

// options has the option of the kernel for each module that hardening may be about.
// [src: the Kconfig and Makefile of each, Linux 6.12]
var options = map[string]string{
	"af_alg": "CRYPTO_USER_API", "algif_hash": "CRYPTO_USER_API_HASH", "algif_skcipher": "CRYPTO_USER_API_SKCIPHER",
	"algif_aead": "CRYPTO_USER_API_AEAD", "algif_rng": "CRYPTO_USER_API_RNG",
	"rxrpc": "AF_RXRPC", "rds": "RDS", "rds_tcp": "RDS_TCP", "rds_rdma": "RDS_RDMA", "af_key": "NET_KEY", "xfrm_user": "XFRM_USER", "tipc": "TIPC", "vsock": "VSOCKETS",
	"smc": "SMC", "kcm": "AF_KCM", "qrtr": "QRTR", "phonet": "PHONET", "pn_pep": "PHONET", "nfc": "NFC", "llc2": "LLC2", "x25": "X25",
	"atm": "ATM", "appletalk": "ATALK", "ax25": "AX25", "netrom": "NETROM", "rose": "ROSE", "caif_socket": "CAIF",
	"caif": "CAIF", "mctp": "MCTP", "ieee802154_socket": "IEEE802154_SOCKET", "ipx": "IPX",
	"mISDN_core": "MISDN", "nfnetlink": "NETFILTER_NETLINK", "crypto_user": "CRYPTO_USER", "af_packet": "PACKET",
}

// Option is the option of the kernel that brings a module, without "CONFIG_"; empty
// if it is not known.
func Option(module string) string { return options[Name(module)] }

// since has the Linux that brought a sysctl.
var since = map[string]kernel.Version{"crypto.af_alg_restrict": {Major: 7, Minor: 3}}

// conclude says where each module is, as far as the facts agree, and notes where
// they do not. A module about which they do not agree is unknown.
func (f *Facts) conclude() {
	for _, module := range slices.Sorted(maps.Keys(f.both)) {
		f.doubt(module, "modules.builtin has %[1]s, and modules.dep has a file of it", module)
	}
	for _, module := range slices.Sorted(maps.Keys(options)) {
		if f.Config != nil {
			f.compare(module, "CONFIG_"+options[module], f.Config[options[module]])
		}
	}
	for _, module := range slices.Sorted(maps.Keys(f.Loaded)) {
		switch f.Presence(module) {
		case Builtin:
			f.doubt(module, "%s is loaded as a module, and counts as built in", module)
		case Absent, Unknown:
			if _, doubted := f.Modules[module]; f.Complete && !doubted {
				f.contradict(fmt.Sprintf("%s is loaded, and the host has no file of it: the modules may be those of another kernel", module))
			}
			f.set(module, Module)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(since)) {
		if _, ok := f.Sysctls[key]; ok && f.Before(since[key]) {
			f.contradict(fmt.Sprintf("%s exists, and Linux has it since %s, while this is %s: it may have been taken over", key, since[key], printable.Line(f.Release)))
		}
	}
}

// compare takes what an option says of a module.
func (f *Facts) compare(module, option, value string) {
	said := map[string]Presence{"y": Builtin, "m": Module, "n": Absent, "": Absent}[value]
	has, read := f.Modules[module]
	switch {
	case said == Unknown:
		f.contradict(fmt.Sprintf("%s is %s, which is neither y, m nor n", option, printable.Cut(value, 40)))
	case read && has == Unknown: // it is in doubt already
	case read && has != said:
		f.doubt(module, "%s is %s, and %s", option, orN(value), map[Presence]string{
			Builtin: "modules.builtin has " + module, Module: "modules.dep has a file of " + module}[has])
	case !read && said == Builtin && f.builtinRead:
		f.doubt(module, "%s is y, and modules.builtin lacks %s", option, module)
	case !read:
		f.set(module, said) // a module without a file may come with a package
	}
}

func orN(value string) string {
	if value == "" {
		return "n"
	}
	return value
}

// doubt notes a contradiction about a module, which is unknown from then on.
func (f *Facts) doubt(module, format string, args ...any) {
	f.contradict(fmt.Sprintf(format, args...))
	f.set(module, Unknown)
}

func (f *Facts) set(module string, p Presence) {
	if f.Modules == nil {
		f.Modules = map[string]Presence{}
	}
	f.Modules[module] = p
}

func sameFile(a, b fs.FileInfo) bool { return os.SameFile(a, b) }

// refusing are the commands with which a module is known not to be loaded.
var refusing = []string{"/bin/false", "/usr/bin/false", "/sbin/false", "/bin/true", "/usr/bin/true", "/sbin/true"}

// Install is a line of modprobe.d that says what is run in place of loading a
// module.
type Install struct {
	Module  string // as it stands there
	Line    int    // from 1; of lines that are continued, counted as one
	Refuses bool   // the command loads nothing
}

// Installs lists the install lines of a text for modprobe.d.
func Installs(text string) (all []Install) {
	number := 0
	for line := range strings.Lines(strings.ReplaceAll(text, "\\\n", " ")) {
		number++
		if words := strings.Fields(line); len(words) > 2 && words[0] == "install" {
			all = append(all, Install{words[1], number, len(words) == 3 && slices.Contains(refusing, words[2])})
		}
	}
	return all
}

// Refused lists the modules that a text for modprobe.d refuses to load.
func Refused(text string) (modules []string) {
	for _, i := range Installs(text) {
		if i.Refuses {
			modules = append(modules, i.Module)
		}
	}
	return modules
}

// MissingArguments is what arguments of a kernel lack of a wanted one, whose values
// are joined by commas; empty if nothing.
func MissingArguments(cmdline []string, wanted string) string {
	name, list, _ := strings.Cut(wanted, "=")
	has := map[string]bool{}
	for _, argument := range cmdline {
		if values, ok := strings.CutPrefix(argument, name+"="); ok {
			for value := range strings.SplitSeq(values, ",") {
				has[value] = true
			}
		}
	}
	values := slices.DeleteFunc(strings.Split(list, ","), func(v string) bool { return has[v] })
	if len(values) == 0 {
		return ""
	}
	return name + "=" + strings.Join(values, ",")
}

// Set has the settings of a text for sysctl.d.
func Set(text string) map[string]string {
	set := map[string]string{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if key, value, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") {
			set[strings.TrimPrefix(strings.TrimSpace(key), "-")] = strings.TrimSpace(value)
		}
	}
	return set
}
