package install

import (
	"regexp"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/install/host"
)

var plainWord = regexp.MustCompile(`^[A-Za-z0-9@%+=:,./_-]+$`)

// shellWords writes arguments as sh reads them.
func shellWords(args []string) string {
	var words []string
	for _, a := range args {
		if !plainWord.MatchString(a) {
			a = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
		words = append(words, a)
	}
	return strings.Join(words, " ")
}

var plainUnitWord = regexp.MustCompile(`^[A-Za-z0-9@+=:,./_-]+$`)

// execStart writes a command as systemd reads it in ExecStart=: escapes as in
// C, "%%" for a per cent. "$$" stands for a dollar in the arguments alone, and
// the program may have no quotes and no backslashes (systemd.service(5)).
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
	if plainUnitWord.MatchString(word) {
		return word
	}
	return `"` + strings.NewReplacer(escapes...).Replace(word) + `"`
}
