package hostfacts

import (
	"bytes"
	"strings"
	"testing"
	"unicode"
)

// Whatever the texts say, what is read is what a plain look finds: a module is built
// in only if a line ends with its file, and nothing that is shown steers a terminal.
func FuzzTold(f *testing.F) {
	f.Add("6.12.0", []byte("kernel/crypto/af_alg.ko\n"), []byte("CONFIG_CRYPTO_USER_API=y\n# CONFIG_RDS is not set\n"))
	f.Add("7.3", []byte("a-b.ko.xz\r\n\n"), []byte(packed(f, "CONFIG_TIPC=m\n")))
	f.Add("5.14", []byte("kernel/a\x1b.ko\n"), []byte("CONFIG_RDS=\u202ey\n"))
	f.Fuzz(func(t *testing.T, release string, builtin, config []byte) {
		facts, err := Told(Given{release, builtin, config})
		if err != nil {
			steady(t, err.Error())
			return
		}
		for _, c := range facts.Contradictions {
			steady(t, c)
		}
		for module, p := range facts.Modules {
			if p != Builtin {
				continue
			}
			named := facts.Config[options[module]] == "y" && len(builtin) == 0
			for line := range bytes.Lines(builtin) {
				file, _, _ := strings.Cut(Name(string(line)), ".ko")
				named = named || file == module || strings.HasSuffix(file, "/"+module)
			}
			if !named {
				t.Errorf("%q is built in, and no line says so", module)
			}
		}
	})
}

func steady(t *testing.T, text string) {
	t.Helper()
	if i := strings.IndexFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
		t.Errorf("%q has what does not print", text)
	}
}
