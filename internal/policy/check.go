package policy

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
)

// MaxName is the longest name of a policy or of a rule, in bytes: they become
// names of files and profiles.
const MaxName = 64

// The longest values, in bytes: a path without its NUL (PATH_MAX), a user name
// (utmp, and useradd's limit), and a unit name (systemd's UNIT_NAME_MAX).
const (
	maxPath = 4095
	maxUser = 32
	maxUnit = 255
)

// The longest values of conditions on containers. Docker and Podman do not
// limit them.
const (
	maxContainer  = 253  // Kubernetes, for the name of a pod
	maxNamespace  = 76   // containerd; Kubernetes has 63
	maxLabelKey   = 317  // Kubernetes: a prefix of 253, "/" and 63
	maxLabelValue = 4096 // containerd, for a label with its key
)

var (
	ruleName   = lazily(`^[a-z0-9][a-z0-9-]*$`)
	policyName = lazily(`^[a-z0-9][a-z0-9.-]*$`)
	sha256Hex  = lazily(`^[0-9a-f]{64}$`)
	userName   = lazily(`^[A-Za-z_][A-Za-z0-9_.-]*[$]?$`)
	decimal    = lazily(`^(0|[1-9][0-9]*)$`)
	imageID    = lazily(`^sha256:[0-9a-f]{64}$`)
	container  = lazily(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)
	namespace  = lazily(`^[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?$`)
	unitName   = lazily(`^[A-Za-z0-9:_.\\-]+(@[A-Za-z0-9:_.\\@-]*)?$`)
)

// unitTypes are the suffixes of units that run processes.
var unitTypes = []string{"service", "scope", "socket", "mount", "swap"}

func checkPolicyName(s string) error {
	if !policyName().MatchString(s) {
		return errors.New("a policy name has lower-case letters, digits, '-' and '.', and begins with a letter or digit")
	}
	return checkLength(s, MaxName)
}

// checkRuleName keeps rules apart from routes and gaps: --accept takes each.
func checkRuleName(s string) error {
	if !ruleName().MatchString(s) {
		return errors.New("a rule name has lower-case letters, digits and '-', and begins with a letter or digit")
	}
	for _, r := range afalg.Routes() {
		if s == string(r.Route) {
			return errors.New("a route has this name, and --accept takes both; choose another")
		}
	}
	if slices.Contains([]string{GapZeroCopy, GapDecidedByLSM, GapSockets, GapSocketOptions, GapUserNamespaces}, s) {
		return errors.New("a gap has this name, and --accept takes both; choose another")
	}
	return checkLength(s, MaxName)
}

// IsRuleName reports whether a rule could have that name.
func IsRuleName(s string) bool { return checkRuleName(s) == nil }

func checkLength(s string, most int) error {
	if len(s) > most {
		return fmt.Errorf("%d characters; %d are allowed", len(s), most)
	}
	return nil
}

func checkInclude(s string) error {
	if name, builtin := strings.CutPrefix(s, BuiltinPrefix); builtin {
		return checkPolicyName(name)
	}
	if s == "" {
		return errors.New("name a file, or a shipped policy as builtin:NAME")
	}
	return checkPathText(s)
}

// checkBinary accepts a path only as /proc/PID/exe shows it: absolute, clean.
func checkBinary(s string) error {
	if err := checkPathText(s); err != nil {
		return err
	}
	switch {
	case !strings.HasPrefix(s, "/"):
		return errors.New("the path must be absolute")
	case path.Clean(s) != s:
		return fmt.Errorf("the path must be clean, as the kernel shows it: write %s", quote(path.Clean(s)))
	case s == "/":
		return errors.New("the path is a directory")
	case strings.HasSuffix(s, " (deleted)"):
		return errors.New(`the kernel writes " (deleted)" after the path of a removed executable; no rule may match one`)
	}
	return nil
}

// checkPathText refuses a path that would look like another one in a report, or
// end a line in a generated profile.
func checkPathText(s string) error {
	if err := checkPrintable(s, "a path"); err != nil {
		return err
	}
	return checkLength(s, maxPath)
}

func checkPrintable(s, what string) error {
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return fmt.Errorf("%s may not contain the character %U", what, r)
		}
	}
	return nil
}

func checkDigest(s string) error {
	if !sha256Hex().MatchString(strings.ToLower(s)) {
		return errors.New("a SHA-256 digest is 64 hexadecimal digits, as sha256sum prints them")
	}
	return nil
}

// noUID is (uid_t)-1, which the kernel gives to nobody.
const noUID = 1<<32 - 1

