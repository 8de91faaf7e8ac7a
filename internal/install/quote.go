package install

import (
	"regexp"
	"strings"
	"sync"

	"github.com/afalg-policy/afalg-policy/internal/install/host"
)

var plainWord = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9@%+=:,./_-]+$`) })

// ShellWords quotes arguments for sh.
func ShellWords(args []string) string {
	var words []string
	for _, a := range args {
		if !plainWord().MatchString(a) {
			a = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
		words = append(words, a)
	}
	return strings.Join(words, " ")
}

var plainUnitWord = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9@+=:,./_-]+$`) })

// execStart quotes a command for systemd's ExecStart=: escapes as in C, "%%"
// for a per cent sign. "$$" stands for a dollar in the arguments alone, and the
// program may contain no quotes and no backslashes (systemd.service(5)).
func execStart(program string, args ...string) (string, error) {
	if strings.ContainsAny(program, `"'\`) {
		return "", host.Usage("--program %s: systemd takes no program with quotes or backslashes in its name", program)
	}
	line := quoteUnit(program, `%`, `%%`)
	for _, a := range args {
		line += " " + quoteUnit(a, `\`, `\\`, `"`, `\"`, `%`, `%%`, `$`, `$$`)
	}
	return line, nil
}

func quoteUnit(word string, escapes ...string) string {
	if plainUnitWord().MatchString(word) {
		return word
	}
	return `"` + strings.NewReplacer(escapes...).Replace(word) + `"`
}
