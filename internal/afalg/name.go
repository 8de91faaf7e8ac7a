package afalg

import (
	"fmt"
	"slices"
	"strings"
)

// MaxName and MaxLongName are the longest names that fit into a sockaddr_alg,
// in characters: in the 64 bytes of the structure, and in an address of 128
// bytes, the most that the kernel copies (Linux 4.12 and later). Both leave
// room for the final NUL.
const (
	MaxName     = 63
	MaxLongName = 103
)

// AnyName, written in place of a name, opens a whole type. It is legal in a
// policy only.
const AnyName = "*"

// maxParams is one less than CRYPTO_MAX_ATTRS (crypto/algboss.c): a template
// with 32 parameters is refused.
const maxParams = 31

// Name is a parsed algorithm name: a plain algorithm ("sha512"), or a template
// and its parameters ("hmac(sha512)").
type Name struct {
	Base   string
	Params []Name // empty for a plain algorithm
}

// bases lists the names of which n is made, outermost first.
func (n Name) bases() []string {
	all := []string{n.Base}
	for _, p := range n.Params {
		all = append(all, p.bases()...)
	}
	return all
}

// NameError says why a string is no algorithm name.
type NameError struct {
	Name   string
	Offset int // of the offending byte
	Text   string
}

func (e *NameError) Error() string {
	shown := fmt.Sprintf("%q", e.Name)
	if len(e.Name) > 2*MaxLongName {
		shown = fmt.Sprintf("%q…", e.Name[:MaxLongName])
	}
	return fmt.Sprintf("algorithm name %s: character %d: %s", shown, e.Offset+1, e.Text)
}

// ParseName reads a name by the grammar of the kernel's template parser
// (cryptomgr_schedule_probe in crypto/algboss.c): letters, digits, "-" and
// "_", and templates that nest by parentheses and commas. Driver names such as
// "sha512-generic" are names like any other. Up to MaxLongName characters
// pass; those above MaxName need Linux 4.12. The error is a *NameError.
func ParseName(s string) (Name, error) {
	if s == "" {
		return Name{}, &NameError{s, 0, "the name is empty"}
	}
	if len(s) > MaxLongName {
		return Name{}, &NameError{s, MaxLongName, fmt.Sprintf("the name has %d characters; the kernel takes %d at most", len(s), MaxLongName)}
	}
	if strings.HasPrefix(s, "capi:") {
		return Name{}, &NameError{s, 0, `"capi:" belongs to cryptsetup, not to the kernel; write the name that follows it`}
	}
	p := nameParser{text: s}
	n, err := p.name()
	if err == nil && p.at < len(s) {
		err = p.unexpected("the name ends before it")
	}
	if err != nil {
		return Name{}, err
	}
	return n, nil
}

type nameParser struct {
	text string
	at   int
}

// name reads one name with its parameters.
func (p *nameParser) name() (Name, error) {
	start := p.at
	for p.at < len(p.text) && isNameByte(p.text[p.at]) {
		p.at++
	}
	n := Name{Base: p.text[start:p.at]}
	if n.Base == "" {
		return n, p.unexpected("a name must stand here")
	}
	if !p.skip('(') {
		return n, nil
	}
	return n, p.params(&n)
}

// params reads the parameters of a template up to its closing parenthesis.
func (p *nameParser) params(n *Name) error {
	for {
		if len(n.Params) == maxParams {
			return p.fail("a template takes %d parameters at most", maxParams)
		}
		param, err := p.name()
		if err != nil {
			return err
		}
		n.Params = append(n.Params, param)
		if p.skip(')') {
			return nil
		}
		if !p.skip(',') {
			return p.unexpected(fmt.Sprintf(`the parameters of %q must end with ")"`, n.Base))
		}
	}
}

func (p *nameParser) skip(c byte) bool {
	if p.at == len(p.text) || p.text[p.at] != c {
		return false
	}
	p.at++
	return true
}

// unexpected names the text at the current place and the text that belongs
// there.
func (p *nameParser) unexpected(instead string) error {
	if p.at == len(p.text) {
		return p.fail("the name is cut off: %s", instead)
	}
	c := []rune(p.text[p.at:])[0]
	switch {
	case c == '*':
		return p.fail(`"*" is no part of a name: names are exact, and "*" stands alone, in a policy, for a whole type`)
	case strings.ContainsRune("(),", c):
		return p.fail("unexpected %q: %s", c, instead)
	default:
		return p.fail("%q is no part of a name: only letters, digits, '-', '_', and '(', ',', ')' around parameters are", c)
	}
}

func (p *nameParser) fail(format string, args ...any) error {
	return &NameError{p.text, p.at, fmt.Sprintf(format, args...)}
}

func isNameByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_'
}

// ParseAlgorithm reads a type and an exact name, written "hash:hmac(sha512)".
func ParseAlgorithm(s string) (Algorithm, error) {
	t, name, found := strings.Cut(s, ":")
	if !found {
		return Algorithm{}, fmt.Errorf(`algorithm %q: the type is missing; write TYPE:NAME, such as "hash:sha256"`, s)
	}
	if !slices.Contains(Types(), Type(t)) {
		return Algorithm{}, fmt.Errorf("algorithm %q: unknown type %q; the types are %s", s, t, joinTypes())
	}
	if _, err := ParseName(name); err != nil {
		return Algorithm{}, err
	}
	return Algorithm{Type(t), name}, nil
}

func joinTypes() string {
	var s []string
	for _, t := range Types() {
		s = append(s, string(t))
	}
	return strings.Join(s, ", ")
}

// hyphenated lists the beginnings of algorithm names that contain a hyphen.
// Every other hyphen in the kernel's tables joins an algorithm to an
// implementation of it.
var hyphenated = []string{"sha3-", "blake2b-", "blake2s-", "ecdsa-nist-", "crc64-"}

// driverPrefixes are the prefixes of driver names that need no hyphen: internal
// helpers, and accelerators that spell their names with underscores.
var driverPrefixes = []string{"__", "cpt_", "hisi_", "p8_", "qat_"}

// DriverName finds the first part of a name that belongs to one implementation
// ("sha512-avx2" in "hmac(sha512-avx2)") rather than to an algorithm. Such a
// name binds only where that driver exists. It is a guess, for warnings: the
// kernel keeps both kinds in one table. The names drbg_* are not reported,
// though they are drivers of "stdrng": every kernel has the same ones.
func DriverName(name string) (part string, found bool) {
	n, err := ParseName(name)
	if err != nil {
		return "", false
	}
	bases := n.bases()
	if i := slices.IndexFunc(bases, isDriver); i >= 0 {
		return bases[i], true
	}
	return "", false
}

func isDriver(base string) bool {
	if hasAnyPrefix(base, driverPrefixes) {
		return true
	}
	if i := slices.IndexFunc(hyphenated, func(p string) bool { return strings.HasPrefix(base, p) }); i >= 0 {
		base = base[len(hyphenated[i]):]
	}
	return strings.Contains(base, "-")
}

func hasAnyPrefix(s string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(s, p) })
}