func checkUser(s string) error {
	if decimal().MatchString(s) {
		if uid, err := strconv.ParseUint(s, 10, 32); err != nil || uid == noUID {
			return fmt.Errorf("a uid is at most %d", uint32(noUID-1))
		}
		return nil
	}
	if !userName().MatchString(s) {
		return errors.New("neither a user name nor a decimal uid; name a user of another form by its uid")
	}
	return checkLength(s, maxUser)
}

// checkUnit follows systemd's unit_name_is_valid, for the units that run
// processes.
func checkUnit(s string) error {
	dot := strings.LastIndexByte(s, '.')
	if dot < 0 {
		return fmt.Errorf("the type of the unit is missing: write %s", quote(s+".service"))
	}
	if !unitName().MatchString(s[:dot]) {
		return errors.New(`a unit name has letters, digits, and ":-_.\@", and does not begin with "@"`)
	}
	for _, t := range unitTypes {
		if s[dot+1:] == t {
			return checkLength(s, maxUnit)
		}
	}
	return fmt.Errorf("%s is no type of a unit that runs processes: those are %s", quote(s[dot:]), oneOf(unitTypes))
}

// checkContainer accepts what Docker, Podman and Kubernetes accept as the name
// of a container or of a pod.
func checkContainer(s string) error {
	if !container().MatchString(s) {
		return errors.New(`a name of a container or a pod has letters, digits, and "_.-", and begins with a letter or digit`)
	}
	return checkLength(s, maxContainer)
}

// checkNamespace accepts what Kubernetes or containerd accepts.
func checkNamespace(s string) error {
	if !namespace().MatchString(s) {
		return errors.New(`a namespace has letters, digits, and "_.-", and begins and ends with a letter or digit`)
	}
	return checkLength(s, maxNamespace)
}

// checkImage refuses names and tags: whoever may push or tag an image chooses
// their meaning.
func checkImage(s string) error {
	s = strings.ToLower(s)
	switch {
	case imageID().MatchString(s):
		return nil
	case sha256Hex().MatchString(s):
		return fmt.Errorf("write %s", quote("sha256:"+s))
	}
	return errors.New(`an image is told by its digest, "sha256:" and 64 hexadecimal digits; names and tags can be moved`)
}

func checkLabelKey(s string) error {
	switch {
	case s == "":
		return errors.New("a key has at least one character")
	case strings.HasPrefix(s, askPrefix):
		return errors.New("a container asks for rules with such a key, and asking grants nothing; name a key that the platform vouches for")
	}
	if err := checkPrintable(s, "a key"); err != nil {
		return err
	}
	return checkLength(s, maxLabelKey)
}

// checkLabelValue accepts the empty value: a label may exist and say no more.
func checkLabelValue(s string) error {
	if err := checkPrintable(s, "a value"); err != nil {
		return err
	}
	return checkLength(s, maxLabelValue)
}

// checkReason accepts a sentence for people.
func checkReason(s string) error {
	if err := checkPrintable(s, "a reason"); err != nil {
		return err
	}
	if strings.TrimSpace(s) == "" {
		return errors.New("a reason says why")
	}
	return checkLength(s, maxReason)
}

const maxReason = 500

// checkText finds the first forbidden character of a file: a YAML parser, an
// editor and a reviewer would not see the same text.
func checkText(src []byte) (line, col int, err error) {
	line, col = 1, 1
	for i := 0; i < len(src); {
		r, size := utf8.DecodeRune(src[i:])
		next, _ := utf8.DecodeRune(src[i+size:])
		if err := checkRune(r, size, next); err != nil {
			return line, col, err
		}
		if i, col = i+size, col+1; r == '\n' {
			line, col = line+1, 1
		}
	}
	return 0, 0, nil
}

func checkRune(r rune, size int, next rune) error {
	switch {
	case r == utf8.RuneError && size == 1:
		return errors.New("not UTF-8: a policy is a text file in UTF-8")
	case r == '\ufeff':
		return errors.New("a byte order mark; save the file as UTF-8 without it")
	case r == '\r' && next != '\n':
		return errors.New("a carriage return without a line feed, which hides the text before it")
	case r == '\r', r == '\n', r == '\t':
		return nil
	case unicode.IsControl(r), r == '\u2028', r == '\u2029':
		return fmt.Errorf("the control character %U; remove it", r)
	case unicode.Is(unicode.Bidi_Control, r):
		return fmt.Errorf("the character %U, which reorders the text on the screen; remove it", r)
	}
	return nil
}

// lazily compiles a pattern at its first use: most containers start without any
// of them.
func lazily(pattern string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(pattern) })
}
