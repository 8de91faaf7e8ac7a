package kernel

import (
	"os"
	"path/filepath"
	"testing"
)

func TestParseRelease(t *testing.T) {
	for _, tt := range []struct {
		release string
		want    Version
		err     string
	}{
		{"6.12.0-rc1-amd64", Version{6, 12}, ""},
		{"6.1", Version{6, 1}, ""},
		{"5.19-generic", Version{5, 19}, ""},
		{"10.0.1", Version{10, 0}, ""},
		{"6", Version{}, `kernel release "6": no version at its start`},
		{"", Version{}, `kernel release "": no version at its start`},
		{"6.", Version{}, `kernel release "6.": no version at its start`},
		{"linux.6", Version{}, `kernel release "linux.6": no version at its start`},
	} {
		got, err := ParseRelease(tt.release)
		if text := errorText(err); got != tt.want || text != tt.err {
			t.Errorf("ParseRelease(%q) = %v, %q, want %v, %q", tt.release, got, text, tt.want, tt.err)
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestRequire(t *testing.T) {
	const feature = "IORING_OP_SOCKET"
	for _, tt := range []struct {
		release, want string
	}{
		{"5.19.0", ""},
		{"6.1.0", ""},
		{"5.18.9", "IORING_OP_SOCKET: not supported by this kernel: it has been there since Linux 5.19, this is 5.18.9"},
		{"4.20.1", "IORING_OP_SOCKET: not supported by this kernel: it has been there since Linux 5.19, this is 4.20.1"},
	} {
		err := require(feature, Version{5, 19}, tt.release)
		if errorText(err) != tt.want {
			t.Errorf("%s: got %v, want %q", tt.release, err, tt.want)
		}
	}
	if err := Require("Linux", Version{3, 0}); err != nil {
		t.Error(err)
	}
}

// files are the parts of a host, by path below its root.
type files map[string]string

func host(t *testing.T, proc bool, f files) View {
	root := t.TempDir()
	for name, data := range f {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return View{
		Proc: filepath.Join(root, "proc"), Sys: filepath.Join(root, "sys"), Modules: filepath.Join(root, "modules"),
		IsProc: func(string) bool { return proc },
	}
}

func TestAFALG(t *testing.T) {
	const (
		osrelease = "proc/sys/kernel/osrelease"
		disabled  = "proc/sys/kernel/modules_disabled"
		modprobe  = "proc/sys/kernel/modprobe"
		modules   = "proc/modules"
		protocols = "proc/net/protocols"
		dep       = "modules/6.1.0/modules.dep"
	)
	debian := func(change files) files {
		f := files{osrelease: "6.1.0\n", disabled: "0\n", modprobe: "/sbin/modprobe\n", modules: "ext4 1 0 - Live 0x0\n",
			protocols: "protocol size\nTCP 1 2\n"}
		for k, v := range change {
			f[k] = v
		}
		return f
	}
	unknown := AFALG{Unknown, "not loaded as far as can be seen; the kernel may be able to load it"}
	for _, tt := range []struct {
		name  string
		proc  bool
		files files
		want  AFALG
	}{
		{"nothing is mounted", false, nil, unknown},
		{"procfs with subset=pid", true, files{"proc/self/status": ""}, unknown},
		{"a kernel without modules", true, files{osrelease: "6.18\n"}, AFALG{Absent, "not registered, and the kernel has no modules"}},
		{"a directory that looks like it", false, files{osrelease: "6.18\n"}, unknown},
		{"a modular kernel in a container", true, debian(nil), unknown},
		{"module loading switched off", true, debian(files{disabled: "1\n"}), AFALG{Absent, "not registered, and kernel.modules_disabled is 1"}},
		{"no modprobe", true, debian(files{modprobe: "\n"}), AFALG{Absent, "not registered, and kernel.modprobe is empty"}},
		{"on disk", true, debian(files{dep: "kernel/crypto/af_alg.ko.xz: kernel/x.ko\n"}), AFALG{Loadable, "named in modules.dep, not loaded"}},
		{"only named like it", true, debian(files{dep: "kernel/crypto/af_alg2.ko: kernel/crypto/af_alg.ko\n"}), unknown},
		{"on disk, loading off", true, debian(files{dep: "kernel/crypto/af_alg.ko:\n", disabled: "1\n"}), AFALG{Absent, "not registered, and kernel.modules_disabled is 1"}},
		{"another release's tree", true, debian(files{"modules/6.2.0/modules.dep": "kernel/crypto/af_alg.ko:\n"}), unknown},
		{"builtin", true, debian(files{"modules/6.1.0/modules.builtin": "kernel/crypto/af_alg.ko\n"}), AFALG{Builtin, "named in modules.builtin"}},
		{"registered", true, debian(files{protocols: "protocol size\nALG 1 2\n"}), AFALG{Loaded, "listed in /proc/net/protocols"}},
		{"registered, loading off", true, debian(files{protocols: "ALG 1\n", disabled: "1\n"}), AFALG{Loaded, "listed in /proc/net/protocols"}},
		{"a longer protocol name", true, debian(files{protocols: "ALGX 1 2\n"}), unknown},
		{"seen in sysfs only", true, debian(files{"sys/module/af_alg/initstate": "live\n"}), AFALG{Loaded, "listed in /sys/module"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := host(t, tt.proc, tt.files).AFALG("6.1.0"); got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestMayLoad(t *testing.T) {
	for state, want := range map[State]bool{Builtin: false, Loaded: false, Absent: false, Loadable: true, Unknown: true} {
		if got := (AFALG{State: state}).MayLoad(); got != want {
			t.Errorf("%s: MayLoad = %v", state, got)
		}
	}
}

func TestFacts(t *testing.T) {
	h := host(t, true, files{
		"proc/crypto":   "name         : sha256\ndriver       : sha256-generic\n\nname         : aes\n",
		"proc/modules":  "algif_hash 16384 0 - Live 0x0\n",
		"proc/kallsyms": "0000000000000000 t io_uring_release\n",
	})
	bare := host(t, true, files{"proc/kallsyms": "0000000000000000 W __x64_sys_io_uring_setup\n"})
	for _, tt := range []struct {
		name      string
		got, want bool
	}{
		{"an algorithm", h.HasAlgorithm("sha256"), true},
		{"a driver is not a name", h.HasAlgorithm("sha256-generic"), false},
		{"part of a name", h.HasAlgorithm("sha"), false},
		{"a module", h.HasModule("algif_hash"), true},
		{"part of a module", h.HasModule("algif"), false},
		{"io_uring by symbol", h.HasIOUring(), true},
		{"the weak symbol is in every kernel", bare.HasIOUring(), false},
		{"io_uring by sysctl", host(t, true, files{"proc/sys/kernel/io_uring_disabled": "2\n"}).HasIOUring(), true},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: %v", tt.name, tt.got)
		}
	}
}
