package install

import (
	"os/exec"
	"strings"
	"testing"
)

// FuzzShellWords shows that a quoted text comes out of a shell as it went in.
func FuzzShellWords(f *testing.F) {
	for _, seed := range []string{"", "a", "a b", "it's", "'", "''", `\`, `"$HOME"`, "`id`", "$(id)", "-n", "~", "*", "a\\'b", "!!", "{a,b}", "é\xff", "a=b", "#x", "x\ny"} {
		f.Add(seed, "end")
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		if strings.Contains(a+b, "\x00") {
			t.Skip("no argument has a zero byte")
		}
		out, err := exec.Command("sh", "-c", `printf '%s\0' `+ShellWords([]string{a, b})).Output()
		if want := a + "\x00" + b + "\x00"; err != nil || string(out) != want {
			t.Errorf("%q, want %q: %v", out, want, err)
		}
	})
}
